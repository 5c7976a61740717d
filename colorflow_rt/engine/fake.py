"""Engines without a model: instant, deterministic, and meaningful, for tests of anything above the engine.

A whole page can be coloured on them in milliseconds, by plain arithmetic with the tensors of docs/pack.md:

clip_encoder  the layout of light and dark (an 8 x 8 grid), a little of the mean colour, through a fixed
              projection: the gray and the colour version of one patch are near, other patches are not
vae_encoder   mean colour and luminance of each f x f cell
vae_decoder   its inverse: flat cells
guider        three features: the canvas, the references' chroma over its centre, the trace (below)
denoise_reuse the documented update with these features
denoise_step  both at once; the picture that it moves to is the canvas itself, whose centre takes the
              mean chroma of the references (times guidance_scale), plus a trace of the sample that fades with
              the timestep, so that seeds, steps and references all show in the result
gsrp          the colour image with the fine luminance detail of the black-and-white one

A row of a batch is computed alone, so its result never depends on the rest of the batch.
"""

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from colorflow_rt.engine.protocol import Tensors, TensorSpec, check_feeds
from colorflow_rt.errors import EngineError
from colorflow_rt.pack_config import (
    DefaultsConfig,
    EncoderConfig,
    GraphConfig,
    ModelConfig,
    PackConfig,
    PagesConfig,
    StyleConfig,
    feature_name,
    graph_tensors,
    reuse_tensors,
)
from colorflow_rt.pixels import luminance
from colorflow_rt.schedule import NoiseConfig

Floats = NDArray[np.float32]
Cost = Callable[[int], float]
Row = Callable[[PackConfig, Tensors], dict[str, Floats]]

_GRID = 8


class FakeEngine:
    """One graph of a pack of the dimensions of `config`, without a model. Calls are safe from several threads.

    cost(batch) seconds are slept in each call. After `fail_after` calls every further one raises EngineError.
    `batches` lists the batch sizes of the calls so far.
    """

    def __init__(
        self, graph: str, config: PackConfig, *, cost: Cost | None = None, fail_after: int | None = None
    ) -> None:
        self.graph, self.batches = graph, list[int]()
        self.inputs, self.outputs = config.graphs[graph].inputs, config.graphs[graph].outputs
        self._config, self._cost, self._fail_after = config, cost, fail_after
        self._lock = threading.Lock()

    def __call__(self, feeds: Tensors) -> dict[str, NDArray[Any]]:
        check_feeds(self.graph, self.inputs, feeds)
        batch = len(next(iter(feeds.values())))
        with self._lock:
            self.batches.append(batch)
            calls = len(self.batches)
        if self._fail_after is not None and calls > self._fail_after:
            raise EngineError(f"{self.graph} failed: this fake engine was told to, after {self._fail_after} calls")
        if self._cost is not None:
            time.sleep(self._cost(batch))
        rows = [_ROWS[self.graph](self._config, {k: a[i] for k, a in feeds.items()}) for i in range(batch)]
        return {spec.name: np.stack([row[spec.name] for row in rows]) for spec in self.outputs}


def fake_engines(
    config: PackConfig,
    *,
    cost: Mapping[str, Cost] | None = None,
    fail_after: Mapping[str, int] | None = None,
) -> dict[str, FakeEngine]:
    """A fake engine for every graph; cost and fail_after by graph, as `FakeEngine` takes them."""
    costs, limits = cost or {}, fail_after or {}
    return {
        graph: FakeEngine(graph, config, cost=costs.get(graph), fail_after=limits.get(graph)) for graph in config.graphs
    }


def fake_config(
    *,
    latent_channels: int = 4,
    vae_factor: int = 8,
    inner: bool = False,
    luminance_planes: int = 0,
    image_size: int = 32,
    prediction_type: str = "epsilon",
    text: bool = False,
    reuse: bool = True,
) -> PackConfig:
    """The description of a pack that exists only as fake engines.

    inner: a "9-channel" condition. reuse: it has the optional graphs, guider and denoise_reuse.
    """
    channels = (2 if inner else 1) * latent_channels + 1
    model = ModelConfig(
        latent_channels,
        vae_factor,
        0.18215,
        channels,
        luminance_planes,
        prediction_type,
        text_tokens=2 * text,
        text_dim=8 * text,
    )
    encoder = EncoderConfig("fake", image_size, "whole", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), 16)
    latent = ("B", latent_channels, "h", "w")
    features = tuple(TensorSpec(feature_name(number), "float32", latent) for number in range(3))
    tensors = graph_tensors(model, encoder) | (reuse_tensors(model, features) if reuse else {})
    return PackConfig(
        schema=1,
        name="fake",
        version="1",
        license="Apache-2.0",
        description="arithmetic in place of a model: for tests",
        model=model,
        style=StyleConfig(("gray", "screentone", "lineart"), "page"),
        pages=PagesConfig(((64, 96), (96, 64), (64, 64)), 32, 1.5, "running"),
        encoder=encoder,
        scheduler=NoiseConfig(),
        defaults=DefaultsConfig(4, 1.0, "pad"),
        graphs={name: GraphConfig(name, *both) for name, both in tensors.items()},
        files=dict.fromkeys(tensors, "sha256:" + "0" * 64),
    )


def _clip_encoder(config: PackConfig, row: Tensors) -> dict[str, Floats]:
    image: Floats = row["pixel_values"]
    edges = np.arange(_GRID) * image.shape[-1] // _GRID
    light = _luminance(image)
    grid = np.add.reduceat(np.add.reduceat(light, edges, axis=0), edges, axis=1).ravel() / light.size
    features = np.concatenate([grid - grid.mean(), 0.002 * image.mean(axis=(1, 2)), [0.001]])
    generator = np.random.Generator(np.random.Philox(0))
    projection = generator.standard_normal((config.encoder.dim, len(features)))
    return {"image_embeds": (projection @ features).astype(np.float32)}


def _vae_encoder(config: PackConfig, row: Tensors) -> dict[str, Floats]:
    rgb = _cells(row["image"], config.model.vae_factor)
    planes = np.concatenate([rgb, _luminance(rgb)[np.newaxis]])
    channels = np.arange(config.model.latent_channels) % len(planes)
    return {"latents": planes[channels] * np.float32(config.model.scaling_factor)}


def _vae_decoder(config: PackConfig, row: Tensors) -> dict[str, Floats]:
    latents: Floats = row["latents"]
    rgb = latents[np.arange(3) % len(latents)] / np.float32(config.model.scaling_factor)
    return {"image": _flat(rgb, config.model.vae_factor)}


def _denoise_step(config: PackConfig, row: Tensors) -> dict[str, Floats]:
    return _denoise_reuse(config, dict(row) | _guider(config, row))


def _guider(config: PackConfig, row: Tensors) -> dict[str, Floats]:
    trace = np.float32(row["timestep"] / config.scheduler.num_train_timesteps)
    features = (*_target(config, row), np.float32(0.02) * trace * np.tanh(_network_input(row)))
    return {feature_name(number): feature for number, feature in enumerate(features)}


def _network_input(row: Tensors) -> Floats:
    p = row["predictor"]
    x: Floats = p[0] * row["sample"] + p[1] * row["x0_prev1"] + p[2] * row["x0_prev2"]
    return x


def _denoise_reuse(config: PackConfig, row: Tensors) -> dict[str, Floats]:
    d, c, x = row["denoiser"], row["corrector"], _network_input(row)
    sample, m1, m2 = row["sample"], row["x0_prev1"], row["x0_prev2"]
    canvas, chroma, trace = (row[feature_name(number)] for number in range(3))
    picture = canvas + row.get("guidance_scale", np.float32(1)) * chroma + trace
    output = (picture - d[0] * x) / d[1]  # what a network would have to say
    x0 = d[0] * x + d[1] * output
    return {"sample_next": c[0] * sample + c[1] * m1 + c[2] * m2 + c[3] * x0, "x0": x0}


def _target(config: PackConfig, row: Tensors) -> tuple[Floats, Floats]:
    """Latents of the canvas, and the tint of its centre: the references' mean chroma (of the colour channels)."""
    channels = config.model.latent_channels
    canvas, references = row["condition"][:channels], row["condition"][channels : channels + 1]
    if config.model.has_inner:
        canvas = references * canvas + (1 - references) * row["condition"][channels + 1 : 2 * channels + 1]
    mean = (canvas * references).sum(axis=(1, 2), keepdims=True) / np.maximum(references.sum(), 1)
    colour = np.resize([True, True, True, False], channels)[:, np.newaxis, np.newaxis]
    chroma = (mean - _luminance(np.resize(mean, 3))) * colour
    return canvas.astype(np.float32), ((1 - references) * chroma).astype(np.float32)


def _gsrp(config: PackConfig, row: Tensors) -> dict[str, Floats]:
    factor = config.model.vae_factor
    light = _luminance(row["bw"])[np.newaxis]
    return {"image": row["color"] + light - _flat(_cells(light, factor), factor)}


def _luminance(image: Floats) -> Floats:
    """f32[3,...] to f32[...]."""
    return luminance(np.moveaxis(image, 0, -1))


def _cells(image: Floats, factor: int) -> Floats:
    """Mean of each factor x factor cell: f32[c,H,W] to f32[c,H/factor,W/factor]."""
    channels, height, width = image.shape
    if height % factor or width % factor:
        raise EngineError(f"the fake engine takes sides that are multiples of {factor}, got {width}x{height}")
    cells = image.reshape(channels, height // factor, factor, width // factor, factor)
    means: Floats = cells.mean(axis=(2, 4), dtype=np.float32)
    return means


def _flat(planes: Floats, factor: int) -> Floats:
    """Each value as a cell of factor x factor pixels."""
    return planes.repeat(factor, axis=1).repeat(factor, axis=2)


_ROWS: dict[str, Row] = {
    "clip_encoder": _clip_encoder,
    "vae_encoder": _vae_encoder,
    "denoise_step": _denoise_step,
    "guider": _guider,
    "denoise_reuse": _denoise_reuse,
    "vae_decoder": _vae_decoder,
    "gsrp": _gsrp,
}
