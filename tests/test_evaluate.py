"""`colorflow evaluate` on a small benchmark: its names, its figures, going on after a stop, its report."""

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from cli_tools import colorflow, one_line
from onnx import TensorProto, helper
from scipy.linalg import sqrtm

from colorflow_rt.comics import BENCHMARK_SEED, chapter_seed, make_chapter
from colorflow_rt.errors import EngineError, OptionError
from colorflow_rt.evaluate import METHODS, EvaluateOptions, evaluate
from colorflow_rt.evaluate import run as run_module
from colorflow_rt.evaluate.baselines import BASELINES, ReferenceColours, gray
from colorflow_rt.evaluate.chapters import chosen_pages, read_benchmark
from colorflow_rt.evaluate.identity import character_regions
from colorflow_rt.evaluate.methods import Painted
from colorflow_rt.evaluate.networks import Network, frechet_distance
from colorflow_rt.evaluate.report import examples
from colorflow_rt.evaluate.run import Evaluation
from colorflow_rt.evaluate.scores import line_recall, packed, page_scores, palette_distance, unpacked
from colorflow_rt.evaluate.summary import FIGURES
from colorflow_rt.metrics import psnr
from colorflow_rt.pixels import read_picture, write_png
from colorflow_rt.upscale import merge

SIZE = (64, 96)
ISSUE_FIGURES = {
    *("psnr", "psnr_model", "ssim", "clip_is", "fid", "aesthetic", "ciede2000_identity", "ciede2000_references"),
    *("palette", "line_ssim"),
}
ISSUE_METHODS = {
    *("ours", "gray_page", "mean_colour", "table", "histogram", "nearest_patch", "random_references", "no_retrieval"),
    "no_gsrp",
    "no_palette",
}


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    out = tmp_path_factory.mktemp("bench")
    done = colorflow(
        "comics", "bench", "--chapters", 2, "--pages", 2, "--references", 3, "--size", "64x96", "--out", out
    )
    assert done.code == 0, done.err
    return out


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    """An ONNX file that gives the mean of each channel as features, and one that gives the mean of all."""
    folder = tmp_path_factory.mktemp("networks")
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["B", 3, 8, 8])
    for name, axes in (("fid", [2, 3]), ("aesthetic", [1, 2, 3])):
        y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
        where = helper.make_tensor("axes", TensorProto.INT64, [len(axes)], axes)
        node = helper.make_node("ReduceMean", ["x", "axes"], ["y"], keepdims=0)
        graph = helper.make_graph([node], name, [x], [y], [where])
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
        onnx.save_model(made, str(folder / f"{name}.onnx"))
    return folder / "fid.onnx", folder / "aesthetic.onnx"


@pytest.fixture(scope="module")
def done(bench, networks, tmp_path_factory):
    """The whole command, once: its folder, what it printed, its record."""
    out = tmp_path_factory.mktemp("out")
    given = ("--fid-network", networks[0], "--aesthetic-network", networks[1], "--steps", 2, "--html", out / "html")
    ended = colorflow("evaluate", bench, "--pack", "fake", "--json", out / "quality.json", *given)
    assert ended.code == 0, ended.err
    return out, ended, json.loads((out / "quality.json").read_text())


def test_the_benchmark_is_made_from_its_own_seeds(bench):
    chapter = make_chapter(chapter_seed(BENCHMARK_SEED, 1))
    found = read_picture(bench / "chapter_001" / "truth" / "001.png").rgb
    np.testing.assert_array_equal(found, chapter.page(1, SIZE).truth)


def test_the_record_has_the_names_of_the_issue(done):
    _, _, record = done
    assert set(record["styles"]) == {"gray", "screentone", "lineart"}
    for methods in record["styles"].values():
        assert set(methods) == ISSUE_METHODS
        for figures in methods.values():
            assert set(figures) == ISSUE_FIGURES
            assert all(isinstance(value, float) for value in figures.values())
    assert set(METHODS) == ISSUE_METHODS and set(FIGURES) == ISSUE_FIGURES


def test_means_are_of_the_pages_own_figures(done):
    _, _, record = done
    gray_rows = [row for row in record["rows"] if row["style"] == "gray"]
    assert len(gray_rows) == 4
    for method in ("ours", "table"):
        pages = [row["methods"][method]["psnr"] for row in gray_rows]
        assert record["styles"]["gray"][method]["psnr"] == pytest.approx(np.mean(pages))
        assert len(set(pages)) == 4


def test_figures_of_a_baseline_are_as_computed_by_hand(bench, done):
    _, _, record = done
    folder = bench / "chapter_001"
    page, truth = (read_picture(folder / part / "001.png").rgb for part in ("pages/gray", "truth"))
    references = [read_picture(path).rgb for path in sorted((folder / "references").iterdir())]
    mean = np.rint(np.mean([rgb.reshape(-1, 3).mean(0) for rgb in references], axis=0)).astype(np.uint8)
    flat = np.broadcast_to(mean, page.shape).copy()
    row = record["rows"][
        [(r["chapter"], r["style"], r["page"]) for r in record["rows"]].index(("chapter_001", "gray", "001"))
    ]
    found = row["methods"]["mean_colour"]
    assert found["psnr_model"] == pytest.approx(psnr(truth, flat))
    assert found["psnr"] == pytest.approx(psnr(truth, merge(page, flat, style="gray")))


def test_true_regions_beat_every_method_and_truth_is_its_own_floor(done):
    _, _, record = done
    for style, methods in record["styles"].items():
        ceiling = record["ceiling"][style]
        assert ceiling["psnr"] > max(figures["psnr"] for figures in methods.values())
        assert ceiling["ciede2000_identity"] < min(figures["ciede2000_identity"] for figures in methods.values())
        details = record["details"][style]
        assert details["truth"]["ciede2000_references"] < details["gray_page"]["ciede2000_references"]
        assert details["ours"]["characters"] > 3
        assert details["gray_page"]["line_recall"] > 0.9
    assert record["styles"]["gray"]["gray_page"]["line_ssim"] > 0.99


def test_table_printed_notes_and_report(done):
    out, ended, record = done
    assert "gray, 4 pages" in ended.out and "nearest_patch" in ended.out
    assert any("tower" in note for note in record["notes"]) and record["clip_is_tower"] == "fake of pack fake"
    html = (out / "html" / "index.html").read_text()
    assert html.count("<table>") == 3 and "no_gsrp" in html
    for style in ("gray", "screentone", "lineart"):
        assert f'src="{style}.png"' in html
        assert read_picture(out / "html" / f"{style}.png").rgb.shape[1] > 1000


def test_a_run_goes_on_where_it_was_stopped(bench, tmp_path, monkeypatch):
    options = EvaluateOptions(pack="fake", styles=("gray",), methods=("gray_page", "table"))
    rows = tmp_path / "rows"
    whole = evaluate(bench, options, rows)
    text = rows.read_text().splitlines()
    assert len(text) == 4
    rows.write_text("\n".join(text[:2]) + "\n" + text[2][:100])  # killed while the third was written
    measured = []
    real = Evaluation._measure
    monkeypatch.setattr(Evaluation, "_measure", lambda self, page: measured.append(page.name) or real(self, page))
    again = evaluate(bench, options, rows)
    assert len(measured) == 2
    for part in ("styles", "details", "ceiling", "rows"):
        assert again[part] == whole[part]
    evaluate(bench, options, rows)
    assert len(measured) == 2
    monkeypatch.setattr(run_module, "CODE", run_module.CODE[1:])  # as if a stage had been written anew
    evaluate(bench, options, rows)
    assert len(measured) == 6


def test_rows_depend_on_code_that_is_there():
    assert all(run_module._code())


def test_a_changed_page_is_measured_again(bench, tmp_path):
    own = tmp_path / "bench"
    shutil.copytree(bench, own)
    options = EvaluateOptions(pack="fake", styles=("gray",), methods=("gray_page",), limit=2)
    before = evaluate(own, options, tmp_path / "rows")
    truth = own / "chapter_000" / "truth" / "000.png"
    write_png(truth, 255 - read_picture(truth).rgb)
    after = evaluate(own, options, tmp_path / "rows")
    changed = [one["methods"] != two["methods"] for one, two in zip(before["rows"], after["rows"], strict=True)]
    assert changed == [True, False]


def test_what_cannot_be_measured_is_null_and_said(bench, tmp_path):
    own = tmp_path / "bench" / "chapter_000"
    shutil.copytree(bench / "chapter_000", own)
    (own / "regions.json").unlink()
    options = EvaluateOptions(pack="fake", styles=("gray",), methods=("gray_page", "random_references"), limit=1)
    record = evaluate(tmp_path / "bench", options, tmp_path / "rows")
    figures = record["styles"]["gray"]["gray_page"]
    for name in ("fid", "aesthetic", "ciede2000_identity", "ciede2000_references"):
        assert figures[name] is None
    assert figures["psnr"] > 5
    assert "random_references" not in record["styles"]["gray"]
    notes = " ".join(record["notes"])
    for said in ("--fid-network", "--aesthetic-network", "no regions", "one chapter"):
        assert said in notes


@pytest.mark.parametrize(("limit", "expected"), [(1, [0, 1]), (2, [1, 1]), (3, [1, 2]), (4, [2, 2]), (99, [2, 2])])
def test_a_limit_takes_an_even_share_of_every_chapter(bench, limit, expected):
    chapters = read_benchmark(bench)
    names = [page.chapter for page in chosen_pages(chapters, "gray", limit)]
    assert [names.count(chapter.name) for chapter in chapters] == expected


def test_bad_input_is_one_line(bench, tmp_path):
    json_file = ("--json", tmp_path / "q.json")
    one_line(colorflow("evaluate", tmp_path / "none", "--pack", "fake", *json_file), 2, "comics bench")
    one_line(colorflow("evaluate", tmp_path, "--pack", "fake", *json_file), 2, "no chapters")
    one_line(colorflow("evaluate", bench, "--pack", "fake", "--styles", "grey", *json_file), 2, "'grey'", "gray")
    one_line(colorflow("evaluate", bench, "--pack", "fake", "--methods", "", *json_file), 2, "no method")
    one_line(colorflow("evaluate", bench, "--pack", "fake", "--json", tmp_path / "no" / "q.json"), 2, "no folder")
    one_line(
        colorflow("evaluate", bench, "--pack", "fake", "--fid-network", tmp_path / "x", *json_file), 2, "no network"
    )
    own = tmp_path / "bench" / "chapter_000"
    shutil.copytree(bench / "chapter_000", own)
    (own / "truth" / "001.png").unlink()
    one_line(colorflow("evaluate", own, "--pack", "fake", *json_file), 2, "no picture of its colours")
    assert [path.name for path in tmp_path.iterdir()] == ["bench"]


def test_baselines_paint_what_they_say():
    rng = np.random.default_rng(0)
    reference = np.kron(rng.integers(0, 256, (12, 8, 3), dtype=np.uint8), np.ones((8, 8, 1), np.uint8))
    colours = ReferenceColours([reference])
    page = np.repeat(gray(reference)[..., None], 3, axis=2)
    found = {name: paint(page, "gray", colours) for name, paint in BASELINES.items()}
    np.testing.assert_array_equal(found["gray_page"], page)
    assert len(np.unique(found["mean_colour"].reshape(-1, 3), axis=0)) == 1
    small = np.asarray(found["nearest_patch"]).astype(int)  # a page that is its own reference finds itself
    truth = np.kron(reference[::8, ::8], np.ones((small.shape[0] // 12, small.shape[1] // 8, 1), np.uint8)).astype(int)
    assert np.median(np.abs(small - truth).max(axis=-1)) == 0
    assert psnr(reference, found["table"]) > psnr(reference, page) + 1
    histograms = [np.histogram(found["histogram"][..., c], 8, (0, 256))[0] for c in range(3)]
    for channel, histogram in enumerate(histograms):
        expected = np.histogram(reference[..., channel], 8, (0, 256))[0]
        assert np.abs(histogram - expected).sum() < 0.3 * expected.sum()


def test_identity_counts_hair_skin_and_clothes_of_characters(bench):
    parts = read_benchmark(bench)[0].parts
    names = {(parts[region].character == "scene", parts[region].part) for region in character_regions(parts)}
    assert names == {(False, part) for part in ("hair", "skin", "upper", "lower", "pattern", "inner", "shoes")}


def test_identity_of_a_known_error(bench, tmp_path):
    """Hair of one character painted black on every page: its figures alone change."""
    own = tmp_path / "bench"
    shutil.copytree(bench, own)
    options = EvaluateOptions(pack="fake", styles=("gray",), methods=("gray_page",))
    evaluation = Evaluation(own, options, tmp_path / "rows")
    page = evaluation.pages[0]
    painter = evaluation.painters[page.chapter]
    truth = read_picture(page.truth).rgb
    right = evaluation._by_region(painter, page, truth, truth)["regions"]
    assert right and all(row[1] == 0 for row in right.values())
    region = next(iter(right))
    ids = np.asarray(__import__("PIL.Image").Image.open(page.regions)).astype(int)
    wrong = evaluation._by_region(painter, page, truth, np.where((ids == int(region))[..., None], np.uint8(0), truth))
    changed = [key for key, row in wrong["regions"].items() if row != right[key]]
    assert changed == [region]
    assert wrong["regions"][region][1] > 10 and wrong["regions"][region][2] > 10


def test_palette_line_recall_and_equal_pages():
    rng = np.random.default_rng(3)
    truth = rng.integers(0, 256, (40, 30, 3), dtype=np.uint8)
    moved = truth.reshape(-1, 3)[rng.permutation(1200)].reshape(truth.shape)
    assert palette_distance(truth, truth) == 0
    assert palette_distance(truth, moved) < 1e-6 < palette_distance(truth, 255 - truth // 4)
    lines = np.full((40, 30), 255, np.uint8)
    lines[10], lines[20] = 0, 0
    image = np.full((40, 30, 3), 200, np.uint8)
    image[10] = (60, 0, 60)
    assert line_recall(lines, image) == 0.5
    assert line_recall(np.full_like(lines, 255), image) is None
    scores = page_scores(truth, Painted(truth, truth[::2, ::2]), lines)
    assert scores["psnr"] == 100.0 and scores["ssim"] == pytest.approx(1) and scores["psnr_model"] < 30


def test_frechet_distance_is_the_published_formula():
    rng = np.random.default_rng(4)
    one, two = rng.standard_normal((60, 8)), 0.5 * rng.standard_normal((50, 8)) @ rng.standard_normal((8, 8)) + 1
    a, b = np.cov(one, rowvar=False), np.cov(two, rowvar=False)
    gap = one.mean(0) - two.mean(0)
    expected = gap @ gap + np.trace(a + b - 2 * sqrtm(a @ b).real)
    assert frechet_distance(one, two) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(one, one) == pytest.approx(0, abs=1e-8)
    few = rng.standard_normal((3, 8)).astype(np.float32)
    np.testing.assert_array_equal(unpacked(packed(few[0])), few[0])


def test_networks_see_the_picture_and_bad_ones_are_refused(networks, tmp_path):
    picture = np.zeros((20, 30, 3), np.uint8)
    picture[..., 1] = 255
    np.testing.assert_allclose(Network(networks[0], 299)(picture), [0, 1, 0])
    np.testing.assert_allclose(Network(networks[1], 224)(picture), [1 / 3], rtol=1e-6)
    (tmp_path / "bad.onnx").write_bytes(b"nonsense")
    with pytest.raises(EngineError, match="cannot be loaded"):
        Network(tmp_path / "bad.onnx", 299)
    with pytest.raises(OptionError, match="no network at"):
        Network(Path("/nowhere.onnx"), 299)


def test_examples_are_the_best_median_and_worst():
    rows = [{"methods": {"ours": {"psnr": value}}} for value in np.random.default_rng(5).permutation(21).tolist()]
    chosen = examples(rows)
    assert [row["methods"]["ours"]["psnr"] for _, row in chosen] == [20, 19, 18, 11, 10, 9, 2, 1, 0]
    assert chosen[0][0] == "best, 1 of 21" and chosen[-1][0] == "worst, 21 of 21"
    assert len(examples(rows[:2])) == 2
