"""`colorflow refs ...` on the fake pack."""

import pytest
from cli_tools import chapter, color_page, colorflow, gray_page, one_line, use_fake_pack

from colorflow_rt.references import ReferenceSet


@pytest.fixture(autouse=True)
def own_home(tmp_path, monkeypatch):
    use_fake_pack(monkeypatch, tmp_path / "home")


@pytest.fixture
def hero(tmp_path):
    """The folder of a set of three pictures, called hero."""
    _, refs, _ = chapter(tmp_path, references=3)
    assert colorflow("refs", "add", "hero", refs).code == 0
    return ReferenceSet.open("hero")


def states(chosen):
    return {reference.name: reference.state for reference in chosen.list()}


def test_add_takes_folders_and_files_and_counts(tmp_path):
    _, refs, _ = chapter(tmp_path, references=2)
    extra = color_page(tmp_path / "extra.png", 9)
    done = colorflow("refs", "add", "hero", refs, extra, "--tag", "Aiko")
    assert (done.code, done.out) == (0, "hero: 3 added, 0 already there, 0 refused\n")
    assert {r.tag for r in ReferenceSet.open("hero").list()} == {"Aiko"}


def test_adding_twice_adds_once(tmp_path, hero):
    copy = tmp_path / "copy.png"
    copy.write_bytes((tmp_path / "refs" / "ref2.png").read_bytes())
    done = colorflow("refs", "add", "hero", copy)
    assert done.code == 0
    assert done.out.splitlines() == [
        "copy.png: already there as #2 ref2.png",
        "hero: 0 added, 1 already there, 0 refused",
    ]


def test_a_bad_picture_is_named_and_the_others_are_added(tmp_path):
    _, refs, _ = chapter(tmp_path, references=2)
    (refs / "bad.png").write_bytes(b"bad")
    done = colorflow("refs", "add", "hero", refs)
    assert done.code == 1
    assert "hero: 2 added, 0 already there, 1 refused" in done.out
    assert [line for line in done.err.splitlines() if "bad.png" in line and "not added: " in line]


def test_adding_again_says_what_it_repaired(tmp_path, hero):
    (hero.folder / "images" / f"{hero.list()[1].sha256}.png").write_bytes(b"damaged")
    done = colorflow("refs", "add", "hero", tmp_path / "refs")
    assert done.out.splitlines()[3:] == [
        "#2 ref2.png: its file was missing or damaged and was written again",
        "hero: 0 added, 3 already there, 0 refused",
    ]
    assert colorflow("refs", "verify", "hero").code == 0


def test_list_shows_sets_and_pictures(hero):
    colorflow("refs", "pin", "hero", "ref1.png")
    colorflow("refs", "tag", "hero", "#2", "--as", "Aiko")
    assert [line.split() for line in colorflow("refs", "list").out.splitlines()] == [
        ["set", "pictures"],
        ["hero", "3"],
    ]
    assert [line.split() for line in colorflow("refs", "list", "hero").out.splitlines()[1:]] == [
        ["#1", "ref1.png", "-", "48x64", "pinned", "added"],
        ["#2", "ref2.png", "Aiko", "48x64", "normal", "added"],
        ["#3", "ref3.png", "-", "48x64", "normal", "added"],
    ]


def test_no_sets_are_an_empty_list():
    done = colorflow("refs", "list")
    assert done.code == 0
    assert done.out.split() == ["set", "pictures"]


def test_pictures_and_sets_are_removed(hero):
    assert colorflow("refs", "remove", "hero", "ref1.png", "#3").out == "hero: 2 removed\n"
    assert [r.name for r in hero.list()] == ["ref2.png"]
    one_line(colorflow("refs", "remove", "hero", "ref1.png"), 1, "ref1.png")
    one_line(colorflow("refs", "remove", "hero"), 2, "--all")
    one_line(colorflow("refs", "remove", "hero", "ref2.png", "--all"), 2, "--all")
    assert colorflow("refs", "remove", "hero", "--all").out == "hero: deleted\n"
    assert ReferenceSet.names() == []


def test_states_and_tags_are_set_and_taken_away(hero):
    colorflow("refs", "pin", "hero", "ref1.png")
    colorflow("refs", "ban", "hero", "ref2.png", "ref3.png")
    assert states(hero) == {"ref1.png": "pinned", "ref2.png": "banned", "ref3.png": "banned"}
    colorflow("refs", "ban", "hero", "ref2.png", "--off")
    colorflow("refs", "pin", "hero", "ref1.png", "--off")
    assert states(hero) == {"ref1.png": "normal", "ref2.png": "normal", "ref3.png": "banned"}
    colorflow("refs", "tag", "hero", "ref1.png", "--as", "Aiko")
    assert colorflow("refs", "tag", "hero", "ref1.png").out == "hero: 1 without a tag now\n"
    assert hero.list()[0].tag is None


def test_search_finds_the_colour_version_of_a_page_and_leaves_out_the_banned(tmp_path, hero):
    page = gray_page(tmp_path / "p.png", 5)
    colorflow("refs", "add", "hero", gray_page(tmp_path / "same.png", 5))
    rows = [line.split() for line in colorflow("refs", "search", "hero", page, "-k", 2).out.splitlines()[1:]]
    assert len(rows) == 4 * 2
    assert [row[4:6] for row in rows if row[2] == "1"] == [["#4", "same.png"]] * 4
    assert all(float(row[3]) > 0.99 for row in rows if row[2] == "1")
    colorflow("refs", "ban", "hero", "same.png")
    assert "same.png" not in colorflow("refs", "search", "hero", page, "-k", 2).out


def test_verify_and_rebuild(hero):
    assert colorflow("refs", "verify", "hero").out == "hero: everything is as it should be\n"
    (hero.folder / "set.sqlite").write_bytes(b"damaged")
    done = colorflow("refs", "verify", "hero")
    assert done.code == 1
    assert done.out.startswith("database: ")
    done = colorflow("refs", "rebuild", "hero")
    assert (done.code, done.err) == (0, "")
    assert "hero: 3 pictures recovered" in done.out
    assert colorflow("refs", "verify", "hero").code == 0


def test_rebuild_says_what_it_cannot_mend(hero):
    next((hero.folder / "images").glob("*.png")).write_bytes(b"damaged")
    assert colorflow("refs", "verify", "hero").code == 1
    done = colorflow("refs", "rebuild", "hero")
    assert done.code == 1
    assert done.err.startswith("picture: ")
    assert "1 problems left" in done.out


@pytest.mark.parametrize("command", ["list", "verify", "rebuild"])
def test_unknown_sets_are_named_with_those_there_are(hero, command):
    one_line(colorflow("refs", command, "villain"), 1, "'villain'", "hero")


def test_a_damaged_set_is_one_line_that_says_what_to_do(tmp_path, hero):
    (hero.folder / "set.sqlite").write_bytes(b"damaged")
    page = gray_page(tmp_path / "p.png")
    done = colorflow("colorize", page, "--set", "hero", "--out", tmp_path / "out")
    one_line(done, 1, "hero", "colorflow refs rebuild hero")
