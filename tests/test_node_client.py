"""examples/node: a client in another language, run against a server where node and its packages are there."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from server_tools import png, running

from colorflow_rt import ColorizeOptions, Colorizer
from colorflow_rt.pixels import read_picture

FOLDER = Path(__file__).parent.parent / "examples" / "node"


@pytest.fixture(scope="module")
def node(node_packages):
    """The command `node`, with the packages of the example."""
    return shutil.which("node")


def test_the_example_colours_pages(node, tmp_path):
    pages = [tmp_path / f"{name}.png" for name in ("one", "two")]
    for seed, page in enumerate(pages):
        page.write_bytes(png(seed))
    reference = tmp_path / "ref.png"
    reference.write_bytes(png(9, colour=True))
    (tmp_path / "broken.png").write_bytes(b"nothing")
    (tmp_path / "out").mkdir()
    with running() as server:
        command = [node, FOLDER / "colorize.js", server.address, tmp_path / "out", reference, *pages]
        done = subprocess.run(
            [*command, tmp_path / "broken.png"], capture_output=True, text=True, timeout=60, check=False
        )
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    for seed, page in enumerate(pages):
        kinds = [event["event"] for event in events if event["page"] == page.stem]
        assert kinds[0] == "accepted" and kinds[-1] == "result" and "retrieval" in kinds
        here = Colorizer("fake").colorize(png(seed), reference, ColorizeOptions(steps=4, style="gray"))
        assert (read_picture(tmp_path / "out" / page.name).rgb == here.image).all()
    (broken,) = [event for event in events if event["event"] == "error"]
    assert broken["page"] == "broken" and broken["code"] == 3 and "not a PNG" in broken["message"]


def test_a_call_that_fails_says_why(node, tmp_path):
    (tmp_path / "page.png").write_bytes(png())
    command = [node, FOLDER / "colorize.js", "127.0.0.1:1", tmp_path, tmp_path / "page.png", tmp_path / "page.png"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1 and done.stderr.startswith("UNAVAILABLE: "), done
