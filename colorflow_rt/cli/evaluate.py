"""`colorflow evaluate`: how near the colours come to the truth, beside simple baselines."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from colorflow_rt.cli.parameters import Size, pack_option
from colorflow_rt.cli.screen import print_table, progress, shown

if TYPE_CHECKING:
    from colorflow_rt.evaluate import EvaluateOptions

PATH = click.Path(path_type=Path)


def _names(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    """A list with commas."""
    return tuple(name.strip() for name in value.split(",") if name.strip()) if value is not None else None


@click.command()
@click.argument("folder", metavar="DIR", type=PATH)
@pack_option
@click.option("--styles", metavar="S,S", callback=_names, help="Of gray, screentone, lineart; default: all.")
@click.option("--methods", metavar="M,M", callback=_names, help="Of the table's rows; default: all.")
@click.option("--limit", metavar="N", type=click.IntRange(1), help="Pages of each style, evenly of every chapter.")
@click.option("--json", "json_path", metavar="FILE", required=True, type=PATH, help="The record; beside it FILE.rows.")
@click.option("--html", metavar="DIR", type=PATH, help="A report to look at, with the contact sheets.")
@click.option("--steps", type=int, help="Denoising steps; default: the pack's.")
@click.option("--guidance", type=float, metavar="G", help="Classifier-free guidance; default: the pack's.")
@click.option("--size", type=Size(), help="Working size of the model; default: the pack's nearest in aspect.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the noise.")
@click.option("--fid-network", metavar="ONNX", type=PATH, help="Inception features, for FID.")
@click.option("--aesthetic-network", metavar="ONNX", type=PATH, help="A picture to its aesthetic score.")
def evaluate(folder: Path, json_path: Path, html: Path | None, **given: Any) -> None:
    """Measure a pack on the chapters in DIR, as `colorflow comics bench` writes them.

    PSNR, SSIM, CLIP-IS, FID, aesthetic score, identity, palette and lines of every method, a table for each style
    (docs/quality.md says what each figure is). A run may be stopped: what is measured is kept in FILE.rows, and the
    same command goes on from there. FID and aesthetic score need networks that are not bundled (--fid-network and
    --aesthetic-network: ONNX files; input float32 [B,3,S,S], RGB in 0..1, output a row of features or one score).
    """
    from colorflow_rt.evaluate.run import Evaluation
    from colorflow_rt.files import atomic_write

    _check_folder("--json", json_path.parent)
    evaluation = Evaluation(folder, _options(given), json_path.with_name(f"{json_path.name}.rows"))
    with progress("measuring", len(evaluation.pages)) as advance:
        evaluation.run(advance)
    record = evaluation.record()
    atomic_write(json_path, (json.dumps(record, indent=1) + "\n").encode())
    _print(record)
    _write_report(evaluation, record, json_path, html, lambda path: click.echo(shown(path)))
    click.echo(shown(json_path))


def _options(given: dict[str, Any]) -> EvaluateOptions:
    from colorflow_rt.context import STYLES
    from colorflow_rt.evaluate import METHODS, EvaluateOptions
    from colorflow_rt.options import ColorizeOptions

    colorize = ColorizeOptions(
        steps=given["steps"], guidance_scale=given["guidance"], size=given["size"], seed=given["seed"]
    )
    return EvaluateOptions(
        pack=given["pack"],
        styles=given["styles"] if given["styles"] is not None else STYLES,
        limit=given["limit"],
        methods=given["methods"] if given["methods"] is not None else METHODS,
        colorize=colorize,
        fid_network=given["fid_network"],
        aesthetic_network=given["aesthetic_network"],
    )


def _check_folder(option: str, folder: Path) -> None:
    if not folder.is_dir():
        raise click.UsageError(f"{option}: there is no folder {shown(folder)}")


def _print(record: dict[str, Any]) -> None:
    from colorflow_rt.evaluate.report import table_of

    for style, methods in record["styles"].items():
        ceiling = record["ceiling"][style]
        columns, rows = table_of(methods | ({"(true regions)": ceiling} if ceiling else {}))
        click.echo(f"{style}, {record['pages'][style]} pages")
        print_table(columns, rows, right=columns[1:])
        click.echo()
    for note in record["notes"]:
        click.echo(note)


def _write_report(
    evaluation: Any, record: dict[str, Any], json_path: Path, html: Path | None, say: Callable[[Path], None]
) -> None:
    """The contact sheets, in the report's folder or beside the record; and the report."""
    from colorflow_rt.errors import OutputError
    from colorflow_rt.evaluate.report import write_html, write_sheets

    if html is not None:
        try:
            html.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{html} cannot be made ({error.strerror}): choose another folder for --html") from error
    sheets = write_sheets(evaluation, html or json_path.parent, "" if html else f"{json_path.stem}_")
    for path in sheets if html is None else [write_html(record, sheets, html)]:
        say(path)
