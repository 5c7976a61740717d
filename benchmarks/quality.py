"""The figures of docs/quality.md: `table` measures the pack beside the baselines, `ablations` what each part is worth.

    python benchmarks/quality.py table              # 30 chapters; --limit 90 is a share of it
    python benchmarks/quality.py ablations          # --mu 0=DIR --mu 3=DIR: packs of trainings with another shift
    python benchmarks/quality.py curve              # the training so far, from benchmarks/training.json

The first two write their parts of docs/quality.md, all write their pictures. The benchmark is drawn when it is not
there. What is measured is kept in the state folder: a command that was stopped goes on. `--no-docs` only prints.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import charts
import click
from PIL import Image
from rich.progress import Progress

from colorflow_rt.comics import BENCHMARK_SEED, write_chapters
from colorflow_rt.evaluate import METHODS, EvaluateOptions
from colorflow_rt.evaluate.methods import OURS
from colorflow_rt.evaluate.report import number, table_of, write_sheets
from colorflow_rt.evaluate.run import Evaluation
from colorflow_rt.files import atomic_path, atomic_write
from colorflow_rt.options import ColorizeOptions
from colorflow_rt.pack import open_pack

HERE = Path(__file__).resolve().parent
DOCS = HERE.parent / "docs"
CHAPTERS, PAGES, REFERENCES, SIZE = 30, 50, 40, (512, 768)
STEPS = (2, 4, 6, 10, 20)
GUIDANCE = (1.0, 2.0, 4.0, 7.5)
SCALES = (0.5, 0.75, 1.0, 1.5)  # of the pack's working sizes
Figures = Mapping[str, Mapping[str, Mapping[str, float | None]]]  # style -> method -> figure


class Setting(NamedTuple):
    """One row of the ablations: what is varied, its value on the axis, how it is called, and how it is measured."""

    what: str
    value: float
    name: str
    options: EvaluateOptions


@click.group()
def quality() -> None:
    """Remake the figures of docs/quality.md."""


def _common(command: Any) -> Any:
    for option in (
        click.option("--pack", default="mini", show_default=True),
        click.option("--bench", type=click.Path(path_type=Path), default=".quality/bench", show_default=True),
        click.option("--state", type=click.Path(path_type=Path), default=".quality", show_default=True),
        click.option("--docs/--no-docs", default=True, help="Write the tables and pictures of docs/quality.md."),
    ):
        command = option(command)
    return command


@quality.command()
@_common
@click.option("--limit", type=click.IntRange(1), help="Pages of each style; default: all of them.")
@click.option("--steps", type=int, help="Default: the pack's.")
def table(pack: str, bench: Path, state: Path, docs: bool, limit: int | None, steps: int | None) -> None:
    """Every method on the benchmark, the bar of issue 5, and the contact sheets."""
    _draw_benchmark(bench)
    evaluation = _evaluation(bench, EvaluateOptions(pack, limit=limit, colorize=ColorizeOptions(steps=steps)), state)
    record = _measured(evaluation, "table")
    atomic_write(state / "table.json", (json.dumps(record, indent=1) + "\n").encode())
    tables, bar = "\n\n".join(_tables(record)), _bar(record, _ablated(state))
    click.echo(f"{tables}\n\n{bar}")
    if docs:
        pictures = [_for_docs(sheet) for sheet in write_sheets(evaluation, state, "quality_")]
        shown = "\n\n".join(f"![Best, median and worst pages]({picture.name})" for picture in pictures)
        _fill("table", f"{_measured_on(record)}\n\n{tables}\n\n{shown}")
        _fill("bar", bar)


@quality.command()
@_common
@click.option("--limit", type=click.IntRange(1), default=30, show_default=True, help="Pages of each style.")
@click.option("--mu", multiple=True, metavar="MU=PACK", help="A pack that was trained with this timestep shift.")
def ablations(pack: str, bench: Path, state: Path, docs: bool, limit: int, mu: Sequence[str]) -> None:
    """What retrieval, super-resolution, steps, guidance, resolution and timestep shift are worth."""
    _draw_benchmark(bench)
    found: list[tuple[Setting, dict[str, Any]]] = []
    for setting in _settings(pack, limit, mu):
        record = _measured(_evaluation(bench, setting.options, state), setting.name)
        found.append((setting, record))
    rows = [{"what": s.what, "value": s.value, "name": s.name, "styles": r["styles"]} for s, r in found]
    atomic_write(state / "ablations.json", (json.dumps(rows, indent=1) + "\n").encode())
    text = f"{_measured_on(found[0][1])}\n\n{_ablation_table(rows)}"
    click.echo(text)
    if docs:
        charts.draw(DOCS / "quality_ablations.png", [_panels(rows)])
        _fill("ablations", f"{text}\n\n![Gain over the gray page](quality_ablations.png)")


@quality.command()
def curve() -> None:
    """The training of the bundled weights, as it was measured under way (benchmarks/training.json)."""
    trained = json.loads((HERE / "training.json").read_text())
    phases = {"mean": "one step from T", "noise": "ten steps", "own": "ten steps"}
    gained, wrong = dict[str, list[tuple[float, float]]](), dict[str, list[tuple[float, float]]]()
    for point in trained["denoiser"]:
        thousands = point["steps"] / 1000
        gained.setdefault(phases[point["phase"]], []).append((thousands, point["psnr"] - point["gray_page"]))
        gained.setdefault("lookup table", []).append((thousands, point["table"] - point["gray_page"]))
        for style in ("gray", "lineart"):
            if style in point["wrong"]:
                wrong.setdefault(style, []).append((thousands, point["wrong"][style]))
    along = "thousand steps of 8 samples"
    panels = [charts.Panel("dB above the gray page (128x192)", along, gained)]
    panels.append(charts.Panel("share of chroma's energy that is wrong", along, wrong))
    told = {
        style: [(point["steps"] / 1000, point[style]) for point in trained["parts"]] for style in ("gray", "lineart")
    }
    panels.append(charts.Panel("dB with colours looked up by parts (512x768)", "thousand steps of 2 chapters", told))
    charts.draw(DOCS / "quality_training.png", [panels])


def _for_docs(sheet: Path) -> Path:
    """A contact sheet as a JPEG in docs, small enough to keep."""
    path = DOCS / f"{sheet.stem}.jpg"
    with Image.open(sheet) as picture, atomic_path(path) as temporary:
        picture.reduce(4 if picture.height > 8000 else 2).save(temporary, "JPEG", quality=82)
    return path


def _draw_benchmark(bench: Path) -> None:
    """Once; where it was stopped it goes on. A benchmark that somebody else has put there is taken as it is."""
    unfinished = bench.with_name(f"{bench.name}.unfinished")
    if any(bench.glob("*/truth")) and not unfinished.exists():
        return
    numbers = {"chapters": CHAPTERS, "pages": PAGES, "references": REFERENCES, "seed": BENCHMARK_SEED}
    unfinished.parent.mkdir(parents=True, exist_ok=True)
    unfinished.touch()
    with Progress() as progress:
        bar = progress.add_task("drawing", total=CHAPTERS * (PAGES + REFERENCES))
        write_chapters(bench, **numbers, size=SIZE, progress=lambda done, total: progress.update(bar, completed=done))
    unfinished.unlink()


def _evaluation(bench: Path, options: EvaluateOptions, state: Path) -> Evaluation:
    state.mkdir(parents=True, exist_ok=True)
    return Evaluation(bench, options, state / "rows")


def _measured(evaluation: Evaluation, name: str) -> dict[str, Any]:
    with Progress() as progress:
        bar = progress.add_task(name, total=len(evaluation.pages))
        evaluation.run(lambda line: progress.advance(bar))
    return evaluation.record()


def _settings(pack: str, limit: int, mu: Sequence[str]) -> Iterator[Setting]:
    config = open_pack(pack).config
    plain = EvaluateOptions(pack, limit=limit, methods=("ours",), ceiling=False)
    yield Setting("parts", 0, "parts", replace(plain, methods=(*OURS, "gray_page", "table")))
    for steps in STEPS:
        yield Setting("steps", steps, f"{steps} steps", replace(plain, colorize=ColorizeOptions(steps=steps)))
    for guidance in GUIDANCE if config.model.text_tokens else ():
        options = replace(plain, colorize=ColorizeOptions(guidance_scale=guidance))
        yield Setting("guidance", guidance, f"guidance {guidance:g}", options)
    width, height = config.pages.sizes[0]
    for size in [_multiple((scale * width, scale * height), config.pages.multiple) for scale in SCALES]:
        options = replace(plain, colorize=ColorizeOptions(size=size))
        yield Setting("working width", size[0], f"{size[0]}x{size[1]}", options)
    for value, other in (entry.split("=", 1) for entry in mu):
        yield Setting("timestep shift", float(value), f"mu {value}", replace(plain, pack=other))


def _multiple(size: tuple[float, float], multiple: int) -> tuple[int, int]:
    width, height = (max(multiple, round(side / multiple) * multiple) for side in size)
    return width, height


def _measured_on(record: Mapping[str, Any]) -> str:
    hardware, pack = record["hardware"], record["pack"]
    pages = ", ".join(f"{count} {style}" for style, count in record["pages"].items())
    return (
        f"Pack {pack['name']} {pack['version']}, {record['steps']} steps; {record['chapters']} chapters, "
        f"pages: {pages}; CLIP-IS by {record['clip_is_tower']}; {hardware['cpu']}, "
        f"ONNX Runtime {hardware['onnxruntime']}."
    )


def _tables(record: Mapping[str, Any]) -> Iterator[str]:
    for style, methods in record["styles"].items():
        ceiling = record["ceiling"][style]
        columns, rows = table_of(methods | ({"(true regions)": ceiling} if ceiling else {}))
        yield f"### {style}\n\n{_markdown(columns, rows)}"
        details = record["details"][style]
        shown = ("pages", "line_recall", "ciede2000_between_pages", "ciede2000_references", "characters_within_12")
        lines = [[name, *(number(each[key], "ssim") for key in shown[1:])] for name, each in details.items()]
        yield _markdown(["", *shown[1:]], [line for line in lines if line[0] in ("ours", "table", "truth")])


def _markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---", *["---:"] * (len(columns) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _ablation_table(rows: Sequence[Mapping[str, Any]]) -> str:
    styles = list(rows[0]["styles"])
    lines = []
    for row in rows:
        methods = row["styles"][styles[0]]
        for method in methods:
            name = f"{row['name']}: {method}" if row["what"] == "parts" else row["name"]
            figures = (row["styles"][style].get(method, {}) for style in styles)
            cells = [number(each.get(key), key) for each in figures for key in ("psnr", "ciede2000_identity")]
            lines.append([name, *cells])
    return _markdown(["", *(f"{style}, {what}" for style in styles for what in ("dB", "identity"))], lines)


def _panels(rows: Sequence[Mapping[str, Any]]) -> list[charts.Panel]:
    """Gain over the gray page, dB, along everything that was varied."""
    parts: Figures = rows[0]["styles"]
    panels = []
    for what in dict.fromkeys(row["what"] for row in rows if row["what"] != "parts"):
        along = sorted((row for row in rows if row["what"] == what), key=lambda row: row["value"])
        lines = {
            style: [(row["value"], _db(row["styles"], style, "ours") - _db(parts, style, "gray_page")) for row in along]
            for style in parts
        }
        panels.append(charts.Panel("dB above the gray page", what, lines))
    return panels


def _ablated(state: Path) -> Figures | None:
    """The figures of 4 steps and of 10, if they are measured: {"4": styles, "10": styles} as one mapping."""
    path = state / "ablations.json"
    if not path.is_file():
        return None
    return {row["name"]: row["styles"] for row in json.loads(path.read_text()) if row["what"] == "steps"}


def _db(styles: Figures, style: str, method: str) -> float:
    found = styles[style][method]["psnr"]
    assert found is not None  # every method that is measured has it
    return found


def _bar(record: Mapping[str, Any], steps: Any) -> str:
    lines = [
        [what, f"{found:.2f}", wanted, "yes" if met else "**no**"]
        for what, found, wanted, met in _checks(record, steps)
    ]
    return _markdown(["the bar of issue 5", "found", "wanted", "met"], lines)


def _checks(record: Mapping[str, Any], steps: Any) -> Iterator[tuple[str, float, str, bool]]:
    styles, details = record["styles"], record["details"]

    def least(what: str, found: float, wanted: float) -> tuple[str, float, str, bool]:
        return what, found, f"at least {wanted:g}", found >= wanted

    def most(what: str, found: float, wanted: float) -> tuple[str, float, str, bool]:
        return what, found, f"at most {wanted:g}", found <= wanted

    ours = {style: _db(styles, style, "ours") for style in styles}
    if "gray" in styles:
        rest = [name for name in styles["gray"] if name in METHODS[1:6]]
        best = max(_db(styles, "gray", name) for name in rest)
        yield least("gray: dB above the table", ours["gray"] - _db(styles, "gray", "table"), 2.5)
        yield least("gray: dB above the best baseline", ours["gray"] - best, 0)
        yield least(
            "gray: dB lost to another chapter's references", ours["gray"] - _db(styles, "gray", "random_references"), 4
        )
        yield least("gray: share of characters within 12", details["gray"]["ours"]["characters_within_12"], 0.9)
        yield least("gray: line SSIM", styles["gray"]["ours"]["line_ssim"], 0.98)
    for style, wanted in (("screentone", 5), ("lineart", 6)):
        if style in styles:
            best = max(_db(styles, style, name) for name in ("gray_page", "table", "histogram", "mean_colour"))
            yield least(f"{style}: dB above the best of gray page, table, histogram, mean", ours[style] - best, wanted)
            yield least(f"{style}: recall of line pixels", details[style]["ours"]["line_recall"], 0.99)
    for style in styles:
        identity = styles[style]["ours"]["ciede2000_identity"]
        yield most(f"{style}: identity, CIEDE2000", identity, 8 if style == "gray" else 12)
    if steps:
        for style in styles:
            lost = _db(steps["10 steps"], style, "ours") - _db(steps["4 steps"], style, "ours")
            yield most(f"{style}: dB that 4 steps lose to 10", lost, 0.7)


def _fill(part: str, text: str) -> None:
    """Put `text` between <!-- part --> and <!-- /part --> of docs/quality.md."""
    page = DOCS / "quality.md"
    old = page.read_text()
    new, count = re.subn(
        rf"(<!-- {part} -->\n).*?(\n<!-- /{part} -->)", lambda m: m[1] + text + m[2], old, flags=re.DOTALL
    )
    if count != 1:
        raise SystemExit(f"{page} has {count} places for {part}, expected one")
    atomic_write(page, new.encode())


if __name__ == "__main__":
    quality()
