"""`colorflow packs`: the model packs that --pack can name."""

from pathlib import Path

import click

from colorflow_rt.cli.screen import print_table, shown
from colorflow_rt.errors import PackError


@click.command()
@click.option("--check", is_flag=True, help="Compare every file with its SHA-256.")
@click.pass_context
def packs(ctx: click.Context, check: bool) -> None:
    """List the model packs that are here.

    Exit code 1 if one of them cannot be used.
    """
    from colorflow_rt.pack import installed_packs

    found = installed_packs()
    rows, problems = [], []
    for name, folder in found.items():
        try:
            rows.append((name, *_describe(folder, check)))
        except PackError as error:
            problems.append(" ".join(str(error).split()))
    if rows:
        columns = ("pack", "version", "licence", "size", "files", "description", "folder")
        print_table(columns, rows, right=("size",))
    for problem in problems:
        click.echo(f"error: {problem}", err=True)
    if not found:
        click.echo("no packs here")
    ctx.exit(1 if problems else 0)


def _describe(folder: Path, check: bool) -> tuple[str, ...]:
    from colorflow_rt.pack import open_pack

    pack = open_pack(folder)
    if check:
        pack.verify()
    config = pack.config
    size = sum((folder / name).stat().st_size for name in config.files)
    files = f"{len(config.files)} {'match' if check else 'present'}"
    return config.version, config.license, f"{size / 1e6:.1f} MB", files, config.description, shown(folder)
