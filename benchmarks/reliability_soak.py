"""Memory under load for a long time: `python benchmarks/reliability_soak.py --minutes 30 --json FILE`

A closed loop of clients, 30 % of which cancel at a step by chance, some stall, vanish or send garbage, against a server
on the fake engine (fake_server.py). Resident memory is sampled once a second; its slope over the pages served comes
from a line through the samples after the first tenth, its 95 % bound from blocks of a twentieth each, for neighbouring
samples are alike. A second, shorter run plants a leak of --leak KiB for each page and must find it. The first run's
upper bound has to stay under 10 % of the planted leak's slope. The server's counts of calls are compared with the
clients', those of calls that a client left by request id with the server's log. `--json` keeps finished runs: the same
command makes what is missing.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from campaign import load, save
from load import counted, left, report
from loadgen import Call, Clients, Plan, closed_loop
from scipy.stats import t as student
from serverprocess import ServerProcess

KINDS = {"cancel": 0.3, "stall": 0.01, "vanish": 0.01, "garbage": 0.03}
BLOCKS = 20


async def soak(minutes: float, leak_kib: int, together: int, seed: int) -> dict[str, Any]:
    """One run; samples of (pages that ended, KiB)."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {"FAKE_STEP_MS": "5", "FAKE_LEAK_KIB": str(leak_kib)}
        with ServerProcess(Path(folder) / "log", "fake", environment, "--sets", f"{folder}/sets") as server:
            clients, samples = Clients(server.address, Plan((4, 10), kinds=KINDS), seed), list[tuple[float, float]]()
            before = server.metrics()
            watcher = asyncio.create_task(_watch(server, clients, samples))
            start = time.monotonic()
            await closed_loop(clients, together, 60 * minutes)
            seconds = time.monotonic() - start
            watcher.cancel()
            await clients.close()
            await asyncio.sleep(2)
            after = server.metrics()
            counts = reconciled(before, after, clients.calls, server)
    held = {name: after[f"colorflow_{name}"] for name in ("num_slots_used", "num_pages_running", "num_pages_waiting")}
    found = report(clients.calls, seconds)
    return {"minutes": minutes, "leak_kib": leak_kib, **slope(samples), "held": held, "counts": counts, "load": found}


def reconciled(before: Any, after: Any, calls: list[Call], server: ServerProcess) -> dict[str, Any]:
    """The server's count of calls by status, less what its log has of calls that clients left, less the clients' own.

    different: what is left over, which is nothing where both sides agree on every call.
    """
    logged = {line["request_id"]: line["code"] for line in server.lines() if line["event"] == "call"}
    gone = [call for call in calls if left(call)]
    rest = counted(before, after)
    rest.subtract(logged[call.id] for call in gone if call.id in logged)
    rest.subtract(call.code for call in calls if not left(call))
    wrong = [call.id for call in calls if not left(call) and logged.get(call.id) != call.code]
    different = {code: count for code, count in rest.items() if count}
    return {"different": different, "left_by_client": len(gone), "wrong_in_log": len(wrong), "calls": len(calls)}


async def _watch(server: ServerProcess, clients: Clients, samples: list[tuple[float, float]]) -> None:
    while True:
        samples.append((float(len(clients.calls)), 1024 * server.rss_mb()))
        await asyncio.sleep(1)


def slope(samples: list[tuple[float, float]]) -> dict[str, Any]:
    """KiB a page, with the 95 % bounds, of a line through the means of blocks; the first tenth warms up."""
    known = samples[len(samples) // 10 :]
    blocks = [np.mean(block, axis=0) for block in np.array_split(np.array(known), min(BLOCKS, len(known)))]
    x, y = np.array([b[0] for b in blocks]), np.array([b[1] for b in blocks])
    middle = x - x.mean()
    found = float((middle * y).sum() / (middle**2).sum())
    rest = y - y.mean() - found * middle
    error = float(np.sqrt((rest**2).sum() / (len(x) - 2) / (middle**2).sum()))
    margin = float(student.ppf(0.95, len(x) - 2)) * error
    every = max(1, len(samples) // 200)
    return {"slope_kib": found, "upper_kib": found + margin, "lower_kib": found - margin, "samples": samples[::every]}


def main() -> int:
    """Both runs; exit code 1 where memory grows or the leak is not seen, or something is still held."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--control-minutes", type=float, default=10.0)
    parser.add_argument("--leak", type=int, default=64, help="KiB for each page of the control")
    parser.add_argument("--together", type=int, default=6)
    parser.add_argument("--json", type=Path, required=True)
    options = parser.parse_args()
    found = load(options.json, {})
    for name, minutes, leak in (("control", options.control_minutes, options.leak), ("soak", options.minutes, 0)):
        if name not in found:
            found[name] = asyncio.run(soak(minutes, leak, options.together, seed=len(found)))
            save(options.json, found)
    print(json.dumps({name: {k: v for k, v in found[name].items() if k != "samples"} for name in ("control", "soak")}))
    detected = found["control"]["lower_kib"] > 0
    small = found["soak"]["upper_kib"] < 0.1 * found["control"]["slope_kib"]
    held = any(value for name in ("control", "soak") for value in found[name]["held"].values())
    wrong = any(
        found[name]["counts"]["different"] or found[name]["counts"]["wrong_in_log"] for name in ("control", "soak")
    )
    print(f"leak detected: {detected}; upper bound under a tenth of it: {small}; held: {held}; counts differ: {wrong}")
    return int(not detected or not small or held or wrong)


if __name__ == "__main__":
    sys.exit(main())
