"""Damaged files of a reference set: `python benchmarks/reliability_damage.py --rounds 10000 --json FILE`

Each round harms one file of a set of 12 pictures (the index, a picture or the database: a bit flipped, the end cut off,
a block zeroed, bytes added) and uses the set: it is opened, listed, searched for every patch, every picture is read.

noticed   what was harmed is refused in one line, or said and made again, or listed by `verify`
harmless  everything is as it was (bytes that nobody reads)
wrong     an answer is not the true one and nothing was said
crashed   another exception than the library's own errors

Exit code 1 where a round crashed, or an index or a picture gave a wrong answer. Run again to go on counting.
"""

import argparse
import json
import random
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from campaign import load, save
from reliability_refs import DIM, NAMES, embed, open_set, picture
from rich.console import Console
from rich.progress import track

from colorflow_rt.errors import ColorflowError
from colorflow_rt.references import ReferenceSet

BLOCK, SAVE_EVERY = 512, 100
TARGETS = {"index": "index.*", "picture": "images/**/*", "database": "set.sqlite"}
Answer = tuple[Any, ...]


def harm(path: Path, chance: random.Random) -> str:
    """Damage a file; how it was done."""
    data = bytearray(path.read_bytes())
    how = chance.choice(("flip", "cut", "zero", "add"))
    at = chance.randrange(len(data))
    if how == "flip":
        data[at] ^= 1 << chance.randrange(8)
    elif how == "cut":
        del data[at:]
    elif how == "zero":
        data[at : at + BLOCK] = bytes(len(data[at : at + BLOCK]))
    else:
        data += chance.randbytes(BLOCK)
    path.write_bytes(data)
    return how


def answer(refs: ReferenceSet, queries: Any) -> Answer:
    """What a user sees of the set: names and tags, the nearest patches, the pixels."""
    listed = tuple((reference.name, reference.tag) for reference in refs.list())
    found, _ = refs.index("campaign", DIM, embed).search(queries, 1)
    pixels = tuple(refs.picture(reference).rgb.tobytes() for reference in refs.list())
    return listed, found[:, 0].tolist(), pixels


def one_round(master: Path, folder: Path, truth: Answer, queries: Any, number: int) -> tuple[str, str]:
    """(what was harmed and how, what came of it)."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(master, folder)
    chance = random.Random(number)
    target = chance.choice(list(TARGETS))
    files = sorted(path for path in (folder / "campaign").glob(TARGETS[target]) if path.is_file())
    how = f"{target}, {harm(chance.choice(files), chance)}"
    try:
        refs = open_set(folder)
        found = answer(refs, queries)
        said = bool(refs.notices) or bool(refs.verify())
    except ColorflowError:
        return how, "noticed"
    except Exception as error:
        print(f"round {number} ({how}): {type(error).__name__}: {error}", file=sys.stderr)
        return how, "crashed"
    if said:
        return how, "noticed"
    return how, "harmless" if found == truth else "wrong"


def main() -> int:
    """Count on to --rounds, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10_000)
    parser.add_argument("--json", type=Path, required=True)
    options = parser.parse_args()
    report = load(options.json, {"rounds": 0, "outcomes": {}})
    outcomes = {what: Counter(counts) for what, counts in report["outcomes"].items()}
    with tempfile.TemporaryDirectory() as temporary:
        master = Path(temporary) / "master"
        refs = open_set(master)
        refs.add([(name, picture(name)) for name in NAMES])
        queries = np.array(refs.embeddings("campaign", DIM, embed))
        truth = answer(refs, queries)
        rounds = range(report["rounds"], options.rounds)
        for number in track(rounds, "damaging", console=Console(stderr=True)):
            how, what = one_round(master, Path(temporary) / "harmed", truth, queries, number)
            outcomes.setdefault(how, Counter())[what] += 1
            if (number + 1) % SAVE_EVERY == 0 or number + 1 == options.rounds:
                save(options.json, report | {"rounds": number + 1, "outcomes": outcomes})
    report = load(options.json, report)
    print(json.dumps(report))
    crashed = sum(counts["crashed"] for counts in outcomes.values())
    wrong = sum(counts["wrong"] for how, counts in outcomes.items() if not how.startswith("database"))
    return int(bool(crashed or wrong))


if __name__ == "__main__":
    sys.exit(main())
