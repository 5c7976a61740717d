"""The denoise loop on the device: one step is one CUDA graph, replayed; nothing is waited for between steps."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from colorflow_rt.engine.bound import Bound, copied
from colorflow_rt.engine.cuda import Buffer, Event, Graph, Pinned, Stream
from colorflow_rt.engine.protocol import STATE, Tensors, TensorSpec, check_feeds

AHEAD = 2  # steps that the host may be in front of the device: enough to keep it busy, few enough to cancel soon

# What a step leaves behind becomes what the next one takes; in this order, so that nothing is overwritten too early.
_SHIFT = (("x0_prev2", "x0_prev1"), ("x0_prev1", "x0"), ("sample", "sample_next"))


class Shot:
    """A copy of the prediction x0 on its way to the host (protocol Preview)."""

    def __init__(self, pinned: Pinned, done: Event, give_back: Callable[[tuple[Pinned, Event]], None]) -> None:
        self.done = done
        self._pinned, self._give_back = pinned, give_back
        self._array: NDArray[np.float32] | None = None

    @property
    def ready(self) -> bool:
        """Whether `wait` would return at once."""
        return self._array is not None or self.done.passed

    def wait(self) -> NDArray[np.float32]:
        """f32[B,C,h,w]. The page-locked memory is free for another preview then."""
        if self._array is None:
            self.done.wait()
            self._array = copied(self._pinned)
            self._give_back((self._pinned, self.done))
        return self._array


class TensorRTLoop:
    """One batch of denoise_step. Made and reused by `TensorRTEngine.bind`; used by one thread at a time.

    bound: makes the execution context, with the inputs of the given names first.
    """

    def __init__(self, bound: Callable[[Sequence[str]], Bound], inputs: Sequence[TensorSpec]) -> None:
        self._state = tuple(spec for spec in inputs if spec.name in STATE)
        self._settings = tuple(spec for spec in inputs if spec.name not in STATE)
        self._row = tuple(TensorSpec(spec.name, spec.dtype, spec.shape[1:]) for spec in self._state)
        self._bound = bound([spec.name for spec in self._settings])
        self._lane, self._graph, self._captured = self._bound.lane, Graph(), -1
        self._side = Stream()  # previews leave by it, beside the steps
        self._shown = Buffer(self._bound.size("x0"), "denoise_step, for previews,")
        self._staged = {spec.name: self._bound.pinned(spec.name) for spec in self._state}
        self._rows = [Event() for _ in self._staged["sample"].array]
        self._slots = [(Pinned((self._settings_size(),), np.dtype(np.uint8)), Event()) for _ in range(AHEAD)]
        self._pool: list[tuple[Pinned, Event]] = []
        self._last: Event | None = None
        self._steps = 0

    def start(self, feeds: Tensors) -> None:
        """Begin with all rows of a batch: sample, x0_prev1, x0_prev2, condition as the graph takes them."""
        feeds = {name: feeds[name] for name in self._staged}
        check_feeds("denoise_step", self._state, feeds)
        for row in range(len(self._rows)):
            self.join(row, {name: array[row] for name, array in feeds.items()})

    def join(self, row: int, feeds: Tensors) -> None:
        """Let a page take a row between two steps: feeds as for `start`, without the batch axis."""
        check_feeds("denoise_step, a row,", self._row, feeds)
        self._rows[row].wait()  # passed long ago, unless the row was taken a moment before
        with self._lane.lock:
            for name, pinned in self._staged.items():
                np.copyto(pinned.array[row], feeds[name])
                size = pinned.array[row].nbytes
                self._lane.stream.upload(self._bound.address(name) + row * size, pinned.address + row * size, size)
            self._lane.stream.record(self._rows[row])

    def step(self, feeds: Tensors) -> None:
        """Put one step of every row into the stream; feeds: timestep, predictor, denoiser, corrector, guidance_scale.

        Waits only where the host is AHEAD steps in front.
        """
        settings = {spec.name: feeds[spec.name] for spec in self._settings}
        check_feeds("denoise_step", self._settings, settings)
        pinned, done = self._slots[self._steps % AHEAD]
        done.wait()
        self._write(pinned.array, settings)
        with self._lane.lock:
            self._lane.stream.upload(self._bound.address(self._settings[0].name), pinned.address, pinned.array.nbytes)
            self._replay()
            self._lane.stream.record(done)
        self._steps += 1

    def preview(self) -> Shot:
        """Send the last step's prediction to the host, beside the steps that follow."""
        pinned, done = self._pool.pop() if self._pool else (self._bound.pinned("x0"), Event())
        size, fresh = self._bound.size("x0"), Event()
        with self._lane.lock:
            if self._last is not None:
                self._lane.stream.wait_for(self._last)  # the one before may still be leaving from the same memory
            self._lane.stream.copy(self._shown.address, self._bound.address("x0"), size)
            self._lane.stream.record(fresh)
        self._side.wait_for(fresh)
        self._side.download(pinned.address, self._shown.address, size)
        self._side.record(done)
        self._last = done
        return Shot(pinned, done, self._pool.append)

    def x0(self) -> NDArray[np.float32]:
        """f32[B,C,h,w]: the last step's prediction, waited for."""
        return self.preview().wait()

    def _replay(self) -> None:
        if self._captured == self._lane.generation:
            return self._lane.stream.launch(self._graph)
        self._advance()  # TensorRT wants one plain run before a capture
        self._graph = Graph()
        with self._lane.stream.capture(self._graph):
            self._advance()
        self._captured = self._lane.generation
        return None

    def _advance(self) -> None:
        self._bound.execute()
        for target, source in _SHIFT:
            self._lane.stream.copy(self._bound.address(target), self._bound.address(source), self._bound.size(source))

    def _settings_size(self) -> int:
        """Bytes from the first setting to the end of the last: they lie together."""
        last = self._settings[-1].name
        return self._bound.places[last][0] + self._bound.size(last) - self._bound.places[self._settings[0].name][0]

    def _write(self, block: NDArray[Any], settings: Tensors) -> None:
        for spec in self._settings:
            offset, _, dtype = self._bound.places[spec.name]
            array = np.ascontiguousarray(settings[spec.name], dtype)
            block[offset : offset + array.nbytes] = array.reshape(-1).view(np.uint8)
