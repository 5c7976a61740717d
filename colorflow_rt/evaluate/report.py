"""What a person looks at: contact sheets of the best, median and worst pages, and a page of HTML."""

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from colorflow_rt.evaluate.chapters import BenchPage, read_rgb
from colorflow_rt.evaluate.rows import Row
from colorflow_rt.evaluate.run import Evaluation
from colorflow_rt.evaluate.summary import FIGURES
from colorflow_rt.files import atomic_write
from colorflow_rt.pixels import write_png
from colorflow_rt.sheet import Row as SheetRow
from colorflow_rt.sheet import Shot, contact_sheets

EACH = 3  # best, median and worst pages of a style
REFERENCES = 4  # shown of those on a page's canvas
COMPARED = "table"  # the baseline that stands beside ours
DIGITS = {"psnr": 2, "psnr_model": 2, "ssim": 4, "clip_is": 4, "line_ssim": 4}
HEADINGS = {
    "psnr": "PSNR, dB",
    "psnr_model": "before luminance, dB",
    "ssim": "SSIM",
    "clip_is": "CLIP-IS",
    "fid": "FID",
    "aesthetic": "aesthetic",
    "ciede2000_identity": "identity, CIEDE2000",
    "ciede2000_references": "to references, CIEDE2000",
    "palette": "palette",
    "line_ssim": "line SSIM",
}


def table_of(methods: Mapping[str, Mapping[str, float | None]]) -> tuple[list[str], list[list[str]]]:
    """Column names and rows of a style's table; figures that no method has are left out."""
    shown = [name for name in FIGURES if any(figures[name] is not None for figures in methods.values())]
    rows = [[method, *(number(figures[name], name) for name in shown)] for method, figures in methods.items()]
    return ["method", *(HEADINGS[name] for name in shown)], rows


def number(value: float | None, figure: str) -> str:
    """A figure as people read it; "-" for none."""
    return "-" if value is None else f"{value:.{DIGITS.get(figure, 2)}f}"


def write_sheets(evaluation: Evaluation, folder: Path, prefix: str = "") -> list[Path]:
    """PREFIXgray.png and so on: a style's best, median and worst pages by PSNR of ours, coloured again for it."""
    written = []
    for style in evaluation.options.styles:
        rows = [row for row in evaluation.rows() if row["style"] == style and "ours" in row["methods"]]
        if rows:
            path = folder / f"{prefix}{style}.png"
            shown = (_sheet_row(evaluation, title, row) for title, row in examples(rows))
            columns = ("page", "references used", "ours", "gray level to mean reference colour", "truth")
            write_png(path, next(contact_sheets(columns, shown, rows_per_sheet=3 * EACH)))
            written.append(path)
    return written


def examples(rows: Sequence[Row]) -> list[tuple[str, Row]]:
    """(title, row) of the best, median and worst pages; of few pages each once."""
    ranked = sorted(rows, key=lambda row: -row["methods"]["ours"]["psnr"])
    middle = max(0, len(ranked) // 2 - EACH // 2)
    places = {
        "best": range(EACH),
        "median": range(middle, middle + EACH),
        "worst": range(len(ranked) - EACH, len(ranked)),
    }
    chosen: dict[int, str] = {}
    for title, numbers in places.items():
        for place in numbers:
            if 0 <= place < len(ranked):
                chosen.setdefault(place, f"{title}, {place + 1} of {len(ranked)}")
    return [(chosen[place], ranked[place]) for place in sorted(chosen)]


def _sheet_row(evaluation: Evaluation, title: str, row: Row) -> SheetRow:
    page = _page_of(evaluation, row)
    painter = evaluation.painters[page.chapter]
    rgb = read_rgb(page.page)
    ours, other = painter.paint("ours", page, rgb), painter.paint(COMPARED, page, rgb)
    assert ours is not None and other is not None  # both need nothing but the chapter's own references
    names = list(dict.fromkeys(match.reference for match in sorted(ours.matches, key=lambda match: -match.similarity)))
    known = {reference.name: reference for reference in painter.pool.list()}
    references = [Shot(painter.pool.picture(known[name]).rgb, name) for name in names[:REFERENCES]]
    results = [
        [Shot(each.image, f"{row['methods'][name]['psnr']:.1f} dB" if name in row["methods"] else "")]
        for name, each in (("ours", ours), (COMPARED, other))
    ]
    painter.forget()
    return SheetRow(f"{title}: {page.name}", [[Shot(rgb)], references, *results, [Shot(read_rgb(page.truth))]])


def _page_of(evaluation: Evaluation, row: Row) -> BenchPage:
    wanted = (row["chapter"], row["style"], row["page"])
    return next(page for page in evaluation.pages if (page.chapter, page.style, page.page.stem) == wanted)


def write_html(record: Mapping[str, Any], sheets: Sequence[Path], folder: Path) -> Path:
    """index.html in `folder`, where the sheets are."""
    body = "".join(_html(record, sheets))
    style = (
        "body{font:16px/1.5 sans-serif;margin:2rem auto;max-width:84rem;padding:0 1rem;color:#141414}"
        "table{border-collapse:collapse}th,td{padding:.25rem .75rem;text-align:right;border-bottom:1px solid #ccc}"
        "th:first-child,td:first-child{text-align:left}tr.ours{font-weight:bold}img{max-width:100%}"
    )
    head = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>ColorFlow-Bench</title><style>{style}</style>'
    path = folder / "index.html"
    atomic_write(path, f"{head}{body}</html>\n".encode())
    return path


def _html(record: Mapping[str, Any], sheets: Sequence[Path]) -> Iterator[str]:
    pack, pages = record["pack"], ", ".join(f"{count} {style}" for style, count in record["pages"].items())
    yield "<h1>ColorFlow-Bench</h1>"
    yield _paragraph(
        f"Pack {pack['name']} {pack['version']}, {record['steps']} steps. {record['benchmark']}: "
        f"{record['chapters']} chapters, pages: {pages}."
    )
    for note in record["notes"]:
        yield _paragraph(note)
    by_style = {path.stem.rpartition("_")[2]: path for path in sheets}
    for style, methods in record["styles"].items():
        ceiling = record["ceiling"][style]
        yield f"<h2>{escape(style)}</h2>" + _table(
            *table_of(methods | ({"(true regions)": ceiling} if ceiling else {}))
        )
        truth = record["details"][style].get("truth")
        if truth and truth["ciede2000_between_pages"] is not None:
            yield _paragraph(
                f"The truth's own floor: between pages {truth['ciede2000_between_pages']:.2f}, "
                f"to references {number(truth['ciede2000_references'], '')} CIEDE2000."
            )
        if style in by_style:
            name, what = escape(by_style[style].name), f"best, median and worst pages, {escape(style)}"
            yield f'<p><img src="{name}" alt="{what}"></p>'


def _paragraph(text: str) -> str:
    return f"<p>{escape(text)}</p>"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    lines = (
        f"<tr{' class=ours' if row[0] == 'ours' else ''}>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>"
        for row in rows
    )
    return f"<table><tr>{head}</tr>{''.join(lines)}</table>"
