"""Goodput beyond the knee: `python benchmarks/reliability_overload.py --json FILE [--picture FILE]`

benchmarks/load.py --overload on a server of its own, on the fake engine (fake_server.py): the knee by a closed loop,
then 1, 2 and 4 times as many pages as that. Exit code 1 where at 2x fewer than 95 % of the knee's pages come back, a
refusal has no RetryInfo, p99 of refusals is over 20 ms, or the server counts other calls than the clients. A --json
that is there is the answer: the campaign is not made again.
"""

import argparse
import asyncio
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from campaign import load, save
from load import mismatches, overload, picture
from loadgen import Clients, Plan
from serverprocess import ServerProcess

REFUSAL_S = 0.020


async def measure(seconds: float, step_ms: float) -> dict[str, Any]:
    """The report of `load.overload`, with both sides' counts."""
    with tempfile.TemporaryDirectory() as folder:
        flags = ("--sets", f"{folder}/sets", "--max-queue", "16", "--max-calls", "1024")
        with ServerProcess(Path(folder) / "log", "fake", {"FAKE_STEP_MS": str(step_ms)}, *flags) as server:
            clients, before = Clients(server.address, Plan(steps=(4,), preview_every=2)), server.metrics()
            found = await overload(clients, 8, seconds)
            await clients.close()
            await asyncio.sleep(2)
            counts = mismatches(before, server.metrics(), clients.calls)
    return found | {"counts": counts, "step_ms": step_ms}


def main() -> int:
    """Measure once, print, judge."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=30.0, help="of each of the four loads")
    parser.add_argument("--step-ms", type=float, default=50.0)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    found = load(options.json, {})
    if "loads" not in found:
        found |= asyncio.run(measure(options.seconds, options.step_ms))
        save(options.json, found)
    if options.picture:
        picture(found, options.picture)
    print(json.dumps(found))
    twice = found["loads"]["2"]
    kept = twice["goodput_of_knee"] >= 0.95 and twice["refusals_without_retry_info"] == 0
    fast = twice["refusal"] is not None and twice["refusal"]["p99"] <= REFUSAL_S
    return int(not kept or not fast or bool(found["counts"]["different"]))


if __name__ == "__main__":
    sys.exit(main())
