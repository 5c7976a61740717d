"""Persistent reference sets: names, adding, selecting, embeddings, index, search. Faults: test_references_faults.py."""

import io
import os
import threading
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from colorflow_rt.errors import ImageError, OutputError, ReferencesError
from colorflow_rt.pixels import Limits, content_hash, read_picture
from colorflow_rt.references import ReferenceSet, vectors
from colorflow_rt.retrieval import PatchIndex

DIM = 12


def noise(seed: int, width: int = 24, height: int = 20) -> NDArray[np.uint8]:
    """A picture of its own for each seed."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


class Embedder:
    """A stand-in encoder (mean colours of quarters of the five patches) that counts the pictures it has seen."""

    def __init__(self) -> None:
        self.calls: list[int] = []

    def __call__(self, pictures: list[NDArray[np.uint8]]) -> NDArray[np.float32]:
        self.calls.append(len(pictures))
        return np.stack([self.embed(patch) for picture in pictures for patch in self.patches(picture)])

    @staticmethod
    def patches(picture: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
        h, w = picture.shape[0] // 4, picture.shape[1] // 4
        return [picture, *(picture[y : y + 3 * h, x : x + 3 * w] for y in (0, h) for x in (0, w))]

    @staticmethod
    def embed(patch: NDArray[np.uint8]) -> NDArray[np.float32]:
        quarters = [q for half in np.array_split(patch, 2) for q in np.array_split(half, 2, axis=1)]
        row = np.concatenate([quarter.mean((0, 1)) for quarter in quarters]) - 127
        return (row / np.linalg.norm(row)).astype(np.float32)


@pytest.fixture
def refs(tmp_path: Path) -> ReferenceSet:
    return ReferenceSet.create("hero", tmp_path)


def filled(refs: ReferenceSet, count: int) -> ReferenceSet:
    refs.add([(f"{number:03d}.png", noise(number)) for number in range(count)])
    return refs


def again(refs: ReferenceSet) -> ReferenceSet:
    """The same set as another process would see it."""
    opened = ReferenceSet.open(refs.name, refs.folder.parent)
    opened.exact_limit = refs.exact_limit
    return opened


def index_files(refs: ReferenceSet) -> list[str]:
    return sorted(path.name for path in refs.folder.glob("index.*"))


# Sets


BAD_NAMES = ["", ".", "..", ".hidden", "a/b", "../a", "/a", "a b", "ä", "a\n", "a\0", "a" * 65, "a\\b"]
BY_NAME = [ReferenceSet.create, ReferenceSet.open, ReferenceSet.open_or_create, ReferenceSet.delete]


@pytest.mark.parametrize("name", BAD_NAMES)
@pytest.mark.parametrize("what", BY_NAME)
def test_names_that_break_the_rule_are_refused(tmp_path: Path, name: str, what) -> None:
    with pytest.raises(ReferencesError, match="use 1 to 64 of A-Z, a-z, 0-9"):
        what(name, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["a", "A" * 64, "-x", "_", "x.y", "1", "writer.lock"])
def test_names_that_follow_the_rule(tmp_path: Path, name: str) -> None:
    ReferenceSet.create(name, tmp_path)
    assert ReferenceSet.names(tmp_path) == [name]
    assert ReferenceSet.open(name, tmp_path).list() == []


def test_sets_are_listed_opened_and_deleted(tmp_path: Path) -> None:
    root = tmp_path / "not" / "there"
    assert ReferenceSet.names(root) == []
    with pytest.raises(ReferencesError, match=r"no reference set 'b' .*none yet"):
        ReferenceSet.open("b", root)
    filled(ReferenceSet.create("b", root), 1)
    ReferenceSet.create("a", root)
    (root / "not a set").mkdir()
    assert ReferenceSet.names(root) == ["a", "b"]
    with pytest.raises(ReferencesError, match="there: a, b"):
        ReferenceSet.open("c", root)
    with pytest.raises(ReferencesError, match="exists already"):
        ReferenceSet.create("b", root)
    assert len(ReferenceSet.open_or_create("b", root).list()) == 1
    ReferenceSet.delete("b", root)
    assert ReferenceSet.names(root) == ["a"]
    assert sorted(path.name for path in root.iterdir()) == [".lock", "a", "not a set"]
    with pytest.raises(ReferencesError, match="no reference set 'b'"):
        ReferenceSet.delete("b", root)


def test_sets_live_in_colorflow_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLORFLOW_HOME", str(tmp_path))
    ReferenceSet.create("hero")
    assert (tmp_path / "sets" / "hero" / "set.sqlite").is_file()
    assert ReferenceSet.names() == ["hero"]


def test_a_root_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="cannot be made"):
        ReferenceSet.create("hero", tmp_path / "file")


# Pictures


def test_pictures_of_every_kind_are_added(refs: ReferenceSet, tmp_path: Path) -> None:
    Image.fromarray(noise(0)).save(tmp_path / "path.bmp")
    stream = io.BytesIO()
    Image.fromarray(noise(1)).save(stream, "PNG")
    Image.fromarray(noise(2)).save(tmp_path / "file.png")
    with (tmp_path / "file.png").open("rb") as file:
        items = [
            tmp_path / "path.bmp",
            ("stream", io.BytesIO(stream.getvalue())),
            file,
            ("array", noise(3)),
            Image.fromarray(noise(4)),
            ("text path", str(tmp_path / "path.bmp")),
        ]
        seen = []
        report = refs.add(items, tag="Mia", source="approved", on_progress=lambda *at: seen.append(at))
    assert [r.name for r in report.added[:4]] == ["path.bmp", "stream", "file.png", "array"]
    assert report.added[4].name == f"picture-{report.added[4].sha256[:8]}"
    assert [(name, r.id) for name, r in report.duplicates] == [("text path", 1)]
    assert seen == [(done, 6) for done in range(1, 7)]
    assert again(refs).list() == report.added
    for number, reference in enumerate(report.added):
        assert np.array_equal(refs.picture(reference).rgb, noise(number))
        assert (reference.tag, reference.source, reference.state) == ("Mia", "approved", "normal")
        assert reference.size == (24, 20)
        assert reference.sha256 == content_hash(read_picture(noise(number)))
    assert sorted(p.stem for p in (refs.folder / "images").iterdir()) == sorted(r.sha256 for r in refs.list())


def test_a_bad_picture_is_reported_and_the_others_go_on(refs: ReferenceSet, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no picture")
    items = [("a", noise(0)), tmp_path / "text.png", tmp_path / "none.png", noise(1, 4, 4), ("b", noise(2))]
    report = refs.add(iter(items))
    assert [r.name for r in report.added] == ["a", "b"]
    assert [name for name, _ in report.refused] == ["text.png", "none.png", "picture 4"]
    reasons = [why for _, why in report.refused]
    assert "not a PNG" in reasons[0] and "no such file" in reasons[1] and "under 16 pixels" in reasons[2]
    assert refs.verify() == []


def test_alpha_comes_back_as_it_was(refs: ReferenceSet) -> None:
    rgba = np.dstack([noise(0), noise(1)[..., 0]])
    given = read_picture(rgba)
    refs.add([("glass", rgba)])
    back = again(refs).picture("glass")
    assert np.array_equal(back.rgb, given.rgb) and np.array_equal(back.alpha, given.alpha)
    assert len(refs.add([rgba]).duplicates) == 1
    assert len(refs.add([given.rgb]).added) == 1  # the same colours without alpha are another picture
    assert refs.verify() == []


def test_limits_are_of_adding_not_of_reading_back(refs: ReferenceSet) -> None:
    assert "under 16" in refs.add([noise(0, 8, 8)]).refused[0][1]
    (tiny,) = refs.add([("tiny", noise(0, 8, 8))], limits=Limits(min_side=8)).added
    assert np.array_equal(again(refs).picture(tiny).rgb, noise(0, 8, 8))


def test_a_name_that_is_no_text(refs: ReferenceSet, tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"\xff\xfe.png")
    with path.open("wb") as file:
        Image.fromarray(noise(0)).save(file, "PNG")
    report = refs.add([path])
    assert [r.name for r in report.added] == ["??.png"]
    assert refs.set_tag("??.png", "\udcff") == 1
    assert refs.list()[0].tag == "?"


def test_pictures_are_chosen_by_id_name_or_record(refs: ReferenceSet) -> None:
    refs.add([("a", noise(0)), ("a", noise(1)), ("7", noise(2)), ("b", noise(3))])
    a, other, seven, b = refs.list()
    assert np.array_equal(refs.picture("b").rgb, noise(3))
    assert np.array_equal(refs.picture("#4").rgb, noise(3))
    assert np.array_equal(refs.picture("4").rgb, noise(3))
    assert np.array_equal(refs.picture("7").rgb, noise(2))  # a name goes before an id
    with pytest.raises(ReferencesError, match=r"2 pictures named 'a' \(#1, #2\): give an id"):
        refs.remove("a")
    for unknown in (9, "#9", "c", "9"):
        with pytest.raises(ReferencesError, match=r"no picture .*shows its 4 pictures"):
            refs.remove([b, unknown])
    assert refs.list() == [a, other, seven, b]
    assert refs.remove([a, "7", 1, seven]) == 2
    assert refs.list() == [other, b]
    assert {p.stem for p in (refs.folder / "images").iterdir()} == {other.sha256, b.sha256}
    (new,) = refs.add([("a", noise(0))]).added
    assert new.id == 5  # ids are not given twice: job records may name them
    with pytest.raises(ReferencesError, match="no picture #1"):
        refs.picture(1)
    with pytest.raises(ImageError, match="is missing"):
        refs.picture(seven)


def test_states_and_tags_are_stored(refs: ReferenceSet) -> None:
    filled(refs, 3)
    assert refs.set_state(["000.png", 3], "banned") == 2
    assert refs.set_state(2, "pinned") == 1
    assert refs.set_tag(["000.png", "001.png"], "Mia") == 2
    assert refs.set_tag("000.png", None) == 1
    stored = again(refs).list()
    assert [r.state for r in stored] == ["banned", "pinned", "banned"]
    assert [r.tag for r in stored] == [None, "Mia", None]
    with pytest.raises(ReferencesError, match="state 'liked' is unknown: choose one of normal, pinned, banned"):
        refs.set_state(1, "liked")  # type: ignore[arg-type]
    with pytest.raises(ReferencesError, match="source 'stolen' is unknown"):
        refs.add([], source="stolen")  # type: ignore[arg-type]


# Embeddings


def test_embeddings_are_computed_once_per_encoder(refs: ReferenceSet) -> None:
    filled(refs, 3)
    one, other = Embedder(), Embedder()
    first = refs.embeddings("one", DIM, one)
    assert first.dtype == np.float32 and first.shape == (15, DIM)
    assert np.array_equal(first, Embedder()([noise(n) for n in range(3)]))
    assert np.array_equal(again(refs).embeddings("one", DIM, one), first)
    assert np.array_equal(refs.embeddings("other", DIM, other), first)
    refs.add([noise(7)])
    refs.remove("001.png")
    longer = again(refs).embeddings("one", DIM, one)
    assert np.array_equal(longer, Embedder()([noise(0), noise(2), noise(7)]))
    assert one.calls == [3, 1] and other.calls == [3]


def test_embeddings_come_in_batches_that_a_failure_does_not_lose(refs: ReferenceSet) -> None:
    filled(refs, 2 * vectors.BATCH + 3)
    embedder, seen = Embedder(), []

    def fails(pictures: list[NDArray[np.uint8]]) -> NDArray[np.float32]:
        if len(embedder.calls) == 2:
            raise KeyboardInterrupt
        return embedder(pictures)

    with pytest.raises(KeyboardInterrupt):
        refs.embeddings("one", DIM, fails)
    embedder.calls.clear()
    refs.embeddings("one", DIM, embedder, lambda *at: seen.append(at))
    assert embedder.calls == [3] and seen == [(3, 3)]
    refs.embeddings("two", DIM, embedder, lambda *at: seen.append(at))
    assert seen[1:] == [(8, 19), (16, 19), (19, 19)]


@pytest.mark.parametrize("rows", [np.zeros((4, DIM)), np.zeros((5, DIM - 1)), np.full((5, DIM), np.nan)])
def test_wrong_embeddings_are_refused(refs: ReferenceSet, rows: NDArray[np.float64]) -> None:
    filled(refs, 1)
    with pytest.raises(ReferencesError, match=r"encoder one gave \[.*\] numbers for 1 pictures, expected .*\[5, 12\]"):
        refs.embeddings("one", DIM, lambda _: rows.astype(np.float32))
    assert refs.embeddings("one", DIM, Embedder()).shape == (5, DIM)


def test_another_dimension_is_computed_anew(refs: ReferenceSet) -> None:
    filled(refs, 1)
    refs.embeddings("one", DIM, Embedder())
    assert refs.embeddings("one", 3, lambda _: np.eye(5, 3, dtype=np.float32)).shape == (5, 3)


def test_an_empty_set(refs: ReferenceSet) -> None:
    assert refs.embeddings("one", DIM, Embedder()).shape == (0, DIM)
    with pytest.raises(ReferencesError, match="'hero' is empty: add pictures"):
        refs.index("one", DIM, Embedder())
    assert refs.verify() == [] and refs.rebuild().problems == []


# Index and search


def test_small_sets_are_searched_exactly_and_keep_no_index_file(refs: ReferenceSet) -> None:
    assert filled(refs, 3).index("one", DIM, Embedder()).exact
    assert index_files(refs) == []


def test_search_finds_what_an_exact_search_finds(refs: ReferenceSet) -> None:
    filled(refs, 30).exact_limit = 20
    queries = Embedder()([noise(n) for n in (3, 17)])
    rows = refs.embeddings("one", DIM, Embedder())
    assert not refs.index("one", DIM, Embedder()).exact
    nearest, scores = PatchIndex(rows).search(queries, 4)
    for opened in (refs, again(refs)):
        hits = opened.search(queries, 4, "one", DIM, Embedder())
        listed = opened.list()
        assert [[5 * listed.index(hit.reference) + hit.patch for hit in row] for row in hits] == nearest.tolist()
        assert np.allclose([[hit.score for hit in row] for row in hits], scores, atol=1e-6)
        assert (hits[0][0].reference.name, hits[0][0].patch) == ("003.png", 0)
        assert (hits[9][0].reference.name, hits[9][0].patch) == ("017.png", 4)


def test_banned_pictures_are_not_found_unless_the_caller_says_so(refs: ReferenceSet) -> None:
    filled(refs, 3).set_state("001.png", "banned")
    query = Embedder()([noise(1)])[:1]
    search = lambda k, **more: refs.search(query, k, "one", DIM, Embedder(), **more)[0]  # noqa: E731
    assert {hit.reference.name for hit in search(100)} == {"000.png", "002.png"}
    assert len(search(100)) == 10
    assert search(1, allowed=lambda reference: True)[0].reference.name == "001.png"
    assert {hit.reference.id for hit in search(9, allowed=lambda reference: reference.id == 3)} == {3}
    refs.set_state("001.png", "normal")
    assert search(1)[0].reference.name == "001.png"
    with pytest.raises(ReferencesError, match="lift a ban or add references"):
        search(1, allowed=lambda reference: False)


def test_index_generations(refs: ReferenceSet, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(refs, 6).exact_limit = 20
    for number in range(4):
        refs.add([noise(100 + number)])
        refs.index("one", DIM, Embedder())
        refs.index("two", DIM, Embedder())
    generations = sorted(int(name.split(".")[1]) for name in index_files(refs))
    assert generations == [5, 6, 7, 8]  # of each encoder the newest and the one before
    assert refs.verify() == []
    assert refs.notices == ["the index is of another encoder (one): built for two from set.sqlite"]
    monkeypatch.setattr(PatchIndex, "__init__", lambda *_, **__: pytest.fail("the index was built, not loaded"))
    opened = again(refs)
    assert not opened.index("one", DIM, Embedder()).exact and opened.notices == []
    assert opened.index("one", DIM, Embedder()) is opened.index("one", DIM, Embedder())


def test_rebuild_builds_the_index_from_what_is_stored(refs: ReferenceSet) -> None:
    filled(refs, 6).exact_limit = 20
    refs.embeddings("one", DIM, Embedder())
    built = refs.rebuild().indexes
    assert built == index_files(refs) and len(built) == 1
    assert refs.rebuild().indexes == []


def test_threads_share_a_set(refs: ReferenceSet) -> None:
    refs.exact_limit = 20
    errors: list[BaseException] = []

    def work(number: int) -> None:
        try:
            refs.add([(f"{number}", noise(number))])
            query = Embedder()([noise(number)])[:1]
            assert refs.search(query, 1, "one", DIM, Embedder())[0][0].reference.name == f"{number}"
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert sorted(r.name for r in refs.list()) == [f"{number}" for number in range(6)]
    assert refs.verify() == []
