"""What the modes that are not exact save and cost: seconds of a page, and PSNR of the model's picture to the exact one.

python benchmarks/modes.py --pack mini
python benchmarks/modes.py --pack PACK --engines DIR --size 256x256     # with engines for guided and prompt
"""

import argparse
import json
import os
import platform
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median

import psutil
from colorflow_export.parity import demo_page

from colorflow_rt.cli.screen import print_table
from colorflow_rt.engine.onnx import available_threads
from colorflow_rt.metrics import psnr
from colorflow_rt.options import ColorizeOptions
from colorflow_rt.pack import Pack, open_pack
from colorflow_rt.pipeline import Colorizer
from colorflow_rt.result import Result

MARGINS = (0, 32, 64)  # pixels around the page that are decoded too


def modes(pack: Pack, exact: ColorizeOptions) -> Iterator[tuple[str, ColorizeOptions]]:
    """Name and options of each mode; guidance only where the model has text."""
    if pack.config.model.text_tokens:
        steps = exact.steps or pack.config.defaults.steps
        yield "no guidance (prompt)", replace(exact, guidance_scale=1.0)
        yield "no guidance (empty prompt)", replace(exact, guidance_scale=0.0)
        for share in (0.3, 0.5):
            first = max(1, round(share * steps))
            yield f"guidance in the first {first}", replace(exact, guidance_steps=first)
    for margin in MARGINS:
        yield f"decode the page and {margin} px", replace(exact, decode_margin=margin)


def measure(colorizer: Colorizer, size: tuple[int, int], options: ColorizeOptions, repeat: int) -> tuple[Result, float]:
    """The result and the median of its seconds, of `repeat` runs after one that warms up."""
    page, references = demo_page(size)
    pool = colorizer.references(references)
    results = [colorizer.colorize(page, pool, options) for _ in range(repeat + 1)]
    return results[-1], median(sum(result.seconds.values()) for result in results[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pack", default="mini")
    parser.add_argument("--engines", type=Path)
    parser.add_argument("--size", help="WxH of page and model (default: the pack's first)")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--repeat", type=int, default=3)
    given = parser.parse_args()
    pack = open_pack(given.pack, "auto", given.engines)
    width, height = map(int, given.size.split("x")) if given.size else pack.config.pages.sizes[0]
    exact = ColorizeOptions(steps=given.steps, size=(width, height))
    colorizer = Colorizer(pack)
    truth, seconds = measure(colorizer, (width, height), exact, given.repeat)
    rows = [("exact", f"{seconds:.3f}", "", "")]
    records = [{"mode": "exact", "seconds": seconds}]
    for name, options in modes(pack, exact):
        found, taken = measure(colorizer, (width, height), options, given.repeat)
        decibel = psnr(truth.model_image, found.model_image)
        rows.append((name, f"{taken:.3f}", f"{100 * (1 - taken / seconds):.1f} %", f"{decibel:.1f}"))
        records.append({"mode": name, "seconds": taken, "psnr_db": decibel})
    print_table(("mode", "s a page", "saved", "PSNR, dB"), rows, right=("s a page", "saved", "PSNR, dB"))
    machine = {"cpu": platform.processor() or platform.machine(), "threads": available_threads()}
    load = {"load": os.getloadavg()[0], "peak_mb": psutil.Process().memory_info().rss / 1e6}
    what = {"pack": pack.config.name, "size": [width, height], "steps": exact.steps or pack.config.defaults.steps}
    print(json.dumps(what | machine | load | {"modes": records}))


if __name__ == "__main__":
    main()
