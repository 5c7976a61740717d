"""A folder of engines at run time: which engine a call goes to, what is refused, and what `auto` chooses."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_tools import colorflow, gray_page, one_line, pack_of_nonsense
from numpy.typing import NDArray

from colorflow_rt.denoise import denoise
from colorflow_rt.engine.fake import fake_config
from colorflow_rt.engine.protocol import Bindable, Tensors, TensorSpec
from colorflow_rt.engine_set import (
    MANIFEST,
    BoundShapedEngine,
    EngineManifest,
    EngineRecord,
    EngineSet,
    ShapedEngine,
    choose_variants,
    merge_records,
    weights_hash,
)
from colorflow_rt.errors import EngineError, UnavailableError
from colorflow_rt.files import file_sha256
from colorflow_rt.pack import cannot_run, engines_folder, open_pack
from colorflow_rt.pack_config import ModelConfig, PackConfig, graph_tensors
from colorflow_rt.schedule import Schedule, SchedulerConfig

TEXT = ModelConfig(4, 8, 0.18215, 5, 0, "epsilon", 77, 32)
STEP = graph_tensors(TEXT, fake_config().encoder)["denoise_step"]
SPECS = ([TensorSpec("a", "float32", ("B", "w"))], [TensorSpec("b", "float32", ("B", "w"))])


def record(variant: str, batch: int, width: int) -> EngineRecord:
    inputs, outputs = ((TensorSpec(name, "float32", (batch, width)),) for name in "ab")
    return EngineRecord("gsrp", variant, (width, width), batch, f"{variant}{width}x{batch}", "0", inputs, outputs, 1, 1)


@dataclass
class Loads:
    """Engines that add their number, and what was asked of them."""

    loaded: list[str] = field(default_factory=list)
    calls: list[tuple[str, int]] = field(default_factory=list)

    def __call__(self, one: EngineRecord) -> Any:
        self.loaded.append(one.file)

        def engine(feeds: Tensors) -> dict[str, NDArray[Any]]:
            self.calls.append((one.file, len(feeds["a"])))
            return {"b": feeds["a"] + 1}

        return engine


def ones(batch: int, width: int) -> dict[str, NDArray[np.float32]]:
    return {"a": np.arange(batch * width, dtype=np.float32).reshape(batch, width)}


def test_a_call_goes_to_the_engine_of_its_shape_which_loads_once() -> None:
    loads = Loads()
    engine = ShapedEngine("gsrp", SPECS, [record("", 1, 3), record("", 1, 4), record("", 2, 4)], loads)
    for batch, width in ((1, 4), (2, 4), (1, 4)):
        np.testing.assert_array_equal(engine(ones(batch, width))["b"], ones(batch, width)["a"] + 1)
    assert loads.loaded == ["4x1", "4x2"]
    assert loads.calls == [("4x1", 1), ("4x2", 2), ("4x1", 1)]


def test_a_batch_that_none_was_built_for_goes_row_by_row() -> None:
    loads = Loads()
    engine = ShapedEngine("gsrp", SPECS, [record("", 1, 3)], loads)
    np.testing.assert_array_equal(engine(ones(3, 3))["b"], ones(3, 3)["a"] + 1)
    assert loads.calls == 3 * [("3x1", 1)]


def test_a_shape_that_none_was_built_for_names_those_there_are() -> None:
    engine = ShapedEngine("gsrp", SPECS, [record("", 1, 3), record("", 1, 5)], Loads())
    with pytest.raises(EngineError, match=r"no engine of gsrp was built .* pages of 3x3, 5x5; choose --size, or build"):
        engine(ones(1, 4))
    with pytest.raises(EngineError, match=r"gsrp takes the tensors \['a'\], got \['b'\]"):
        engine({"b": np.zeros((1, 3), np.float32)})


@pytest.mark.parametrize(
    ("scales", "variants"),
    [
        (None, ("",)),
        ([7.5], ("guided",)),
        ([1.0], ("prompt", "guided")),
        ([0.0, 0.0], ("empty", "guided")),
        ([1.0, 0.0], ("guided",)),
        ([1.0, 7.5], ("guided",)),
    ],
)
def test_guidance_chooses_the_cheapest_that_is_exact(scales: list[float] | None, variants: tuple[str, ...]) -> None:
    assert choose_variants(None if scales is None else np.array(scales, np.float32)) == variants


# The loop


class Device:
    """An engine of denoise_step that keeps its state, and one that does not: x0 counts the steps of the loop."""

    def __init__(self, inputs: tuple[TensorSpec, ...]) -> None:
        self.inputs, self.names = inputs, [spec.name for spec in inputs]
        self.scales: list[float] = []

    @contextmanager
    def bind(self, feeds: Tensors) -> Iterator["Device"]:
        assert list(feeds) == self.names
        self.count = np.zeros_like(feeds["sample"])
        yield self

    def step(self, feeds: Tensors) -> None:
        assert list(feeds) == self.names
        self.scales += feeds.get("guidance_scale", np.zeros(0)).tolist()
        self.count = self.count + 1

    def join(self, row: int, feeds: Tensors) -> None:
        self.count[row] = feeds["sample"]

    def preview(self) -> Any:
        return self

    def x0(self) -> NDArray[np.float32]:
        return self.count


def steps(*variants: str) -> tuple[BoundShapedEngine, dict[str, Device]]:
    inputs, outputs = STEP
    records, devices = [], {}
    for variant in variants:
        own = tuple(spec for spec in inputs if variant == "guided" or spec.name != "guidance_scale")
        lengths = {"B": 1, "h": 8, "w": 8}
        fixed = tuple(replace(s, shape=tuple(lengths.get(str(axis), axis) for axis in s.shape)) for s in own)
        records.append(EngineRecord("denoise_step", variant, (32, 32), 1, variant, "", fixed, outputs, 1, 1))
        devices[variant] = Device(own)
    return BoundShapedEngine("denoise_step", STEP, records, lambda one: devices[one.variant]), devices  # type: ignore[arg-type,return-value]


def run(engine: BoundShapedEngine, scale: float, side: int = 8) -> NDArray[np.float32]:
    noise, condition = np.zeros((1, 4, side, side), np.float32), np.zeros((1, 5, side, side), np.float32)
    schedule = Schedule.create(3, SchedulerConfig())
    return denoise(lambda graph: engine, noise, condition, schedule, scale)


def test_the_loop_stays_on_the_engine_that_its_guidance_needs() -> None:
    engine, devices = steps("guided", "prompt")
    assert isinstance(engine, Bindable)
    assert run(engine, 7.5).max() == 3
    assert devices["guided"].scales == [7.5] * 3
    assert run(engine, 1.0).max() == 3
    assert devices["prompt"].count.max() == 3 and devices["guided"].scales == [7.5] * 3
    assert run(engine, 0.0).max() == 3  # no engine for the empty prompt alone: guidance 0 is exact on the guided one
    assert devices["guided"].scales[3:] == [0.0] * 3
    with pytest.raises(EngineError, match=r"no engine of denoise_step was built for .* guidance guided/prompt"):
        run(engine, 7.5, side=16)


def test_guidance_may_not_come_back_in_a_loop_that_has_none() -> None:
    engine, _ = steps("guided", "prompt")
    lengths = {"B": 1, "h": 8, "w": 8}
    feeds = {s.name: np.zeros([lengths.get(str(a), a) for a in s.shape], s.dtype) for s in STEP[0]}  # type: ignore[misc]
    bound = engine.bind(feeds | {"guidance_scale": np.ones(1, np.float32)})
    assert bound is not None
    with bound as loop:
        loop.step(feeds | {"guidance_scale": np.ones(1, np.float32)})
        with pytest.raises(EngineError, match="guidance scale changed during a loop on prompt, which has none"):
            loop.step(feeds | {"guidance_scale": np.full(1, 2, np.float32)})


def test_engines_that_keep_no_state_are_called_step_by_step() -> None:
    """Those for a GPU, emulated on the CPU by `colorflow-export verify`."""
    scales: list[float] = []

    def emulated(feeds: Tensors) -> dict[str, NDArray[Any]]:
        scales.extend(feeds["guidance_scale"])
        return {"sample_next": feeds["sample"], "x0": feeds["x0_prev1"] + 1}

    known, _ = steps("guided")
    engine = BoundShapedEngine("denoise_step", STEP, known._records, lambda one: emulated)  # type: ignore[arg-type,return-value]
    assert run(engine, 7.5).max() == 3
    assert scales == [7.5] * 3


# The folder


@pytest.fixture
def config() -> PackConfig:
    return fake_config()


def folder_of(root: Path, config: PackConfig, target: str = "onnx-cuda", **changes: Any) -> Path:
    root.mkdir(parents=True)
    (root / "gsrp.onnx").write_bytes(b"graph")
    specs = config.graphs["gsrp"]
    one = EngineRecord(
        "gsrp", "", (), 0, "gsrp.onnx", file_sha256(root / "gsrp.onnx"), specs.inputs, specs.outputs, 1, 1
    )
    manifest = EngineManifest(1, config.name, weights_hash(config), target, "float16", 20, {}, (one,))
    (root / MANIFEST).write_text(replace(manifest, **changes).to_toml())
    return root


def test_a_manifest_comes_back_as_it_was(tmp_path: Path, config: PackConfig) -> None:
    manifest = EngineManifest.read(folder_of(tmp_path / "e", config))
    assert manifest.engines[0].inputs == config.graphs["gsrp"].inputs
    (tmp_path / "e" / MANIFEST).write_text(manifest.to_toml())
    assert EngineManifest.read(tmp_path / "e") == manifest
    newer = replace(manifest.engines[0], flops=2)
    assert merge_records({"gsrp.onnx": manifest.engines[0]}, [newer]) == (newer,)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target": "tensorrt"}, "holds engines for tensorrt, not for onnx-cuda"),
        (
            {"pack_weights": "0" * 64},
            "built from other weights than those of pack fake: build them again with",
        ),
        ({"schema": 2}, "has schema 2, expected 1: build the engines again"),
    ],
)
def test_engines_of_something_else_are_refused(
    change: dict[str, Any], message: str, tmp_path: Path, config: PackConfig
) -> None:
    with pytest.raises(EngineError, match=message):
        EngineSet(folder_of(tmp_path / "e", config, **change), config, "onnx-cuda")


def test_a_manifest_that_is_damaged_and_a_tampered_engine(tmp_path: Path, config: PackConfig) -> None:
    folder = folder_of(tmp_path / "e", config)
    engines = EngineSet(folder, config, "onnx-cuda").on(lambda record: pytest.fail("it was loaded"))  # type: ignore[arg-type,return-value]
    engines.verify()
    (folder / "gsrp.onnx").write_bytes(b"evil")
    feeds = {spec.name: np.zeros((1, 3, 8, 8), np.float32) for spec in config.graphs["gsrp"].inputs}
    engine = EngineSet(folder, config, "onnx-cuda").on(lambda record: pytest.fail("it was loaded")).load("gsrp")  # type: ignore[arg-type,return-value]
    with pytest.raises(EngineError, match=r"gsrp.onnx is damaged: its SHA-256 is .*: build the engines again"):
        engine(feeds)
    with pytest.raises(EngineError, match=r"gsrp.onnx is damaged"):
        engines.verify()
    with pytest.raises(EngineError, match="has no engine of vae_decoder: build the engines again"):
        engines.load("vae_decoder")
    (folder / MANIFEST).write_text("schema = ")
    with pytest.raises(EngineError, match=r"engines.toml cannot be read \(not TOML: .*: build the engines again"):
        EngineManifest.read(folder)


def test_what_the_command_line_says_of_engines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: PackConfig
) -> None:
    monkeypatch.setenv("COLORFLOW_HOME", str(tmp_path / "home"))
    pack = pack_of_nonsense(tmp_path / "pack")
    (tmp_path / "refs").mkdir()
    page = gray_page(tmp_path / "page.png")
    line = ("colorize", page, "--refs", tmp_path / "refs", "--out", tmp_path / "out", "--pack", pack)
    one_line(colorflow(*line, "--engine", "gpu"), 2, "engine 'gpu' is unknown: choose one of auto, onnx-cpu, onnx-cuda")
    one_line(colorflow(*line, "--engine", "tensorrt"), 1, "no tensorrt engines of pack fake", "build-engines")
    one_line(colorflow(*line, "--engines", tmp_path / "refs"), 1, "holds no built engines")
    one_line(colorflow(*line[:-1], "fake", "--engine", "onnx-cuda"), 1, "the fake pack has no engines but its own")
    opened = open_pack(pack).config
    folder_of(engines_folder(opened.name, "tensorrt", "float16"), opened, "tensorrt")
    if cannot_run("tensorrt"):
        one_line(colorflow(*line, "--engine", "tensorrt"), 3)
        assert open_pack(pack).config == opened  # auto: what cannot run here is passed over


def test_cuda_that_is_not_here_is_one_sentence(tmp_path: Path, config: PackConfig) -> None:
    if cannot_run("onnx-cuda") is None:
        pytest.skip("this machine has it")
    assert "has no CUDAExecutionProvider" in str(cannot_run("onnx-cuda"))
    pack = pack_of_nonsense(tmp_path / "pack")
    opened = open_pack(pack).config
    engines = folder_of(tmp_path / "e", opened)
    feeds = {spec.name: np.zeros((1, 3, 8, 8), np.float32) for spec in opened.graphs["gsrp"].inputs}
    with pytest.raises(UnavailableError):
        open_pack(pack, "onnx-cuda", engines).engine("gsrp")(feeds)
