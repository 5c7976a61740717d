"""docs/cli.md: every example is run and compared, and every command and option is there."""

import doctest
import io
import re
import shlex
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import click
import pytest
from cli_tools import use_fake_pack

import colorflow_rt.pack
from colorflow_rt.cli import run
from colorflow_rt.cli.commands import colorflow

DOCS = Path(__file__).parent.parent / "docs" / "cli.md"
BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def examples():
    """(command line, expected output) of every example."""
    for block in BLOCK.findall(DOCS.read_text()):
        for example in block.split("$ ")[1:]:
            command, _, expected = example.partition("\n")
            yield command, expected


def execute(command):
    """Exit code and everything printed, as on a terminal that shows both streams."""
    name, *arguments = shlex.split(command, comments=True)
    assert name == "colorflow"
    screen = io.StringIO()
    with redirect_stdout(screen), redirect_stderr(screen):
        code = run(arguments)
    return code, "".join(f"{line.rstrip()}\n" for line in screen.getvalue().splitlines())


def test_every_example_does_what_the_page_says(tmp_path, monkeypatch):
    use_fake_pack(monkeypatch, tmp_path / "home")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(colorflow_rt.pack, "open_pack", lambda name: colorflow_rt.pack.fake_pack())
    checker = doctest.OutputChecker()
    found = list(examples())
    assert len(found) > 20
    for command, expected in found:
        code, printed = execute(command)
        assert code == int((re.findall(r"# exit code (\d+)$", command) or [0])[0]), printed
        assert checker.check_output(expected, printed, doctest.ELLIPSIS), f"$ {command}\n{printed}"


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
    text = DOCS.read_text()
    assert any(example.startswith(line) for example, _ in examples()), line
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            names = [*parameter.opts, *parameter.secondary_opts]
            assert any(f"{name} " in text or f"`{name}`" in text or f"{name}\n" in text for name in names), names
