"""The `colorflow-export` command: golden vectors, the reference procedure, packs, training. Needs torch."""

import importlib
import json
import sys
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from colorflow_rt.cli.parameters import Size
from colorflow_rt.cli.screen import print_table, shown
from colorflow_rt.errors import ColorflowError, MissingExtraError, OptionError

if TYPE_CHECKING:
    from colorflow_export.parity import Check
    from colorflow_rt.result import Result

NEEDED = ("torch", "diffusers", "transformers", "safetensors", "onnx", "onnxscript")
HOW = (
    'pip install "colorflow-rt[export]" (without a GPU, first: '
    "pip install torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu)"
)
PACK = click.option("--pack", metavar="NAME|DIR", default="mini", show_default=True, help="Model pack.")
PLAIN = click.Path(path_type=Path)


def main() -> None:
    """Entry point of the `colorflow-export` command."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code: 0 well, 1 a failure or a limit passed, 2 usage, 130 Ctrl-C."""
    try:
        code = commands.main(list(arguments), prog_name="colorflow-export", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return 2
    except click.ClickException as error:
        return _fail(error.format_message(), error.exit_code)
    except click.Abort:
        return _fail("interrupted (Ctrl-C)", 130)
    except ColorflowError as error:
        return _fail(str(error), error.exit_code)
    return code if isinstance(code, int) else 0


def _fail(message: str, code: int) -> int:
    click.echo(f"error: {' '.join(message.split())}", err=True)
    return code


# Commands of other modules: where each is.
ELSEWHERE = {
    "train": "colorflow_export.train.cli:train",
    "convert": "colorflow_export.cli_engines:convert",
    "build-engines": "colorflow_export.cli_engines:build_engines",
}


class Commands(click.Group):
    """Knows commands of other modules without importing them, and asks for torch before any command is run."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), *ELSEWHERE])

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in ELSEWHERE:
            return super().get_command(ctx, name)
        module, _, function = ELSEWHERE[name].partition(":")
        command: click.Command = getattr(importlib.import_module(module), function)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        _require_extra()
        return super().invoke(ctx)


def _require_extra() -> None:
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise MissingExtraError(f"colorflow-export needs {', '.join(missing)}: {HOW}")


@click.group(name="colorflow-export", cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
def commands() -> None:
    """Train, export and verify ColorFlow models with PyTorch."""


@commands.command()
@click.option("--golden", multiple=True, metavar="DIR", type=PLAIN, help="Folder of golden vectors (may be repeated).")
@click.option("--pack", metavar="NAME|DIR", help="Model pack: each graph, and a whole page, against PyTorch.")
@click.option("--engines", metavar="DIR", type=PLAIN, help="And the engines that were built of it.")
def verify(golden: tuple[Path, ...], pack: str | None, engines: Path | None) -> int:
    """Compare with golden vectors, or a pack's graphs with PyTorch. Exit code 1 if a limit is passed."""
    from colorflow_export.parity import check_golden, check_pack

    if engines is not None and pack is None:
        raise click.UsageError("--engines DIR compares with a pack: give --pack NAME|DIR too")
    if not golden and not pack:
        raise click.UsageError("nothing to verify: give --golden DIR or --pack NAME|DIR")
    failures = sum(_table(shown(folder), check_golden(folder)) for folder in golden)
    if pack:
        failures += _table(shown(pack), check_pack(pack))
    if pack and engines is not None:
        failures += _engines(pack, engines)
    return 1 if failures else 0


def _engines(pack: str, folder: Path) -> int:
    """Print how the engines compare with PyTorch in float32; returns how many passed their limit."""
    from colorflow_export.parity_engines import check_engines
    from colorflow_rt.engine_set import EngineManifest
    from colorflow_rt.pack import cannot_run

    columns = (shown(folder), "in", "largest", "relative", "cosine", "PSNR, dB", "limit", "")
    target, done = EngineManifest.read(folder).target, list(check_engines(pack, folder))
    rows = [
        (
            each.name,
            each.backend,
            f"{each.largest:.2e}",
            f"{each.relative:.2e}",
            f"{each.cosine:.6f}",
            f"{each.decibel:.1f}",
            f"{each.limit:g} {'dB' if each.page else 'relative'}",
            "ok" if each.passed else "FAILED",
        )
        for each in done
    ]
    print_table(columns, rows, right=columns[2:6])
    if lacking := cannot_run(target):
        click.echo(f"{target} itself was not compared: {lacking}")
    failures = sum(not each.passed for each in done)
    click.echo(f"{len(done) - failures} of {len(done)} within their limits")
    return failures


def _table(title: str, checks: "Iterator[Check]") -> int:
    """Print the comparisons; returns how many passed their limit."""
    done = list(checks)
    rows = [(each.name, f"{each.value:.3g}", f"{each.limit:g}", each.unit, _verdict(each)) for each in done]
    print_table((title, "found", "limit", "unit", ""), rows, right=("found", "limit"))
    failures = sum(not each.passed for each in done)
    click.echo(f"{len(done) - failures} of {len(done)} within their limits")
    return failures


def _verdict(check: "Check") -> str:
    return "ok" if check.passed else "FAILED"


@commands.command()
@click.argument("page", type=PLAIN)
@click.option("--refs", metavar="DIR", required=True, type=PLAIN, help="Folder of references in colour.")
@PACK
@click.option("--steps", type=click.IntRange(1), help="Denoising steps (default: the pack's).")
@click.option("--guidance", type=float, help="Guidance scale (default: the pack's).")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the initial noise.")
@click.option("--size", type=Size(), help="Working size (default: the pack's nearest in aspect).")
@click.option("--fit", type=click.Choice(["pad", "crop"]), default="pad", show_default=True)
@click.option("--out", metavar="FILE", required=True, type=PLAIN, help="The model's picture, as PNG.")
@click.option(
    "--json", "record", metavar="FILE", type=PLAIN, help="Seconds of each run; one run goes before, uncounted."
)
@click.option("--repeat", type=click.IntRange(1), default=1, show_default=True, help="Runs.")
@click.option("--threads", type=click.IntRange(1), help="Threads of PyTorch (default: all CPUs).")
@click.option("--channels-last", is_flag=True, help="Keep tensors in the channels-last memory layout.")
def reference(
    page: Path,
    refs: Path,
    pack: str,
    out: Path,
    record: Path | None,
    repeat: int,
    threads: int | None,
    channels_last: bool,
    **chosen: Any,
) -> None:
    """Colour PAGE by the published procedure in plain PyTorch: the yardstick for parity and speed.

    Writes the model's picture, before the luminance step.
    """
    import torch

    from colorflow_export.reference import ReferenceColorizer
    from colorflow_rt.files import atomic_write
    from colorflow_rt.options import ColorizeOptions
    from colorflow_rt.pixels import write_png

    if threads:
        torch.set_num_threads(threads)
    options = ColorizeOptions(
        steps=chosen["steps"],
        guidance_scale=chosen["guidance"],
        seed=chosen["seed"],
        size=chosen["size"],
        fit=chosen["fit"],
    )
    colorizer = ReferenceColorizer(pack, channels_last=channels_last)
    pool = colorizer.references(refs)
    results = [colorizer.colorize(page, pool, options) for _ in range(repeat + (record is not None))]
    if results[0].passed_through:
        raise OptionError(f"{shown(page)} is in colour already: give a page in black and white")
    write_png(out, results[-1].model_image)
    if record is not None:
        measured = _record(results[1:], channels_last, torch.get_num_threads())
        atomic_write(record, (json.dumps(measured) + "\n").encode())
    click.echo(f"{shown(out)} ({sum(results[-1].seconds.values()):.2f} s)")


def _record(results: "list[Result]", channels_last: bool, threads: int) -> dict[str, Any]:
    return {
        "seconds": [sum(result.seconds.values()) for result in results],
        "stages": [result.seconds for result in results],
        "layout": "channels_last" if channels_last else "nchw",
        "threads": threads,
    }
