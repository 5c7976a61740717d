"""A stacked bar for each variant: seconds of a page by stage."""

from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

COLORS = {"vae_encode": "#7aa6c2", "denoise": "#2b5c8a", "vae_decode": "#c98f4e", "gsrp": "#8a4b2b"}
WIDTH, ROW, LEFT, TOP = 1100, 34, 380, 60


def draw(record: dict[str, Any], path: Path) -> None:
    """Write the plot of a record of `gpu.py` as PNG."""
    done = {name: v for name, v in record["variants"].items() if v and "seconds" in v}
    image = Image.new("RGB", (WIDTH, TOP + ROW * max(len(done), 1) + 30), "white")
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(15)
    longest = max((v["seconds"]["median"] for v in done.values()), default=1.0)
    where = record["device"]["gpu"] or "CPU"
    pen.text(
        (12, 10),
        f"seconds a page of {record['page'][0]}x{record['page'][1]}, {record['steps']} steps, {where}",
        "black",
        font,
    )
    x = LEFT
    for name, color in COLORS.items():
        pen.rectangle((x, 36, x + 12, 48), color)
        pen.text((x + 17, 33), name, "black", font)
        x += 140
    for i, (name, v) in enumerate(done.items()):
        y, x = TOP + ROW * i + 6, float(LEFT)
        pen.text((12, y + 2), name[:48], "black", font)
        for stage, part in v["stages"].items():
            end = x + part["seconds"] / longest * (WIDTH - LEFT - 90)
            pen.rectangle((x, y, end, y + ROW - 10), COLORS[stage])
            x = end
        pen.text((x + 6, y + 2), f"{v['seconds']['median']:.3f} s", "black", font)
    image.save(path)
