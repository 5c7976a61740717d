"""benchmarks/quality.py: one command fills each part of docs/quality.md, and what it says follows from the figures."""

import re
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from colorflow_rt.comics import BENCHMARK_SEED, write_chapters

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))
import quality  # noqa: E402


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """docs/quality.md after its commands on two tiny chapters and the fake pack."""
    root = tmp_path_factory.mktemp("quality")
    write_chapters(root / "bench", chapters=2, pages=1, references=2, seed=BENCHMARK_SEED, size=(64, 96))
    (root / "docs").mkdir()
    (root / "docs" / "quality.md").write_text((ROOT / "docs" / "quality.md").read_text())
    common = ["--pack", "fake", "--bench", str(root / "bench"), "--state", str(root / "state")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quality, "DOCS", root / "docs")
        patch.setattr(quality, "STEPS", (4, 10))
        patch.setattr(quality, "SCALES", (0.5, 1.0))
        commands = ([*command, *common] for command in (["ablations", "--limit", "2", "--mu", "0=fake"], ["table"]))
        for command in (*commands, ["curve"]):
            done = CliRunner().invoke(quality.quality, command, catch_exceptions=False)
            assert done.exit_code == 0, done.output
    return root


def part(root, name):
    found = re.search(
        rf"<!-- {name} -->\n(.*?)\n<!-- /{name} -->", (root / "docs" / "quality.md").read_text(), re.DOTALL
    )
    assert found is not None
    return found[1]


def test_every_part_is_filled_and_its_pictures_are_there(filled):
    for name in ("table", "bar", "ablations"):
        assert "Not measured" not in part(filled, name)
    text = (filled / "docs" / "quality.md").read_text()
    pictures = re.findall(r"!\[[^]]*\]\(([^)]+)\)", text)
    assert len(pictures) == 5
    for picture in pictures:
        assert (filled / "docs" / picture).stat().st_size > 5000
    assert "## What each figure is" in text  # what stands between the parts is left alone


def test_tables_have_every_method_and_setting(filled):
    assert part(filled, "table").count("| no_gsrp |") == 3
    for row in ("parts: no_retrieval", "4 steps", "10 steps", "mu 0"):
        assert f"| {row} |" in part(filled, "ablations")


def test_the_curve_is_drawn_from_what_was_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(quality, "DOCS", tmp_path)
    assert CliRunner().invoke(quality.quality, ["curve"], catch_exceptions=False).exit_code == 0
    drawn = (tmp_path / "quality_training.png").read_bytes()
    assert len(drawn) > 5000 and drawn == (ROOT / "docs" / "quality_training.png").read_bytes()


def test_the_bar_is_held_against_the_figures():
    figures = dict.fromkeys(
        ("gray_page", "mean_colour", "table", "histogram", "nearest_patch", "random_references"), 20.0
    )
    styles = {
        "gray": {name: {"psnr": db, "ciede2000_identity": 20.0, "line_ssim": 1.0} for name, db in figures.items()}
        | {"ours": {"psnr": 23.0, "ciede2000_identity": 8.5, "line_ssim": 0.99}}
    }
    record = {"styles": styles, "details": {"gray": {"ours": {"characters_within_12": 0.95}}}}
    steps = {name: {"gray": {"ours": {"psnr": db}}} for name, db in (("10 steps", 23.0), ("4 steps", 22.5))}
    met = {what: fine for what, _, _, fine in quality._checks(record, steps)}
    assert met == {
        "gray: dB above the table": True,
        "gray: dB above the best baseline": True,
        "gray: dB lost to another chapter's references": False,
        "gray: share of characters within 12": True,
        "gray: line SSIM": True,
        "gray: identity, CIEDE2000": False,
        "gray: dB that 4 steps lose to 10": True,
    }
