"""docs/cli.md: every example is run and compared, and every command and option is there."""

from pathlib import Path

import click
import pytest
from cli_tools import check_example, examples, fake_pack_for_every_name, fenced, use_fake_pack

from colorflow_rt.cli.commands import colorflow

DOCS = (Path(__file__).parent.parent / "docs" / "cli.md").read_text()
EXAMPLES = [example for language, block in fenced(DOCS) if language == "console" for example in examples(block)]


def test_every_example_does_what_the_page_says(tmp_path, monkeypatch):
    use_fake_pack(monkeypatch, tmp_path / "home")
    monkeypatch.chdir(tmp_path)
    fake_pack_for_every_name(monkeypatch)
    assert len(EXAMPLES) > 20
    for command, expected in EXAMPLES:
        check_example(command, expected)


def commands(group=colorflow, path="colorflow"):
    """(command line, command) of every command."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


@pytest.mark.parametrize(("line", "command"), list(commands()))
def test_every_command_has_an_example_and_every_option_is_on_the_page(line, command):
    assert any(example.startswith(line) for example, _ in EXAMPLES), line
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            names = [*parameter.opts, *parameter.secondary_opts]
            assert any(f"{name} " in DOCS or f"`{name}`" in DOCS or f"{name}\n" in DOCS for name in names), names
