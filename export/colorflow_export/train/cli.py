"""`colorflow-export train`: the data pool and the four stages of the bundled model."""

from pathlib import Path

import click
from rich.progress import Progress

from colorflow_export.train.config import stage_options

WORK = click.option(
    "--work",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="Folder for the data pool and checkpoints, outside the repository.",
)


@click.group()
def train() -> None:
    """Train the bundled model: pool, then vae, then clip, unet and gsrp. Every stage resumes where it stopped."""


@train.command()
@WORK
@click.option("--chapters", type=click.IntRange(1), default=800, show_default=True)
@click.option("--first", type=click.IntRange(0), default=0, show_default=True, help="Number of the first chapter.")
def pool(work: Path, chapters: int, first: int) -> None:
    """Draw training chapters (about 2 MB each)."""
    from colorflow_export.train.pool import fill_pool

    with Progress() as progress:
        bar = progress.add_task("chapters", total=chapters)
        fill_pool(work, first, chapters, lambda done, _: progress.update(bar, completed=done))


@train.command(name="from-pack")
@WORK
@click.option("--pack", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True)
def from_pack(work: Path, pack: Path) -> None:
    """Start every stage that has no checkpoint in WORK from the weights of a pack."""
    from colorflow_export.train.collect import restart_from_pack

    work.mkdir(parents=True, exist_ok=True)
    restart_from_pack(pack, work)


@train.command()
@WORK
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of the pack to write.")
@click.option("--version", default="0.1.0", show_default=True)
def collect(work: Path, out: Path, version: str) -> None:
    """Write the pack of the stages trained in WORK (their averaged weights)."""
    from colorflow_export.train.collect import collect

    written = collect(work, out, version)
    click.echo(f"{out}: {written.name} {written.version}, {len(written.files)} files")


@train.command(name="export-descreen")
@WORK
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), required=True, help="The ONNX file to write.")
def export_descreen(work: Path, out: Path) -> None:
    """Write the network that takes screentone out, trained in WORK, as the runtime reads it."""
    from colorflow_export.train.descreen import export_descreen

    export_descreen(work, out)


@train.command(name="export-parts")
@WORK
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), required=True, help="The ONNX file to write.")
def export_parts(work: Path, out: Path) -> None:
    """Write the network that tells parts of a drawing, trained in WORK, as the runtime reads it."""
    from colorflow_export.train.parts import export_parts

    export_parts(work, out)


def _stage(name: str, description: str) -> None:
    @train.command(name=name, help=description)
    @WORK
    @click.option("--steps", type=click.IntRange(1), help="Total steps of the stage.")
    @click.option("--batch", type=click.IntRange(1))
    @click.option("--learning-rate", type=float)
    @click.option("--mu", type=float, help="Timestep shift (unet only).")
    @click.option(
        "--phase", type=click.Choice(["mean", "noise", "own"]), help="What the denoiser starts from (unet only)."
    )
    @click.option("--page", "page_size", type=(int, int), help="Working size: width height (unet only).")
    @click.option("--ema", type=click.FloatRange(0, 1))
    @click.option("--seed", type=int)
    @click.option("--minutes", type=float, help="Stop after this long; run again to go on.")
    @click.option("--threads", type=click.IntRange(1))
    def command(work: Path, minutes: float | None, threads: int | None, **fields: object) -> None:
        import torch

        from colorflow_export.train import descreen, parts, stages

        if threads:
            torch.set_num_threads(threads)
        run = {
            "vae": stages.train_vae,
            "clip": stages.train_clip,
            "unet": stages.train_unet,
            "gsrp": stages.train_gsrp,
            "descreen": descreen.train_descreen,
            "parts": parts.train_parts,
        }
        work.mkdir(parents=True, exist_ok=True)
        run[name](work, stage_options(name, **fields), minutes)


_stage("vae", "The VAE: L1 on crops.")
_stage("clip", "The CLIP tower: black-and-white patches to colour patches of the same characters.")
_stage("unet", "Guider and U-Net: the canvas latents.")
_stage("gsrp", "The fusion net of the guided super-resolution: L1.")
_stage("descreen", "The network that takes screentone out of pages: L1 on generated pages.")
_stage("parts", "The network that tells parts of a drawing by their looks: contrast within generated chapters.")
