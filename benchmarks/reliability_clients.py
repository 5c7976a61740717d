"""Clients that read nothing, and clients that are dead: `python benchmarks/reliability_clients.py --json FILE`

stalled  a process opens --clients streams, sends a page of 512x768 with a preview at each step on each, and reads
         nothing after "accepted": what the server's resident memory grows by for each, once its pages are done
dead     that process is stopped (SIGSTOP: its connection stays, nobody answers): seconds until the server has ended its
         calls, with --keepalive-s as configured and as long again for the answer to a ping

Fake engine (fake_server.py). Exit code 1 where a client costs more than 8 MiB, a dead one is noticed later than three
times --keepalive-s, or something is still held afterwards. A --json that is there is the answer.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from campaign import color_picture, gray_page, load, save
from colorflow_server.client import Client
from colorflow_server.pb import colorflow_pb2 as pb
from colorflow_server.pb.colorflow_pb2_grpc import ColorizerStub
from serverprocess import ServerProcess

from colorflow_rt.options import ColorizeOptions
from colorflow_rt.pixels import encode_png

SIZE, STEPS, LIMIT_S = (512, 768), 20, 120.0
CAP_MIB = 8.0
OPEN = 'colorflow_num_requests_running{method="ColorizeSequence"}'


def stall(address: str, count: int) -> None:
    """The process of the clients: never ends by itself."""
    noise = np.random.default_rng(0).integers(0, 256, SIZE[::-1], np.uint8)  # a result larger than any window
    page, reference = encode_png(noise), encode_png(color_picture(1, SIZE))
    never = threading.Event()

    def kept_open(requests: list[Any]) -> Iterator[Any]:
        yield from requests
        never.wait()

    calls = []
    for number in range(count):
        stub: Any = ColorizerStub(grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]))
        start = pb.SequenceStart(options=pb.ColorizeOptions(steps=STEPS, preview_every=1, seed=number))
        requests = [
            pb.ColorizeSequenceRequest(start=start),
            pb.ColorizeSequenceRequest(reference=pb.Image(encoded=reference)),
            pb.ColorizeSequenceRequest(page=pb.SequencePage(id="page", image=pb.Image(encoded=page))),
        ]
        calls.append(stub.ColorizeSequence(kept_open(requests)))
        next(calls[-1])
    print("accepted", flush=True)
    time.sleep(3600)


def measure(count: int, keepalive_s: float) -> dict[str, Any]:
    """MiB that each stalled client costs, and seconds until dead ones are gone."""
    with tempfile.TemporaryDirectory() as folder:
        flags = ("--keepalive-s", str(keepalive_s), "--sets", f"{folder}/sets", "--max-queue", str(count))
        with ServerProcess(Path(folder) / "log", "fake", {"FAKE_STEP_MS": "2"}, *flags) as server:
            with Client(server.address) as client:  # what the first pages need stays
                warm = [gray_page(seed, SIZE) for seed in range(20)]
                list(client.colorize_sequence(warm, [("one", color_picture(1, SIZE))], ColorizeOptions(steps=STEPS)))
            before = server.rss_mb()
            command = [sys.executable, __file__, "--child", server.address, "--clients", str(count)]
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
                try:
                    assert child.stdout is not None
                    child.stdout.readline()
                    _until(lambda: server.metrics()["colorflow_num_pages_running"] == 0, "pages run on")
                    time.sleep(1)
                    each, opened = (server.rss_mb() - before) / count, server.metrics()[OPEN]
                    os.kill(child.pid, signal.SIGSTOP)
                    noticed = _until(lambda: server.metrics()[OPEN] == 0, "calls of a dead client stay")
                finally:
                    child.kill()
            time.sleep(1)
            after = server.metrics()
            held = {name: after[f"colorflow_{name}"] for name in ("num_pages_running", "num_pages_waiting")}
    return {
        "clients": count,
        "open": opened,
        "mib_each": round(each, 2),
        "keepalive_s": keepalive_s,
        "dead_noticed_s": round(noticed, 2),
        "held": held,
    }


def _until(done: Callable[[], bool], otherwise: str) -> float:
    """Seconds that it took; SystemExit after LIMIT_S."""
    start = time.monotonic()
    while not done():
        if time.monotonic() - start > LIMIT_S:
            raise SystemExit(f"error: {otherwise} after {LIMIT_S:g} s")
        time.sleep(0.05)
    return time.monotonic() - start


def main() -> int:
    """Measure once, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--keepalive-s", type=float, default=2.0)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        stall(options.child, options.clients)
    if not options.json:
        parser.error("give --json FILE")
    found = load(options.json, {})
    if "clients" not in found:
        found |= measure(options.clients, options.keepalive_s)
        save(options.json, found)
    print(json.dumps(found))
    late = found["dead_noticed_s"] > 3 * found["keepalive_s"]
    return int(found["mib_each"] > CAP_MIB or late or any(found["held"].values()) or found["open"] < found["clients"])


if __name__ == "__main__":
    sys.exit(main())
