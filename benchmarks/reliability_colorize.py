"""Kill `colorflow colorize` (SIGKILL) at random moments and look at what it left.

    python benchmarks/reliability_colorize.py --kills 200 --json .reliability/colorize.json

A process colours a chapter of small pages on the fake pack and is killed; the same command goes on in the same folder
and is killed again, until one run comes to its end; then a new folder. After every kill: each file under a final name
is, byte for byte, what an undisturbed run writes, and each record is whole. After every end: all pages are there, and
nothing is left over. The JSON file is written after every kill; with it the campaign goes on where it stopped.
"""

import argparse
import json
import os
import platform
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from colorflow_rt.files import atomic_write
from colorflow_rt.pixels import write_png

PAGES, SIZE = 12, (64, 96)
COUNTS = ("kills", "finished_runs", "wrong_files", "damaged_records", "pages_missing", "leftovers", "failed_runs")


def main() -> int:
    """Exit code 1 if anything was found that should not be."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    options.json.parent.mkdir(parents=True, exist_ok=True)
    report = load(options.json)
    with tempfile.TemporaryDirectory() as folder:
        campaign(Path(folder), options.kills, options.seed, report, options.json)
    print(json.dumps(report))
    return int(any(report[name] for name in COUNTS[2:]))


def load(path: Path) -> dict[str, Any]:
    """The report of an interrupted campaign, or a new one."""
    if path.exists():
        found: dict[str, Any] = json.loads(path.read_bytes())
        return found
    started = datetime.now(UTC).isoformat(timespec="seconds")
    hardware = f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}"
    return dict.fromkeys(COUNTS, 0) | {"started": started, "hardware": hardware, "problems": []}


def campaign(root: Path, kills: int, seed: int, report: dict[str, Any], path: Path) -> None:
    """Kill until the report counts `kills`."""
    make_chapter(root)
    expected, seconds = undisturbed(root)
    chance = random.Random(seed + report["kills"])
    job = 0
    while report["kills"] < kills:
        job += 1
        out = root / f"out{job}"
        while report["kills"] < kills and interrupted(root, out, chance.uniform(0, seconds * left(out))):
            report["kills"] += 1
            look(out, expected, report, complete=False)
            save(path, report)
        with colorizing(root, out) as process:
            report["failed_runs"] += process.wait() != 0
        report["finished_runs"] += 1
        look(out, expected, report, complete=True)
        save(path, report)


def make_chapter(root: Path) -> None:
    """Pages of gray blocks and two coloured references."""
    rng = np.random.default_rng(0)
    for folder in ("pages", "refs"):
        (root / folder).mkdir()
    for number in range(PAGES):
        gray = np.kron(rng.integers(0, 256, (12, 8, 1), dtype=np.uint8), np.ones((8, 8, 3), np.uint8))
        write_png(root / "pages" / f"{number}.png", gray)
    for number in range(2):
        color = np.kron(rng.integers(0, 256, (12, 8, 3), dtype=np.uint8), np.ones((8, 8, 1), np.uint8))
        write_png(root / "refs" / f"{number}.png", color)


def undisturbed(root: Path) -> tuple[dict[str, bytes], float]:
    """What a run writes that nobody kills, and the seconds from its first file to its end."""
    out = root / "undisturbed"
    with colorizing(root, out) as process:
        wait_for(out, process)
        started = time.perf_counter()
        if process.wait() != 0:
            raise SystemExit(f"error: the undisturbed run failed: {process.returncode}")
    seconds = time.perf_counter() - started
    return files(out), seconds


@contextmanager
def colorizing(root: Path, out: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The command under test, as a process; killed at the end if it still runs."""
    command = [sys.executable, "-m", "colorflow_rt.cli", "colorize", "pages", "--refs", "refs", "--out", out.name]
    more = ["--pack", "fake", "--steps", "3", "--chroma-layer", "--no-sheet"]
    search = os.pathsep.join([str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": search}
    silent = subprocess.DEVNULL
    process = subprocess.Popen([*command, *more], cwd=root, env=environment, stdout=silent, stderr=silent)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def wait_for(out: Path, process: subprocess.Popen[bytes]) -> None:
    """Return when the process has begun to work on its folder (or has ended)."""
    while process.poll() is None and not lock_of(out).exists():
        time.sleep(0.005)


def left(out: Path) -> float:
    """The part of the pages that is still to be done, but not under a quarter: some runs are to reach their end."""
    return max(0.25, 1 - len(list(out.glob("*.png"))) / PAGES)


def lock_of(out: Path) -> Path:
    """The file that a run makes when it begins to work on its folder."""
    return out / ".colorflow" / "writer.lock"


def interrupted(root: Path, out: Path, delay: float) -> bool:
    """Start a run and kill it after `delay` seconds of work; False if it had come to its end by then."""
    lock_of(out).unlink(missing_ok=True)  # of the run before, which is dead
    with colorizing(root, out) as process:
        wait_for(out, process)
        try:
            process.wait(delay)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
        return process.wait() == -signal.SIGKILL


def files(out: Path) -> dict[str, bytes]:
    """Every file under a final name, relative to the out folder."""
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("[!.]*.png"))}


def look(out: Path, expected: dict[str, bytes], report: dict[str, Any], complete: bool) -> None:
    """Count what should not be."""
    found = files(out)
    problems = [("wrong_files", name) for name, data in found.items() if expected.get(name) != data]
    records = (out / ".colorflow" / "pages").glob("[!.]*.json")
    problems += [("damaged_records", path.name) for path in records if not readable(path)]
    if complete:
        problems += [("pages_missing", name) for name in expected if name not in found]
        problems += [("leftovers", str(path)) for path in out.rglob("*.tmp")]
    for kind, name in problems:
        report[kind] += 1
        report["problems"].append(f"after kill {report['kills']}: {kind} {name}")


def readable(path: Path) -> bool:
    """Whether a record is whole."""
    try:
        return json.loads(path.read_bytes())["state"] in ("started", "done")
    except (ValueError, KeyError):
        return False


def save(path: Path, report: dict[str, Any]) -> None:
    """Keep the state of the campaign."""
    report["updated"] = datetime.now(UTC).isoformat(timespec="seconds")
    atomic_write(path, (json.dumps(report, indent=1) + "\n").encode())


if __name__ == "__main__":
    sys.exit(main())
