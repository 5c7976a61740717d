"""Kill the command `colorflow refs add` (SIGKILL) at random moments and look at the set that it left.

    python benchmarks/reliability_refs_add.py --kills 200 --json .reliability/refs-add.json

A process adds a folder of pictures to a set and is killed; the same command goes on with the same set and is killed
again, until one run comes to its end; then a new set. After every kill the set opens, has every picture that it had
before, each with its own pixels, searches as an exact search does, and `verify` finds nothing but harmless left-overs.
The run that comes to its end counts the pictures that were there and adds all the others; `rebuild` clears the
left-overs away. The JSON file is written after every kill; with it the campaign goes on where it stopped.

reliability_refs.py does the same to a process that also removes and indexes, and at every write.
"""

import argparse
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import reliability_refs as sets

from colorflow_rt.lock import is_held
from colorflow_rt.pixels import write_png
from colorflow_rt.references import ReferenceSet

NAMES = [f"{number:02d}.png" for number in range(30)]
SET = "campaign"  # as reliability_refs.open_set calls it


def main() -> int:
    """Exit code 1 if anything was found that should not be."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    options.json.parent.mkdir(parents=True, exist_ok=True)
    totals = json.loads(options.json.read_bytes()) if options.json.exists() else new_totals()
    with tempfile.TemporaryDirectory(prefix="colorflow-kills-") as folder:
        campaign(Path(folder), options.kills, options.seed, totals, options.json)
    sets.print_totals(totals)
    return int(bool(totals["violations"]))


def new_totals() -> dict[str, Any]:
    """Nothing found yet. killed_while: how far the run had come."""
    return {"kills": 0, "finished_runs": 0, "violations": [], "killed_while": {}, "orphans": {}, "recovery_seconds": []}


def campaign(root: Path, kills: int, seed: int, totals: dict[str, Any], json_file: Path) -> None:
    """Kill until the totals count `kills`, each set to its end."""
    (root / "pictures").mkdir()
    for name in NAMES:
        write_png(root / "pictures" / name, sets.picture(name))
    seconds = undisturbed(root)
    chance = random.Random(seed + totals["kills"])
    while totals["kills"] < kills:
        shutil.rmtree(root / "sets", ignore_errors=True)
        there: set[str] = set()
        while not (said := run(root, chance.uniform(0, seconds) if may_kill(there, totals, kills) else None)):
            there = look(root, there, totals)
            sets.save(totals, json_file)
        totals["violations"] += [f"after kill {totals['kills']}: {one}" for one in check_end(root, there, said)]
        totals["finished_runs"] += 1
        sets.save(totals, json_file)


def may_kill(there: set[str], totals: dict[str, Any], kills: int) -> bool:
    """Whether something is left to add, and to kill for."""
    return len(there) < len(NAMES) and totals["kills"] < kills


def undisturbed(root: Path) -> float:
    """Seconds from the first thing that a run makes to its end."""
    started = time.perf_counter()
    said = run(root, None)
    if not said or said.code:
        raise SystemExit(f"error: the undisturbed run failed: {said}")
    return time.perf_counter() - started - said.seconds_before


class Said(NamedTuple):
    """How a run ended that was not killed."""

    code: int
    printed: str
    errors: str
    seconds_before: float


def run(root: Path, after: float | None) -> Said | None:
    """The command under test, killed `after` so many seconds of work; what it said, if it came to its end first."""
    command = [sys.executable, "-m", "colorflow_rt.cli", "refs", "add", SET, "pictures"]
    environment = sets.environment() | {"COLORFLOW_HOME": str(root)}
    pipe, started = subprocess.PIPE, time.perf_counter()
    with subprocess.Popen(command, cwd=root, env=environment, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            wait_for_work(root, process)
            waited = time.perf_counter() - started
            process.wait(after)
        except subprocess.TimeoutExpired:
            process.kill()
        printed, errors = process.communicate()
    return None if process.returncode == -signal.SIGKILL else Said(process.returncode, printed, errors, waited)


def wait_for_work(root: Path, process: subprocess.Popen[str]) -> None:
    """Return when the process makes its set, or holds the one there is (or has ended)."""
    lock = root / "sets" / SET / "writer.lock"
    locks = (lock,) if lock.exists() else (lock, root / "sets" / ".lock")
    while process.poll() is None and not any(map(is_held, locks)):
        time.sleep(0.001)


def look(root: Path, there: set[str], totals: dict[str, Any]) -> set[str]:
    """Count a kill and everything that is wrong after it; the pictures that are in the set now."""
    started = time.perf_counter()
    wrong, orphans, now = inspect(root / "sets", there)
    totals["recovery_seconds"].append(round(time.perf_counter() - started, 4))
    totals["kills"] += 1
    totals["violations"] += [f"kill {totals['kills']}: {one}" for one in wrong]
    for kind, count in orphans.items():
        totals["orphans"][kind] = totals["orphans"].get(kind, 0) + count
    stage = stage_of(len(now))
    totals["killed_while"][stage] = totals["killed_while"].get(stage, 0) + 1
    return now


def stage_of(pictures: int) -> str:
    """How far a run had come."""
    if pictures in (0, len(NAMES)):
        return "all there" if pictures else "none there"
    return f"{pictures // 10 * 10} to {pictures // 10 * 10 + 9} there"


def inspect(root: Path, there: set[str]) -> tuple[list[str], dict[str, int], set[str]]:
    """What is wrong with the set, orphans by their kind, and the pictures in it. `there`: were in it before."""
    if SET not in ReferenceSet.names(root):
        return ["the set is gone"] if there else [], {}, set()
    expected = sets.Expected(sure=there, open=set(NAMES) - there)
    wrong, orphans = sets.inspect(root, expected)
    return wrong, orphans, {reference.name for reference in sets.open_set(root).list()}


def check_end(root: Path, there: set[str], said: Said) -> list[str]:
    """What is wrong with a run that came to its end: what it says, the set, or the set after a rebuild."""
    counts = f"{SET}: {len(NAMES) - len(there)} added, {len(there)} already there, 0 refused"
    right = (said.code, said.printed.splitlines()[-1:], said.errors) == (0, [counts], "")
    wrong = [] if right else [f"expected {counts!r}, got {said}"]
    wrong += inspect(root / "sets", set(NAMES))[0]
    return wrong + [f"after a rebuild: {p.message}" for p in sets.open_set(root / "sets").rebuild().problems]


if __name__ == "__main__":
    sys.exit(main())
