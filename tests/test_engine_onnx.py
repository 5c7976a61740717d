"""The ONNX Runtime backend: results, weights kept in safetensors, and every way to fail in one line."""

import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper
from tiny_onnx import clip_encoder, clip_weights, save

from colorflow_rt.engine import TensorSpec
from colorflow_rt.engine import onnx as backend
from colorflow_rt.engine.onnx import OnnxEngine, available_threads
from colorflow_rt.errors import EngineError, OptionError

PIXELS = TensorSpec("pixel_values", "float32", ("B", 3, 4, 4))
EMBEDS = TensorSpec("image_embeds", "float32", ("B", 3))


def pixels(batch: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(batch, 3, 4, 4)).astype(np.float32)


def expected(batch: np.ndarray) -> np.ndarray:
    return batch.reshape(len(batch), -1) @ clip_weights().astype(np.float32)


@pytest.fixture
def engine(tmp_path: Path) -> OnnxEngine:
    return OnnxEngine(clip_encoder(tmp_path), "clip_encoder", ([PIXELS], [EMBEDS]), threads=1)


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_runs_any_batch_with_weights_inside_safetensors(engine: OnnxEngine, batch: int) -> None:
    found = engine({"pixel_values": pixels(batch)})
    assert list(found) == ["image_embeds"]
    np.testing.assert_allclose(found["image_embeds"], expected(pixels(batch)), rtol=1e-4, atol=1e-4)


def test_onnxruntime_folds_the_casts_of_stored_weights(tmp_path: Path) -> None:
    """Weights stored as float16 must be cast once, at load, not in every call."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    ort.InferenceSession(str(clip_encoder(tmp_path)), options, providers=["CPUExecutionProvider"])
    optimized = onnx.load(tmp_path / "optimized.onnx", load_external_data=False).graph
    assert [node.op_type for node in optimized.node] == ["Flatten", "MatMul"]
    assert [tensor.data_type for tensor in optimized.initializer] == [TensorProto.FLOAT]


def test_feeds_need_not_be_contiguous(engine: OnnxEngine) -> None:
    batch = pixels(4)
    found = engine({"pixel_values": batch[::2].transpose(0, 1, 3, 2)})
    wanted = expected(np.ascontiguousarray(batch[::2].transpose(0, 1, 3, 2)))
    np.testing.assert_allclose(found["image_embeds"], wanted, rtol=1e-4, atol=1e-4)


def test_calls_from_many_threads_keep_apart(engine: OnnxEngine) -> None:
    found: dict[int, Any] = {}

    def work(seed: int) -> None:
        for _ in range(20):
            found[seed] = engine({"pixel_values": pixels(2, seed)})["image_embeds"]

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed in range(6):
        np.testing.assert_allclose(found[seed], expected(pixels(2, seed)), rtol=1e-4, atol=1e-4)


def test_wrong_feeds_are_named(engine: OnnxEngine) -> None:
    with pytest.raises(EngineError, match=r"takes pixel_values float32\[B, 3, 4, 4\], got float64"):
        engine({"pixel_values": pixels(1).astype(np.float64)})
    with pytest.raises(EngineError, match=r"takes the tensors \['pixel_values'\], got \['image'\]"):
        engine({"image": pixels(1)})


@pytest.mark.parametrize(
    ("inputs", "outputs", "message"),
    [
        (
            [TensorSpec("image", "float32", PIXELS.shape)],
            [EMBEDS],
            r"inputs of clip_encoder .*'image'.*'pixel_val",
        ),
        (
            [TensorSpec("pixel_values", "float16", PIXELS.shape)],
            [EMBEDS],
            "pack.toml has pixel_values float16",
        ),
        ([TensorSpec("pixel_values", "float32", ("B", 3, 4))], [EMBEDS], "its model pixel_values float32"),
        ([TensorSpec("pixel_values", "float32", ("B", 3, 4, 8))], [EMBEDS], "B, 3, 4, 8"),
        ([TensorSpec("pixel_values", "float32", ("B", 3, "S", "S"))], [EMBEDS], "B, 3, S, S"),
        ([PIXELS], [TensorSpec("image_embeds", "float32", ("B", 4))], r"output of clip_encoder.*B, 4"),
        ([PIXELS], [], r"outputs of clip_encoder in pack.toml are \[\], those of its model"),
    ],
)
def test_specs_are_checked_against_the_model(
    tmp_path: Path, inputs: list[TensorSpec], outputs: list[TensorSpec], message: str
) -> None:
    with pytest.raises(EngineError, match=message):
        OnnxEngine(clip_encoder(tmp_path), "clip_encoder", (inputs, outputs))


def test_a_batch_that_the_exporter_fixed_is_found_at_load(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"has pixel_values float32\[B, 3, 4, 4\], its model .*\[2, 3, 4, 4\]"):
        OnnxEngine(clip_encoder(tmp_path, batch=2), "clip_encoder", ([PIXELS], [EMBEDS]))


def test_a_pack_may_promise_less_than_the_model_can(tmp_path: Path) -> None:
    one = TensorSpec("pixel_values", "float32", (1, 3, 4, 4)), TensorSpec("image_embeds", "float32", (1, 3))
    engine = OnnxEngine(clip_encoder(tmp_path), "clip_encoder", ([one[0]], [one[1]]))
    with pytest.raises(EngineError, match="takes pixel_values"):
        engine({"pixel_values": pixels(2)})


def test_files_that_are_no_model(tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"not a model")
    for path in (broken, tmp_path / "missing.onnx"):
        with pytest.raises(EngineError, match="clip_encoder cannot be loaded from") as caught:
            OnnxEngine(path, "clip_encoder", ([PIXELS], [EMBEDS]))
        assert "\n" not in str(caught.value)


def test_missing_weights_are_an_engine_error(tmp_path: Path) -> None:
    path = clip_encoder(tmp_path)
    (tmp_path / "weights.safetensors").unlink()
    with pytest.raises(EngineError, match="cannot be loaded"):
        OnnxEngine(path, "clip_encoder", ([PIXELS], [EMBEDS]))


def test_a_failing_run_is_one_line(tmp_path: Path) -> None:
    """Two inputs whose lengths differ by a name that the pack does not tie together."""
    lengths = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [name]) for name in ("a", "b", "sum")]
    graph = helper.make_graph([helper.make_node("Add", ["a", "b"], ["sum"])], "add", lengths[:2], lengths[2:])
    inputs = [TensorSpec("a", "float32", ("n",)), TensorSpec("b", "float32", ("m",))]
    engine = OnnxEngine(save(graph, tmp_path / "add.onnx"), "add", (inputs, [TensorSpec("sum", "float32", ("n",))]))
    feeds = {"a": np.zeros(2, np.float32), "b": np.zeros(3, np.float32)}
    with pytest.raises(EngineError, match=r"add failed on a \[2\], b \[3\]: ") as caught:
        engine(feeds)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(("limit", "packing"), [(95, False), (1000, True)])
def test_large_weights_are_not_packed_a_second_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int, packing: bool
) -> None:
    """What counts is the file of weights beside the graph, not the graph."""
    entries: dict[str, str] = {}
    add = ort.SessionOptions.add_session_config_entry

    def recorded(options: Any, key: str, value: str) -> None:
        entries[key] = value
        add(options, key, value)

    monkeypatch.setattr(backend, "PACK_LIMIT", limit)
    monkeypatch.setattr(ort.SessionOptions, "add_session_config_entry", recorded)
    engine = OnnxEngine(clip_encoder(tmp_path), "clip_encoder", ([PIXELS], [EMBEDS]), threads=1)
    assert entries.get("session.disable_prepacking") == (None if packing else "1")
    np.testing.assert_allclose(engine({"pixel_values": pixels(2)})["image_embeds"], expected(pixels(2)), rtol=1e-4)


def test_missing_provider_names_the_extra(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"cannot run on NoSuchProvider: .*pip install 'colorflow-rt\[gpu\]'"):
        OnnxEngine(tmp_path / "x.onnx", "vae_encoder", ((), ()), providers=("NoSuchProvider",))


def test_threads_follow_affinity_and_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLORFLOW_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 3, 5}, raising=False)
    assert available_threads() == 3
    monkeypatch.setenv("COLORFLOW_THREADS", "7")
    assert available_threads() == 7


@pytest.mark.parametrize("value", ["0", "-1", "two", "1.5"])
def test_threads_must_be_a_number(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("COLORFLOW_THREADS", value)
    with pytest.raises(OptionError, match=f"COLORFLOW_THREADS is '{value}', expected a whole number"):
        available_threads()
