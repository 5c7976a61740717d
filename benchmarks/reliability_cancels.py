"""Cancels spread over every step: `python benchmarks/reliability_cancels.py --cancels 10000 --json FILE`

The scheduler on the fake engine. Every page is cancelled at a moment of its own: while it waits, opens, steps, paints,
or has just ended. Counted: steps that a page still got after its cancel (the one that was running is the first), slots
and pages that are held when all have ended, pages that did not end. `--json` keeps the state; the same command goes on.
"""

import argparse
import json
import random
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from campaign import color_picture, gray_page, load, save
from colorflow_server.events import END, Cancelled, Event, Failed, PageJob
from colorflow_server.scheduler import Scheduler, SchedulerOptions

from colorflow_rt.options import ColorizeOptions
from colorflow_rt.pack import fake_pack
from colorflow_rt.pipeline import Colorizer
from colorflow_rt.pool import Pool

STEP_S, STEPS, TOGETHER, ROUND = 0.003, 12, 16, 250
EMPTY = {"cancels": 0, "cancelled": 0, "finished": 0, "failed": 0, "slots_held": 0, "pages_held": 0, "never_ended": 0}
LISTS: dict[str, list[Any]] = {"late_steps": [], "stop_ms": [], "at_step": []}


class Victim:
    """A page that will be cancelled after a random time."""

    def __init__(self, scheduler: Scheduler, pool: Pool, page: Any, number: int, delay: float) -> None:
        self.scheduler, self.gone = scheduler, threading.Event()
        self.last: Event | None = None
        self.asked = self.ended = 0.0
        self.done_when_asked = 0
        options = ColorizeOptions(steps=STEPS, style="gray")
        self.due = time.monotonic() + delay
        self.ticket = scheduler.submit(
            PageJob(str(number), str(number % 5), "fake", page, pool, options, 0, None, 3, self.see)
        )

    def see(self, event: Event) -> None:
        """For `PageJob.on_event`."""
        if isinstance(event, END):
            self.last, self.ended = event, time.monotonic()
            self.gone.set()

    def cancel(self) -> None:
        """Now."""
        self.done_when_asked, self.asked = self.ticket.entry.done, time.monotonic()
        self.scheduler.cancel(self.ticket)


def cancel_many(count: int, seed: int) -> dict[str, Any]:
    """One round on a scheduler of its own."""
    colorizer = Colorizer(fake_pack(cost={"denoise_step": lambda rows: STEP_S}))
    pool, page = colorizer.references([color_picture()]), gray_page()
    scheduler, chance = Scheduler({"fake": colorizer}, SchedulerOptions(slots=4)), random.Random(seed)
    report: dict[str, Any] = dict(EMPTY) | {name: [] for name in LISTS}
    under_way: list[Victim] = []
    for number in range(count):
        under_way.append(Victim(scheduler, pool, page, number, chance.uniform(0, 1.2) * TOGETHER * 0.02))
        while len(under_way) >= TOGETHER:
            _cancel_next(under_way, report)
    while under_way:
        _cancel_next(under_way, report)
    _leave(scheduler, report)
    return report


def _cancel_next(under_way: list[Victim], report: dict[str, Any]) -> None:
    victim = min(under_way, key=lambda v: v.due)
    under_way.remove(victim)
    time.sleep(max(0.0, victim.due - time.monotonic()))
    victim.cancel()
    report["cancels"] += 1
    if not victim.gone.wait(20):
        report["never_ended"] += 1
        return
    if not isinstance(victim.last, Cancelled):
        report["failed" if isinstance(victim.last, Failed) else "finished"] += 1
        return
    report["cancelled"] += 1
    report["late_steps"].append(victim.last.step - victim.done_when_asked)
    report["at_step"].append(victim.last.step)
    report["stop_ms"].append(round(1000 * (victim.ended - victim.asked), 3))


def _leave(scheduler: Scheduler, report: dict[str, Any]) -> None:
    state = scheduler.snapshot()
    report["slots_held"] += state.slots_used
    report["pages_held"] += state.waiting + state.running
    scheduler.close()


def main() -> int:
    """Rounds of ROUND cancels until there are as many as asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cancels", type=int, default=10_000)
    parser.add_argument("--json", type=Path, required=True)
    options = parser.parse_args()
    report = load(options.json, EMPTY | LISTS)
    while report["cancels"] < options.cancels:
        found = cancel_many(min(ROUND, options.cancels - report["cancels"]), report["cancels"])
        for name, value in found.items():
            report[name] += value
        save(options.json, report)
    found = {name: report[name] for name in EMPTY}
    late, stop = report["late_steps"] or [0], report["stop_ms"] or [0.0]
    found |= {"late_steps_p99": float(np.percentile(late, 99)), "late_steps_most": max(late)}
    found |= {
        "stop_ms_p50": float(np.median(stop)),
        "stop_ms_p99": float(np.percentile(stop, 99)),
        "step_ms": 1000 * STEP_S,
    }
    found["steps_seen"] = len(set(report["at_step"]))
    print(json.dumps(found))
    bad = ("slots_held", "pages_held", "never_ended", "failed")
    return int(any(found[name] for name in bad) or found["late_steps_p99"] > 1)


if __name__ == "__main__":
    sys.exit(main())
