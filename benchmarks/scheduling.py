"""Continuous, whole-request and no batching, simulated: `python benchmarks/scheduling.py --out docs/scheduling.png`

The scheduler's own decisions (colorflow_server.turns, costs) in virtual time: unit is one step of one page alone, and a
call of b rows takes cost(b). The stages around the loop overlap with it and are left out. Each page has a client of its
own. The same arrivals (Poisson) and steps for all; load is the share of what one page after the other could serve.
"""

import argparse
import itertools
import json
import random
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from charts import Panel, draw
from colorflow_server.costs import CostModel
from colorflow_server.turns import POLICIES, Continuous, Entry

Cost = Callable[[int], float]

MOST = 8  # rows of a call
SLOTS = {"continuous": 0, "whole": MOST, "fifo": 1}  # 0: chosen from the cost curve, as the scheduler does
LOADS = (0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 1.1, 1.5)
MIXES = {"equal (10 steps)": (10,), "mixed (4, 10, 50 steps)": (4, 10, 50)}
PREVIEW = 2  # steps until the first preview


def affine(gain: float) -> Cost:
    """cost(b) = a + (1 - a) b with the throughput of a full batch `gain` times that of one page."""
    a = (MOST - MOST / gain) / (MOST - 1)
    return lambda rows: a + (1 - a) * rows


CURVES = {"no gain": affine(1.0), "10 % gain": affine(1.1), "2x gain": affine(2.0)}


@dataclass(eq=False)
class Page:
    """Of a simulation: when it came, had its first preview, and was done."""

    arrival: float
    steps: int
    entry: Entry = field(init=False)
    shown: float = 0.0
    done: float = 0.0


def arrivals(mix: tuple[int, ...], load: float, pages: int, seed: int) -> list[Page]:
    """Poisson, `load` of the unbatched knee; steps drawn from the mix in equal numbers."""
    chance, now, found = random.Random(seed), 0.0, []
    mean = sum(mix) / len(mix)
    for _ in range(pages):
        now += chance.expovariate(load / mean)
        found.append(Page(now, chance.choice(mix)))
    return found


def simulate(policy: str, cost: Cost, pages: Iterable[Page]) -> list[Page]:
    """Serve the pages; returns them with their times."""
    turns, model = POLICIES[policy](), CostModel({rows: cost(rows) for rows in (1, 2, 4, MOST)}, 1, SLOTS[policy])
    pages = list(pages)
    coming, ready, now = iter(pages), dict[Entry, Page](), 0.0
    following = next(coming, None)
    while following or ready:
        if not ready and following:
            now = max(now, following.arrival)
        while following and following.arrival <= now:
            _enter(turns, following, ready, len(pages))
            following = next(coming, None)
        batch = turns.choose(list(ready), lambda entry, count: model.rows(count))
        seconds = cost(len(batch))
        now += seconds
        turns.served(seconds)
        for entry in batch:
            _step(turns, entry, ready, now)
    return pages


_clients = itertools.count()


def _enter(turns: Continuous, page: Page, ready: dict[Entry, Page], pages: int) -> None:
    page.entry = Entry(str(next(_clients)), 0, page.steps, 1.0, PREVIEW)
    turns.enter(page.entry)
    ready[page.entry] = page


def _step(turns: Continuous, entry: Entry, ready: dict[Entry, Page], now: float) -> None:
    entry.done += 1
    page = ready[entry]
    if entry.done == PREVIEW:
        page.shown = now
    if entry.done == entry.steps:
        page.done = now
        turns.leave(entry)
        del ready[entry]


def figures(pages: list[Page]) -> dict[str, float]:
    """p95 of page latency and first preview, of all and of the shortest pages; throughput in steps per unit."""
    least = min(page.steps for page in pages)

    def p95(values: Iterable[float]) -> float:
        return float(np.percentile(list(values), 95))

    span = max(page.done for page in pages) - pages[0].arrival
    return {
        "page_p95": p95(page.done - page.arrival for page in pages),
        "page_mean": float(np.mean([page.done - page.arrival for page in pages])),
        "short_p95": p95(page.done - page.arrival for page in pages if page.steps == least),
        "long_p95": p95(page.done - page.arrival for page in pages if page.steps == max(p.steps for p in pages[:99])),
        "preview_p95": p95(page.shown - page.arrival for page in pages),
        "throughput": sum(page.steps for page in pages) / span,
    }


def compare(pages: int, seeds: int, loads: Iterable[float] = LOADS) -> list[dict[str, Any]]:
    """Every policy under every curve, mix and load: means over the seeds."""
    rows = []
    for curve, mix, load, policy in itertools.product(CURVES, MIXES, loads, SLOTS):
        runs = [
            figures(simulate(policy, CURVES[curve], arrivals(MIXES[mix], load, pages, seed))) for seed in range(seeds)
        ]
        means = {name: float(np.mean([run[name] for run in runs])) for name in runs[0]}
        rows.append({"curve": curve, "mix": mix, "load": load, "policy": policy, **means})
    return rows


NAMES = {
    "continuous": "continuous (this server)",
    "whole": f"whole requests, {MOST} rows",
    "fifo": "no batching, first in first out",
}
SHOWN = {
    "page_p95": "p95 of a page",
    "short_p95": "p95 of the shortest pages",
    "preview_p95": "p95 of the first preview",
}


def picture(rows: list[dict[str, Any]], path: Path) -> None:
    """A row of panels for each mix and figure, a column for each curve."""
    panels = []
    for mix, figure in itertools.product(MIXES, SHOWN):
        if figure == "short_p95" and len(MIXES[mix]) == 1:
            continue  # all are the shortest
        panels.append([_panel(rows, curve, mix, figure) for curve in CURVES])
    draw(path, panels)


def _panel(rows: list[dict[str, Any]], curve: str, mix: str, figure: str) -> Panel:
    lines = {
        NAMES[policy]: [
            (row["load"], row[figure])
            for row in rows
            if (row["curve"], row["mix"], row["policy"]) == (curve, mix, policy)
        ]
        for policy in SLOTS
    }
    return Panel(
        f"{SHOWN[figure]}, {mix.split(' (')[0]} steps, {curve}", "load (1: the knee without batching)", lines, log=True
    )


def table(rows: list[dict[str, Any]], load: float) -> str:
    """One load, for people."""
    head = f"load {load:g} | page p95 | mean | shortest p95 | longest p95 | preview p95 | steps a unit"
    lines = [head, "-" * len(head)]
    for row in rows:
        if row["load"] == load:
            values = [row[name] for name in ("page_p95", "page_mean", "short_p95", "long_p95", "preview_p95")]
            name = f"{row['curve']:9} {row['mix'].split(' (')[0]:5} {row['policy']:10}"
            lines.append(name + "".join(f"{value:9.1f}" for value in values) + f"{row['throughput']:8.2f}")
    return "\n".join(lines)


def main() -> int:
    """Simulate, print the table and a line of JSON, draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--pages", type=int, default=2000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="PNG to write")
    options = parser.parse_args()
    rows = compare(options.pages, options.seeds)
    print(table(rows, 0.8))
    if options.out:
        picture(rows, options.out)
    print(json.dumps({"pages": options.pages, "seeds": options.seeds, "rows": rows}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
