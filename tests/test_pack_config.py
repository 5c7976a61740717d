"""pack.toml: read back as written, and every wrong value named with what was expected."""

import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colorflow_rt.engine import TensorSpec
from colorflow_rt.engine.fake import fake_config
from colorflow_rt.errors import PackError
from colorflow_rt.pack_config import GRAPHS, PackConfig, graph_tensors, read_pack_toml
from colorflow_rt.records import read_record, write_toml
from colorflow_rt.schedule import SchedulerConfig

HASH = "sha256:" + "0" * 64


@given(
    latent_channels=st.integers(1, 32),
    vae_factor=st.sampled_from([1, 2, 4, 8, 16]),
    inner=st.booleans(),
    luminance_planes=st.integers(0, 3).map(lambda n: 8 * n),
    prediction_type=st.sampled_from(["epsilon", "v_prediction", "sample"]),
    text=st.booleans(),
    widths=st.lists(st.integers(1, 1280), max_size=4),
    description=st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), max_size=20),
)
@settings(max_examples=60, deadline=None)
def test_round_trip(widths: list[int], description: str, **dimensions: Any) -> None:
    modules = {"unet": {"widths": widths, "act": "silu", "eps": 1e-5, "nested": {"flag": True}}, "clip": {}}
    config = replace(fake_config(**dimensions), modules=modules, description=description)
    assert PackConfig.from_toml(config.to_toml()) == config


def test_the_condition_follows_the_model() -> None:
    plain, inner = fake_config().model, fake_config(inner=True, luminance_planes=8).model
    assert (plain.has_inner, plain.condition_planes) == (False, 5)
    assert (inner.has_inner, inner.condition_planes) == (True, 17)
    inputs, _ = graph_tensors(inner, fake_config().encoder)["denoise_step"]
    assert TensorSpec("condition", "float32", ("B", 17, "h", "w")) in inputs
    assert "guidance_scale" not in [spec.name for spec in inputs]


def test_text_packs_take_guidance() -> None:
    config = fake_config(text=True)
    assert config.graphs["denoise_step"].inputs[-1] == TensorSpec("guidance_scale", "float32", ("B",))


def test_the_scheduler_knows_the_prediction() -> None:
    assert fake_config().scheduler_config == SchedulerConfig(prediction_type="epsilon")
    config = fake_config(prediction_type="v_prediction")
    assert config.scheduler_config == SchedulerConfig(prediction_type="v_prediction")


def changed(path: str, value: object) -> dict[str, Any]:
    """The fake pack's table with one value set, or taken out where `value` is ...; digits index arrays."""
    table = tomllib.loads(fake_config().to_toml())
    *parents, last = [int(part) if part.isdigit() else part for part in path.split("/")]
    inside: Any = table
    for part in parents:
        inside = inside[part]
    if value is ...:
        del inside[last]
    else:
        inside[last] = value
    return table


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("schema", 0, "schema is 0, expected 1"),
        ("name", "Mini", "name is 'Mini', expected a-z, 0-9 and - only"),
        ("name", "", "name is ''"),
        ("description", "two\nlines", "description is .* expected one line"),
        ("licence", "x", "licence is unknown, expected one of schema, name, version, license"),
        ("version", ..., "version is missing"),
        ("model", ..., "model is missing"),
        ("model/foo", 1, "model.foo is unknown, expected one of latent_channels"),
        ("model/vae_factor", 3, "model.vae_factor is 3, expected a power of two"),
        ("model/vae_factor", "8", "model.vae_factor is '8', expected a whole number"),
        ("model/latent_channels", 0, "model.latent_channels is 0, expected 1 or more"),
        ("model/scaling_factor", 0, "model.scaling_factor is 0.0, expected more than 0"),
        ("model/condition_channels", 8, "model.condition_channels is 8, expected 5 .* or 9"),
        ("model/luminance_planes", 4, "model.luminance_planes is 4, expected a multiple of 8"),
        ("model/prediction_type", "x0", "model.prediction_type is 'x0', expected one of epsilon, v_prediction, sample"),
        ("model/text_tokens", 77, r"text_dim is \(77, 0\), expected both 0 or both more"),
        ("style/inputs", [], "style.inputs is .*expected one or more"),
        ("style/inputs", ["color"], "style.inputs is 'color', expected one of gray, screentone, lineart"),
        ("style/context", "lines", "style.context is 'lines', expected one of page, blend"),
        ("pages/sizes", [], "pages.sizes is .*expected one or more"),
        ("pages/sizes", [[64, 100]], r"pages.sizes is \(64, 100\), expected multiples of 32"),
        ("pages/multiple", 4, "pages.multiple is 4, expected a multiple of vae_factor 8"),
        ("pages/multiple", 0, "pages.multiple is 0, expected 1 or more"),
        ("pages/gsrp_scale", 0.5, "pages.gsrp_scale is 0.5, expected 1 to 8"),
        ("pages/gsrp_scale", 1.1, "pages.gsrp_scale is 1.1, expected 32 times it a multiple of 8"),
        ("pages/fusion_statistics", "none", "pages.fusion_statistics is 'none', expected one of running, batch"),
        ("encoder/crop", "left", "encoder.crop is 'left', expected one of whole, center"),
        ("encoder/std", [1, 0, 1], r"encoder.std is \(1.0, 0.0, 1.0\), expected more than 0"),
        ("encoder/mean", [0, 0], "encoder.mean has 2 values, expected 3"),
        ("encoder/dim", 0, "encoder.dim is 0, expected 1 or more"),
        ("encoder/image_size", 0, "encoder.image_size is 0, expected 1 or more"),
        ("scheduler/beta_schedule", "cosine", "scheduler: beta_schedule is 'cosine', expected one of scaled_linear"),
        ("scheduler/prediction_type", "epsilon", "scheduler.prediction_type is unknown"),
        ("defaults/steps", 0, "defaults.steps is 0, expected 1 or more"),
        ("defaults/steps", 1001, "defaults.steps is 1001, expected 1 to 1000"),
        ("defaults/guidance_scale", -1, "defaults.guidance_scale is -1.0, expected 0 to 50"),
        ("defaults/fit", "stretch", "defaults.fit is 'stretch', expected one of pad, crop"),
        ("modules/lora", {}, "modules is 'lora', expected one of unet, guider, vae, fusion, clip"),
        ("graphs/gsrp", ..., f"graphs is .* expected {', '.join(GRAPHS)}; or guider and denoise_reuse too"),
        ("graphs/guider", ..., "graphs is .* expected clip_encoder, .*; or guider and denoise_reuse too"),
        ("graphs/denoise_reuse", ..., "graphs is .* expected clip_encoder, .*; or guider and denoise_reuse too"),
        ("graphs/guider/outputs", [], r"graphs.guider.outputs is \[\], expected feature_00, feature_01 and so on"),
        (
            "graphs/guider/outputs/1/name",
            "feature_1",
            "guider.outputs is .*'feature_1'.*, expected feature_00, feature",
        ),
        ("graphs/guider/outputs/0/dtype", "int64", r"is 'feature_00 int64.*, expected feature_00 float32\[B, channels"),
        (
            "graphs/guider/outputs/0/shape",
            ["B", "c", "h", "w"],
            r"'feature_00 float32\[B, c, h, w\]', expected feature",
        ),
        ("graphs/guider/inputs/0/name", "noise", "graphs.guider.inputs is .*'noise'.*, expected sample, x0_prev1"),
        ("graphs/denoise_reuse/inputs/7", ..., "denoise_reuse.inputs is .*, expected .*corrector, feature_00, feature"),
        (
            "graphs/denoise_reuse/inputs/7/shape",
            ["B", 5, "h", "w"],
            r"feature_00 float32\[B, 5, h, w\]', expected feature_00 float32\[B, 4, h, w\]",
        ),
        ("defaults/guider_steps", 1, r"defaults.guider_steps is 1, expected 0 \(every step\), or 2 or more"),
        ("graphs/extra", {"file": "gsrp", "inputs": [], "outputs": []}, "graphs is .*'extra'"),
        ("graphs/gsrp/file", "other.onnx", r"graphs.gsrp.file is 'other.onnx', expected a file listed in \[files\]"),
        ("graphs/gsrp/inputs", [], r"graphs.gsrp.inputs is \[\], expected color, bw"),
        ("graphs/gsrp/inputs/0/name", "colour", "graphs.gsrp.inputs is .*'colour'.*, expected color, bw"),
        ("graphs/gsrp/inputs/0/dtype", "float16", r"is 'color float16\[B, 3, H, W\]', expected color float32"),
        ("graphs/gsrp/inputs/0/shape", ["B", 4, "H", "W"], r"'color float32\[B, 4, H, W\]', expected color float32"),
        ("graphs/gsrp/inputs/0/shape", ["B", 3, "H"], r"is 'color float32\[B, 3, H\]', expected"),
        ("files/gsrp", "md5:1", "files.gsrp is 'md5:1', expected sha256: and 64 hexadecimal digits"),
    ],
)
def test_wrong_values_are_named(path: str, value: object, message: str, tmp_path: Path) -> None:
    file = tmp_path / "pack.toml"
    file.write_text(write_toml(changed(path, value)), encoding="utf-8")
    with pytest.raises(PackError, match=f"pack.toml: .*{message}") as caught:
        read_pack_toml(file)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["../x", "/etc/passwd", "a/../b", "./a", "a//b", "", ".", "..", "C:\\x", "a\\b", "a\x00b", "a/"]
)
def test_file_names_stay_inside_the_folder(name: str) -> None:
    with pytest.raises(PackError, match="expected the name of a file inside the pack's folder"):
        replace(fake_config(), files=fake_config().files | {name: HASH})


def test_files_may_lie_deeper() -> None:
    config = replace(fake_config(), files=fake_config().files | {"shards/weights-1.safetensors": HASH})
    assert PackConfig.from_toml(config.to_toml()) == config


def test_a_pack_may_fix_axes_that_the_table_leaves_open() -> None:
    table = changed("graphs/gsrp/inputs/0/shape", [1, 3, "height", 96])
    config = read_record(PackConfig, table)
    assert config.graphs["gsrp"].inputs[0].shape == (1, 3, "height", 96)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"schema = 1\nname = !\n", "not TOML: .*line 2"),
        (b"\xff\xfe", "codec can't decode"),
        (b"schema = 2\nnew_things = true", "schema is 2, this ColorFlow RT reads up to 1: upgrade it"),
        (b"", "schema is missing"),
    ],
)
def test_files_that_are_no_description(content: bytes, message: str, tmp_path: Path) -> None:
    file = tmp_path / "pack.toml"
    file.write_bytes(content)
    with pytest.raises(PackError, match=f"pack.toml: .*{message}"):
        read_pack_toml(file)


def test_a_description_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(PackError, match=r"pack\.toml: .*No such file"):
        read_pack_toml(tmp_path / "pack.toml")


def test_the_guider_s_graphs_may_be_left_out() -> None:
    config = fake_config(reuse=False)
    assert config.graphs.keys() == set(GRAPHS)
    assert (config.reuses, fake_config().reuses) == (False, True)
    assert PackConfig.from_toml(config.to_toml()) == config
    older = config.to_toml().replace("guider_steps = 0\n", "")
    assert PackConfig.from_toml(older) == config
    with pytest.raises(
        PackError, match="guider_steps is 4, expected 0: the pack has no graphs guider and denoise_reuse"
    ):
        replace(config, defaults=replace(config.defaults, guider_steps=4))
