"""Encoder input, embeddings, exact and approximate search, index files and their faults."""

import hashlib
import json
import threading
from collections.abc import Mapping
from pathlib import Path

import hnswlib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from colorflow_rt.canvas import fit_page, query_patches, reference_patches
from colorflow_rt.engine import TensorSpec
from colorflow_rt.errors import EngineError, OptionError, OutputError, ReferencesError
from colorflow_rt.pixels import read_picture
from colorflow_rt.retrieval import PatchIndex, embed, encoder_input

GOLDEN = Path(__file__).parent / "golden"
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def clustered(count: int, dim: int = 64, seed: int = 0, spread: float = 0.35) -> np.ndarray:
    """Unit vectors in clusters of about 50, as the patches of one character are."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(max(1, count // 50), dim))
    return unit(centres[rng.integers(0, len(centres), count)] + spread * rng.normal(size=(count, dim)))


# What the encoder sees


def test_center_input_is_that_of_clip_image_processor() -> None:
    """Numbers of transformers 5.23's CLIPImageProcessor, shortest edge and crop 8; bit-equal at other sizes too."""
    y, x = np.mgrid[:30, :21]
    patch = np.stack([x * 12, y * 8, (x * y * 7) % 256], axis=-1).astype(np.uint8)
    tall = encoder_input(patch, 8, "center", MEAN, STD)
    wide = encoder_input(patch.swapaxes(0, 1).copy(), 8, "center", MEAN, STD)
    corners = [-1.64628, 1.56538, -1.64628, 1.56538, -1.33188, -1.33188, 0.97932, 0.97932]
    corners += [-1.1816, 0.24041, -0.24307, 0.49637]
    assert tall[:, ::7, ::7].ravel() == pytest.approx(corners, abs=1e-5)
    assert tall.sum(axis=(1, 2)) == pytest.approx([-2.5889, -11.282, 19.1544], abs=1e-3)
    assert wide.sum(axis=(1, 2)) == pytest.approx([-2.5889, -11.282, 19.1829], abs=1e-3)
    assert tall.dtype == np.float32
    assert tall.flags.c_contiguous


def test_whole_input_sees_the_edges_that_center_loses() -> None:
    patch = np.full((60, 30, 3), 128, np.uint8)
    patch[:8] = 255
    whole = encoder_input(patch, 16, "whole", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    center = encoder_input(patch, 16, "center", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    assert whole.shape == center.shape == (3, 16, 16)
    assert whole.max() == 1.0
    assert center.max() < 0.51


def test_unknown_crop_names_the_choices() -> None:
    with pytest.raises(OptionError, match="'middle', expected one of whole, center"):
        encoder_input(np.zeros((8, 8, 3), np.uint8), 8, "middle", MEAN, STD)  # type: ignore[arg-type]


class GrayEngine:
    """The golden vectors' stand-in for CLIP: gray, minus 128, as one row of pixels. Counts its calls."""

    inputs = (TensorSpec("pixel_values", "float32", ("B", 3, 16, 16)),)
    outputs = (TensorSpec("image_embeds", "float32", ("B", 256)),)

    def __init__(self) -> None:
        self.batches: list[int] = []

    def __call__(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        pixels = feeds["pixel_values"]
        self.batches.append(len(pixels))
        return {"image_embeds": pixels.mean(axis=1).reshape(len(pixels), -1)}


def test_embed_batches_and_normalises() -> None:
    rng = np.random.default_rng(3)
    patches = [rng.integers(0, 256, (20 + index, 30, 3), dtype=np.uint8) for index in range(7)]
    engine = GrayEngine()
    rows = embed(engine, patches, 16, "whole", MEAN, STD, batch_size=3)
    assert engine.batches == [3, 3, 1]
    assert rows.dtype == np.float32
    assert np.linalg.norm(rows, axis=1) == pytest.approx(np.ones(7), abs=1e-6)
    one = embed(engine, patches[4:5], 16, "whole", MEAN, STD)
    assert rows[4] == pytest.approx(one[0], abs=1e-6)


def test_embed_of_a_blank_patch_is_finite_and_of_nan_is_an_error() -> None:
    blank = [np.zeros((20, 20, 3), np.uint8)]
    assert (embed(GrayEngine(), blank, 16, "whole", (0.0,) * 3, (1.0,) * 3) == 0).all()
    with pytest.raises(EngineError, match="not finite"):
        embed(GrayEngine(), blank, 16, "whole", (0.0,) * 3, (float("nan"),) * 3)


@pytest.mark.parametrize("folder", ["retrieval_portrait", "retrieval_square", "retrieval_odd"])
def test_golden_similarity_and_top3(folder: str) -> None:
    expected = json.loads((GOLDEN / folder / "expected.json").read_text())
    size = expected["page_width"], expected["page_height"]

    def fitted(name: str) -> np.ndarray:
        return fit_page(read_picture(GOLDEN / folder / name).rgb, size, "crop")[0]

    def stand_in(patch: np.ndarray) -> np.ndarray:
        gray = Image.fromarray(patch).convert("L").resize((16, 16), Image.Resampling.BILINEAR)
        return np.asarray(gray, np.float32).ravel() - 128

    count = expected["n_reference_patches"] // 5
    patches = [patch for index in range(count) for patch in reference_patches(fitted(f"ref{index}.png"))]
    index = PatchIndex(unit(np.stack([stand_in(patch) for patch in patches])))
    queries = unit(np.stack([stand_in(patch) for patch in query_patches(fitted("query.png"))]))
    found, scores = index.search(queries, 3)
    assert found.tolist() == expected["top3"]
    best = np.take_along_axis(np.array(expected["similarity"]), found, axis=1)
    assert scores == pytest.approx(best, abs=2e-6)


# Search


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 60), st.integers(1, 7), st.integers(0, 2**32 - 1))
def test_exact_search_equals_sorting_with_ties_by_lowest_index(count: int, k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    distinct = unit(rng.normal(size=(max(1, count // 3), 8)))
    rows = distinct[rng.integers(0, len(distinct), count)]  # many duplicates
    queries = unit(rng.normal(size=(3, 8)))
    found, scores = PatchIndex(rows).search(queries, k)
    assert found.shape == scores.shape == (3, min(k, count))
    truth = np.round((queries.astype(np.float64)[:, None] * rows).sum(axis=2), 12)
    for query in range(3):
        assert found[query].tolist() == sorted(range(count), key=lambda i: (-truth[query, i], i))[:k]


def test_results_do_not_depend_on_the_batch_of_queries() -> None:
    rows, queries = clustered(3000), clustered(20, seed=7)
    index = PatchIndex(rows)
    found, scores = index.search(queries, 3)
    for query in range(20):
        alone = index.search(queries[query : query + 1], 3)
        assert np.array_equal(alone[0][0], found[query])
        assert np.array_equal(alone[1][0], scores[query])


@pytest.mark.parametrize("exact_limit", [10_000, 0])
def test_only_allowed_patches_are_found(exact_limit: int) -> None:
    rows, queries = clustered(2000), clustered(8, seed=5)
    index = PatchIndex(rows, exact_limit=exact_limit)
    assert index.exact == (exact_limit > 0)
    for share in (0.9, 0.3, 0.02):
        allowed = np.random.default_rng(1).random(2000) < share
        found, scores = index.search(queries, 3, allowed)
        assert allowed[found].all()
        truth = np.sort(np.where(allowed, queries @ rows.T, -1), axis=1)[:, :-4:-1]
        assert (np.abs(scores - truth) < 1e-5).mean() >= 0.95


@pytest.mark.parametrize("exact_limit", [100, 0])
def test_k_is_cut_to_what_is_allowed_and_nothing_allowed_is_an_error(exact_limit: int) -> None:
    rows = clustered(50)
    index = PatchIndex(rows, exact_limit=exact_limit)
    assert index.search(rows[:2], 80)[0].shape == (2, 50)
    allowed = np.zeros(50, bool)
    allowed[[4, 9]] = True
    assert sorted(index.search(rows[:1], 3, allowed)[0][0].tolist()) == [4, 9]
    with pytest.raises(ReferencesError, match="no reference is left"):
        index.search(rows[:1], 3, np.zeros(50, bool))


def test_an_index_of_nothing_is_an_error() -> None:
    with pytest.raises(ReferencesError, match="at least one patch"):
        PatchIndex(np.empty((0, 64), np.float32))


@pytest.mark.parametrize("wrong", [2.0, np.nan])
def test_embeddings_that_are_not_of_unit_length_are_an_error(wrong: float) -> None:
    with pytest.raises(ReferencesError, match="unit length"):
        PatchIndex(clustered(50) * np.float32(wrong))


def test_many_duplicates_do_not_hide_the_rest_from_the_graph() -> None:
    """Blank patches are alike by the thousand, but for the noise of batching."""
    rng = np.random.default_rng(0)
    rows, queries = clustered(6000), clustered(200, seed=8)
    blank = rng.permutation(6000)[:3000]
    rows[blank] = rows[blank[0]]
    rows[blank[::2]] += np.float32(1e-7)
    near = unit(rows[rng.integers(0, 6000, 200)] + 0.1 * rng.normal(size=(200, 64)))
    index = PatchIndex(rows, exact_limit=0)
    assert recall(index, rows, near)[0] >= 0.99
    assert recall(index, rows, queries)[0] >= 0.99
    found, scores = index.search(rows[blank[:1]], 50)
    assert np.isin(found, blank).all()
    assert scores.min() > 0.99999
    allowed = np.ones(6000, bool)
    allowed[blank[:-2]] = False
    assert set(index.search(rows[blank[:1]], 3, allowed)[0][0, :2]) == set(blank[-2:])


def recall(index: PatchIndex, rows: np.ndarray, queries: np.ndarray) -> tuple[float, np.ndarray]:
    found, scores = index.search(queries, 3)
    third = np.partition(queries @ rows.T, -3, axis=1)[:, -3]
    return float((scores >= third[:, None] - 1e-6).mean()), found


@pytest.mark.slow
def test_recall_of_the_graph_on_50000_clustered_patches(tmp_path: Path) -> None:
    rows = clustered(50_000)
    rng = np.random.default_rng(4)
    near = unit(rows[rng.integers(0, len(rows), 1000)] + 0.1 * rng.normal(size=(1000, 64)))
    index = PatchIndex(rows, exact_limit=0)
    assert not index.exact
    share, found = recall(index, rows, near)
    assert share >= 0.99
    apart, _ = recall(index, rows, clustered(1000, seed=6))  # queries of no cluster: the harder case
    assert apart >= 0.99
    index.save(tmp_path / "index.bin")
    again = PatchIndex.load(tmp_path / "index.bin", rows)
    assert np.array_equal(again.search(near, 3)[0], found)


def test_graph_search_from_many_threads_gives_the_same() -> None:
    rows = clustered(3000)
    index = PatchIndex(rows, exact_limit=0)
    alone = index.search(rows[:100], 3)[0]
    results: list[np.ndarray] = []
    threads = [threading.Thread(target=lambda: results.append(index.search(rows[:100], 3)[0])) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    assert all(np.array_equal(result, alone) for result in results)


# Index files


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray, str]:
    rows = clustered(400, 16)
    path = tmp_path_factory.mktemp("index") / "index.bin"
    PatchIndex(rows, exact_limit=0).save(path)
    return path, rows, hashlib.sha256(path.read_bytes()).hexdigest()


def test_building_twice_gives_the_same_file(stored: tuple[Path, np.ndarray, str], tmp_path: Path) -> None:
    path, rows, _ = stored
    PatchIndex(rows, exact_limit=0).save(tmp_path / "again.bin")
    assert (tmp_path / "again.bin").read_bytes() == path.read_bytes()
    assert [file.name for file in tmp_path.iterdir()] == ["again.bin"]


def test_loaded_index_searches_with_the_same_effort(stored: tuple[Path, np.ndarray, str]) -> None:
    path, rows, sha256 = stored
    index = PatchIndex.load(path, rows, sha256)
    assert not index.exact
    assert (
        index._graph._hnsw.ef == PatchIndex(rows, exact_limit=0)._graph._hnsw.ef > 10
    )  # hnswlib's own after a load is 10


class Untouchable:
    def __init__(self, space: str, dim: int) -> None: ...

    def load_index(self, path: str) -> None:
        pytest.fail("hnswlib was given a damaged file")


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "gone"])
def test_damaged_files_are_refused_before_hnswlib_sees_them(
    stored: tuple[Path, np.ndarray, str], tmp_path: Path, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, rows, sha256 = stored
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 16
    copy = tmp_path / "index.bin"
    if damage != "gone":
        copy.write_bytes({"flip": content, "cut": content[:1000], "empty": b""}[damage])
    monkeypatch.setattr(hnswlib, "Index", Untouchable)
    with pytest.raises(ReferencesError, match=r"index\.bin: .*must be rebuilt"):
        PatchIndex.load(copy, rows, sha256)


def test_cut_files_are_refused_without_their_hash_too(stored: tuple[Path, np.ndarray, str], tmp_path: Path) -> None:
    path, rows, _ = stored
    copy = tmp_path / "index.bin"
    for length in (0, 20, 100, 5000):
        copy.write_bytes(path.read_bytes()[:length])
        with pytest.raises(ReferencesError, match="must be rebuilt"):
            PatchIndex.load(copy, rows)


def test_index_of_other_embeddings_is_refused(stored: tuple[Path, np.ndarray, str]) -> None:
    path, rows, sha256 = stored
    with pytest.raises(ReferencesError, match=r"index of 400 x 16, expected 400 x 8"):
        PatchIndex.load(path, rows[:, :8], sha256)
    with pytest.raises(ReferencesError, match=r"expected 399 x 16"):
        PatchIndex.load(path, rows[1:], sha256)
    with pytest.raises(ReferencesError, match="index of other embeddings"):
        PatchIndex.load(path, rows[::-1], sha256)


def test_an_exact_index_has_nothing_to_save(tmp_path: Path) -> None:
    with pytest.raises(ReferencesError, match="nothing to save"):
        PatchIndex(clustered(50)).save(tmp_path / "index.bin")


def test_saving_where_there_is_no_folder_or_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = PatchIndex(clustered(60), exact_limit=0)
    with pytest.raises(OutputError, match="folder does not exist"):
        index.save(tmp_path / "none" / "index.bin")

    class CutShort:
        """hnswlib on a full disk: it writes what fits and reports nothing."""

        def save_index(self, path: str) -> None:
            Path(path).write_bytes(b"half")

        def index_file_size(self) -> int:
            return 10_000

    monkeypatch.setattr(index._graph, "_hnsw", CutShort())
    with pytest.raises(OutputError, match="cut short"):
        index.save(tmp_path / "index.bin")
    assert list(tmp_path.iterdir()) == []
