"""`colorflow-export convert` and `build-engines`: from released checkpoints to engines (docs/engines.md)."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from colorflow_rt.cli.parameters import Size
from colorflow_rt.cli.screen import print_table, shown

if TYPE_CHECKING:
    from colorflow_export.build import Plan

PLAIN = click.Path(path_type=Path)


@click.command()
@click.option("--colorflow", required=True, metavar="DIR", type=PLAIN, help="The ColorFlow release: GraySD/ and so on.")
@click.option("--sd15", required=True, metavar="DIR", type=PLAIN, help="Stable Diffusion 1.5 in diffusers layout.")
@click.option("--out", required=True, metavar="PACK", type=PLAIN, help="Folder of the pack; its name is the pack's.")
@click.option("--storage", type=click.Choice(["float32", "float16"]), default="float32", show_default=True)
@click.option("--fusion-statistics", type=click.Choice(["batch", "running"]), default="batch", show_default=True)
@click.option("--size", "sizes", multiple=True, type=Size(), help="Page sizes of the pack (default: the demo's three).")
@click.option("--text", metavar="FILE", type=PLAIN, help="The prompts' embeddings, in place of SD 1.5's text encoder.")
@click.option("--lora-rank", type=click.IntRange(1), default=64, show_default=True)
@click.option("--lora-alpha", type=float, default=64.0, show_default=True)
def convert(colorflow: Path, sd15: Path, out: Path, sizes: tuple[tuple[int, int], ...], **given: Any) -> None:
    """Make a pack of released ColorFlow weights and Stable Diffusion 1.5, which you bring.

    Every tensor is compared by name and shape first; nothing is written unless all of them fit.
    """
    from colorflow_export.convert import LICENSE, ConvertOptions
    from colorflow_export.convert import convert as write

    click.echo(LICENSE, err=True)
    name = re.sub("[^a-z0-9-]+", "-", out.name.lower()).strip("-") or "colorflow"
    options = ConvertOptions(
        name=name,
        sizes=sizes or ConvertOptions.sizes,
        rank=given["lora_rank"],
        alpha=given["lora_alpha"],
        statistics=given["fusion_statistics"],
        storage=given["storage"],
        text=given["text"],
    )
    write(colorflow, sd15, out, options, click.echo)
    click.echo(f"pack {name} in {shown(out)}")


@click.command(name="build-engines")
@click.option("--pack", metavar="NAME|DIR", help="Model pack (default: the recipe's).")
@click.option("--recipe", metavar="NAME|FILE", help="What to build; flags take the place of what it says.")
@click.option("--target", help="onnx-cpu, onnx-cuda or tensorrt (default: the recipe's, or onnx-cpu).")
@click.option("--precision", help="fp16 or fp32 (default: fp16, for onnx-cpu fp32).")
@click.option(
    "--shape", "shapes", multiple=True, type=Size(), help="Page in pixels, sides multiples of 32; repeatable."
)
@click.option("--batch", "batches", multiple=True, type=int, help="Pages at once; repeatable (default: 1).")
@click.option("--guidance", multiple=True, help="guided, prompt (guidance 1) or empty (guidance 0); repeatable.")
@click.option("--graph", "graphs", multiple=True, help="Only this one; repeatable (default: all five).")
@click.option("--opset", type=int, help="Of the ONNX files (default: 20, for tensorrt 21).")
@click.option("--out", metavar="DIR", type=PLAIN, help="Folder (default: where `colorflow colorize` looks for it).")
@click.option("--dry-run", is_flag=True, help="Say what would be built, where, how large, and what is missing.")
@click.option("--workspace-gb", type=float, default=8.0, show_default=True, help="TensorRT: scratch memory of a layer.")
@click.option("--level", type=int, default=3, show_default=True, help="TensorRT: how hard the builder tries, 0 to 5.")
@click.option("--force", is_flag=True, help="TensorRT: build again what is there.")
def build_engines(recipe: str | None, out: Path | None, dry_run: bool, **flags: Any) -> int:
    """Make the graphs of a pack for one target, check them, and for TensorRT compile them.

    Exit code 3: the target's hardware or library is not here; the checked ONNX files are left in place.
    """
    from colorflow_export.build import build, plan
    from colorflow_rt.pack import cannot_run

    settled = plan(_recipe(recipe, flags), out)
    missing = cannot_run(settled.recipe.target)
    if dry_run:
        _show(settled, missing)
        return 0
    graphs = build(settled, click.echo)
    click.echo(f"{len(graphs)} graphs in {shown(settled.out)}")
    if missing:
        click.echo(f"error: {missing}; the checked ONNX files are in {shown(settled.out)}", err=True)
        return 3
    if settled.recipe.target == "tensorrt":
        _compile(graphs, settled.out, flags)
    return 0


def _recipe(name: str | None, flags: dict[str, Any]) -> Any:
    from colorflow_export.recipe import Recipe, read_recipe

    given = {
        key: flags[key] for key in ("pack", "target", "precision", "shapes", "batches", "guidance", "opset", "graphs")
    }
    if name is not None:
        return read_recipe(name, **given)
    if given["pack"] is None:
        raise click.UsageError("give --pack NAME|DIR, or --recipe NAME|FILE")
    return Recipe(**{key: value for key, value in given.items() if value})


def _show(plan: "Plan", missing: str | None) -> None:
    from colorflow_rt.engine_set import MANIFEST

    recipe = plan.recipe
    click.echo(f"{recipe.target} {recipe.precision}, opset {recipe.opset}, of pack {plan.pack.config.name}:")
    rows = []
    for wanted in plan.wanted:
        page = f"{wanted.page[0]}x{wanted.page[1]}" if wanted.page else "any"
        there = (plan.out / f"{wanted.stem}.onnx").is_file()
        rows.append((f"{wanted.stem}.onnx", page, wanted.batch or "any", "is there" if there else "to make"))
    print_table(("file", "page", "batch", "state"), rows)
    state = "engines are there" if (plan.out / MANIFEST).is_file() else "new folder"
    click.echo(f"in {shown(plan.out)} ({state})")
    click.echo(f"needs up to {plan.needed / 1e9:.2f} GB of disk, {plan.free / 1e9:.1f} GB are free")
    click.echo(f"missing here: {missing or 'nothing'}")


def _compile(graphs: Sequence[Any], out: Path, flags: dict[str, Any]) -> None:
    from colorflow_export.to_tensorrt import BuildOptions
    from colorflow_export.to_tensorrt import build as compile_plans

    options = BuildOptions(workspace_gb=flags["workspace_gb"], level=flags["level"], force=flags["force"])
    for built in compile_plans(graphs, out, options):
        click.echo(built.note)
