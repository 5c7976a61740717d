"""Which references there are, and which of their patches go on a canvas."""

import io

import numpy as np
import pytest
from PIL import Image

from colorflow_rt.canvas import query_patches
from colorflow_rt.comics import DEMO_SEED, chapter_seed, make_chapter
from colorflow_rt.errors import ImageError, OptionError, ReferencesError
from colorflow_rt.options import ColorizeOptions
from colorflow_rt.pack import open_pack
from colorflow_rt.pipeline import Colorizer
from colorflow_rt.pixels import write_png
from colorflow_rt.pool import MAX_TILES, PatchEncoder, References, Tiles, choose, in_colour, nearest, open_references
from colorflow_rt.references import ReferenceSet

SIZE = (64, 96)


def picture(seed, size=SIZE):
    small = np.random.default_rng(seed).integers(0, 256, (6, 4, 3), np.uint8)
    return np.asarray(Image.fromarray(small).resize(size, Image.Resampling.BICUBIC))


@pytest.fixture
def encoder():
    return PatchEncoder(open_pack("fake"), SIZE, "pad")


def queries(encoder, seed=100):
    return encoder.patches(query_patches(picture(seed)))


def named(count):
    return References([(f"ref{i}.png", picture(i)) for i in range(count)])


def test_every_way_to_hand_over_references(tmp_path):
    paths = [tmp_path / name for name in ("ref2.png", "ref10.png", "ref1.png")]
    for seed, path in enumerate(paths):
        write_png(path, picture(seed))
    (tmp_path / "notes.txt").write_text("no picture")
    assert [r.name for r in open_references(tmp_path).list()] == ["ref1.png", "ref2.png", "ref10.png"]
    assert [r.name for r in open_references(str(paths[0])).list()] == ["ref2.png"]
    assert [r.name for r in open_references(paths).list()] == [path.name for path in paths]
    mixed = [Image.open(paths[0]), picture(1), paths[2].read_bytes(), ("hero", picture(5))]
    assert [r.size for r in open_references(mixed).list()] == [SIZE] * 4
    assert open_references(mixed).list()[3].name == "hero"
    assert len(open_references(picture(1)).list()) == 1
    assert len(open_references(io.BytesIO(paths[1].read_bytes())).list()) == 1
    assert len(open_references(iter(paths)).list()) == 3
    pool = named(2)
    assert open_references(pool) is pool


def test_no_references_and_bad_ones_are_refused(tmp_path):
    for source in ([], tmp_path):
        with pytest.raises(ReferencesError, match="references"):
            open_references(source)
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\nrest")
    with pytest.raises(ImageError, match=r"bad\.png"):
        open_references(tmp_path)


def test_the_same_picture_counts_once():
    pool = References([("a", picture(0)), ("b", picture(0).copy()), ("c", picture(1))])
    assert [(r.id, r.name) for r in pool.list()] == [(1, "a"), (2, "c")]


def test_the_most_similar_patches_are_found(encoder):
    pool = named(6)
    found = choose(pool, encoder.patches(query_patches(picture(4))), encoder)
    assert [len(row) for row in found] == [3] * 4
    assert [(row[0].reference.name, row[0].patch) for row in found] == [("ref4.png", i) for i in (1, 2, 3, 4)]
    for row in found:
        assert row[0].score == pytest.approx(1, abs=1e-5)
        assert row[0].score >= row[1].score >= row[2].score


def test_one_reference_fills_the_canvas(encoder):
    found = choose(named(1), queries(encoder), encoder)
    assert all(len({hit.patch for hit in row}) == 3 for row in found)


def test_banned_pictures_never_appear(encoder):
    pool = named(3)
    found = choose(pool, encoder.patches(query_patches(picture(1))), encoder, banned=("ref1",))
    assert {hit.reference.name for row in found for hit in row} == {"ref0.png", "ref2.png"}
    with pytest.raises(ReferencesError, match="ban"):
        choose(pool, queries(encoder), encoder, banned=("ref0", "ref1.png", "ref2"))


def test_colours_are_looked_up_in_what_was_taken_and_an_even_share_of_the_rest():
    pool = named(40)
    references = pool.list()
    taken = [references[7], references[3]]
    found = in_colour(pool, taken, (), ("ref0",))
    assert found[:2] == taken and len(found) == len({one.id for one in found}) == 15
    assert references[0] not in found and references[-1].id - found[-1].id < 3
    assert in_colour(pool, references[:20], (), ()) == references[:16]
    assert in_colour(named(2), [], (), ()) == named(2).list()
    with pytest.raises(OptionError, match="unknown"):
        in_colour(pool, taken, (), ("nobody",))


def test_a_pinned_picture_takes_the_first_rank_of_the_quadrant_it_fits_best(encoder):
    pool, query = named(5), queries(encoder)
    plain = choose(pool, query, encoder)
    alone = choose(References([("x", picture(3))]), query, encoder)
    best = int(np.argmax([row[0].score for row in alone]))
    found = choose(pool, query, encoder, pinned=("ref3",))
    assert (found[best][0].reference.name, found[best][0].patch) == ("ref3.png", alone[best][0].patch)
    first = [(hit.reference.id, hit.patch) for hit in found[best]]
    assert len(set(first)) == 3
    assert [found[q] for q in range(4) if q != best] == [plain[q] for q in range(4) if q != best]


def test_twelve_pins_fill_the_canvas_and_thirteen_are_refused(encoder):
    pool = named(14)
    names = [f"ref{i}" for i in range(12)]
    found = choose(pool, queries(encoder), encoder, pinned=names)
    assert sorted(hit.reference.name for row in found for hit in row) == sorted(f"{name}.png" for name in names)
    with pytest.raises(OptionError, match=r"13 references are pinned.*12"):
        choose(pool, queries(encoder), encoder, pinned=[*names, "ref12"])


def test_unknown_names_are_refused_with_those_there_are(encoder):
    with pytest.raises(OptionError, match=r"pinned reference 'eve' is unknown.*ref0\.png, ref1\.png"):
        choose(named(2), queries(encoder), encoder, pinned=("eve",))


def test_a_set_and_pictures_in_memory_give_the_same(encoder, tmp_path):
    items = [(f"ref{i}.png", picture(i)) for i in range(4)]
    stored = ReferenceSet.create("heroes", tmp_path)
    stored.add(items)
    query = queries(encoder)

    def plain(found):
        return [[(hit.reference.name, hit.patch, round(hit.score, 5)) for hit in row] for row in found]

    memory = References(items)
    assert plain(choose(stored, query, encoder)) == plain(choose(memory, query, encoder))
    stored.set_state("ref0.png", "banned")
    stored.set_state("ref1.png", "pinned")
    stored.set_tag("ref2.png", "alice")
    expected = plain(choose(memory, query, encoder, pinned=("ref1",), banned=("ref0",)))
    assert plain(choose(stored, query, encoder)) == expected
    expected = plain(choose(memory, query, encoder, pinned=("ref0", "ref1"), banned=("ref2",)))
    assert plain(choose(stored, query, encoder, pinned=("ref0",), banned=("alice",))) == expected


def test_pictures_are_embedded_once_per_size_and_fit(encoder):
    pool, engine = named(3), encoder.pack.engine("clip_encoder")
    query = queries(encoder)
    before = sum(engine.batches)
    for _ in range(3):
        choose(pool, query, encoder)
    assert sum(engine.batches) - before == 15
    choose(pool, query, PatchEncoder(encoder.pack, (96, 64), "pad"))
    choose(pool, query, PatchEncoder(encoder.pack, SIZE, "crop"))
    assert sum(engine.batches) - before == 45


def test_tiles_are_made_once_and_the_oldest_forgotten(encoder, monkeypatch):
    pool, tiles = named(1), Tiles()
    hit = choose(pool, queries(encoder), encoder)[0][0]
    found = tiles.get(pool, hit, SIZE, "pad")
    assert found.shape == (46, 30, 3)
    assert tiles.get(pool, hit, SIZE, "pad") is found
    monkeypatch.setattr("colorflow_rt.pool.MAX_TILES", 1)
    tiles.get(pool, hit, (96, 64), "pad")
    again = tiles.get(pool, hit, SIZE, "pad")
    assert again is not found and MAX_TILES > 1
    np.testing.assert_array_equal(again, found)


@pytest.mark.parametrize("style", ["gray", "screentone", "lineart"])
def test_a_search_finds_what_a_page_would_take(style):
    """Also of screentone, whose dots the bundled pack takes away before it looks."""
    comic = make_chapter(chapter_seed(DEMO_SEED, 2))
    pool = References([(f"{number}.png", comic.reference(number, (128, 192))) for number in range(4)])
    drawn = comic.page(0, (384, 576))
    gray = {"gray": drawn.gray, "screentone": lambda: drawn.screentone(seed=3), "lineart": lambda: drawn.lines}[style]()
    page, colorizer = np.repeat(gray[..., None], 3, axis=2), Colorizer("mini")
    result = colorizer.colorize(page, pool, ColorizeOptions(steps=1))
    assert result.style == style
    rows = nearest(pool, colorizer.pack, page, 3)
    found = [(q, hit.reference.name, hit.patch, hit.score) for q, row in enumerate(rows) for hit in row]
    assert found == [(m.quadrant, m.reference, m.patch, pytest.approx(m.similarity)) for m in result.matches]
