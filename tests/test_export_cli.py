"""The `colorflow-export` command: the reference procedure, packs written whole, and what it says without torch."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from colorflow_export import packs
from colorflow_export.cli import run
from colorflow_export.graphs import graphs_of
from colorflow_export.packs import WEIGHTS, PackRecipe, load_modules, write_pack
from colorflow_export.to_onnx import export_graph, write_graph
from colorflow_export.weights import stored_tensors, write_weights
from tiny_pack import tiny_modules, tiny_recipe

from colorflow_rt.bench import BenchOptions, bench
from colorflow_rt.errors import OutputError, PackError
from colorflow_rt.metrics import psnr
from colorflow_rt.pack import file_hash, open_pack
from colorflow_rt.pixels import read_picture, write_png


@pytest.fixture
def job(tmp_path: Path) -> list[str]:
    """PAGE --refs DIR --out FILE."""
    rng = np.random.default_rng(2)
    page, refs = tmp_path / "page.png", tmp_path / "refs"
    refs.mkdir()
    write_png(page, np.repeat(rng.integers(0, 256, (96, 64, 1), np.uint8), 3, axis=2))
    for i in range(2):
        write_png(refs / f"{i}.png", rng.integers(0, 256, (64, 64, 3), np.uint8))
    return [str(page), "--refs", str(refs), "--out", str(tmp_path / "out.png")]


def test_reference_writes_the_model_s_picture_and_its_seconds(tiny_pack: Path, tmp_path: Path, job: list[str]) -> None:
    record = tmp_path / "record.json"
    arguments = ["reference", *job, "--pack", str(tiny_pack), "--steps", "2", "--json", str(record), "--repeat", "2"]
    assert run(arguments) == 0
    image = read_picture(tmp_path / "out.png").rgb
    assert image.shape == (96, 64, 3)
    measured = json.loads(record.read_text())
    assert len(measured["seconds"]) == len(measured["stages"]) == 2
    assert measured["layout"] == "nchw"
    assert measured["seconds"][0] == pytest.approx(sum(measured["stages"][0].values()))
    assert run([*arguments, "--channels-last"]) == 0
    assert json.loads(record.read_text())["layout"] == "channels_last"
    assert psnr(image, read_picture(tmp_path / "out.png").rgb) > 50


def test_reference_refuses_colour(tiny_pack: Path, job: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(3)
    write_png(Path(job[0]), rng.integers(0, 256, (64, 64, 3), np.uint8))
    assert run(["reference", *job, "--pack", str(tiny_pack)]) == 2
    assert "is in colour already: give a page in black and white" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        (["--pack", "nowhere"], 2, "no pack is named 'nowhere'"),
        (["--steps", "0"], 2, "--steps"),
        (["--size", "33x64"], 2, "multiples of 32"),
    ],
)
def test_reference_says_what_is_wrong(
    change: list[str], code: int, message: str, tiny_pack: Path, job: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["reference", *job, "--pack", str(tiny_pack), *change]) == code
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_bench_holds_the_runtime_against_the_reference(tiny_pack: Path) -> None:
    record = bench(BenchOptions(pack=str(tiny_pack), size=(96, 128), repeat=1, steps=2))
    assert record["reference_seconds_per_page"] > 0
    assert record["ratio"] == pytest.approx(record["reference_seconds_per_page"] / record["seconds_per_page"])
    assert record["psnr_to_reference_db"] >= 50


@pytest.mark.parametrize("arguments", [["verify", "--golden", "x"], ["reference", "p", "--refs", "r", "--out", "o"]])
def test_without_torch_one_line_says_how_to_get_it(arguments: list[str]) -> None:
    code = (
        "import sys\n"
        "sys.modules['torch'] = sys.modules['diffusers'] = None\n"
        "from colorflow_export.cli import run\n"
        f"sys.exit(run({arguments!r}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith('error: colorflow-export needs torch, diffusers: pip install "colorflow-rt[export]"')
    assert "torch==2.13.0" in done.stderr
    assert done.stderr.count("\n") == 1


def test_help_needs_no_torch() -> None:
    code = "import sys; sys.modules['torch'] = None; from colorflow_export.cli import run; sys.exit(run(['--help']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert all(word in done.stdout for word in ("verify", "reference", "train"))


# Packs


def test_a_rebuilt_pack_has_the_same_bytes(tiny_pack: Path, tmp_path: Path) -> None:
    """The graphs that are quick to export stand for all."""
    modules, config = load_modules(tiny_pack), open_pack(tiny_pack).config
    assert PackRecipe.of(config) == tiny_recipe()
    places = write_weights(stored_tensors(modules, "float16"), tmp_path / WEIGHTS)
    assert (tmp_path / WEIGHTS).read_bytes() == (tiny_pack / WEIGHTS).read_bytes()
    for graph in graphs_of(modules):
        if graph.name in ("vae_decoder", "clip_encoder"):
            path = tmp_path / f"{graph.name}.onnx"
            write_graph(export_graph(graph, modules, places), path)
            assert file_hash(path) == config.files[path.name]


def test_a_failed_export_leaves_nothing_and_harms_nothing(
    tiny_pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise PackError("no")

    monkeypatch.setattr(packs, "export_graph", fail)
    for out in (tmp_path / "new", tiny_pack):
        before = sorted(out.parent.iterdir())
        with pytest.raises(PackError, match="no"):
            write_pack(tiny_modules(), tiny_recipe(), out)
        assert sorted(out.parent.iterdir()) == before
    open_pack(tiny_pack).verify()


def test_a_pack_replaces_a_pack_but_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packs, "write_graph", lambda model, path: path.write_bytes(b"graph"))
    monkeypatch.setattr(packs, "export_graph", lambda *arguments: None)
    out = tmp_path / "pack"
    first = write_pack(tiny_modules(seed=1), tiny_recipe(), out)
    (out / "left.txt").write_text("of the old pack")
    second = write_pack(tiny_modules(seed=2), tiny_recipe(), out)
    assert first.files != second.files
    assert open_pack(out).config == second
    assert not (out / "left.txt").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["pack"]
    other = tmp_path / "photos"
    other.mkdir()
    (other / "holiday.jpg").write_bytes(b"dear to me")
    with pytest.raises(OutputError, match="is there and is not a pack: choose another folder"):
        write_pack(tiny_modules(), tiny_recipe(), other)
    assert (other / "holiday.jpg").read_bytes() == b"dear to me"
    with pytest.raises(OutputError, match="cannot write"):
        write_pack(tiny_modules(), tiny_recipe(), other / "holiday.jpg" / "pack")


def test_a_pack_that_does_not_describe_its_modules(tiny_pack: Path, tmp_path: Path) -> None:
    for path in tiny_pack.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    text = (tmp_path / "pack.toml").read_text()
    (tmp_path / "pack.toml").write_text(text[: text.index("[modules.vae]")])
    with pytest.raises(PackError, match=r"pack tiny cannot be rebuilt: .* lacks vae, clip"):
        load_modules(tmp_path)
