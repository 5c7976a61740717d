"""From how many patches on does hnswlib pay? Its build and load time counted.

A page's exact search (4 queries, k = 3) against the same in the graph, which has to be built once and loaded
(SHA-256 included) once a job.

    python benchmarks/retrieval.py            # a table, and JSON on the last line
"""

import hashlib
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np

from colorflow_rt.retrieval import PatchIndex

T = TypeVar("T")
SIZES = {64: (5_000, 20_000, 50_000, 100_000, 200_000), 1024: (5_000, 20_000, 50_000)}


def main() -> None:
    print("  dim  patches  exact ms  graph ms  load s  build s  pages until load (load and build) pay")
    rows = []
    for dim, counts in SIZES.items():
        for count in counts:
            rows.append(measure(count, dim))
            print(line(rows[-1]), flush=True)
    hardware = f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    print(json.dumps({"hardware": hardware, "python": sys.version.split()[0], "rows": rows}))


def line(row: dict[str, float | None]) -> str:
    load, build = (f"{row[key]:,.0f}" if row[key] else "never" for key in ("pages_for_load", "pages_for_build"))
    numbers = f"{row['exact_ms']:9.2f} {row['graph_ms']:9.2f} {row['load_s']:7.2f} {row['build_s']:8.1f}"
    return f"{row['dim']:5} {row['patches']:8} {numbers}  {load} ({build})"


def measure(count: int, dim: int) -> dict[str, float | None]:
    rng = np.random.default_rng(0)
    embeddings = clustered(rng, count, dim)
    pages = embeddings[rng.integers(0, count, 40)].reshape(10, 4, dim)
    exact = PatchIndex(embeddings, exact_limit=count)
    build_s, graph = timed(lambda: PatchIndex(embeddings, exact_limit=0))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "index.bin")
        graph.save(path)
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        load_s, graph = timed(lambda: PatchIndex.load(path, embeddings, sha256))
    exact_s, graph_s = (min(timed(partial(index.search, page, 3))[0] for page in pages) for index in (exact, graph))
    gain = exact_s - graph_s
    pays = gain > 0.05 * exact_s  # less is noise
    return {
        "dim": dim,
        "patches": count,
        "exact_ms": exact_s * 1e3,
        "graph_ms": graph_s * 1e3,
        "load_s": load_s,
        "build_s": build_s,
        "pages_for_load": load_s / gain if pays else None,
        "pages_for_build": (load_s + build_s) / gain if pays else None,
    }


def clustered(rng: np.random.Generator, count: int, dim: int) -> np.ndarray:
    """Unit vectors in clusters of about 50, as the patches of one character are."""
    centres = rng.normal(size=(count // 50, dim)).astype(np.float32)
    noise = rng.normal(size=(count, dim)).astype(np.float32)
    rows = centres[rng.integers(0, len(centres), count)] + np.float32(0.35) * noise
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def timed(action: Callable[[], T]) -> tuple[float, T]:
    start = time.perf_counter()
    result = action()
    return time.perf_counter() - start, result


if __name__ == "__main__":
    main()
