"""Seconds of a page on the device at hand, by stage, TFLOP/s and share of its peak: `benchmarks/gpu.sh` runs this.

SD 1.5's networks with random weights, a canvas of 1024x1600, 10 steps: the reference procedure in eager PyTorch and
under torch.compile, and ours in both, with CUDA graphs, and without guidance; engines that `colorflow-export
build-engines` made (--engines, may be repeated); float16 against float32 for every graph. What does not fit into
--budget seconds or cannot run here is named with the reason. Results go to FILE.json and FILE.png after each variant:
a run that is cut short keeps what it had. --small --device cpu: tiny networks, to test this script.
"""

import argparse
import json
import platform
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from gpu_engines import engine_stages
from gpu_networks import Size, Stage, flops, stages
from gpu_plot import draw
from torch import Tensor, nn

GOALS = "goals on an H200: 1.2 s a page with guidance, 0.8 s without, 2.5x eager, 1.4x torch.compile, under 8 GB"


class Device:
    """Where it runs, and its clock. Each mark is a point in the device's own work."""

    def __init__(self, name: str) -> None:
        self.name, self.cuda = name, name == "cuda"

    def synchronize(self) -> None:
        if self.cuda:
            torch.cuda.synchronize()

    def mark(self) -> Any:
        if not self.cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def between(self, first: Any, second: Any) -> float:
        """Seconds; after `synchronize`."""
        return first.elapsed_time(second) / 1e3 if self.cuda else second - first

    def peak(self, size: int) -> float:
        """TFLOP/s of a float16 (on a CPU float32) matrix product of random numbers, the best of ten."""
        a = torch.randn(size, size, device=self.name, dtype=torch.float16 if self.cuda else torch.float32)
        times = []
        for _ in range(10):
            first = self.mark()
            a @ a
            second = self.mark()
            self.synchronize()
            times.append(self.between(first, second))
        return 2 * size**3 / min(times) / 1e12

    def describe(self) -> dict[str, Any]:
        gpu = torch.cuda.get_device_name() if self.cuda else None
        return {"gpu": gpu, "torch": torch.__version__, "cuda": torch.version.cuda, "system": platform.platform()}


def page(device: Device, work: list[Stage], inputs: dict[str, Tensor]) -> dict[str, float]:
    """Seconds of one page by stage."""
    marks = [device.mark()]
    for stage in work:
        for _ in range(stage.count):
            stage.run(inputs)
        marks.append(device.mark())
    device.synchronize()
    return {stage.name: device.between(*marks[i : i + 2]) for i, stage in enumerate(work)}


@torch.inference_mode()
def measure(
    device: Device, work: list[Stage], inputs: dict[str, Tensor], tflop: dict[str, float], peak: float, repeat: int
) -> Any:
    """The record of one variant: what a page takes, after runs that warm up (and compile)."""
    if device.cuda:
        torch.cuda.reset_peak_memory_stats()
    started = time.perf_counter()
    for stage in work:
        for _ in range(2):
            stage.run(inputs)
    device.synchronize()
    warm = time.perf_counter() - started
    runs = [page(device, work, inputs) for _ in range(repeat)]
    totals = [sum(run.values()) for run in runs]
    by_stage = {name: median(run[name] for run in runs) for name in runs[0]}
    return {
        "seconds": {"median": median(totals), "p95": float(np.percentile(totals, 95)), "warm_up": warm},
        "stages": {
            name: {"seconds": s, "tflop": tflop[name], "tflops": tflop[name] / s, "share": tflop[name] / s / peak}
            for name, s in by_stage.items()
        },
        "tflops": sum(tflop.values()) / median(totals),
        "share": sum(tflop.values()) / median(totals) / peak,
        "memory_gb": torch.cuda.max_memory_allocated() / 1e9 if device.cuda else None,
    }


def graphed(stage: Stage, inputs: dict[str, Tensor]) -> Stage:
    """The stage as one CUDA graph, replayed on the same inputs."""
    side = torch.cuda.Stream()
    with torch.inference_mode():
        with torch.cuda.stream(side):
            for _ in range(3):
                stage.run(inputs)
        side.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            stage.run(inputs)
    return Stage(stage.name, lambda *_: graph.replay(), stage.feeds, stage.count)


def compiled(net: nn.Module) -> Any:
    return torch.compile(net, dynamic=False)


@torch.inference_mode()
def precision(device: Device, size: Size, inputs: dict[str, Tensor]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every graph in float16 against float32 (TF32 off): relative and largest error, cosine, PSNR, all finite."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    exact = stages(size.networks(device.name), "ours", 1)
    short = stages(size.networks(device.name, torch.float16), "ours", 1)
    for first, second in zip(exact, short, strict=True):
        truth, found = (_last(stage.run(inputs)).double() for stage in (first, second))
        error = (found - truth).norm()
        yield (
            first.name,
            {
                "relative": float(error / truth.norm()),
                "largest": float((found - truth).abs().max()),
                "cosine": float((found * truth).sum() / (found.norm() * truth.norm())),
                "psnr_db": float(20 * torch.log10(truth.abs().max() * truth.numel() ** 0.5 / error)),
                "finite": bool(found.isfinite().all()),
            },
        )


def _last(result: Any) -> Tensor:
    return result[-1] if isinstance(result, tuple) else result


Make = Callable[[], list[Stage]]


def variants(
    device: Device, size: Size, steps: int, inputs: dict[str, Tensor], compiling: bool
) -> dict[str, tuple[str, Make]]:
    """By name: whose procedure (for counting), and what makes its stages. The most telling ones first."""
    dtype = torch.float16 if device.cuda else torch.float32

    def eager(procedure: str) -> Make:
        return lambda: stages(size.networks(device.name, dtype), procedure, steps)

    def fast(procedure: str) -> Make:
        return lambda: stages(size.networks(device.name, dtype), procedure, steps, compiled)

    def replayed(procedure: str) -> Make:
        return lambda: [graphed(stage, inputs) for stage in fast(procedure)()]

    found = {"reference, eager": ("reference", eager("reference")), "ours, eager": ("ours", eager("ours"))}
    if compiling:
        found |= {"ours, torch.compile": ("ours", fast("ours"))}
        found |= {"reference, torch.compile": ("reference", fast("reference"))}
    if compiling and device.cuda:
        found |= {"ours, torch.compile, CUDA graphs": ("ours", replayed("ours"))}
        found |= {"ours, no guidance, torch.compile, CUDA graphs": ("unguided", replayed("unguided"))}
    return found | {"ours, no guidance, eager": ("unguided", eager("unguided"))}


class Run:
    """Collects results, writes them after each, and leaves out what would not end in time."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.device, self.options = Device(options.device), options
        self.size = Size(tuple(options.page or ((32, 32) if options.small else (512, 800))), options.small)
        self.ends = time.monotonic() + options.budget
        self.record: dict[str, Any] = {"device": self.device.describe(), "page": self.size.page, "steps": options.steps}
        self.record |= {"small": options.small, "goals": GOALS, "variants": {}, "precision": {}}

    def all(self) -> dict[str, Any]:
        self.record["peak_tflops"] = peak = self.device.peak(512 if self.options.small else 8192)
        inputs = self.size.inputs(self.device.name)
        counts = {name: flops(self.size, name, self.options.steps) for name in ("reference", "ours", "unguided")}
        self.record["tflop"] = counts
        wanted = variants(self.device, self.size, self.options.steps, inputs, self.options.compile)
        makes = {name: (counts[procedure], make) for name, (procedure, make) in wanted.items()}
        for folder in self.options.engines:
            makes |= dict(engine_stages(folder, self.size.page, self.options.steps))
        for name, (tflop, make) in makes.items():
            self.one(
                name, lambda make=make, t=tflop: measure(self.device, make(), inputs, t, peak, self.options.repeat)
            )
        self.one("precision", lambda: self.record["precision"].update(precision(self.device, self.size, inputs)))
        return self.record

    def one(self, name: str, work: Callable[[], Any]) -> None:
        """Run it if there is time; what goes wrong is its result."""
        left = self.ends - time.monotonic()
        started = time.monotonic()
        if left < self.options.reserve:
            found: Any = {"skipped": f"{left:.0f} s were left of {self.options.budget:g}"}
        else:
            try:
                found = work()
            except Exception as error:  # out of memory, a backend that is not here: the others go on
                found = {"skipped": " ".join(f"{type(error).__name__}: {error}".split())[:300]}
        if self.device.cuda:
            torch.cuda.empty_cache()
        if name != "precision" or found is not None:
            self.record["variants"][name] = found
        print(f"{name}: {_line(found)} ({time.monotonic() - started:.0f} s)", flush=True)
        self.write()

    def write(self) -> None:
        self.options.out.parent.mkdir(parents=True, exist_ok=True)
        self.options.out.with_suffix(".json").write_text(json.dumps(self.record) + "\n")
        draw(self.record, self.options.out.with_suffix(".png"))


def _line(found: Any) -> str:
    if not found or "seconds" not in found:
        return (found or {}).get("skipped", "done")
    parts = ", ".join(f"{name} {stage['seconds']:.3f}" for name, stage in found["stages"].items())
    memory = f", {found['memory_gb']:.1f} GB" if found["memory_gb"] else ""
    speed = f"{found['tflops']:.1f} TFLOP/s, {found['share']:.0%} of the peak"
    return f"{found['seconds']['median']:.3f} s a page ({parts}), {speed}{memory}"


def _table(record: dict[str, Any]) -> str:
    done = {name: v for name, v in record["variants"].items() if "seconds" in v}
    base = done.get("reference, eager", {}).get("seconds", {}).get("median")
    lines = [f"{'variant':46} {'s a page':>9} {'p95':>7} {'to eager':>9} {'TFLOP/s':>8} {'of peak':>8}"]
    for name, v in done.items():
        s, ratio = v["seconds"], f"{base / v['seconds']['median']:.2f}x" if base else ""
        lines.append(f"{name:46} {s['median']:9.3f} {s['p95']:7.3f} {ratio:>9} {v['tflops']:8.1f} {v['share']:8.0%}")
    lines += [f"{name:46} not run: {v['skipped']}" for name, v in record["variants"].items() if "skipped" in v]
    for name, v in record["precision"].items():
        lines.append(
            f"float16 of {name:12} relative {v['relative']:.2e}, PSNR {v['psnr_db']:.1f} dB, finite {v['finite']}"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--page", type=int, nargs=2, metavar=("W", "H"), help="default 512 800; with --small 32 32")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--repeat", type=int, default=5, help="measured pages of each variant")
    parser.add_argument("--no-compile", dest="compile", action="store_false", help="leave torch.compile out")
    parser.add_argument("--engines", type=Path, action="append", default=[], metavar="DIR")
    parser.add_argument("--budget", type=float, default=540, metavar="SECONDS")
    parser.add_argument("--reserve", type=float, default=60, help="seconds that a variant must have left to be begun")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/gpu"), metavar="FILE")
    record = Run(parser.parse_args()).all()
    print(_table(record))
    print(json.dumps(record))


if __name__ == "__main__":
    main()
