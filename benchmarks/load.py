"""Load on a server, and what it made of it: `python benchmarks/load.py --server HOST:PORT --json FILE [--picture FILE]`

Open loop (Poisson, --rate pages a second), closed loop (--together clients), or --overload: the knee is found by a
closed loop, then pages come at 1, 2 and 4 times the knee. Some clients may cancel at a step by chance, stop reading for
a while, vanish, or send garbage. The report: pages a second, percentiles of first preview, page and queue time,
refusals and how fast they were. With --metrics URL the server's own counts are compared with the clients'.
"""

import argparse
import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from charts import Panel, draw
from loadgen import KINDS, Call, Clients, Plan, closed_loop, open_loop, record
from serverprocess import scrape

from colorflow_rt.bench import hardware
from colorflow_rt.files import atomic_write

OVERLOADS = (1, 2, 4)
KEPT_CALLS = 100_000


def report(calls: list[Call], seconds: float) -> dict[str, Any]:
    """Figures of calls that were made in so many seconds; times in seconds."""
    good = [call for call in calls if call.finished]
    refused = [call for call in calls if call.refused]
    return {
        "calls": len(calls),
        "kinds": dict(Counter(call.kind for call in calls)),
        "codes": dict(Counter(call.code for call in calls)),
        "page_codes": dict(Counter(call.page_code for call in calls if call.page_code)),
        "finished": len(good),
        "pages_per_s": len(good) / seconds,
        "first_preview": spread(call.preview_s for call in good),
        "page": spread(call.seconds for call in good if call.kind != "stall"),
        "queue": spread(call.queue_s for call in good),
        "refused": len(refused),
        "refusal": spread(call.seconds for call in refused),
        "refusals_without_retry_info": sum(not call.retry_info for call in refused),
    }


def spread(values: Iterable[float | None]) -> dict[str, float] | None:
    """p50, p95 and p99, if there are any values."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    return {f"p{percent}": round(float(np.percentile(known, percent)), 5) for percent in (50, 95, 99)}


async def overload(clients: Clients, together: int, seconds: float) -> dict[str, Any]:
    """Goodput at 1, 2 and 4 times the knee, which is what a closed loop of so many clients reaches."""
    await closed_loop(clients, 2, min(2.0, seconds))  # warm
    start = time.monotonic()
    calls = await closed_loop(clients, together, seconds)
    knee = report(calls, time.monotonic() - start)
    found: dict[str, Any] = {"knee": knee, "loads": {}}
    for times in OVERLOADS:
        start = time.monotonic()
        calls = await open_loop(clients, times * knee["pages_per_s"], seconds)
        found["loads"][str(times)] = one = report(calls, time.monotonic() - start)
        one["goodput_of_knee"] = one["pages_per_s"] / knee["pages_per_s"]
    return found


def mismatches(before: dict[str, float], after: dict[str, float], calls: list[Call]) -> dict[str, Any]:
    """Where the server's counts of calls by status differ from the clients'.

    Calls that a client left itself have a status on the server that it never saw: they explain so many more there.
    """
    server = counted(before, after)
    own = Counter(call.code for call in calls if not left(call))
    gone = sum(left(call) for call in calls)
    different = {code: server[code] - own[code] for code in own if server[code] < own[code]}
    if (more := server.total() - own.total()) > gone:
        different["more than calls"] = more - gone
    return {"different": different, "left_by_client": gone, "server": dict(server), "clients": dict(own)}


def counted(before: dict[str, float], after: dict[str, float]) -> Counter[str]:
    """Calls by status that the server has counted between two looks at its metrics."""
    found: Counter[str] = Counter()
    for name, value in after.items():
        if name.startswith("colorflow_requests_total") and (grown := int(value - before.get(name, 0.0))):
            found[name.partition('code="')[2].partition('"')[0]] += grown
    return found


def left(call: Call) -> bool:
    """The client went before it had a status of the server's."""
    return call.code in ("LOST", "CANCELLED") or call.kind == "vanish"


def picture(found: dict[str, Any], path: Path) -> None:
    """Goodput and times over the load."""
    loads = {float(times): one for times, one in found["loads"].items()}

    def line(of: str, percentile: str) -> list[tuple[float, float]]:
        return [(x, max(1e-4, one[of][percentile])) for x, one in loads.items() if one[of]]

    goodput = {"pages/s done": [(x, one["pages_per_s"]) for x, one in loads.items()]}
    goodput["pages/s refused"] = [
        (x, one["refused"] / one["calls"] * x * found["knee"]["pages_per_s"]) for x, one in loads.items()
    ]
    times = {f"{of}, {p}": line(of, p) for of in ("page", "first_preview") for p in ("p50", "p99")}
    refusals = {f"refusal, {p}": line("refusal", p) for p in ("p50", "p99")}
    panels = [
        Panel("goodput", "load (1: the knee)", goodput),
        Panel(
            "seconds of finished pages",
            "load (1: the knee)",
            {name: points for name, points in times.items() if points},
            log=True,
        ),
    ]
    if all(refusals.values()):
        panels.append(Panel("seconds of refusals", "load (1: the knee)", refusals, log=True))
    draw(path, [panels])


async def run(options: argparse.Namespace) -> dict[str, Any]:
    """What the command line asks for."""
    kinds = {kind: getattr(options, kind) for kind in KINDS[1:]}
    tokens = tuple(line.split()[1] for line in options.tokens.read_text().splitlines()) if options.tokens else ()
    plan = Plan(tuple(options.steps), options.preview_every, kinds, options.timeout, tokens, tuple(options.size))
    clients = Clients(options.server, plan, options.seed)
    before = scrape(options.metrics) if options.metrics else {}
    start = time.monotonic()
    try:
        if options.overload:
            found = await overload(clients, options.together, options.seconds)
        else:
            loop = (
                open_loop(clients, options.rate, options.seconds)
                if options.rate
                else closed_loop(clients, options.together, options.seconds)
            )
            await loop
            found = report(clients.calls, time.monotonic() - start)
    finally:
        await clients.close()
    if options.metrics:
        await asyncio.sleep(2)  # calls that clients have left end a moment later
        found["metrics"] = mismatches(before, scrape(options.metrics), clients.calls)
    if options.calls:
        lines = "".join(json.dumps(record(call)) + "\n" for call in clients.calls[:KEPT_CALLS])
        atomic_write(options.calls, lines.encode())
    return found | {"server": options.server, "hardware": hardware()}


def main() -> int:
    """Run the load, write the report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--server", required=True)
    parser.add_argument("--json", type=Path, required=True, help="report to write")
    parser.add_argument("--calls", type=Path, help="file for a JSON line of each call, with its request id")
    parser.add_argument("--picture", type=Path, help="PNG of an --overload")
    parser.add_argument("--metrics", help="URL of the server's metrics, to compare counts")
    parser.add_argument("--tokens", type=Path, help="the server's file of tokens: pages come from all of its clients")
    parser.add_argument("--overload", action="store_true")
    parser.add_argument("--rate", type=float, default=0.0, help="pages a second of an open loop; 0: closed loop")
    parser.add_argument("--together", type=int, default=8, help="clients of a closed loop")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--steps", type=int, nargs="+", default=[4])
    parser.add_argument("--preview-every", type=int, default=2)
    parser.add_argument("--timeout", type=float, default=0.0, help="deadline of a call, in seconds; 0: none")
    parser.add_argument("--size", type=int, nargs=2, default=[64, 96])
    parser.add_argument("--seed", type=int, default=0)
    for kind in KINDS[1:]:
        parser.add_argument(f"--{kind}", type=float, default=0.0, help="share of clients that do so")
    options = parser.parse_args()
    found = asyncio.run(run(options))
    atomic_write(options.json, (json.dumps(found, indent=1) + "\n").encode())
    if options.picture and options.overload:
        picture(found, options.picture)
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
