"""Kill campaign of reference sets: `kill -9` while a process adds, removes and indexes pictures.

    python benchmarks/reliability_refs.py --kills 200 --json FILE     at random moments; run again to go on counting
    python benchmarks/reliability_refs.py --sweep --json FILE         before and after every write of fixed histories

The child says on a pipe what it is about to do and what has returned. After each kill the set must open, hold every
picture that was acknowledged and none that was acknowledged as removed, have no damaged file under a final name,
search as an exact search does, find no problem but harmless orphans, and adding everything again must complete it.

A kill shows what a crash of the process does. It does not show a loss of power: what a process wrote before it was
killed stays in the page cache, so this cannot tell whether fsync was called (tests/test_references_faults.py counts).
"""

import argparse
import json
import os
import platform
import random
import shutil
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from colorflow_rt.files import atomic_write
from colorflow_rt.pixels import Picture, content_hash
from colorflow_rt.references import ReferenceSet, images
from colorflow_rt.retrieval import PatchIndex

PICTURES = 12  # 60 patches, above EXACT_LIMIT: every history writes index files
EXACT_LIMIT = 20
ENCODER, DIM = "campaign", 12
WINDOW_S = 0.3  # a child is killed so long after its first write, at most
FRESH_SET_EVERY = 10  # kills: a new set, so that creation is met as well
NAMES = [f"{number:02d}.png" for number in range(PICTURES)]
Say = Callable[[str], None]


def picture(name: str) -> NDArray[np.uint8]:
    """The picture of this name: small noise."""
    rng = np.random.default_rng(int(name[:2]))
    return rng.integers(0, 256, (20 + int(name[:2]), 28, 3), dtype=np.uint8)


def embed(pictures: list[NDArray[np.uint8]]) -> NDArray[np.float32]:
    """A stand-in encoder: the mean colours of four quarters of each patch, unit length."""
    rows = [_mean_colours(patch) for image in pictures for patch in _patches(image)]
    return np.stack([row / np.linalg.norm(row) for row in rows]).astype(np.float32)


def _patches(image: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    h, w = image.shape[0] // 4, image.shape[1] // 4
    return [image, *(image[y : y + 3 * h, x : x + 3 * w] for y in (0, h) for x in (0, w))]


def _mean_colours(patch: NDArray[np.uint8]) -> NDArray[np.float64]:
    quarters = [q for half in np.array_split(patch, 2) for q in np.array_split(half, 2, axis=1)]
    return np.concatenate([quarter.mean((0, 1)) for quarter in quarters]) - 127.0


def open_set(root: Path) -> ReferenceSet:
    """The set of the campaign, with an index file at its size."""
    refs = ReferenceSet.open_or_create("campaign", root)
    refs.exact_limit = EXACT_LIMIT
    return refs


# What the children do


def add(refs: ReferenceSet, names: list[str], say: Say) -> None:
    """Add pictures, announcing and acknowledging each."""
    for name in names:
        say(f"adding {name}")
        refs.add([(name, picture(name))])
        say(f"added {name}")


def remove(refs: ReferenceSet, names: list[str], say: Say) -> None:
    """Remove pictures in one call."""
    for name in names:
        say(f"removing {name}")
    refs.remove(names)
    for name in names:
        say(f"removed {name}")


def index(refs: ReferenceSet, say: Say) -> None:
    """Embed what is new and write an index generation."""
    say("indexing -")
    refs.index(ENCODER, DIM, embed)
    say("indexed -")


def write_for_ever(root: Path, seed: int, say: Say) -> None:
    """Until killed: take a few pictures out, put in what is missing, index."""
    rng = random.Random(seed)
    say("creating -")
    refs = open_set(root)
    while True:
        there = {reference.name for reference in refs.list()}
        if gone := [name for name in rng.sample(NAMES, 4) if name in there]:
            remove(refs, gone, say)
        add(refs, [name for name in NAMES if name not in there or name in gone], say)
        index(refs, say)


def whole_life(root: Path, say: Say) -> None:
    """A fixed history with every kind of write."""
    say("creating -")
    refs = open_set(root)
    add(refs, NAMES[:6], say)
    index(refs, say)
    remove(refs, NAMES[:1], say)
    add(refs, NAMES[:1], say)
    index(refs, say)
    refs.set_tag(NAMES[1], "hero")
    refs.rebuild()
    say("deleting -")
    ReferenceSet.delete("campaign", root)


def rebuild_damaged(root: Path, say: Say) -> None:
    """Damage set.sqlite of a finished set in its middle, then rebuild it."""
    refs = open_set(root)
    add(refs, NAMES[:6], say)
    index(refs, say)
    path = refs.folder / "set.sqlite"
    data = bytearray(path.read_bytes())
    data[len(data) // 2 :] = bytes(len(data) - len(data) // 2)
    path.write_bytes(data)
    say("rebuilding -")
    refs.rebuild()


# What the children said, and what must be true after them


@dataclass
class Expected:
    """The pictures that must be in the set, and those of which a kill leaves open whether they are."""

    sure: set[str] = field(default_factory=set)
    open: set[str] = field(default_factory=set)
    phase: str = "starting"

    def hear(self, words: str) -> None:
        """Follow one line of a child."""
        self.phase, name = words.split()
        if self.phase in ("adding", "removing"):
            self.sure.discard(name)
            self.open.add(name)
        elif self.phase in ("added", "removed"):
            self.open.discard(name)
            if self.phase == "added":
                self.sure.add(name)
        elif self.phase == "deleting":
            self.open |= self.sure
            self.sure = set()


def check(root: Path, expected: Expected) -> tuple[list[str], Counter[str]]:
    """What is wrong with the set after a kill (it should be nothing), and the orphans that were found.

    A set that is as it should be is completed.
    """
    wrong, orphans = inspect(root, expected)
    return wrong or _not_completed(open_set(root)), orphans


def inspect(root: Path, expected: Expected) -> tuple[list[str], Counter[str]]:
    """`check` without adding anything."""
    refs = open_set(root)
    if expected.phase == "rebuilding" and any(problem.kind == "database" for problem in refs.verify()):
        refs.rebuild()  # it was damaged before, and the killed rebuild had not come so far
    problems = refs.verify()
    wrong = [p.message for p in problems if p.kind != "orphan"]
    orphans = Counter(problem.message.removeprefix(problem.subject).split(":")[0].strip() for problem in problems)
    folder = refs.folder / "images"
    wrong += [f"{path.name} is damaged" for path in folder.glob("[0-9a-f]*") if not images.is_good(folder, path.stem)]
    wrong += _wrong_pictures(refs, expected)
    return wrong or _wrong_search(refs), orphans


def _wrong_pictures(refs: ReferenceSet, expected: Expected) -> list[str]:
    there, may_be = {(r.name, r.sha256) for r in refs.list()}, expected.sure | expected.open
    right = {(name, content_hash(Picture(picture(name)))) for name in may_be}
    lost = sorted(expected.sure - {name for name, _ in there})
    strange = sorted(name for name, _ in there - right)
    return [f"{name} was added and is lost" for name in lost] + [
        f"{name} was removed and is back" if name not in may_be else f"{name} shows another picture" for name in strange
    ]


def _wrong_search(refs: ReferenceSet) -> list[str]:
    if not refs.list():
        return []
    matrix = refs.embeddings(ENCODER, DIM, embed)
    found, _ = refs.index(ENCODER, DIM, embed).search(matrix, 1)
    nearest, _ = PatchIndex(matrix).search(matrix, 1)
    wrong = [] if np.array_equal(found, nearest) else ["the index finds other patches than exact search"]
    return wrong + [f"notice: {notice}" for notice in refs.notices]


def _not_completed(refs: ReferenceSet) -> list[str]:
    report = refs.add([(name, picture(name)) for name in NAMES])
    wrong = [f"{name} was refused: {why}" for name, why in report.refused]
    wrong += [f"{reference.name} had no good file" for reference in report.repaired]
    names = sorted(reference.name for reference in refs.list())
    return wrong + ([] if names == NAMES else [f"adding again left {names}"])


def environment() -> dict[str, str]:
    """For child processes: the modules of this one, and one thread."""
    return os.environ | {
        "PYTHONPATH": os.pathsep.join(str(Path(folder).absolute()) for folder in sys.path),
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }


# Random moments


def campaign(kills: int, json_file: Path, seed: int = 0) -> dict[str, Any]:
    """Kill until the count in `json_file` is `kills`; the totals, also written there every ten kills."""
    totals = json.loads(json_file.read_bytes()) if json_file.exists() else _new_totals()
    with tempfile.TemporaryDirectory(prefix="colorflow-kills-") as folder:
        expected = Expected()
        while totals["kills"] < kills:
            number = totals["kills"]
            if number % FRESH_SET_EVERY == 0 or not expected.sure:
                shutil.rmtree(Path(folder) / "sets", ignore_errors=True)
                expected = Expected()
            expected = _one_kill(Path(folder) / "sets", seed + number, expected, totals)
            if totals["kills"] % FRESH_SET_EVERY == 0 or totals["kills"] == kills:
                save(totals, json_file)
    return totals


def _new_totals() -> dict[str, Any]:
    return {"kills": 0, "violations": [], "phases": {}, "orphans": {}, "recovery_seconds": []}


def save(totals: dict[str, Any], json_file: Path) -> None:
    """Write the totals down, with the date and what they were found on."""
    totals["date"] = datetime.now(UTC).isoformat(timespec="seconds")
    totals["hardware"] = f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}"
    totals["versions"] = f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}"
    atomic_write(json_file, (json.dumps(totals, indent=1) + "\n").encode())


def _one_kill(root: Path, seed: int, expected: Expected, totals: dict[str, Any]) -> Expected:
    """Run a child, kill it, check. Returns what the set holds afterwards."""
    command = [sys.executable, __file__, "--child", str(root), "--seed", str(seed)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment()) as child:
        assert child.stdout and child.stderr
        expected.hear(child.stdout.readline() or "failed -")
        time.sleep(random.Random(seed).uniform(0, WINDOW_S))
        child.kill()
        for line in child.stdout:
            expected.hear(line)
        errors = child.stderr.read().strip()
    started = time.perf_counter()
    wrong, orphans = check(root, expected)
    totals["recovery_seconds"].append(round(time.perf_counter() - started, 4))
    if child.returncode != -signal.SIGKILL:
        wrong.append(f"the child ended by itself ({child.returncode}): {errors[-300:]}")
    totals["violations"] += [f"kill {seed} while {expected.phase}: {one}" for one in wrong]
    totals["kills"] += 1
    totals["phases"][expected.phase] = totals["phases"].get(expected.phase, 0) + 1
    totals["orphans"] = dict(Counter(totals["orphans"]) + orphans)
    return Expected(sure=set(NAMES) if not wrong else set())


# Every write


def sweep(every: int = 1) -> dict[str, Any]:
    """Kill before and after each (or each `every`-th) write of two fixed histories. For a process of one thread."""
    totals: dict[str, Any] = {"histories": {}, "violations": [], "orphans": {}}
    for history in (whole_life, rebuild_damaged):
        points = 0
        with tempfile.TemporaryDirectory(prefix="colorflow-sweep-") as folder:
            while (expected := _die_at(points, history, Path(folder) / f"{points}")) is not None:
                wrong, orphans = check(Path(folder) / f"{points}", expected)
                name = history.__name__
                totals["violations"] += [f"{name}, write {points}, {expected.phase}: {one}" for one in wrong]
                totals["orphans"] = dict(Counter(totals["orphans"]) + orphans)
                points += every
        totals["histories"][history.__name__] = points // every
    return totals


def _die_at(point: int, history: Callable[[Path, Say], None], root: Path) -> Expected | None:
    """What a forked child said before it killed itself at its write number `point`; None if it made fewer."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        _kill_self_at(point)
        with suppress(BaseException):
            history(root, lambda words: _say(words, writer))
            os._exit(0)
        os._exit(1)
    os.close(writer)
    expected = Expected()
    with os.fdopen(reader) as lines:
        for line in lines:
            expected.hear(line)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise RuntimeError(f"{history.__name__} failed at write {point} while {expected.phase}")
    return expected if os.WIFSIGNALED(status) else None


def _kill_self_at(point: int) -> None:
    """From now on this process kills itself at the given one of all moments before and after a write."""
    left = point

    def moment() -> None:
        nonlocal left
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1

    def mortal(write: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            moment()
            result = write(*args, **kwargs)
            moment()
            return result

        return call

    class Mortal(sqlite3.Connection):
        def execute(self, sql: str, *args: Any) -> sqlite3.Cursor:
            writes = sql.startswith(("INSERT", "UPDATE", "DELETE", "COMMIT"))
            return (mortal(super().execute) if writes else super().execute)(sql, *args)

        def close(self) -> None:  # the last one to close a set.sqlite writes its log back
            mortal(super().close)()

    connect = sqlite3.connect
    sqlite3.connect = lambda *args, **kwargs: connect(*args, factory=Mortal, **kwargs)  # type: ignore[assignment]
    for name in ("fsync", "replace", "rename", "unlink", "link", "mkdir", "rmdir", "ftruncate", "pwrite"):
        setattr(os, name, mortal(getattr(os, name)))


def _say(words: str, file: int = 1) -> None:
    os.write(file, f"{words}\n".encode())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--json", type=Path, help="totals; with --kills also where to go on from")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sweep", action="store_true")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="with --sweep: only each N-th write")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        write_for_ever(options.child, options.seed, _say)
    if not options.json:
        parser.error("give --json FILE")
    options.json.parent.mkdir(parents=True, exist_ok=True)
    if options.sweep:
        totals = sweep(options.every)
        save(totals, options.json)
    else:
        totals = campaign(options.kills, options.json, options.seed)
    print_totals(totals)
    return 1 if totals["violations"] else 0


def print_totals(totals: dict[str, Any]) -> None:
    """A table for people, and JSON on the last line."""
    for key, value in totals.items():
        if key == "recovery_seconds":
            value = f"median {statistics.median(value):.3f}, most {max(value):.3f} (verify, search, add all again)"
        print(f"{key:18} {value if value else 'none'}")
    print(json.dumps(totals))


if __name__ == "__main__":
    sys.exit(main())
