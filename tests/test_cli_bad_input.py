"""Bad input at the command line: an exit code and one clear line each, no traceback, nothing half written."""

import errno
from pathlib import Path

import numpy as np
import pytest
from cli_tools import (
    chapter,
    color_page,
    colorflow,
    gray_page,
    one_line,
    pack_of_nonsense,
    pictures,
    rgb,
    use_fake_pack,
)
from PIL import Image, ImageCms

import colorflow_rt.files
from colorflow_rt.pack import file_hash


@pytest.fixture(autouse=True)
def own_home(tmp_path, monkeypatch):
    use_fake_pack(monkeypatch, tmp_path / "home")


def colorize(tmp_path, page, *more):
    refs = tmp_path / "refs"
    if not refs.exists():
        color_page(refs / "ref.png")
    return colorflow("colorize", page, "--refs", refs, "--out", tmp_path / "out", "--steps", 1, "--no-sheet", *more)


def gray(size=(48, 64)):
    return Image.effect_noise(size, 60)


def truncated(path):
    gray().save(path, "PNG")
    path.write_bytes(path.read_bytes()[:500])


def animated(path):
    gray().save(path, "GIF", save_all=True, append_images=[gray(), gray()])


REFUSED = {
    "truncated": (truncated, "is truncated or damaged"),
    "empty": (lambda path: path.write_bytes(b""), "is empty (0 bytes)"),
    "animated": (animated, "(an animation)"),
    "text": (lambda path: path.write_text("a page, honestly"), "is not a PNG, JPEG"),
    "too small": (lambda path: gray((15, 200)).save(path, "PNG"), "under 16 pixels a side"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_bad_page_is_refused_in_one_line(tmp_path, name):
    make, reason = REFUSED[name]
    make(tmp_path / "bad.png")
    one_line(colorize(tmp_path, tmp_path / "bad.png"), 1, str(tmp_path / "bad.png"), reason)
    assert pictures(tmp_path / "out") == {}


@pytest.mark.parametrize("name", REFUSED)
def test_a_bad_reference_is_refused_in_one_line(tmp_path, name):
    make, reason = REFUSED[name]
    color_page(tmp_path / "refs" / "good.png")
    make(tmp_path / "refs" / "bad.png")
    one_line(colorize(tmp_path, gray_page(tmp_path / "p.png")), 1, "bad.png", reason)
    assert not (tmp_path / "out").exists()


def test_the_pixel_limit_is_an_option(tmp_path):
    page = gray_page(tmp_path / "p.png", size=(40, 50))
    color_page(tmp_path / "refs" / "ref.png", size=(20, 20))
    one_line(colorize(tmp_path, page, "--max-pixels", 1999), 1, "over the limit of 1,999")
    assert colorize(tmp_path, page, "--max-pixels", 2000).code == 0


def test_no_references_are_refused(tmp_path):
    page = gray_page(tmp_path / "p.png")
    (tmp_path / "refs").mkdir()
    one_line(colorize(tmp_path, page), 1, "no pictures in")
    missing = ("colorize", page, "--out", tmp_path / "out")
    one_line(colorflow(*missing), 2, "--refs DIR or --set NAME")
    one_line(colorflow(*missing, "--refs", tmp_path / "nowhere"), 2, "nowhere")
    one_line(colorflow(*missing, "--refs", tmp_path / "refs", "--set", "x"), 2, "--refs DIR or --set NAME")
    one_line(colorflow(*missing, "--set", "nobody"), 1, "no reference set 'nobody'")
    one_line(colorflow(*missing, "--set", "../evil"), 1, "../evil")


def test_an_empty_set_is_refused(tmp_path):
    colorflow("refs", "add", "hero", color_page(tmp_path / "ref.png"))
    colorflow("refs", "remove", "hero", "ref.png")
    done = colorflow("colorize", gray_page(tmp_path / "p.png"), "--set", "hero", "--out", tmp_path / "out")
    one_line(done, 1, "'hero'", "empty")


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--style", "sepia"], "auto, gray, screentone, lineart"),
        (["--fit", "stretch"], "pad, crop"),
        (["--luminance", "none"], "auto, page, lines, model"),
        (["--steps", "0"], "steps"),
        (["--steps", "many"], "--steps"),
        (["--guidance", "nan"], "guidance"),
        (["--saturation", "-1"], "saturation"),
        (["--seed", "-1"], "seed"),
        (["--max-pixels", "0"], "--max-pixels"),
        (["--pin", "nobody"], "'nobody'"),
        (["--pin", "ref.png", "--ban", "ref.png"], "both pinned and banned"),
        (["--pack", "nobody"], "no pack is named 'nobody'"),
        (["--approve"], "--approve"),
        (["--json", "no/such/folder/report.json"], "--json"),
    ],
)
def test_bad_options_are_usage_errors_that_name_the_choices(tmp_path, arguments, part):
    one_line(colorize(tmp_path, gray_page(tmp_path / "p.png"), *arguments), 2, part)
    assert pictures(tmp_path / "out") == {}


def test_missing_inputs_and_empty_folders_are_usage_errors(tmp_path):
    (tmp_path / "empty").mkdir()
    one_line(colorize(tmp_path, tmp_path / "nowhere.png"), 2, "no file or folder")
    one_line(colorize(tmp_path, tmp_path / "empty"), 2, "no pictures in")
    assert not (tmp_path / "out").exists()


def test_a_damaged_pack_file_is_named_with_both_hashes(tmp_path):
    page, pack = gray_page(tmp_path / "p.png"), pack_of_nonsense(tmp_path / "pack")
    encoder = pack / "clip_encoder.onnx"
    good = file_hash(encoder).removeprefix("sha256:")
    encoder.write_bytes(b"damaged")
    one_line(
        colorize(tmp_path, page, "--pack", pack), 1, str(encoder), good, file_hash(encoder).removeprefix("sha256:")
    )
    encoder.unlink()
    one_line(colorize(tmp_path, page, "--pack", pack), 1, "clip_encoder.onnx is missing")
    (pack / "pack.toml").write_text("schema = 'one'")
    one_line(colorize(tmp_path, page, "--pack", pack), 1, "pack.toml")
    assert pictures(tmp_path / "out") == {}


def test_a_graph_that_cannot_be_loaded_is_one_line(tmp_path):
    page, pack = gray_page(tmp_path / "p.png"), pack_of_nonsense(tmp_path / "pack")
    one_line(colorize(tmp_path, page, "--pack", pack), 1, "clip_encoder cannot be loaded")


@pytest.mark.parametrize("out", ["file", "file/below"])
def test_an_out_folder_that_cannot_be_is_refused(tmp_path, out):
    (tmp_path / "file").write_text("mine")
    page, ref = gray_page(tmp_path / "p.png"), color_page(tmp_path / "ref.png")
    one_line(colorflow("colorize", page, "--refs", ref, "--out", tmp_path / out), 1, "--out", out)
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize(("code", "reason"), [(errno.ENOSPC, "disk is full"), (errno.EROFS, "read-only")])
def test_a_disk_that_fills_up_ends_the_job_in_one_line_and_it_can_be_resumed(tmp_path, monkeypatch, code, reason):
    pages, refs, out = chapter(tmp_path)
    real = colorflow_rt.files.sync

    def full(path):
        record = out / ".colorflow" / "pages" / "page1.json"
        if record.exists() and '"done"' in record.read_text():
            raise OSError(code, "no")
        real(path)

    monkeypatch.setattr(colorflow_rt.files, "sync", full)
    done = colorflow("colorize", pages, "--refs", refs, "--out", out, "--steps", 1)
    errors = [line for line in done.err.splitlines() if not line.startswith("[")]
    assert done.code == 1
    assert len(errors) == 1 and errors[0].startswith("error: ") and reason in errors[0]
    assert list(pictures(out)) == ["page1.png"]
    assert not list(out.rglob("*.tmp"))
    monkeypatch.setattr(colorflow_rt.files, "sync", real)
    done = colorflow("colorize", pages, "--refs", refs, "--out", out, "--steps", 1)
    assert "2 coloured, 1 finished before" in done.out


def srgb():
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def rotated(path):
    exif = Image.Exif()
    exif[0x0112] = 6
    gray().save(path, "JPEG", exif=exif)


ACCEPTED = {
    "cmyk.jpg": lambda path: gray().convert("CMYK").save(path),
    "palette.png": lambda path: gray().convert("P").save(path),
    "one bit.png": lambda path: gray().convert("1").save(path),
    "sixteen bit.png": lambda path: Image.fromarray(np.asarray(gray()).astype(np.uint16) * 257).save(path),
    "alpha.png": lambda path: gray().convert("LA").save(path),
    "profile.png": lambda path: gray().convert("RGB").save(path, icc_profile=srgb()),
    "turned.jpg": rotated,
    "strip.png": lambda path: gray((32, 400)).save(path),
    "wrong name.png": lambda path: gray().save(path, "WEBP", lossless=True),
    "no suffix": lambda path: gray().save(path, "BMP"),
    "名前 ü%s.png": lambda path: gray().save(path),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_odd_pages_are_accepted(tmp_path, name):
    page = tmp_path / "in" / name
    page.parent.mkdir()
    ACCEPTED[name](page)
    done = colorize(tmp_path, page)
    assert done.code == 0, done
    assert rgb(tmp_path / "out" / f"{Path(name).stem}.png").shape == rgb(page).shape


def test_references_of_other_sizes_and_twice_the_same_are_accepted(tmp_path):
    for name, size in (("a.png", (20, 90)), ("b.png", (200, 30)), ("c.png", (48, 64))):
        color_page(tmp_path / "refs" / name, 1, size)
    (tmp_path / "refs" / "copy.png").write_bytes((tmp_path / "refs" / "a.png").read_bytes())
    assert colorize(tmp_path, gray_page(tmp_path / "p.png")).code == 0


def test_a_name_that_is_no_text_is_accepted(tmp_path):
    page = Path(str(tmp_path) + "/p\udcff.png")  # a byte that is no UTF-8
    gray_page(tmp_path / "p.png").rename(page)
    done = colorize(tmp_path, page)
    assert done.code == 0, done
    assert len(pictures(tmp_path / "out")) == 1
    assert "1 finished before" in colorize(tmp_path, page).out
