"""The command's frame: what is imported when, and what every kind of error looks like."""

import io
import os
import subprocess
import sys
from importlib.util import find_spec

import pytest
from cli_tools import colorflow, one_line

from colorflow_rt.cli import commands, packs, screen
from colorflow_rt.errors import DamagedPackError, MissingExtraError, OptionError, missing_extra

COMMAND = [sys.executable, "-m", "colorflow_rt.cli"]


def test_help_imports_nothing_heavy_and_takes_no_time():
    heavy = "numpy", "PIL", "onnxruntime", "hnswlib", "skimage", "scipy", "rich", "torch"
    code = (
        "import sys; from colorflow_rt.cli import run; code = run(['--help']); "
        f"print([name for name in {heavy} if name in sys.modules], code, file=sys.stderr)"
    )
    assert min(_seconds([sys.executable, "-c", code], "[] 0") for _ in range(3)) < 0.3


def _seconds(command, expected):
    """CPU seconds of a process: other work on this machine does not count."""
    before = os.times()
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    after = os.times()
    assert done.stderr.strip() == expected
    return after.children_user + after.children_system - before.children_user - before.children_system


def test_every_command_is_listed_and_has_help():
    overview = colorflow("--help")
    assert overview.code == 0
    for name in commands.COMMANDS:
        assert f"\n  {name} " in overview.out
        assert colorflow(name, "--help").code == 0
        assert find_spec(f"colorflow_rt.cli.{name}")


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["nonsense"], "nonsense"),
        (["packs", "--nonsense"], "--nonsense"),
        (["comics", "make"], "--out"),
        (["refs", "remove", "x"], "give the pictures to remove"),
        (["comics", "make", "--out", "x", "--size", "big"], "512x768"),
    ],
)
def test_usage_errors_are_one_line_that_names_the_help_and_end_with_2(arguments, part):
    one_line(colorflow(*arguments), 2, part, "--help`)")


def test_no_arguments_show_the_help():
    done = colorflow()
    assert done.code == 2
    assert "Commands:" in done.err


def raises(monkeypatch, error):
    def packs_that_fail():
        raise error

    monkeypatch.setattr(packs.packs, "callback", lambda check: packs_that_fail())
    return colorflow("packs")


@pytest.mark.parametrize(
    ("error", "code"),
    [(OptionError("no\n  such thing"), 2), (DamagedPackError("no such thing"), 1)],
)
def test_our_errors_are_one_line_and_carry_their_exit_code(monkeypatch, error, code):
    done = raises(monkeypatch, error)
    one_line(done, code)
    assert done.err == "error: no such thing\n"


def test_an_unexpected_error_is_one_line_with_a_hint(monkeypatch):
    one_line(raises(monkeypatch, ZeroDivisionError("x / 0")), 1, "ZeroDivisionError: x / 0", "--debug")


def test_a_missing_package_is_named(monkeypatch):
    missing = ModuleNotFoundError("No module named 'hnswlib'", name="hnswlib")
    one_line(raises(monkeypatch, missing), 1, "hnswlib is not installed", "pip install")


def test_on_a_terminal_progress_is_a_bar_with_the_time_left(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    with screen.progress("colouring", 2) as advance:
        advance("page 1")
        advance("error: page 2")
    shown = sys.stderr.getvalue()
    assert "page 1" in shown and "error: page 2" in shown
    assert "colouring" in shown and "2/2" in shown and "ETA" in shown


def test_debug_shows_the_traceback(monkeypatch):
    raises(monkeypatch, ZeroDivisionError("x / 0"))
    with pytest.raises(ZeroDivisionError):
        colorflow("--debug", "packs")


def test_ctrl_c_ends_with_130(monkeypatch):
    done = raises(monkeypatch, KeyboardInterrupt())
    assert done.code == 130
    assert done.err.strip() == "error: interrupted (Ctrl-C)"


def test_a_reader_that_goes_away_is_no_error():
    process = subprocess.Popen([*COMMAND, "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    err = process.stderr.read()
    process.stderr.close()
    assert process.wait() == 1
    assert err == b""


def test_version():
    done = colorflow("--version")
    assert done.code == 0
    assert done.out.startswith("colorflow ")


def test_missing_extras_say_what_is_missing_and_how_to_get_it():
    try:
        import no_such_package  # noqa: F401
    except ImportError as error:
        missing = missing_extra("colorflow-export", "export", error)
    assert isinstance(missing, MissingExtraError)
    assert missing.exit_code == 2
    assert str(missing) == (
        "colorflow-export needs no_such_package, which is not installed: pip install 'colorflow-rt[export]'"
    )
