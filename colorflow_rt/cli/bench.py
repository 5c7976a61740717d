"""`colorflow bench`: seconds of a page by stage, beside the reference procedure's."""

import json
from pathlib import Path
from typing import Any

import click

from colorflow_rt.cli.parameters import pack_option, size_option
from colorflow_rt.cli.screen import print_table


@click.command()
@pack_option
@size_option
@click.option("--repeat", type=click.IntRange(1), default=5, show_default=True, help="Measured runs of each side.")
@click.option("--steps", type=click.IntRange(1), help="Denoise steps (default: the pack's).")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--no-reference", is_flag=True, help="Leave the reference procedure out.")
@click.option("--json", "json_path", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path))
def bench(
    pack: str,
    size: tuple[int, int],
    repeat: int,
    steps: int | None,
    seed: int,
    no_reference: bool,
    json_path: Path | None,
) -> None:
    """Measure a page: seconds by stage, memory, and the ratio to the reference procedure in PyTorch.

    The last line of the output is the record as JSON. Without torch the reference procedure is left out.
    """
    from colorflow_rt.bench import BenchOptions
    from colorflow_rt.bench import bench as measure
    from colorflow_rt.files import atomic_write

    record = measure(BenchOptions(pack, size, repeat, steps, seed, not no_reference))
    _show(record)
    line = json.dumps(record)
    if json_path:
        atomic_write(json_path, (line + "\n").encode())
    click.echo(line)


def _show(record: dict[str, Any]) -> None:
    rows = [
        (stage, *(f"{spread[key]:.3f}" for key in ("min", "median", "p95")))
        for stage, spread in record["stages"].items()
    ]
    print_table(("stage", "min, s", "median, s", "p95, s"), rows, right=("min, s", "median, s", "p95, s"))
    hardware, page = record["hardware"], "x".join(map(str, record["page"]))
    steps = f"{record['steps']} steps, the guider in {record['guider_steps']}"
    click.echo(f"{record['seconds_per_page']:.2f} s a page of {page}, {steps}, pack {record['pack']}")
    threads = f"{hardware['threads']} threads on {hardware['cores']} cores"
    click.echo(f"{hardware['cpu']}, {threads}, load {hardware['load_average'][0]}")
    click.echo(f"peak memory {record['peak_rss_mb']:.0f} MB")
    if record["ratio"] is None:
        click.echo('reference procedure: not run (it needs torch: pip install "colorflow-rt[export]")')
    else:
        click.echo(
            f"reference procedure ({record['reference_layout']}): {record['reference_seconds_per_page']:.2f} s, "
            f"ratio {record['ratio']:.2f}, PSNR to it {record['psnr_to_reference_db']:.1f} dB"
        )
