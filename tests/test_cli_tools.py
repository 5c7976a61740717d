"""`colorflow comics make`, `packs`, `doctor` and `demo`."""

import re
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from cli_tools import colorflow, one_line, pack_of_nonsense, pictures, rgb, use_fake_pack

import colorflow_rt.pack
import colorflow_rt.pipeline
from colorflow_rt.cli import doctor
from colorflow_rt.metrics import psnr
from colorflow_rt.pack import fake_pack

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def own_home(tmp_path, monkeypatch):
    use_fake_pack(monkeypatch, tmp_path / "home")


def test_comics_make_writes_chapter_folders(tmp_path):
    out = tmp_path / "comics"
    command = ("comics", "make", "--chapters", 2, "--pages", 1, "--references", 2, "--seed", 3)
    done = colorflow(*command, "--size", "96x128", "--out", out)
    assert done.code == 0
    assert done.out == f"2 chapters of 1 pages and 2 references in {out}\n"
    for chapter in (out / "chapter_000", out / "chapter_001"):
        assert len(list((chapter / "references").glob("*.png"))) == 2
        assert rgb(chapter / "pages" / "gray" / "000.png").shape == (128, 96, 3)
    assert colorflow(*command, "--size", "9x9", "--out", out).code == 2


def test_packs_are_listed_and_checked(tmp_path, monkeypatch):
    folder = tmp_path / "home" / "packs" / "mine"
    monkeypatch.setattr(colorflow_rt.pack, "BUNDLED", tmp_path / "none")
    assert colorflow("packs").out == "no packs here\n"
    pack_of_nonsense(folder)
    for arguments, state in (([], "present"), (["--check"], "match")):
        done = colorflow("packs", *arguments)
        assert done.code == 0
        assert re.search(rf"^mine .* 0\.0 MB +7 {state} ", done.out, re.MULTILINE), done.out
        assert str(folder) in done.out
    (folder / "gsrp.onnx").write_bytes(b"damaged")
    assert colorflow("packs").code == 0
    one_line(colorflow("packs", "--check"), 1, "gsrp.onnx is damaged")
    (folder / "gsrp.onnx").unlink()
    one_line(colorflow("packs"), 1, "gsrp.onnx is missing")


def lines(done):
    """The rows of doctor's table: state and detail by check."""
    rows = [re.split(r"  +", line.strip(), maxsplit=2) for line in done.out.splitlines()[1:-1]]
    return {row[0]: tuple(row[1:]) for row in rows}


def test_doctor_says_that_all_is_well_where_a_page_can_be_coloured(monkeypatch):
    monkeypatch.setattr(colorflow_rt.pack, "open_pack", lambda name: fake_pack())
    done = colorflow("doctor")
    assert done.code == 0
    assert done.out.endswith("pages can be coloured here\n")
    rows = lines(done)
    for check in ("python", "machine", "packages", "home", "pack mini", "onnx-cpu"):
        assert rows[check][0] == "ok"


def test_doctor_fails_without_the_bundled_pack_and_says_why(tmp_path, monkeypatch):
    monkeypatch.setattr(colorflow_rt.pack, "BUNDLED", tmp_path / "none")
    done = colorflow("doctor")
    assert done.code == 1
    assert done.out.endswith("failed: pack mini\n")
    state, detail = lines(done)["pack mini"]
    assert state == "FAIL"
    assert "no pack is named 'mini'" in detail


def test_doctor_names_the_missing_extras_and_the_command_for_each(monkeypatch):
    real = doctor._installed
    monkeypatch.setattr(doctor, "_installed", lambda name: None if name in ("torch", "tensorrt") else real(name))
    rows = lines(colorflow("doctor"))
    assert rows["extra export"] == ("missing", "torch; pip install 'colorflow-rt[export]'")
    assert rows["tensorrt"][0] == "missing"
    assert "pip install 'colorflow-rt[tensorrt]'" in rows["tensorrt"][1]


def test_doctor_notices_a_missing_package(monkeypatch):
    real = doctor._installed
    monkeypatch.setattr(doctor, "_installed", lambda name: None if name == "hnswlib" else real(name))
    done = colorflow("doctor")
    assert done.code == 1
    assert done.out.endswith("failed: packages\n")
    assert lines(done)["packages"] == ("FAIL", "not installed: hnswlib; pip install hnswlib")


def test_doctor_notices_a_home_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("COLORFLOW_HOME", str(tmp_path / "file" / "home"))
    state, detail = lines(colorflow("doctor"))["home"]
    assert state == "missing"
    assert "set COLORFLOW_HOME" in detail


def test_doctor_knows_the_extras_of_pyproject():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {
        extra: tuple(re.match(r"[\w-]+", requirement)[0] for requirement in requirements)
        for extra, requirements in project["optional-dependencies"].items()
        if extra != "dev"
    }
    assert names == doctor.EXTRAS


def test_the_demo_colours_a_chapter_and_measures_it(tmp_path):
    out = tmp_path / "demo"
    done = colorflow("demo", "--out", out, "--pages", 2, "--size", "96x128")
    assert done.code == 0, done
    assert list(pictures(out / "coloured")) == [
        "gray_000.png",
        "gray_001.png",
        "lineart_000.png",
        "screentone_000.png",
    ]
    assert list(pictures(out)) == ["contact_sheet.png"]
    seconds = re.search(r"^in all +(\S+) +(\S+)", done.out, re.MULTILINE)
    assert float(seconds[1]) > 0 and float(seconds[2]) > 0
    rows = re.findall(r"^(gray|screentone|lineart) +(\d) +([\d.]+) +([\d.]+) +([+-][\d.]+)", done.out, re.MULTILINE)
    assert [(row[0], row[1]) for row in rows] == [("gray", "2"), ("screentone", "1"), ("lineart", "1")]
    for _, _, gray, colored, gain in rows:
        assert float(colored) - float(gray) == pytest.approx(float(gain), abs=0.011)


def test_the_demo_measures_against_the_truth(tmp_path, monkeypatch):
    out = tmp_path / "demo"
    colorflow("demo", "--out", out, "--pages", 1, "--size", "96x128")
    real = colorflow_rt.pipeline.Colorizer.colorize

    def negative(self, page, *rest):
        truth = out / "chapter_000" / "truth" / page.name
        return replace(real(self, page, *rest), image=255 - rgb(truth))

    monkeypatch.setattr(colorflow_rt.pipeline.Colorizer, "colorize", negative)
    done = colorflow("demo", "--out", out, "--pages", 1, "--size", "96x128")
    truth = rgb(out / "chapter_000" / "truth" / "000.png")
    gray = rgb(out / "chapter_000" / "pages" / "gray" / "000.png")
    expected = [f"{psnr(truth, gray):.2f}", f"{psnr(truth, 255 - truth):.2f}"]
    assert re.search(r"^gray +1 +(\S+) +(\S+)", done.out, re.MULTILINE).groups() == tuple(expected)
