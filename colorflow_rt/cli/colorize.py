"""`colorflow colorize`: a chapter in, a coloured chapter out."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from colorflow_rt.cli.parameters import SERVER_OPTIONS, pack_option, server_options
from colorflow_rt.cli.screen import INTERRUPTED, print_notices
from colorflow_rt.errors import missing_extra

if TYPE_CHECKING:
    from colorflow_rt.cli.coloring import Painter
    from colorflow_rt.options import ColorizeOptions
    from colorflow_rt.pool import Pool

FOLDER = click.Path(path_type=Path)


@click.command()
@click.argument("inputs", metavar="INPUT...", nargs=-1, required=True, type=FOLDER)
@click.option("--refs", metavar="DIR", type=click.Path(exists=True, path_type=Path), help="Coloured references.")
@click.option("--set", "set_name", metavar="NAME", help="Or a reference set made by `colorflow refs add`.")
@click.option("--out", metavar="DIR", required=True, type=FOLDER, help="Folder for the results.")
@pack_option
@server_options
@click.option("--engine", default="auto", metavar="auto|onnx-cpu|onnx-cuda|tensorrt", help="What computes; see docs.")
@click.option("--engines", type=click.Path(exists=True, path_type=Path), metavar="DIR", help="Of build-engines --out.")
@click.option("--steps", type=int, help="Denoising steps; default: the pack's.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the noise; the same seed, the same bytes.")
@click.option("--guidance", type=float, metavar="G", help="Classifier-free guidance; default: the pack's.")
@click.option("--guidance-steps", type=int, metavar="K", help="Guidance in the first K steps only: faster, not exact.")
@click.option(
    "--guider-steps", type=int, metavar="N", help="Evaluate the guider in N of the steps; default: the pack's."
)
@click.option("--decode-margin", type=int, metavar="PX", help="Decode the page and PX around it: faster, not exact.")
@click.option("--style", default="auto", metavar="auto|gray|screentone|lineart", help="What the pages look like.")
@click.option("--context", default="auto", metavar="auto|page|blend", help="The page as the model sees it.")
@click.option("--fit", default="pad", metavar="pad|crop", help="pad loses nothing of a page; crop: the authors' demo.")
@click.option("--luminance", default="auto", metavar="auto|page|lines|model", help="Whose light and dark are kept.")
@click.option("--saturation", type=float, default=1.0, metavar="S", help="Factor on the colours, 0 to 2.")
@click.option("--pin", multiple=True, metavar="NAME", help="This reference (or tag) is on every canvas; repeatable.")
@click.option("--ban", multiple=True, metavar="NAME", help="This one on none; repeatable.")
@click.option("--approve", is_flag=True, help="Add each result to --set, as a reference for the pages after it.")
@click.option("--chroma-layer", is_flag=True, help="Write the colours alone too, as DIR/chroma/NAME.png (RGBA).")
@click.option("--sheet/--no-sheet", default=True, help="Write contact_sheet.png; on by default.")
@click.option("--force", is_flag=True, help="Do finished pages again; replace files that are not ours.")
@click.option(
    "--max-pixels", type=click.IntRange(min=256), default=100_000_000, show_default=True, help="Of a picture."
)
@click.option("--json", "report", metavar="FILE", type=FOLDER, help="Write what was done with each page.")
@click.pass_context
def colorize(
    ctx: click.Context, /, inputs: Sequence[Path], refs: Path | None, set_name: str | None, out: Path, **given: Any
) -> None:
    """Colour pages: files, or folders of them, in natural order (page2 before page10).

    Results are OUT/<name of the page>.png. Finished pages are skipped when the command runs again, unless the page,
    the references, the options or the weights have changed. Pages that are in colour already are copied and named.

    Exit code: 0, 1 if a page failed (the others are done), 2 for usage, 130 after Ctrl-C (run again to go on).
    """
    if (refs is None) == (set_name is None):
        raise click.UsageError("give the references: either --refs DIR or --set NAME")
    if given["approve"] and set_name is None:
        raise click.UsageError("--approve adds results to a reference set: give --set NAME instead of --refs")
    if refs is not None and refs.resolve() == out.resolve():
        raise click.UsageError("--out is the folder of the references: choose another folder for results")
    if given["server"] is None and (extra := [name for name in SERVER_OPTIONS[1:] if given[name] is not None]):
        raise click.UsageError(f"--{extra[0].replace('_', '-')} is about a server: give --server HOST:PORT with it")
    if given["server"] is not None and (given["engine"], given["engines"]) != ("auto", None):
        raise click.UsageError("--engine and --engines are about this machine: leave them out with --server")
    report = given["report"]
    if report is not None and not report.parent.is_dir():
        raise click.UsageError(f"--json {report}: there is no folder {report.parent}")
    ctx.exit(_colorize(inputs, refs, set_name, out, given))


def _colorize(inputs: Sequence[Path], refs: Path | None, set_name: str | None, out: Path, given: dict[str, Any]) -> int:
    from colorflow_rt.cli.coloring import FAILED, Chapter
    from colorflow_rt.cli.report import print_summary, write_report, write_sheets
    from colorflow_rt.errors import Cancelled
    from colorflow_rt.jobs import JobFolder, list_pages

    started = time.perf_counter()
    options, pages = _options(given), list_pages(inputs)
    with ExitStack() as stack:
        colorizer, pool = _open(stack, given, refs, set_name)
        folder = stack.enter_context(JobFolder.open(out))
        switches = {name: given[name] for name in ("force", "approve")}
        chapter = Chapter(pages, folder, colorizer, pool, options, **switches)
        ended = chapter.run()
        seconds = time.perf_counter() - started
        print_notices(pool)
        print_summary(chapter.outcomes, len(pages), out, seconds)
        if given["sheet"] and ended is None:
            write_sheets(out, chapter.outcomes, pool, colorizer.limits)
    failed = any(outcome.state == FAILED for outcome in chapter.outcomes)
    code = INTERRUPTED if isinstance(ended, Cancelled) else ended.exit_code if ended else int(failed)
    if given["report"]:
        write_report(given["report"], chapter.outcomes, out, seconds, code)
    if isinstance(ended, Cancelled):
        left = len(pages) - len(chapter.outcomes)
        click.echo(f"interrupted with {left} pages left: run the same command again to go on", err=True)
    elif ended:
        raise ended
    return code


def _open(stack: ExitStack, given: dict[str, Any], refs: Path | None, set_name: str | None) -> tuple[Painter, Pool]:
    """What colours, and the references: here or on a server."""
    from colorflow_rt.pack import open_pack
    from colorflow_rt.pipeline import Colorizer
    from colorflow_rt.pixels import Limits
    from colorflow_rt.pool import open_references
    from colorflow_rt.references import ReferenceSet

    limits = Limits(max_pixels=given["max_pixels"])
    if given["server"] is None:
        colorizer = Colorizer(open_pack(given["pack"], given["engine"], given["engines"]), limits=limits)
        return colorizer, ReferenceSet.open(set_name) if set_name else colorizer.references(refs)
    try:
        from colorflow_server.remote import connect
    except ImportError as error:
        raise missing_extra("colorflow colorize --server", "server", error) from error
    pool = None if set_name else open_references(refs, limits)
    return connect(stack, given, limits, set_name, pool)


def _options(given: dict[str, Any]) -> ColorizeOptions:
    from colorflow_rt.options import ColorizeOptions

    return ColorizeOptions(
        steps=given["steps"],
        guidance_scale=given["guidance"],
        guidance_steps=given["guidance_steps"],
        guider_steps=given["guider_steps"],
        decode_margin=given["decode_margin"],
        seed=given["seed"],
        style=given["style"],
        fit=given["fit"],
        context=given["context"],
        luminance=given["luminance"],
        saturation=given["saturation"],
        chroma_layer=given["chroma_layer"],
        pinned=given["pin"],
        banned=given["ban"],
    )
