"""`colorflow colorize`: names, order, resuming, what is redone, feeding back, reports."""

import json
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cli_tools import SIZE, chapter, color_page, colorflow, gray_page, one_line, pictures, rgb, use_fake_pack

import colorflow_rt.pipeline
from colorflow_rt.cli import coloring
from colorflow_rt.engine.fake import fake_config
from colorflow_rt.pack import fake_pack
from colorflow_rt.pixels import read_picture, write_png
from colorflow_rt.references import ReferenceSet


@pytest.fixture(autouse=True)
def own_home(tmp_path, monkeypatch):
    use_fake_pack(monkeypatch, tmp_path / "home")


def colorize(pages, refs, out, *more):
    return colorflow("colorize", pages, "--refs", refs, "--out", out, "--steps", 2, *more)


def states(out_json):
    return {Path(page["page"]).name: page["state"] for page in json.loads(out_json.read_text())["pages"]}


def test_a_chapter_in_a_coloured_chapter_out(tmp_path):
    pages, refs, out = chapter(tmp_path)
    done = colorize(pages, refs, out)
    assert done.code == 0
    assert done.out.startswith("3 pages: 3 coloured (")
    assert list(pictures(out)) == ["contact_sheet.png", "page1.png", "page2.png", "page3.png"]
    for name in ("page1.png", "page2.png", "page3.png"):
        result = rgb(out / name)
        assert result.shape == (SIZE[1], SIZE[0], 3)
        assert np.ptp(result.astype(int), axis=2).max() > 0  # not gray any more


def test_plain_lines_come_in_natural_order(tmp_path):
    pages, refs, out = chapter(tmp_path, pages=11)
    err = colorize(pages, refs, out, "--no-sheet").err.splitlines()
    assert [re.match(r"\[(\d+)/11\] .*/page(\d+)\.png -> page\2\.png  gray  ", line)[1] for line in err] == [
        str(n) for n in range(1, 12)
    ]
    assert [re.search(r"/page(\d+)\.png", line)[1] for line in err] == [str(n) for n in range(1, 12)]


def test_the_same_command_again_does_nothing(tmp_path):
    pages, refs, out = chapter(tmp_path)
    colorize(pages, refs, out)
    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    done = colorize(pages, refs, out)
    assert (done.code, done.err) == (0, "")
    assert "3 finished before" in done.out
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == before


def change_nothing(tmp_path):
    return []


def change_page(tmp_path):
    gray_page(tmp_path / "pages" / "page2.png", seed=77)
    return []


def add_reference(tmp_path):
    color_page(tmp_path / "refs" / "another.png", 9)
    return []


@pytest.mark.parametrize(
    ("change", "redone"),
    [
        (change_nothing, 0),
        (lambda tmp_path: ["--steps", 3], 3),
        (lambda tmp_path: ["--seed", 1], 3),
        (lambda tmp_path: ["--saturation", 0.5], 3),
        (lambda tmp_path: ["--luminance", "model"], 3),
        (lambda tmp_path: ["--ban", "ref1.png"], 3),
        (lambda tmp_path: ["--chroma-layer"], 3),
        (lambda tmp_path: ["--force"], 3),
        (lambda tmp_path: ["--max-pixels", 5000, "--no-sheet"], 0),
        (change_page, 1),
        (add_reference, 3),
    ],
)
def test_pages_are_done_again_when_something_they_depend_on_has_changed(tmp_path, change, redone):
    pages, refs, out = chapter(tmp_path)
    colorize(pages, refs, out)
    done = colorize(pages, refs, out, *change(tmp_path))
    counts = f"{redone} coloured" + (f", {3 - redone} finished before" if redone < 3 else "")
    assert done.code == 0
    assert done.out.startswith(f"3 pages: {counts} (" if redone else "3 pages: 3 finished before ("), done.out


def test_pages_are_done_again_when_the_weights_have_changed(tmp_path, monkeypatch):
    pages, refs, out = chapter(tmp_path)
    colorize(pages, refs, out)
    hashes = dict.fromkeys(fake_config().files, "sha256:" + "f" * 64)
    other = fake_pack(replace(fake_config(), files=hashes))
    monkeypatch.setattr(colorflow_rt.pack, "open_pack", lambda name, *how: other)
    assert "3 coloured" in colorize(pages, refs, out).out


def test_naming_a_default_changes_nothing(tmp_path):
    pages, refs, out = chapter(tmp_path)
    colorflow("colorize", pages, "--refs", refs, "--out", out)
    defaults = fake_config().defaults
    named = ("--steps", defaults.steps, "--guidance", defaults.guidance_scale)
    done = colorflow("colorize", pages, "--refs", refs, "--out", out, *named)
    assert "3 finished before" in done.out


def test_two_pages_of_one_name_do_not_collide_and_keep_their_names(tmp_path):
    pages, refs, out = chapter(tmp_path, pages=2)
    gray_page(tmp_path / "other" / "page1.png", 50)
    colorize(tmp_path / "other", refs, out)
    other = pictures(out)["page1.png"]
    done = colorize(pages, refs, out, tmp_path / "other")
    names = [name for name in pictures(out) if name.startswith("page1")]
    assert pictures(out)["page1.png"] == other
    assert done.code == 0 and len(names) == 2 and re.fullmatch(r"page1-[0-9a-f]{8}\.png", names[0])
    assert "3 finished before" in colorize(tmp_path / "other", refs, out, pages).out


def test_the_same_bytes_whatever_was_done_before(tmp_path):
    pages, refs, out = chapter(tmp_path)
    colorize(pages, refs, out)
    colorize(pages / "page2.png", refs, tmp_path / "alone")
    assert pictures(tmp_path / "alone")["page2.png"] == pictures(out)["page2.png"]


def test_pages_in_colour_are_copied_and_named(tmp_path):
    pages, refs, out = chapter(tmp_path, pages=1)
    cover = color_page(pages / "cover.png", 5)
    for _ in range(2):  # named again when the command is run again
        done = colorize(pages, refs, out)
        assert done.code == 0
        assert f"already in colour, copied as they are: {cover}" in done.out
    assert np.array_equal(rgb(out / "cover.png"), rgb(cover))


def test_one_bad_page_is_reported_and_the_rest_go_on(tmp_path):
    pages, refs, out = chapter(tmp_path)
    (pages / "page2.png").write_bytes(b"not a picture")
    done = colorize(pages, refs, out, "--json", tmp_path / "report.json")
    errors = [line for line in done.err.splitlines() if line.startswith("error: ")]
    assert done.code == 1
    assert len(errors) == 1 and "page2.png: its content is not a PNG" in errors[0]
    assert "2 coloured, 1 failed" in done.out
    assert f"failed: {pages / 'page2.png'}" in done.out
    assert set(pictures(out)) == {"contact_sheet.png", "page1.png", "page3.png"}
    assert states(tmp_path / "report.json") == {
        "page1.png": "coloured",
        "page2.png": "failed",
        "page3.png": "coloured",
    }
    gray_page(pages / "page2.png")
    assert "1 coloured, 2 finished before" in colorize(pages, refs, out, "--json", tmp_path / "report.json").out
    assert list(states(tmp_path / "report.json").items()) == [  # the pages' own order, whenever they were done
        ("page1.png", "finished before"),
        ("page2.png", "coloured"),
        ("page3.png", "finished before"),
    ]


def test_a_page_that_fails_for_an_unknown_reason_does_not_stop_the_others(tmp_path, monkeypatch):
    pages, refs, out = chapter(tmp_path)

    real, calls = coloring.details_of, iter(range(10))

    def broken(result):
        if next(calls) == 1:
            raise ZeroDivisionError("no reason")
        return real(result)

    monkeypatch.setattr(coloring, "details_of", broken)
    done = colorize(pages, refs, out)
    assert done.code == 1
    assert "page2.png: unexpected ZeroDivisionError: no reason" in done.err
    assert "2 coloured, 1 failed" in done.out


def test_alpha_is_given_back(tmp_path):
    pages, refs, out = chapter(tmp_path, pages=1)
    page = rgb(pages / "page1.png")
    alpha = np.full(page.shape[:2], 255, np.uint8)
    alpha[:10] = 40
    write_png(pages / "page1.png", page, alpha)
    colorize(pages, refs, out)
    assert np.array_equal(read_picture(out / "page1.png").alpha, alpha)


def test_the_chroma_layer_is_a_file_of_its_own(tmp_path):
    pages, refs, out = chapter(tmp_path, pages=1)
    colorize(pages, refs, out, "--chroma-layer")
    layer = read_picture(out / "chroma" / "page1.png")
    assert layer.size == SIZE
    (out / "chroma" / "page1.png").unlink()
    assert "1 coloured" in colorize(pages, refs, out, "--chroma-layer").out
    assert (out / "chroma" / "page1.png").exists()
    colorize(pages, refs, out)  # a layer of other options would be a wrong file
    assert not (out / "chroma" / "page1.png").exists()
    assert "1 coloured" in colorize(pages, refs, out, "--chroma-layer").out


def test_the_json_report_says_what_was_done(tmp_path):
    pages, refs, out = chapter(tmp_path, pages=1)
    colorize(pages, refs, out, "--json", tmp_path / "report.json")
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["exit_code"] == 0
    assert report["counts"]["coloured"] == 1
    (page,) = report["pages"]
    assert page["output"] == "page1.png"
    assert page["style"] == "gray"
    assert {use["name"] for use in page["references"]} <= {"ref1.png", "ref2.png"}
    assert page["seconds"]["denoise"] >= 0


def test_pinned_and_banned_references(tmp_path):
    pages, refs, out = chapter(tmp_path, pages=1, references=3)
    report = tmp_path / "report.json"

    def used(*options):
        colorize(pages, refs, out, "--json", report, *options)
        return {use["name"] for use in json.loads(report.read_text())["pages"][0]["references"]}

    assert "ref2.png" not in used("--ban", "ref2.png")
    assert used("--ban", "ref2.png", "--ban", "ref3.png") == {"ref1.png"}
    for number in (1, 2, 3):
        assert f"ref{number}.png" in used("--pin", f"ref{number}.png")


def test_no_sheet_is_written_when_none_is_wanted(tmp_path):
    pages, refs, out = chapter(tmp_path, pages=1)
    colorize(pages, refs, out, "--no-sheet")
    assert list(pictures(out)) == ["page1.png"]
    colorize(pages, refs, out)
    assert list(pictures(out)) == ["contact_sheet.png", "page1.png"]


def test_results_can_be_fed_back_to_a_set(tmp_path):
    pages, refs, out = chapter(tmp_path)
    colorflow("refs", "add", "hero", refs)
    command = ("colorize", pages, "--set", "hero", "--out", out, "--steps", 2, "--approve")
    assert colorflow(*command).code == 0
    fed_back = [r for r in ReferenceSet.open("hero").list() if r.source == "approved"]
    assert [r.name for r in fed_back] == ["page1.png", "page2.png", "page3.png"]
    assert "3 finished before" in colorflow(*command).out  # what it has added itself is no change
    assert "3 finished before" in colorflow(*command[:-1]).out
    assert len(ReferenceSet.open("hero").list()) == 5
    first = pictures(out)
    assert colorflow(*command, "--force").code == 0  # withdrawn first: no page is its own reference
    assert pictures(out) == first
    assert len(ReferenceSet.open("hero").list()) == 5


def test_a_result_retouched_by_hand_is_kept_and_fed_back_as_it_is(tmp_path):
    pages, refs, out = chapter(tmp_path, pages=1)
    colorflow("refs", "add", "hero", refs)
    command = ("colorize", pages, "--set", "hero", "--out", out, "--steps", 2)
    colorflow(*command)
    retouched = color_page(out / "page1.png", 42)
    assert "1 finished before" in colorflow(*command, "--approve").out
    assert "1 finished before" in colorflow(*command, "--approve").out
    (fed_back,) = [r for r in ReferenceSet.open("hero").list() if r.source == "approved"]
    assert np.array_equal(ReferenceSet.open("hero").picture(fed_back).rgb, rgb(retouched))


def test_ctrl_c_stops_between_steps_and_says_how_to_go_on(tmp_path, monkeypatch):
    pages, refs, out = chapter(tmp_path, pages=4)
    real, calls = colorflow_rt.pipeline.run, iter(range(10))

    def run(*arguments, **named):
        if next(calls) == 2:
            signal.raise_signal(signal.SIGINT)
        return real(*arguments, **named)

    monkeypatch.setattr(colorflow_rt.pipeline, "run", run)
    before = signal.getsignal(signal.SIGINT)
    done = colorize(pages, refs, out, "--json", tmp_path / "report.json")
    assert done.code == 130
    assert done.err.splitlines()[-1] == "interrupted with 2 pages left: run the same command again to go on"
    assert list(pictures(out)) == ["page1.png", "page2.png"]
    assert json.loads((tmp_path / "report.json").read_text())["exit_code"] == 130
    assert signal.getsignal(signal.SIGINT) is before
    monkeypatch.undo()
    use_fake_pack(monkeypatch, tmp_path / "home")
    assert "2 coloured, 2 finished before" in colorize(pages, refs, out).out


def test_ctrl_c_twice_stops_at_once(tmp_path, monkeypatch):
    pages, refs, out = chapter(tmp_path, pages=2)

    def run(*arguments, **named):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("not reached")

    monkeypatch.setattr(colorflow_rt.pipeline, "run", run)
    done = colorize(pages, refs, out)
    assert done.code == 130
    assert pictures(out) == {}


def test_a_real_ctrl_c_reaches_a_real_process(tmp_path):
    pages, refs, out = chapter(tmp_path, pages=40)
    command = [sys.executable, "-m", "colorflow_rt.cli", "colorize", pages, "--refs", refs, "--out", out]
    process = subprocess.Popen(
        [*map(str, command), "--steps", "1000"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    first = process.stderr.readline()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert first.startswith("[1/40]")
    assert process.returncode == 130
    assert "run the same command again to go on" in err


def test_a_file_of_another_origin_is_not_replaced(tmp_path):
    pages, refs, out = chapter(tmp_path, pages=2)
    mine = color_page(out / "page1.png", 3).read_bytes()
    done = colorize(pages, refs, out)
    assert done.code == 1
    assert "page1.png exists and was not made by colorflow" in done.err
    assert pictures(out)["page1.png"] == mine
    assert "page2.png" in pictures(out)
    assert colorize(pages, refs, out, "--force").code == 0
    assert pictures(out)["page1.png"] != mine


def test_results_never_replace_the_pages(tmp_path):
    pages, refs, _ = chapter(tmp_path)
    before = pictures(pages)
    one_line(colorize(pages, refs, pages), 2, "would overwrite the page")
    one_line(colorize(pages, refs, pages, "--force"), 2, "would overwrite the page")
    assert pictures(pages) == before


def test_out_may_not_be_the_folder_of_the_references(tmp_path):
    pages, refs, _ = chapter(tmp_path)
    one_line(colorize(pages, refs, refs), 2, "--out is the folder of the references")


def test_a_page_that_has_gone_is_left_out_of_the_sheet(tmp_path, monkeypatch):
    pages, refs, out = chapter(tmp_path, pages=2)
    real = coloring.Chapter.run

    def run(self):
        ended = real(self)
        (pages / "page1.png").unlink(missing_ok=True)
        return ended

    monkeypatch.setattr(coloring.Chapter, "run", run)
    assert colorize(pages, refs, out).code == 0
    alone = colorize(pages, refs, tmp_path / "alone")
    assert alone.code == 0
    assert rgb(out / "contact_sheet.png").shape == rgb(tmp_path / "alone" / "contact_sheet.png").shape


def test_sheets_show_every_page_that_has_a_result(tmp_path):
    pages, refs, out = chapter(tmp_path, pages=9)
    colorize(pages, refs, out)
    assert [name for name in pictures(out) if "sheet" in name] == ["contact_sheet.png", "contact_sheet_02.png"]
    heights = [read_picture(out / name).size[1] for name in ("contact_sheet.png", "contact_sheet_02.png")]
    assert heights[0] > 5 * heights[1]
