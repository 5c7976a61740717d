"""What the server adds to a page: `python benchmarks/overhead.py --pack mini`

A server in a process of its own and a Colorizer in this one take the same page by turns, PNG in and PNG out, one at a
time, a reference set of the same pictures on both sides. The difference of the medians is what
gRPC, scheduler and threads cost; client and server share the cores. Stages of a second vary by more than that: their
own seconds are reported by both sides, and `outside_stages_p50_ms` is the same difference without them.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import grpc
from campaign import color_picture, gray_page
from colorflow_server.convert import FAST
from colorflow_server.pb import colorflow_pb2 as pb
from colorflow_server.pb.colorflow_pb2_grpc import ColorizerStub
from serverprocess import ServerProcess

from colorflow_rt.bench import hardware
from colorflow_rt.options import ColorizeOptions
from colorflow_rt.pipeline import Colorizer
from colorflow_rt.pixels import encode_png
from colorflow_rt.references import ReferenceSet


def main() -> int:
    """Measure, print a line of JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pack", default="mini")
    parser.add_argument("--pages", type=int, default=100)
    parser.add_argument("--steps", type=int, default=10)
    options = parser.parse_args()
    page = encode_png(gray_page()[..., None].repeat(3, axis=2))
    pictures = [encode_png(color_picture(seed)) for seed in range(3)]
    colorizer = Colorizer(options.pack)
    choice = ColorizeOptions(steps=options.steps, style="gray")
    times: dict[str, list[float]] = {"in_process": [], "server": [], "in_process_stages": [], "server_stages": []}
    with tempfile.TemporaryDirectory() as folder:
        pool = ReferenceSet.create("set", Path(folder) / "own")
        pool.add([(f"{number}.png", picture) for number, picture in enumerate(pictures)])
        log, flags = Path(folder) / "log", ("--sets", f"{folder}/sets", "--slots", "1")
        with (
            ServerProcess(log, options.pack, {"FAKE_STEP_MS": "0"}, *flags) as server,
            grpc.insecure_channel(server.address) as channel,
        ):
            stub = ColorizerStub(channel)
            stub.AddReferences(iter(_additions(pictures)))
            request = pb.ColorizeRequest(page=pb.Image(encoded=page), reference_set="set")
            request.options.steps, request.options.style = options.steps, pb.STYLE_GRAY
            for number in range(options.pages + 3):
                start = time.perf_counter()
                own = colorizer.colorize(page, pool, choice)
                encode_png(own.image, level=FAST)
                middle = time.perf_counter()
                result = stub.Colorize(request).result
                end = time.perf_counter()
                stages = (sum(own.seconds.values()), sum(result.seconds.values()))
                if number >= 3:  # the first warm up
                    for name, seconds in zip(times, (middle - start, end - middle, *stages), strict=True):
                        times[name].append(1000 * seconds)
    median = {name: statistics.median(values) for name, values in times.items()}
    rest = {
        side: statistics.median(a - b for a, b in zip(times[side], times[f"{side}_stages"], strict=True))
        for side in ("in_process", "server")
    }
    found = {f"{name}_p50_ms": round(value, 3) for name, value in median.items()}
    found["overhead_p50_ms"] = round(median["server"] - median["in_process"], 3)
    found["outside_stages_p50_ms"] = round(rest["server"] - rest["in_process"], 3)
    print(json.dumps({"pack": options.pack, "pages": options.pages, **found, "hardware": hardware()}))
    return 0


def _additions(pictures: list[bytes]) -> list[pb.AddReferencesRequest]:
    target = pb.AddReferencesRequest(target=pb.AddTarget(set="set", create=True))
    return [
        target,
        *(pb.AddReferencesRequest(image=pb.Image(name=f"{i}.png", encoded=p)) for i, p in enumerate(pictures)),
    ]


if __name__ == "__main__":
    sys.exit(main())
