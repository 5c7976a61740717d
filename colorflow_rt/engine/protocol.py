"""What every backend is: a function from named arrays to named arrays."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from colorflow_rt.errors import EngineError

Tensors = Mapping[str, NDArray[Any]]
STATE = ("sample", "x0_prev1", "x0_prev2", "condition")  # inputs of denoise_step that a loop keeps; the rest is told it


@dataclass(frozen=True)
class TensorSpec:
    """One tensor of a graph. An axis is a fixed length, or a name that stands for any length of one call."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]

    def __str__(self) -> str:
        return f"{self.name} {self.dtype}[{', '.join(map(str, self.shape))}]"

    def allows(self, other: "TensorSpec") -> bool:
        """Whether the other is of this dtype and rank, and has the lengths that are fixed here."""
        if self.dtype != other.dtype or len(self.shape) != len(other.shape):
            return False
        return all(isinstance(own, str) or own == axis for own, axis in zip(self.shape, other.shape, strict=True))


class Engine(Protocol):
    """A compiled graph.

    Calling it with one array per input returns one array per output, in host memory.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def __call__(self, feeds: Tensors) -> dict[str, NDArray[Any]]: ...


class Preview(Protocol):
    """A prediction on its way to the host."""

    @property
    def ready(self) -> bool: ...

    def wait(self) -> NDArray[np.float32]: ...


class BoundLoop(Protocol):
    """The denoise loop of one batch whose state stays with the engine, on its device (docs/tensorrt.md).

    step: all rows by one step; only the inputs that are not STATE are read, and the work is only queued. join: another
    page takes a row between two steps (feeds of STATE without the batch axis). preview: the last step's x0
    f32[B,C,h,w], sent beside the steps that follow. x0: the same, waited for.
    """

    def step(self, feeds: Tensors) -> None: ...

    def join(self, row: int, feeds: Tensors) -> None: ...

    def preview(self) -> Preview: ...

    def x0(self) -> NDArray[np.float32]: ...


@runtime_checkable
class Bindable(Protocol):
    """An engine of denoise_step that can keep the loop's state: `with engine.bind(first feeds) as loop`.

    None where it cannot for feeds of these shapes.
    """

    def bind(self, feeds: Tensors) -> AbstractContextManager[BoundLoop] | None: ...


def check_feeds(graph: str, specs: tuple[TensorSpec, ...], feeds: Tensors) -> None:
    """Raise EngineError unless `feeds` has exactly the tensors of `specs`, axes of one name being equal."""
    expected = {spec.name for spec in specs}
    if feeds.keys() != expected:
        raise EngineError(f"{graph} takes the tensors {sorted(expected)}, got {sorted(feeds)}")
    sizes: dict[str, int] = {}
    for spec in specs:
        _check_one(graph, spec, feeds[spec.name], sizes)


def _check_one(graph: str, spec: TensorSpec, array: NDArray[Any], sizes: dict[str, int]) -> None:
    matches = array.dtype == np.dtype(spec.dtype) and array.ndim == len(spec.shape)
    if matches:
        for axis, length in zip(spec.shape, array.shape, strict=True):
            wanted = sizes.setdefault(axis, length) if isinstance(axis, str) else axis
            matches = matches and wanted == length
    if not matches:
        raise EngineError(f"{graph} takes {spec}, got {array.dtype}{list(array.shape)}")
