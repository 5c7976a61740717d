"""Sets made by the kill campaign, for the tests of faults."""

import importlib.util
import random
import sys
from pathlib import Path
from types import ModuleType

from colorflow_rt.references import ReferenceSet

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "benchmarks" / "reliability_refs.py"


def load_script(path: Path) -> ModuleType:
    """A script of benchmarks/ as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


campaign = load_script(SCRIPT)
NAMES, DIM = campaign.NAMES, campaign.DIM


def filled(root: Path, count: int = 12) -> ReferenceSet:
    """A set of `count` pictures with embeddings and an index file."""
    refs = campaign.open_set(root)
    refs.add([(name, campaign.picture(name)) for name in NAMES[:count]])
    index(refs)
    return refs


def again(refs: ReferenceSet) -> ReferenceSet:
    return campaign.open_set(refs.folder.parent)


def index(refs: ReferenceSet):
    return refs.index("campaign", DIM, campaign.embed)


def refuse_to_embed(pictures):
    raise AssertionError("embeddings are stored and must not be computed")


def names(refs: ReferenceSet) -> list[str]:
    return [reference.name for reference in refs.list()]


def kinds(refs: ReferenceSet) -> list[str]:
    return [problem.kind for problem in refs.verify()]


def index_file(refs: ReferenceSet) -> Path:
    return max(refs.folder.glob("index.*"), key=lambda path: int(path.name.split(".")[1]))


def searches_right(refs: ReferenceSet) -> bool:
    """Whether every stored patch finds itself."""
    rows = refs.embeddings("campaign", DIM, campaign.embed)
    found, scores = index(refs).search(rows, 1)
    return found[:, 0].tolist() == list(range(len(rows))) and bool((scores > 0.999).all())


def flip_bit(path: Path, rng: random.Random) -> None:
    data = bytearray(path.read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)
