"""The full-size model from released folders to pages: what each stage takes in time, memory and disk.

    python benchmarks/full_size.py --work DIR             # 2.5 billion random weights: 35 GB of disk, 16 GB of memory
    python benchmarks/full_size.py --work DIR --small     # the golden networks: to test this script

released     folders with the released names and shapes, random weights (tests/released.py)
convert      `colorflow-export convert`: the pack; the released folders are removed afterwards
fp16         `build-engines --target tensorrt`: checked float16 graphs (exit code 3 where there is no TensorRT)
fp32         `build-engines --target onnx-cpu`: checked float32 graphs
page-G       one page at guidance G on the pack's own graphs in ONNX Runtime, one graph in memory at a time
engines-G    the same page on the float32 engines (not with --graph: it needs all of them)
reference-G  the same page by the published procedure in PyTorch, and PSNR of the other two to it
outputs      every float32 engine on random inputs: what the float16 graphs are compared with
half         the float16 graphs on the same inputs, emulated in ONNX Runtime on the CPU

Each stage is a process of its own (its output: WORK/STAGE.log), and is not done again once it was done
(WORK/state.json): run the same command again to go on. Exit code 1: a stage failed or missed its limit.
"""

import argparse
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil

from colorflow_rt.cli.screen import print_table
from colorflow_rt.files import atomic_write

STAGES = Path(__file__).with_name("full_size_stages.py")
NEEDED_GB = {"released": 9.9, "convert": 10.1, "fp16": 5.1, "fp32": 10.1}  # of disk, at full size
SMALL_GB = 0.5
FOLDERS = {"released": "released", "convert": "pack", "fp16": "fp16", "fp32": "fp32"}
PAGE_DB, RELATIVE = 50.0, 2e-2  # as `colorflow-export verify` has them for a float32 page and for float16 graphs
LOOK_S = 0.2
NO_TENSORRT = 3


@dataclass(frozen=True)
class Settings:
    """What must stay the same for stages that were done to count.

    page: (W, H) of the page in pixels. graphs: engines of these alone; none: of all.
    """

    small: bool
    page: tuple[int, int]
    steps: int
    guidance: tuple[float, ...]
    graphs: tuple[str, ...] = ()

    @property
    def variants(self) -> tuple[str, ...]:
        """The variants of denoise_step that these guidance scales need, in their order."""
        names = {1.0: "prompt", 0.0: "empty"}
        return tuple(dict.fromkeys(names.get(scale, "guided") for scale in self.guidance))


@dataclass(frozen=True)
class Done:
    """What a stage took. peak_gb: largest resident memory; private_gb: of that not pages of mapped files, which the
    system may drop (looked at five times a second). found: the JSON of the stage's last line.
    """

    seconds: float
    processor_seconds: float
    peak_gb: float
    private_gb: float
    disk_gb: float | None = None
    found: dict[str, Any] = field(default_factory=dict)


class StageError(Exception):
    """A stage failed; the message says which, how, and where its output is."""


def commands(work: Path, settings: Settings) -> Iterator[tuple[str, list[str]]]:
    """Name and command line of every stage, in their order."""
    shape = "{}x{}".format(*settings.page)
    export, own = [sys.executable, "-m", "colorflow_export"], [sys.executable, str(STAGES)]
    released, pack = work / "released", str(work / "pack")
    yield "released", [*own, "released", str(released), *(["small"] if settings.small else [])]
    folders = ["--colorflow", str(released / "colorflow"), "--sd15", str(released / "sd15")]
    small = ["--lora-rank", "4", "--lora-alpha", "4", "--text", str(released / "text.safetensors")]
    yield "convert", [*export, "convert", *folders, "--out", pack, "--size", shape, *(small if settings.small else [])]
    graphs = [word for graph in settings.graphs for word in ("--graph", graph)]
    engines = [*export, "build-engines", "--pack", pack, "--shape", shape, *graphs]
    yield "fp16", _built(engines, "tensorrt", settings.variants[:1], work / "fp16")
    yield "fp32", _built(engines, "onnx-cpu", settings.variants, work / "fp32")
    for scale in settings.guidance:
        for how in ("page", "reference") if settings.graphs else ("page", "engines", "reference"):
            yield f"{how}-{scale:g}", [*own, how, str(work), shape, str(settings.steps), f"{scale:g}"]
    yield "outputs", [*own, "outputs", str(work)]
    yield "half", [*own, "half", str(work)]


def _built(engines: list[str], target: str, variants: tuple[str, ...], out: Path) -> list[str]:
    guidance = [word for variant in variants for word in ("--guidance", variant)]
    return [*engines, "--target", target, *guidance, "--out", str(out)]


def measure(name: str, command: list[str], log: Path, limit_gb: float) -> Done:
    """Run a stage and measure it; StageError if it fails, or needs more memory than the limit: then it is ended."""
    start = time.perf_counter()
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
        try:
            usage, private, over = _watch(process, int(limit_gb * 1e9))
        finally:
            if process.returncode is None:  # interrupted
                process.kill()
                process.wait()
    if over:
        raise StageError(f"{name} took more than {limit_gb:g} GB of memory and was ended: allow more with --memory-gb")
    if process.returncode not in ((0, NO_TENSORRT) if name == "fp16" else (0,)):
        raise StageError(f"{name} ended with exit code {process.returncode}: see {log}")
    return Done(
        seconds=round(time.perf_counter() - start, 1),
        processor_seconds=round(usage.ru_utime + usage.ru_stime, 1),
        peak_gb=round(usage.ru_maxrss * 1024 / 1e9, 3),
        private_gb=round(private / 1e9, 3),
        found=_last_json(log),
    )


def _watch(process: "subprocess.Popen[bytes]", limit: int) -> tuple[Any, int, bool]:
    """Wait for the end: what the process used, its most private bytes, and whether it was ended over the limit."""
    watched, private, over = psutil.Process(process.pid), 0, False
    while not (ended := os.wait4(process.pid, os.WNOHANG))[0]:
        with suppress(psutil.Error):  # it may just have ended
            memory = watched.memory_info()
            private = max(private, memory.rss - memory.shared)
            over = over or memory.rss > limit
        if over:
            os.kill(process.pid, signal.SIGKILL)  # Popen.kill might wait for it, and its figures be lost
        time.sleep(LOOK_S)
    process.returncode = os.waitstatus_to_exitcode(ended[1])
    return ended[2], private, over


def _last_json(log: Path) -> dict[str, Any]:
    """The last line of a stage's output, if it is a JSON object."""
    lines = log.read_text(errors="replace").splitlines()
    found: dict[str, Any] = json.loads(lines[-1]) if lines and lines[-1].startswith("{") else {}
    return found


class State:
    """What was done in a work folder. StageError if it was begun with other settings."""

    def __init__(self, work: Path, settings: Settings) -> None:
        self._path = work / "state.json"
        self.settings: dict[str, Any] = json.loads(json.dumps(asdict(settings)))
        self.done: dict[str, Done] = {}
        if self._path.is_file():
            found = json.loads(self._path.read_text())
            if found["settings"] != self.settings:
                raise StageError(f"{work} was begun with {found['settings']}: give the same again, or another --work")
            self.done = {name: Done(**record) for name, record in found["stages"].items()}

    def add(self, name: str, done: Done) -> None:
        self.done[name] = done
        stages = {name: asdict(each) for name, each in self.done.items()}
        atomic_write(self._path, json.dumps({"settings": self.settings, "stages": stages}, indent=1).encode())


def check_disk(work: Path, state: State, small: bool) -> None:
    """StageError unless the disk has room for all that is still to be made."""
    left = [size for name, size in NEEDED_GB.items() if name not in state.done]
    needed, free = (SMALL_GB if small else sum(left)), shutil.disk_usage(work).free / 1e9
    if left and needed > free:
        raise StageError(f"{work} needs {needed:.1f} GB and its disk has {free:.1f} GB free: choose another --work")


def run(work: Path, settings: Settings, state: State, limit_gb: float) -> None:
    """Every stage that was not done. StageError at the first that fails."""
    for name, command in commands(work, settings):
        if name in state.done:
            continue
        for left in work.glob(".pack.*"):  # of a convert that was killed
            shutil.rmtree(left)
        print(f"{name} ...", file=sys.stderr, flush=True)
        done = measure(name, command, work / f"{name}.log", limit_gb)
        if name in FOLDERS:
            files = (path for path in (work / FOLDERS[name]).rglob("*") if path.is_file())
            done = Done(**asdict(done) | {"disk_gb": round(sum(path.stat().st_size for path in files) / 1e9, 3)})
        state.add(name, done)
        if name == "convert":
            shutil.rmtree(work / "released", ignore_errors=True)


def misses(state: State) -> list[str]:
    """What is over its limit, in words."""
    found = []
    for name, done in state.done.items():
        for how, db in done.found.get("psnr_db", {}).items():
            if db < PAGE_DB:
                found.append(f"{how} is {db:.1f} dB from {name}, expected {PAGE_DB:g}")
        for output, error in done.found.get("relative", {}).items():
            if error > RELATIVE:
                found.append(f"{output}: relative error {error:.2e} in {name}, limit {RELATIVE:g}")
    return found


def report(state: State) -> None:
    """The table on stdout, and below it what the stages found."""
    columns = ("stage", "elapsed s", "processor s", "peak GB", "private GB", "on disk GB")
    rows = [
        (
            name,
            f"{done.seconds:.0f}",
            f"{done.processor_seconds:.0f}",
            f"{done.peak_gb:.2f}",
            f"{done.private_gb:.2f}",
            "" if done.disk_gb is None else f"{done.disk_gb:.3f}",
        )
        for name, done in state.done.items()
    ]
    print_table(columns, rows, right=columns[1:])
    for name, done in state.done.items():
        if done.found:
            print(f"{name}: {json.dumps(done.found)}")


def read_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for everything that is made; remove it after")
    parser.add_argument("--small", action="store_true", help="the golden networks instead, in seconds")
    parser.add_argument("--page", help="WxH, sides multiples of 32 (default: 256x256, small 64x96)")
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--guidance", type=float, action="append", help="repeatable (default: 7.5 and 1)")
    parser.add_argument("--graph", action="append", default=[], help="engines of this one only; repeatable")
    parser.add_argument("--memory-gb", type=float, default=16.0, help="a stage that takes more is ended")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    given = read_arguments(arguments)
    width, height = map(int, (given.page or ("64x96" if given.small else "256x256")).split("x"))
    guidance = tuple(given.guidance or (7.5, 1.0))
    settings = Settings(given.small, (width, height), given.steps, guidance, tuple(given.graph))
    work, failure = given.work.resolve(), ""
    work.mkdir(parents=True, exist_ok=True)
    try:
        state = State(work, settings)
        check_disk(work, state, given.small)
    except StageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    try:
        run(work, settings, state, given.memory_gb)
    except StageError as error:
        failure = str(error)
    report(state)
    problems = [*misses(state), *([failure] if failure else [])]
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    machine = {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count(), "load": os.getloadavg()[0]}
    stages = {name: asdict(done) for name, done in state.done.items()}
    print(json.dumps({"settings": state.settings, "machine": machine, "stages": stages, "problems": problems}))
    return 1 if problems else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # and no stage is left running
    sys.exit(main())
