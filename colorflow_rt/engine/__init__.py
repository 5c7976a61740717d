"""Engines: functions from named arrays to named arrays."""

from colorflow_rt.engine.protocol import Bindable, BoundLoop, Engine, Tensors, TensorSpec, check_feeds

__all__ = ["Bindable", "BoundLoop", "Engine", "TensorSpec", "Tensors", "check_feeds"]
