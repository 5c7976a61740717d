"""Continuous, whole-request and no batching on a real engine: `python benchmarks/scheduling_measured.py --pack mini`

The real scheduler in this process, the same Poisson arrivals and steps (4, 10, 50) for each policy; load is a share of
what the scheduler serves one page after the other, which is measured first. Seconds of wall-clock time. Whole-request
batching has as many rows as --rows says, continuous batching what it chose from the cost curve. Throughput is pages a
second when pages always wait: below the knee it is the arrivals' rate whatever the policy.
"""

import argparse
import json
import random
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from campaign import color_picture, gray_page
from colorflow_server.events import END, Event, Finished, PageJob, Preview
from colorflow_server.scheduler import Scheduler, SchedulerOptions
from scheduling import CURVES, MIXES, PREVIEW

from colorflow_rt.bench import hardware
from colorflow_rt.options import ColorizeOptions
from colorflow_rt.pack import Pack, fake_pack, open_pack
from colorflow_rt.pipeline import Colorizer

STEPS = MIXES["mixed (4, 10, 50 steps)"]


@dataclass(eq=False)
class Sent:
    """A page that was sent: monotonic seconds of what happened to it."""

    steps: int
    arrival: float
    shown: float | None = None
    ended: float = 0.0
    finished: bool = False
    gone: threading.Event = field(default_factory=threading.Event)

    def see(self, event: Event) -> None:
        """For `PageJob.on_event`."""
        if isinstance(event, Preview | Finished) and self.shown is None:
            self.shown = time.monotonic()
        if isinstance(event, END):
            self.ended, self.finished = time.monotonic(), isinstance(event, Finished)
            self.gone.set()


class Client:
    """Sends gray pages with references of one folder's worth, each as a client of its own."""

    def __init__(self, scheduler: Scheduler, colorizer: Colorizer) -> None:
        size = colorizer.pack.config.pages.sizes[0]
        self.page = gray_page(0, size)
        self.pool = colorizer.references([color_picture(seed, size) for seed in range(2)])
        self.scheduler, self.count = scheduler, 0

    def send(self, steps: int) -> Sent:
        """One page, now."""
        self.count += 1
        sent, name = Sent(steps, time.monotonic()), str(self.count)
        options = ColorizeOptions(steps=steps, style="gray")
        self.scheduler.submit(PageJob(name, name, "pack", self.page, self.pool, options, 0, None, PREVIEW, sent.see))
        return sent


def throughput(pack: Pack, policy: str, slots: int, steps: list[int]) -> float:
    """Pages a second where all pages wait from the beginning."""
    scheduler, client = _serve(pack, policy, slots)
    client.send(min(steps)).gone.wait()
    start = time.monotonic()
    for sent in [client.send(count) for count in steps]:
        sent.gone.wait()
    seconds = time.monotonic() - start
    scheduler.close()
    return len(steps) / seconds


def measure(pack: Pack, policy: str, slots: int, rate: float, steps: list[int]) -> dict[str, Any]:
    """Send pages at `rate` a second, open loop, and wait for all."""
    scheduler, client = _serve(pack, policy, slots)
    client.send(min(steps)).gone.wait()
    chance, sent, due = random.Random(1), list[Sent](), time.monotonic()
    for count in steps:
        due += chance.expovariate(rate)
        time.sleep(max(0.0, due - time.monotonic()))
        sent.append(client.send(count))
    for page in sent:
        page.gone.wait()
    state = scheduler.snapshot()
    scheduler.close()
    return {"policy": policy, "slots": state.slots, "batches": state.batches, **figures(sent)}


def _serve(pack: Pack, policy: str, slots: int) -> tuple[Scheduler, Client]:
    colorizer = Colorizer(pack)
    options = SchedulerOptions(max_queue=100_000, slots=slots, policy=policy)
    scheduler = Scheduler({"pack": colorizer}, options)
    return scheduler, Client(scheduler, colorizer)


def figures(sent: list[Sent]) -> dict[str, float]:
    """Seconds: p95 and mean."""

    def p95(value: Callable[[Sent], float], which: Callable[[Sent], bool] = lambda page: True) -> float:
        return float(np.percentile([value(page) for page in sent if which(page)], 95))

    least, most = min(page.steps for page in sent), max(page.steps for page in sent)
    return {
        "finished": sum(page.finished for page in sent),
        "page_p95": p95(lambda page: page.ended - page.arrival),
        "page_mean": float(np.mean([page.ended - page.arrival for page in sent])),
        "short_p95": p95(lambda page: page.ended - page.arrival, lambda page: page.steps == least),
        "long_p95": p95(lambda page: page.ended - page.arrival, lambda page: page.steps == most),
        "preview_p95": p95(lambda page: (page.shown or page.ended) - page.arrival),
    }


def open_(name: str, step_ms: float) -> Pack:
    """A pack by name, or a fake one with the cost curve of that name."""
    if name not in CURVES:
        return open_pack(name)
    return fake_pack(cost={"denoise_step": lambda rows: CURVES[name](rows) * step_ms / 1000})


def main() -> int:
    """Measure, print a table and a line of JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pack", default="mini", help=f"a pack, or a fake one: {', '.join(CURVES)}")
    parser.add_argument("--step-ms", type=float, default=20.0, help="of a fake pack")
    parser.add_argument("--pages", type=int, default=250)
    parser.add_argument("--load", type=float, default=0.8)
    parser.add_argument("--rows", type=int, default=8)
    options = parser.parse_args()
    pack, chance = open_(options.pack, options.step_ms), random.Random(0)
    steps = [chance.choice(STEPS) for _ in range(options.pages)]
    crowd, policies = steps[: max(12, options.pages // 6)], (("fifo", 1), ("whole", options.rows), ("continuous", 0))
    served = {policy: throughput(pack, policy, slots, crowd) for policy, slots in policies}
    print(f"knee: {served['fifo']:.2f} pages/s without batching; load {options.load:g} of it", flush=True)
    rows = []
    for policy, slots in policies:
        row = measure(pack, policy, slots, options.load * served["fifo"], steps) | {"pages_per_s": served[policy]}
        rows.append(row)
        times = "  ".join(f"{name} {row[name]:.2f}" for name in row if name.endswith(("p95", "mean", "per_s")))
        print(f"{policy:10} {row['slots']} rows  {times}", flush=True)
    print(json.dumps({"pack": options.pack, "load": options.load, "rows": rows, "hardware": hardware()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
