"""Jobs: order, names, records. What a kill leaves behind is played by writing or removing single files."""

import json
import os
import re
import tempfile
from pathlib import Path

import numpy as np
import pytest
from users import as_ordinary_user

from colorflow_rt.errors import OptionError, OutputError
from colorflow_rt.jobs import JobFolder, Record, check_targets, fingerprint, list_pages, sha256_or_nothing
from colorflow_rt.pixels import write_png


def page(path, value=128):
    path.parent.mkdir(parents=True, exist_ok=True)
    write_png(path, np.full((20, 16, 3), value, np.uint8))
    return path


def assign(out, pages):
    with JobFolder.open(out) as job:
        return job.assign(pages, {p: sha256_or_nothing(p) for p in pages})


def complete(job, page, name, print_now="f"):
    """What a run does for one page, its picture being a copy of the page."""
    record = Record(name, str(page.resolve()), sha256_or_nothing(page), print_now, "started")
    job.check_free(name, [f"{name}.png"])
    job.write(record)
    (job.out / f"{name}.png").write_bytes(page.read_bytes())
    files = {f"{name}.png": sha256_or_nothing(job.out / f"{name}.png")}
    job.write(Record(name, record.page, record.page_sha256, print_now, "done", files))


def test_pages_come_in_natural_order_whatever_order_they_are_given_in(tmp_path):
    names = ["page10.png", "page2.png", "Page1.png", "page2b.png"]
    pages = [page(tmp_path / "in" / name) for name in names]
    expected = ["Page1.png", "page2.png", "page2b.png", "page10.png"]
    assert [p.name for p in list_pages(pages)] == expected
    assert [p.name for p in list_pages([tmp_path / "in"])] == expected


def test_folders_give_their_pictures_and_each_page_comes_once(tmp_path):
    one = page(tmp_path / "a" / "1.png")
    page(tmp_path / "a" / "deeper" / "2.png")
    page(tmp_path / "a" / ".hidden.png")
    (tmp_path / "a" / "notes.txt").write_text("no page")
    assert list_pages([tmp_path / "a", one, tmp_path / "a" / ".." / "a"]) == [one]


def test_a_named_file_is_a_page_whatever_its_suffix(tmp_path):
    odd = page(tmp_path / "scan.dat")
    assert list_pages([odd]) == [odd]


def test_missing_inputs_and_empty_folders_are_usage_errors(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(OptionError, match="no file or folder"):
        list_pages([tmp_path / "nowhere"])
    with pytest.raises(OptionError, match="no pictures in"):
        list_pages([tmp_path / "empty"])


def test_a_page_keeps_its_stem(tmp_path):
    pages = [page(tmp_path / "in" / name) for name in ("001.png", "a.b.jpg")]
    assert list(assign(tmp_path / "out", pages).values()) == ["001", "a.b"]


def test_pages_of_one_name_get_different_ones_by_the_stated_rule(tmp_path):
    pages = [page(tmp_path / f, i) for i, f in enumerate(("a/1.png", "b/1.png", "b/1.jpg", "c/1.PNG"))]
    names = assign(tmp_path / "out", pages)
    assert names[pages[0]] == "1"
    assert all(re.fullmatch(r"1-[0-9a-f]{8}", names[p]) for p in pages[1:])
    assert len({n.casefold() for n in names.values()}) == 4
    assert assign(tmp_path / "out", pages) == names


def test_names_that_differ_by_case_alone_would_be_one_file_on_some_disks(tmp_path):
    pages = [page(tmp_path / "a" / "Cover.png", 1), page(tmp_path / "b" / "cover.png", 2)]
    names = assign(tmp_path / "out", pages)
    assert len({n.casefold() for n in names.values()}) == 2


def test_a_name_once_given_stays_whatever_comes_before_it_later(tmp_path):
    early, late = page(tmp_path / "a" / "1.png", 1), page(tmp_path / "b" / "1.png", 2)
    with JobFolder.open(tmp_path / "out") as job:
        complete(job, late, "1")
    names = assign(tmp_path / "out", [early, late])
    assert names[late] == "1"
    assert names[early] != "1"
    assert assign(tmp_path / "out", [early])[early] == names[early]


def test_a_chapter_that_was_moved_keeps_its_names(tmp_path):
    old = page(tmp_path / "a" / "1.png", 7)
    with JobFolder.open(tmp_path / "out") as job:
        complete(job, old, "1-deadbeef")
    (tmp_path / "a").rename(tmp_path / "b")
    new = tmp_path / "b" / "1.png"
    assert assign(tmp_path / "out", [new]) == {new: "1-deadbeef"}


def test_another_page_of_the_same_name_does_not_take_over_a_result(tmp_path):
    with JobFolder.open(tmp_path / "out") as job:
        complete(job, page(tmp_path / "a" / "1.png", 7), "1")
    other = page(tmp_path / "b" / "1.png", 8)
    assert assign(tmp_path / "out", [other])[other] != "1"


def test_a_page_called_like_the_sheet_gets_another_name(tmp_path):
    sheet = page(tmp_path / "contact_sheet.png")
    assert re.fullmatch(r"contact_sheet-[0-9a-f]{8}", assign(tmp_path / "out", [sheet])[sheet])


def test_finished_needs_the_record_the_fingerprint_and_the_files(tmp_path):
    source = page(tmp_path / "1.png")
    with JobFolder.open(tmp_path / "out") as job:
        assert job.finished("1", "f") is None
        complete(job, source, "1")
        assert job.finished("1", "f").page_sha256 == sha256_or_nothing(source)
        assert job.finished("1", "another fingerprint") is None
    with JobFolder.open(tmp_path / "out") as job:  # from the disk
        assert job.finished("1", "f")
        (tmp_path / "out" / "1.png").unlink()
        assert job.finished("1", "f") is None


def test_a_damaged_result_is_made_again_and_a_retouched_one_kept(tmp_path):
    with JobFolder.open(tmp_path / "out") as job:
        complete(job, page(tmp_path / "1.png", 5), "1")
        result = tmp_path / "out" / "1.png"
        page(result, 200)
        assert job.finished("1", "f")
        result.write_bytes(result.read_bytes()[:60])
        assert job.finished("1", "f") is None


def test_what_was_started_is_made_again(tmp_path):
    source = page(tmp_path / "1.png")
    with JobFolder.open(tmp_path / "out") as job:
        complete(job, source, "1")
        job.write(Record("1", str(source), "", "f", "started"))
    with JobFolder.open(tmp_path / "out") as job:
        assert job.finished("1", "f") is None


def test_a_file_that_no_run_has_made_is_not_replaced_unasked(tmp_path):
    mine = page(tmp_path / "out" / "1.png", 99)
    with JobFolder.open(tmp_path / "out") as job:
        with pytest.raises(OutputError, match="was not made by colorflow"):
            job.check_free("1", ["1.png"])
        job.check_free("2", ["2.png"])
        job.write(Record("1", "/somewhere/1.png", "", "f", "started", {"1.png": ""}))
        job.check_free("1", ["1.png"])
        page(tmp_path / "out" / "chroma" / "1.png")
        with pytest.raises(OutputError, match=r"chroma/1\.png exists"):
            job.check_free("1", ["1.png", "chroma/1.png"])
    assert mine.exists()


@pytest.mark.parametrize(
    "damage",
    [b"", b"{", b"[]", b"null", b'{"version": 1}', b"\xff\xfe", b'{"version": 99, "output": "1"}', b"wrong type"],
)
def test_a_damaged_record_means_that_the_page_is_made_again(tmp_path, damage):
    source = page(tmp_path / "1.png")
    with JobFolder.open(tmp_path / "out") as job:
        complete(job, source, "1")
    path = tmp_path / "out" / ".colorflow" / "pages" / "1.json"
    if damage == b"wrong type":
        damage = json.dumps(json.loads(path.read_text()) | {"files": []}).encode()
    path.write_bytes(damage)
    with JobFolder.open(tmp_path / "out") as job:
        assert job.finished("1", "f") is None
        assert job.assign([source], {source: "x"}) == {source: "1"}
        job.check_free("1", ["1.png"])


def test_records_are_readable_by_people_and_programs(tmp_path):
    with JobFolder.open(tmp_path / "out") as job:
        complete(job, page(tmp_path / "ü1.png"), "ü1")
    data = json.loads((tmp_path / "out" / ".colorflow" / "pages" / "ü1.json").read_text())
    assert data["version"] == 1
    assert data["state"] == "done"
    assert data["files"].keys() == {"ü1.png"}


def test_results_that_were_fed_back_are_remembered(tmp_path):
    with JobFolder.open(tmp_path / "out") as job:
        complete(job, page(tmp_path / "1.png"), "1")
        job.write(Record("2", "/2.png", "", "f", "done", details={"approved": ["aa", "bb"]}))
    with JobFolder.open(tmp_path / "out") as job:
        assert job.approved() == {"aa", "bb"}
        assert job.record("2").page == "/2.png"
        assert job.record("3") is None


def test_what_killed_writers_left_is_removed_and_nothing_else(tmp_path):
    with JobFolder.open(tmp_path / "out"):
        pass
    left = [tmp_path / "out" / ".colorflow-00.tmp", tmp_path / "out/.colorflow/pages/.colorflow-11.tmp"]
    kept = [tmp_path / "out" / "notes.tmp", tmp_path / "out" / ".colorflow-notes"]
    for path in left + kept:
        path.write_bytes(b"")
    with JobFolder.open(tmp_path / "out"):
        assert [p.exists() for p in left] == [False, False]
        assert [p.exists() for p in kept] == [True, True]


def test_one_process_at_a_time_writes_to_a_folder(tmp_path):
    with JobFolder.open(tmp_path / "out"):
        held = pytest.raises(OutputError, match=f"is being written by pid {os.getpid()}")
        with held, JobFolder.open(tmp_path / "out"):
            pass
    with JobFolder.open(tmp_path / "out"):
        pass


def test_an_out_folder_that_is_a_file_or_below_one_is_refused(tmp_path):
    file = page(tmp_path / "file")
    for out in (file, file / "below"):
        with pytest.raises(OutputError, match="--out"), JobFolder.open(out):
            pass
    assert file.is_file()


def test_a_read_only_out_folder_is_refused():
    with as_ordinary_user(), tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        out.mkdir(mode=0o555)
        with pytest.raises(OutputError, match="cannot be made"), JobFolder.open(out):
            pass
        assert list(out.iterdir()) == []


def test_results_never_replace_the_pages(tmp_path):
    source = page(tmp_path / "in" / "1.png")
    (tmp_path / "link").symlink_to(tmp_path / "in")
    for out in (tmp_path / "in", tmp_path / "link"):
        with pytest.raises(OptionError, match="would overwrite the page"):
            check_targets(out, [source], ["1"])
    check_targets(tmp_path / "out", [source], ["1"])
    check_targets(tmp_path / "in", [source], ["2"])


def test_a_fingerprint_changes_with_every_part_and_not_with_order():
    parts = {"page": "a", "options": {"steps": 10, "seed": 0}}
    assert fingerprint(**parts) == fingerprint(options={"seed": 0, "steps": 10}, page="a")
    assert fingerprint(**parts) != fingerprint(page="a", options={"steps": 10, "seed": 1})
    assert fingerprint(**parts) != fingerprint(page="b", options=parts["options"])
