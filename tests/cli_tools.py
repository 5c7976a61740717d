"""Running `colorflow` in this process on the fake pack, tiny pages to colour, and the examples of a page of docs."""

import doctest
import io
import re
import shlex
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

import colorflow_rt.pack
import colorflow_rt.pipeline
from colorflow_rt.cli import run
from colorflow_rt.engine.fake import fake_config
from colorflow_rt.pack import file_hash
from colorflow_rt.pixels import read_picture, write_png

SIZE = (48, 64)


class Done(NamedTuple):
    """How a command ended: exit code, stdout, stderr."""

    code: int
    out: str
    err: str


def colorflow(*arguments: object) -> Done:
    """Run one command line."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = run([str(argument) for argument in arguments])
    return Done(code, out.getvalue(), err.getvalue())


def fenced(text: str) -> list[tuple[str, str]]:
    """(language or "", content) of the fenced blocks of a Markdown page."""
    return re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def examples(console: str) -> list[tuple[str, str]]:
    """(command line, expected output) of every `$ ...` in a console block."""
    parts = [example.partition("\n") for example in console.split("$ ")[1:]]
    return [(command, expected) for command, _, expected in parts]


def check_example(command: str, expected: str | None) -> None:
    """Run one command line; compare its exit code (`# exit code N`, else 0) and all that a terminal would show.

    In `expected` "..." stands for any text; None: whatever it prints.
    """
    name, *arguments = shlex.split(command, comments=True)
    assert name == "colorflow", command
    screen = io.StringIO()
    with redirect_stdout(screen), redirect_stderr(screen):
        code = run(arguments)
    printed = "".join(f"{line.rstrip()}\n" for line in screen.getvalue().splitlines())
    assert code == int((re.findall(r"# exit code (\d+)$", command) or [0])[0]), f"$ {command}\n{printed}"
    right = expected is None or doctest.OutputChecker().check_output(expected, printed, doctest.ELLIPSIS)
    assert right, f"$ {command}\n{printed}"


def fake_pack_for_every_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Examples name the pack `mini`; what they show is the same on the fake pack, in less time.

    A folder is opened as it is: `packs` and `doctor` look into those that are installed.
    """
    real = colorflow_rt.pack.open_pack
    for module in (colorflow_rt, colorflow_rt.pack, colorflow_rt.pipeline):
        monkeypatch.setattr(
            module, "open_pack", lambda name, *how: real(name if isinstance(name, Path) else "fake", *how)
        )


def use_fake_pack(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    """Everything of this test stays in `home`, and commands take the fake pack."""
    monkeypatch.setenv("COLORFLOW_HOME", str(home))
    monkeypatch.setenv("COLORFLOW_PACK", "fake")


def gray_page(path: Path, seed: int = 0, size: tuple[int, int] = SIZE) -> Path:
    """A page of gray blocks that no other seed has."""
    blocks = np.random.default_rng(seed).integers(0, 256, (size[1] // 8 + 1, size[0] // 8 + 1), dtype=np.uint8)
    gray = np.kron(blocks, np.ones((8, 8), np.uint8))[: size[1], : size[0]]
    return _write(path, np.repeat(gray[..., None], 3, axis=2))


def color_page(path: Path, seed: int = 0, size: tuple[int, int] = SIZE) -> Path:
    """A picture of coloured stripes that no other seed has."""
    stripes = np.random.default_rng(1000 + seed).integers(0, 256, (8, 1, 3), dtype=np.uint8)
    return _write(path, np.repeat(np.repeat(stripes, -(-size[1] // 8), axis=0)[: size[1]], size[0], axis=1))


def _write(path: Path, rgb: NDArray[np.uint8]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_png(path, np.ascontiguousarray(rgb))
    return path


def chapter(root: Path, pages: int = 3, references: int = 2) -> tuple[Path, Path, Path]:
    """Folders of pages and of references, and one for results that is not there yet."""
    for number in range(1, pages + 1):
        gray_page(root / "pages" / f"page{number}.png", number)
    for number in range(1, references + 1):
        color_page(root / "refs" / f"ref{number}.png", number)
    return root / "pages", root / "refs", root / "out"


def pack_of_nonsense(folder: Path) -> Path:
    """A pack whose description is right and whose graphs are not: what is found before a graph is loaded."""
    folder.mkdir(parents=True)
    config = fake_config()
    for graph in config.graphs:
        (folder / f"{graph}.onnx").write_bytes(graph.encode())
    graphs = {name: replace(graph, file=f"{name}.onnx") for name, graph in config.graphs.items()}
    files = {f"{graph}.onnx": file_hash(folder / f"{graph}.onnx") for graph in graphs}
    (folder / "pack.toml").write_text(replace(config, graphs=graphs, files=files).to_toml())
    return folder


def pictures(folder: Path) -> dict[str, bytes]:
    """The PNG files directly in a folder, by name."""
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.png"))}


def rgb(path: Path) -> NDArray[np.uint8]:
    """The pixels of a picture."""
    return read_picture(path).rgb


def one_line(done: Done, code: int, *parts: str) -> None:
    """Assert that a command ended with `code` and one line on stderr that has these parts and no traceback."""
    lines = done.err.splitlines()
    assert done.code == code, done
    assert len(lines) == 1 and lines[0].startswith("error: "), done.err
    for part in parts:
        assert part in lines[0], done.err
