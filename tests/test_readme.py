"""README.md: its commands and its Python are run, on the bundled pack where there is one; what it names is there."""

import re
from pathlib import Path

import pytest
from cli_tools import check_example, examples, fake_pack_for_every_name, fenced
from server_tools import running

from colorflow_rt.comics import DEMO_SEED, chapter_seed, make_chapter
from colorflow_rt.pack import installed_packs
from colorflow_rt.pixels import read_picture, write_png

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
SIZE = (128, 192)
SHELL = ("", "sh", "bash", "shell")
SERVED = "127.0.0.1:50051"


@pytest.fixture
def chapter_of_the_reader(tmp_path, monkeypatch):
    """A folder to be in, with the names that the README uses: pages/001.png, pages/002.png, references in colour/."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLORFLOW_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("COLORFLOW_PACK", raising=False)
    if "mini" not in installed_packs():
        fake_pack_for_every_name(monkeypatch)
    chapter = make_chapter(chapter_seed(DEMO_SEED, 1))
    for folder in ("pages", "colour"):
        Path(folder).mkdir()
    for number in (1, 2):
        write_png(f"pages/{number:03d}.png", chapter.page(number, SIZE).gray()[..., None].repeat(3, axis=2))
        write_png(f"colour/{number:03d}.png", chapter.reference(number, SIZE))


@pytest.fixture
def server(chapter_of_the_reader):
    """The address of a server such as `make serve` starts, but on the fake engine."""
    with running() as found:
        yield found.address


def test_every_command_and_every_line_of_python_runs(chapter_of_the_reader, server):
    ran = []
    for language, block in fenced(README):
        if language == "console":
            for command, expected in examples(block):
                check_example(command, expected or None)
                ran.append(command.split()[1])
        elif language == "python":
            exec(compile(block.replace(SERVED, server), "README.md", "exec"), {"__name__": "__main__"})
            ran.append("client" if SERVED in block else "python")
    assert {"colorize", "refs", "doctor", "python", "client"} <= set(ran)
    assert read_picture("served-1.png").size == read_picture("served-2.png").size == SIZE
    for page in ("001.png", "002.png"):
        assert read_picture(Path("coloured") / page).size == SIZE


def test_the_server_is_where_the_client_looks():
    host, _, port = SERVED.partition(":")
    makefile = (ROOT / "Makefile").read_text()
    assert f"--host {host} --port {port}" in makefile and SERVED in README
    (client,) = [block for language, block in fenced(README) if language == "python" and SERVED in block]
    assert len([line for line in client.splitlines() if line]) == 5


def test_nothing_else_is_shown_as_code():
    """So that nothing in a block goes unchecked."""
    assert {language for language, _ in fenced(README)} <= {"console", "python", *SHELL}


def test_two_commands_set_everything_up():
    lines = [line for language, block in fenced(README) if language in SHELL for line in block.splitlines()]
    assert sorted(line.split("#")[0].strip() for line in lines if line.strip()) == ["make demo", "make test"]
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(re.findall(r"\bmake ([a-z]+)\b(?=`|\s+#)", README)) <= set(targets)


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\(([^)#]+)", README))))
def test_what_it_links_to_is_there(target):
    assert target.startswith("https://") or (ROOT / target).exists()
