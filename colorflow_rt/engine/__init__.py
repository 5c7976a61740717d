"""Engines: functions from named arrays to named arrays."""

from colorflow_rt.engine.protocol import Engine, Tensors, TensorSpec, check_feeds

__all__ = ["Engine", "TensorSpec", "Tensors", "check_feeds"]
