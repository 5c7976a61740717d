"""`colorflow-server` as it is, but its pack "fake" takes time: `python benchmarks/fake_server.py --pack fake ...`

FAKE_STEP_MS: milliseconds of a denoising step of one page; FAKE_CURVE: how it grows with the batch (a name of
scheduling.CURVES). FAKE_LEAK_KIB: memory that is never freed, for each page: what a campaign that looks for leaks must
find.
"""

import os
import sys
from functools import partial

import colorflow_server.cli
from scheduling import CURVES

import colorflow_rt.pack
from colorflow_rt.engine.fake import FakeEngine
from colorflow_rt.pipeline import Colorizer

_leaked: list[bytearray] = []


def _leak(size: int) -> None:
    begin = Colorizer.begin

    def leaking(self: Colorizer, *arguments: object) -> object:
        _leaked.append(bytearray(os.urandom(16) * (size // 16)))
        return begin(self, *arguments)  # type: ignore[arg-type]

    Colorizer.begin = leaking  # type: ignore[method-assign,assignment]


def main() -> None:
    """Make the fake pack slow, then run the server's command line."""
    step, curve = float(os.environ.get("FAKE_STEP_MS", "20")) / 1000, CURVES[os.environ.get("FAKE_CURVE", "no gain")]
    slow = partial(colorflow_rt.pack.fake_pack, cost={"denoise_step": lambda rows: step * curve(rows)})
    colorflow_rt.pack.fake_pack = slow  # type: ignore[assignment]
    if leak := int(os.environ.get("FAKE_LEAK_KIB", "0")):
        _leak(1024 * leak)
    FakeEngine.batches = property(lambda self: _Forgetful(), lambda self, value: None)  # type: ignore[assignment]
    colorflow_server.cli.main()


class _Forgetful(list[int]):
    """The fake engine keeps the size of every call, for tests; over an hour that is a leak of its own."""

    def append(self, value: int) -> None:
        """Forget it."""


if __name__ == "__main__":
    sys.exit(main())
