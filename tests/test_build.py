"""`colorflow-export build-engines`: what is planned, built, checked and kept; and what is refused."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from colorflow_export import build as building
from colorflow_export import cli_engines
from colorflow_export.build import build, plan
from colorflow_export.checked import check, check_text_folded
from colorflow_export.cli import run
from colorflow_export.parity_engines import RELATIVE, check_engines, compare
from colorflow_export.recipe import Recipe, read_recipe, recipes
from onnx import TensorProto, helper
from safetensors.torch import load_file, save_file

from colorflow_rt.engine_set import MANIFEST, EngineManifest
from colorflow_rt.errors import EngineError, OptionError, OutputError, PackError
from colorflow_rt.lock import WriterLock
from colorflow_rt.pack import file_hash

SHAPE = ((64, 96),)


@pytest.fixture(scope="module")
def fp16(tiny_pack: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checked float16 graphs of the tiny pack for TensorRT, but for the slow one."""
    out = tmp_path_factory.mktemp("fp16")
    graphs = ("clip_encoder", "vae_encoder", "vae_decoder", "gsrp")
    build(plan(Recipe(str(tiny_pack), target="tensorrt", shapes=SHAPE, graphs=graphs), out))
    return out


@pytest.fixture(scope="module")
def guided(converted: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """denoise_step of the golden networks in every variant, float32 with fused attention for ONNX Runtime."""
    out = tmp_path_factory.mktemp("guided")
    recipe = Recipe(str(converted), guidance=("guided", "prompt", "empty"), graphs=("denoise_step",), shapes=SHAPE)
    build(plan(recipe, out))
    return out


# Recipes


def test_recipes_are_there_for_each_pack_and_target() -> None:
    names = {f"{pack}-{target}" for pack in ("colorflow", "mini") for target in ("onnx-cpu", "onnx-cuda", "tensorrt")}
    assert recipes().keys() == names
    for name in names:
        recipe = read_recipe(name)
        assert f"{recipe.pack}-{recipe.target}" == name
    assert (640, 992) in read_recipe("colorflow-tensorrt").shapes
    assert read_recipe("colorflow-tensorrt", precision="fp32", shapes=((64, 64),)).shapes == ((64, 64),)


def test_what_is_left_open_is_the_pack_s_and_the_target_s(tiny_pack: Path) -> None:
    settled = plan(Recipe(str(tiny_pack), target="tensorrt")).recipe
    assert (settled.precision, settled.opset, settled.guidance) == ("fp16", 21, ())
    assert settled.shapes == ((64, 96), (96, 64), (64, 64))
    stems = [wanted.stem for wanted in settled.wanted()]
    assert stems[:3] == ["clip_encoder", "vae_encoder.64x96x1", "denoise_step.64x96x1"]
    assert len(stems) == 1 + 3 * 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target": "tpu"}, "target 'tpu' is unknown: choose one of onnx-cpu, onnx-cuda, tensorrt"),
        ({"precision": "int8"}, "precision 'int8' is unknown: choose one of fp16, fp32"),
        ({"guidance": ("strong",)}, "guidance 'strong' is unknown: choose one of guided, prompt, empty"),
        ({"graphs": ("unet",)}, "graph 'unet' is unknown: choose one of clip_encoder"),
        ({"batches": (0,)}, "expected one or more of 1 to 64"),
        ({"target": "tensorrt", "precision": "fp16", "opset": 20}, "opset is 20: tensorrt fp16 takes 21 to 22"),
        ({"shapes": ((64, 100),)}, "shape 64x100: sides of a page are multiples of 32"),
        ({"shapes": ((0, 32),)}, "shape 0x32: sides of a page are multiples of 32"),
    ],
)
def test_what_no_recipe_may_say(change: dict[str, object], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        plan(Recipe("mini", **change))  # type: ignore[arg-type]


def test_a_recipe_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"no recipe is named .best. .* recipes are colorflow-onnx-cpu"):
        read_recipe("best")
    path = tmp_path / "mine.toml"
    path.write_text('pack = "mini"\nprecison = "fp16"\n')
    with pytest.raises(OptionError, match=r"mine.toml: precison is unknown, expected one of pack, target, precision"):
        read_recipe(path)


# The command


def test_dry_run_says_what_would_be_built(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "engines"
    assert run(["build-engines", "--recipe", "mini-tensorrt", "--out", str(out), "--dry-run", "--shape", "64x96"]) == 0
    printed = capsys.readouterr().out
    assert "tensorrt fp16, opset 21, of pack mini" in printed
    assert "denoise_step.64x96x1.onnx  64x96" in printed
    assert "missing here: " in printed and "missing here: nothing" not in printed
    assert f"in {out} (new folder)" in printed
    assert not out.exists()


def test_without_the_target_s_hardware_the_checked_graphs_stay(
    tiny_pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("colorflow_rt.pack.cannot_run", lambda target: f"there is no {target} here")
    line = ["build-engines", "--pack", str(tiny_pack), "--target", "tensorrt", "--graph", "clip_encoder"]
    assert run([*line, "--out", str(tmp_path)]) == 3
    said = capsys.readouterr()
    assert said.err == f"error: there is no tensorrt here; the checked ONNX files are in {tmp_path}\n"
    assert (tmp_path / "clip_encoder.onnx").is_file()
    monkeypatch.setattr("colorflow_rt.pack.cannot_run", lambda target: None)
    compiled: list[str] = []
    monkeypatch.setattr(cli_engines, "_compile", lambda graphs, out, flags: compiled.extend(g.graph for g in graphs))
    assert run([*line, "--out", str(tmp_path)]) == 0
    assert compiled == ["clip_encoder"]
    assert "clip_encoder.onnx: kept, it fits" in capsys.readouterr().out


def test_a_command_without_a_pack_or_with_an_unknown_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["build-engines"]) == 2
    assert "give --pack NAME|DIR, or --recipe NAME|FILE" in capsys.readouterr().err
    assert run(["build-engines", "--pack", "nowhere"]) == 2
    assert "no pack is named 'nowhere'" in capsys.readouterr().err


# What is built


def test_float16_graphs_are_close_to_pytorch_in_float32(fp16: Path, tiny_pack: Path) -> None:
    comparisons = list(_graphs_only(tiny_pack, fp16))
    assert len(comparisons) == 4
    for each in comparisons:
        assert each.passed and each.relative > 1e-6, each  # exactly equal would mean that nothing is float16


def test_every_variant_computes_its_guidance(guided: Path, converted: Path) -> None:
    """Text folded, halves doubled late, attention fused: the same as the plain networks at guidance 7.5, 1 and 0."""
    comparisons = list(_graphs_only(converted, guided))
    assert len(comparisons) == 6
    for each in comparisons:
        assert each.relative < 2e-5, each
    operators = {node.op_type for node in _model(guided, "denoise_step.guided.64x96x1").graph.node}
    assert "MultiHeadAttention" in operators and "Softmax" not in operators
    flops = {r.variant: r.flops for r in EngineManifest.read(guided).engines}
    assert flops["prompt"] == flops["empty"] < flops["guided"] < 1.6 * flops["prompt"]


def _graphs_only(pack: Path, folder: Path):  # type: ignore[no-untyped-def]
    """`check_engines` without its page, which needs all five graphs."""
    from colorflow_export import parity_engines

    page = parity_engines._page
    parity_engines._page = lambda *arguments: compare("page", "", np.zeros(1), np.zeros(1), 1)
    try:
        return [each for each in check_engines(pack, folder) if each.name != "page"]
    finally:
        parity_engines._page = page


def _model(folder: Path, stem: str) -> onnx.ModelProto:
    return onnx.load(folder / f"{stem}.onnx", load_external_data=False)


def test_text_is_folded_and_text_that_is_not_is_seen(guided: Path, converted: Path) -> None:
    used = {name for node in _model(guided, "denoise_step.guided.64x96x1").graph.node for name in node.input}
    assert any(name.endswith(".attn2.processor.keys") for name in used)
    with pytest.raises(PackError, match=r"denoise_step.onnx: .*attn2.to_[kv].* is still multiplied"):
        check_text_folded(converted / "denoise_step.onnx")


def test_the_manifest_says_what_is_there(fp16: Path) -> None:
    manifest = EngineManifest.read(fp16)
    assert (manifest.target, manifest.precision, manifest.opset) == ("tensorrt", "float16", 21)
    assert list(manifest.weights) == ["weights.float16.safetensors"]
    gsrp = manifest.engines[-1]
    assert (gsrp.graph, gsrp.page, gsrp.batch) == ("gsrp", (64, 96), 1)
    assert gsrp.inputs[0].shape == (1, 3, 144, 96)  # 1.5x the page
    assert gsrp.flops > 1e8 and gsrp.nodes > 100
    assert {path.name for path in fp16.iterdir()} == {
        *manifest.weights, MANIFEST, "build.lock", *(record.file for record in manifest.engines)
    }  # fmt: skip


def test_extreme_pictures_stay_finite_in_float16(fp16: Path, tiny_pack: Path) -> None:
    """All black, all white, a checkerboard and values far outside: no NaN, no infinity, in ORT's float16 emulation."""
    from colorflow_export.parity_engines import _emulated

    from colorflow_rt.pack import open_pack

    manifest = EngineManifest.read(fp16)
    source = _emulated(fp16, open_pack(tiny_pack), manifest)
    for record in manifest.engines:
        engine = source.open(record)
        for level in (-1.0, 1.0, 20.0, None):
            found = engine({spec.name: _picture(spec.shape, level) for spec in record.inputs})
            assert all(np.isfinite(array).all() for array in found.values()), (record.file, level)


def _picture(shape: tuple[int | str, ...], level: float | None) -> np.ndarray:
    lengths = [axis if isinstance(axis, int) else 2 for axis in shape]
    if level is not None:
        return np.full(lengths, level, np.float32)
    board = np.indices(lengths[-2:]).sum(axis=0) % 2 * 2 - 1
    return np.ascontiguousarray(np.broadcast_to(board, lengths), dtype=np.float32)


# What is there already


def test_another_build_keeps_what_fits_and_mends_what_does_not(fp16: Path, tiny_pack: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(fp16, tmp_path / "out"))
    (out / ".colorflow-dead.tmp.onnx").write_bytes(b"of a killed build")
    broken = out / "clip_encoder.onnx"
    good = broken.read_bytes()
    broken.write_bytes(good[:-10])
    said: list[str] = []
    recipe = Recipe(str(tiny_pack), target="tensorrt", shapes=SHAPE, graphs=("clip_encoder", "gsrp"))
    assert len(build(plan(recipe, out), said.append)) == 2
    assert "clip_encoder.onnx: damaged or missing, made again" in said
    assert "gsrp.64x96x1.onnx: kept, it fits" in said
    assert broken.read_bytes() == good
    assert len(EngineManifest.read(out).engines) == 4
    assert not list(out.glob(".colorflow*"))


def test_engines_of_other_weights_are_named_and_made_again(fp16: Path, tiny_pack: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(fp16, tmp_path / "out"))
    pack = Path(shutil.copytree(tiny_pack, tmp_path / "tiny"))
    tensors = load_file(pack / "weights.safetensors")
    tensors["clip.vision_model.post_layernorm.bias"] += 1
    save_file(tensors, pack / "weights.safetensors")
    text = (pack / "pack.toml").read_text()
    old, new = (file_hash(folder / "weights.safetensors") for folder in (tiny_pack, pack))
    (pack / "pack.toml").write_text(text.replace(old, new))
    said: list[str] = []
    build(plan(Recipe(str(pack), target="tensorrt", shapes=SHAPE, graphs=("clip_encoder",)), out), said.append)
    assert said[0] == f"the engines in {out} are of other weights: all of them are made again"
    assert [record.graph for record in EngineManifest.read(out).engines] == ["clip_encoder"]


def test_a_folder_of_something_else_is_left_alone(fp16: Path, tiny_pack: Path, tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_bytes(b"dear to me")
    recipe = Recipe(str(tiny_pack), graphs=("clip_encoder",))
    with pytest.raises(OutputError, match=r"holds holiday.jpg and no engines: choose another --out"):
        build(plan(recipe, tmp_path))
    with pytest.raises(OutputError, match=r"holds engines for tensorrt float16 at opset 21: choose another --out"):
        build(plan(recipe, fp16))
    with pytest.raises(OutputError, match="cannot write"):
        build(plan(recipe, tmp_path / "holiday.jpg" / "engines"))


def test_two_builds_at_once(tiny_pack: Path, tmp_path: Path) -> None:
    with (
        WriterLock(tmp_path / building.LOCK, "it", error=OutputError),
        pytest.raises(OutputError, match=r"is being written by pid \d+ .*: try again when that has finished"),
    ):
        build(plan(Recipe(str(tiny_pack), graphs=("clip_encoder",)), tmp_path))


def test_too_small_a_disk(tiny_pack: Path, tmp_path: Path) -> None:
    small = replace(plan(Recipe(str(tiny_pack)), tmp_path / "out"), free=1_000_000)
    with pytest.raises(OutputError, match=r"needs up to 0.0 GB and the disk has 0.0 GB free: choose another --out"):
        build(small)
    assert not (tmp_path / "out").exists()


def test_float16_that_cannot_hold_a_weight(tiny_pack: Path, tmp_path: Path) -> None:
    pack = Path(shutil.copytree(tiny_pack, tmp_path / "tiny"))
    tensors = {name: tensor.float() for name, tensor in load_file(pack / "weights.safetensors").items()}
    tensors["vae.encoder.conv_in.bias"][0] = 1e6
    save_file(tensors, pack / "weights.safetensors")
    text = (pack / "pack.toml").read_text()
    hashes = [file_hash(folder / "weights.safetensors") for folder in (tiny_pack, pack)]
    (pack / "pack.toml").write_text(text.replace(*hashes))
    with pytest.raises(PackError, match=r"vae.encoder.conv_in.bias .* not finite in float16: .* --precision fp32"):
        build(plan(Recipe(str(pack), target="tensorrt"), tmp_path / "out"))


# Checks of graphs, each on one that fails it


def _graph(*nodes: onnx.NodeProto, opset: int = 21, inner: tuple[onnx.ValueInfoProto, ...] = ()) -> onnx.ModelProto:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 8]) for name in "xy")
    graph = helper.make_graph(list(nodes), "g", [x], [y], value_info=list(inner))
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def _cast(source: str, target: str, to: int) -> onnx.NodeProto:
    return helper.make_node("Cast", [source], [target], to=to)


FULL, HALF = TensorProto.FLOAT, TensorProto.FLOAT16
GOOD = (_cast("x", "a", HALF), helper.make_node("Softmax", ["a"], ["b"]), _cast("b", "y", FULL))
ISLAND = (
    _cast("x", "a", HALF), _cast("a", "b", FULL), helper.make_node("Exp", ["b"], ["c"]), _cast("c", "d", HALF),
    _cast("d", "y", FULL),
)  # fmt: skip


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (_graph(helper.make_node("Softmax", ["x"], ["y"])), "Softmax .* works in float32, expected float16"),
        (_graph(*ISLAND), "d is float16 again behind float32"),
        (_graph(helper.make_node("Det", ["x"], ["z"]), *GOOD), "."),
        (_graph(helper.make_node("FastGelu", ["x"], ["y"], domain="com.microsoft")), "takes no com.microsoft FastGelu"),
        (_graph(*GOOD, opset=8), "."),
        (_graph(helper.make_node("Bernoulli", ["x"], ["y"])), "TensorRT's parser takes no  Bernoulli of float32"),
    ],
)
def test_graphs_that_do_not_pass(model: onnx.ModelProto, message: str, tmp_path: Path) -> None:
    onnx.save(_graph(*GOOD), tmp_path / "good.onnx")
    assert check(tmp_path / "good.onnx", "float16", tensorrt=True, fixed=True).operators == {"Cast": 2, "Softmax": 1}
    onnx.save(model, tmp_path / "bad.onnx")
    with pytest.raises((PackError, onnx.checker.ValidationError, onnx.shape_inference.InferenceError), match=message):
        check(tmp_path / "bad.onnx", "float16", tensorrt=True, fixed=True)


def test_operations_are_counted(tmp_path: Path) -> None:
    weight = helper.make_tensor("w", FULL, [8, 8], np.eye(8, dtype=np.float32).ravel())
    model = _graph(helper.make_node("MatMul", ["x", "w"], ["y"]))
    model.graph.initializer.append(weight)
    onnx.save(model, tmp_path / "m.onnx")
    assert check(tmp_path / "m.onnx", "float32", tensorrt=True, fixed=True).flops == 2 * 8 * 8


@pytest.mark.parametrize(
    ("found", "passed"),
    [
        (lambda x: x, True),
        (lambda x: x * (1 + 1e-3), True),
        (lambda x: x * 1.1, False),
        (lambda x: np.full_like(x, np.nan), False),
        (lambda x: x[:1], False),
    ],
)
def test_comparisons(found: Callable[[np.ndarray], np.ndarray], passed: bool) -> None:
    truth = np.linspace(-1, 1, 100).reshape(4, 25)
    assert compare("x", "here", found(truth), truth, RELATIVE["float16"]).passed is passed


def test_verify_prints_engines_and_needs_a_pack(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run(["verify", "--golden", "x", "--engines", str(tmp_path)]) == 2
    assert "--engines DIR compares with a pack: give --pack" in capsys.readouterr().err
    with pytest.raises(EngineError, match="holds no built engines: make them with colorflow-export build-engines"):
        EngineManifest.read(tmp_path)
