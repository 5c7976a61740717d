"""Does it compute what it should: golden folders against our modules, a pack's graphs against its modules."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from colorflow_export.golden import Golden, load_golden, relative_error
from colorflow_export.graphs import graphs_of
from colorflow_export.modules import super_resolve
from colorflow_export.packs import load_modules
from colorflow_export.reference import Procedure, ReferenceColorizer, TorchSource
from colorflow_rt import latents as lat
from colorflow_rt.canvas import assemble, fit_page, query_patches, reference_patches, tile
from colorflow_rt.comics import DEMO_SEED, chapter_seed, make_chapter
from colorflow_rt.denoise import Slot, advance
from colorflow_rt.errors import PackError
from colorflow_rt.metrics import psnr
from colorflow_rt.options import MAX_STEPS, ColorizeOptions
from colorflow_rt.pack import open_pack
from colorflow_rt.pipeline import Colorizer
from colorflow_rt.pixels import read_picture
from colorflow_rt.schedule import Schedule, SchedulerConfig

Bytes = NDArray[np.uint8]

GOLDEN_LIMIT = 1e-5
GRAPH_LIMIT = 1e-4  # trained networks are deeper and wider than the golden ones, and each backend sums in its own order
PAGE_LIMIT = 50.0
CALL_TIMESTEP = 501


@dataclass(frozen=True)
class Check:
    """One comparison. unit: "relative error" (must be below the limit), "pixels" that differ, or "dB" (at least)."""

    name: str
    value: float
    limit: float
    unit: str = "relative error"

    @property
    def passed(self) -> bool:
        if self.unit == "dB":
            return self.value >= self.limit
        return self.value <= self.limit


@torch.no_grad()
def check_golden(folder: Path) -> Iterator[Check]:
    """Every vector of a folder of the layout of golden/sd_small_5ch or golden/retrieval_portrait.

    PackError if the folder has neither layout or a file cannot be read.
    """
    if (folder / "expected.json").is_file():
        yield from _retrieval(folder)
    elif (folder / "colorguider.safetensors").is_file() and (folder / "unet.safetensors").is_file():
        golden = load_golden(folder)
        yield from _calls(golden)
        yield from _loops(golden)
        yield from _gsrp(golden)
    else:
        raise PackError(f"{folder} has neither the layout of golden/sd_small_5ch nor that of golden/retrieval_portrait")


def _error(name: str, ours: Tensor, truth: Tensor) -> Check:
    return Check(name, relative_error(ours, truth), GOLDEN_LIMIT)


def _calls(golden: Golden) -> Iterator[Check]:
    """One guider and U-Net call."""
    t, modules = golden.tensors, golden.modules
    timestep = torch.full((len(t["call_sample"]),), CALL_TIMESTEP)
    controls = modules.guider(t["call_sample"], timestep, t["call_cond"])
    downs = sum(name.startswith("call_down_") for name in t)
    names = [f"call_down_{i}" for i in range(downs)] + ["call_mid"]
    names += [f"call_up_{i}" for i in range(len(controls) - len(names))]
    for name, control in zip(names, controls, strict=True):
        yield _error(name, control, t[name])
    yield _error("call_eps", modules.unet(t["call_sample"], timestep, t["call_context"], controls), t["call_eps"])


def _loops(golden: Golden) -> Iterator[Check]:
    """The condition from the canvas; the guided loop with diffusers' scheduler, and the runtime's own."""
    t, scale = golden.tensors, golden.guidance_scale
    procedure = Procedure(golden.modules, SchedulerConfig(prediction_type=golden.modules.model.prediction_type))
    yield _error("cond", _condition(procedure, t["canvas"].numpy()), t["cond"])
    found: list[Tensor] = []
    latents = procedure.denoise(
        t["initial_latents"], t["cond"], golden.steps, scale, lambda i, sample: found.append(sample)
    )
    for i, sample in enumerate(found):
        yield _error(f"latents_{i}", sample, t[f"latents_{i}"])
    image = procedure.decode(latents)[0].permute(1, 2, 0).div(2).add(0.5).clamp(0, 1)
    yield _error("image", image, t["image"])
    yield from _runtime_loop(golden, procedure)


def _condition(procedure: Procedure, canvas: Bytes) -> Tensor:
    model = procedure.modules.model

    def encode(image: Bytes) -> NDArray[np.float32]:
        return procedure.encode(torch.from_numpy(lat.to_model(image[np.newaxis])), halves=1).numpy()

    mask = lat.mask((canvas.shape[1] // 2, canvas.shape[0] // 2), model.vae_factor)
    inner = encode(lat.inner_only(canvas)) if model.has_inner else None
    outer = encode(lat.blacked_out(canvas) if model.has_inner else canvas)
    return torch.from_numpy(lat.condition(outer, mask, inner))


def _runtime_loop(golden: Golden, procedure: Procedure) -> Iterator[Check]:
    t, config = golden.tensors, procedure.scheduler
    engines = {"denoise_step": TorchSource(procedure).load("denoise_step")}
    schedule = Schedule.create(golden.steps, config)
    slot = Slot(t["initial_latents"][0].numpy(), t["cond"][0].numpy(), schedule, golden.guidance_scale)
    for i in range(golden.steps):
        advance(engines.__getitem__, [slot])
        yield _error(f"runtime loop, latents_{i}", predicted(slot), t[f"latents_{i}"])


def predicted(slot: Slot) -> Tensor:
    """f32[1,C,h,w]: what diffusers' scheduler returns after a step. The predicted sample of the next, at last x0."""
    if slot.done:
        return torch.from_numpy(slot.result())[None]
    p = slot.schedule.predictor[slot.step]
    return torch.from_numpy(p[0] * slot.sample + p[1] * slot.x0_prev1 + p[2] * slot.x0_prev2)[None]


def _gsrp(golden: Golden) -> Iterator[Check]:
    t, vae, fusion = golden.tensors, golden.modules.vae, golden.modules.fusion
    if fusion is None or "gsrp_low" not in t:
        return
    mean, _, color = vae.moments(t["gsrp_low"])
    yield _error("gsrp_latent", mean, t["gsrp_latent"])
    bw = vae.moments(t["gsrp_bw"])[2]
    yield from _levels("gsrp_hidden", color, t)
    for statistics, infix in (("running", ""), ("batch", "_batchstats")):
        fusion.use_statistics(statistics)
        yield from _levels(f"gsrp_fused{infix}", fusion(color, bw), t)
        image = super_resolve(vae, fusion, t["gsrp_low"], t["gsrp_bw"])
        yield _error(f"gsrp_out{infix}", image, t[f"gsrp_out{infix}"])


def _levels(name: str, ours: list[Tensor], truth: dict[str, Tensor]) -> Iterator[Check]:
    """Those levels that the folder holds."""
    for i, tensor in enumerate(ours):
        if f"{name}_{i}" in truth:
            yield _error(f"{name}_{i}", tensor, truth[f"{name}_{i}"])


def _retrieval(folder: Path) -> Iterator[Check]:
    """Fitting, patches, similarities, the three best and the finished canvas, with the folder's stand-in for CLIP."""
    try:
        expected: dict[str, Any] = json.loads((folder / "expected.json").read_text())
        size = expected["page_width"], expected["page_height"]
        top3, similarity = np.array(expected["top3"]), torch.tensor(expected["similarity"], dtype=torch.float64)
    except (OSError, ValueError, KeyError) as error:
        raise PackError(f"{folder / 'expected.json'} cannot be read: {error!r}") from error

    def fitted(name: str) -> Bytes:
        return fit_page(_read(folder, name), size, "crop")[0]

    query = fitted("query.png")
    yield _pixels("query_fitted", query, _read(folder, "query_fitted.png"))
    queries = query_patches(query)
    for i, patch in enumerate(queries):
        yield _pixels(f"query_patch{i}", patch, _read(folder, f"query_patch{i}.png"))
    count = expected["n_reference_patches"] // 5
    patches = [patch for i in range(count) for patch in reference_patches(fitted(f"ref{i}.png"))]
    ours = _stand_in(queries) @ _stand_in(patches).T
    yield _error("similarity", ours, similarity)
    best = np.argsort(-ours.numpy(), axis=1, kind="stable")[:, : top3.shape[1]]
    yield Check("top3", float((best != top3).sum()), 0, "places")
    tiles = [tile(patches[i], size) for row in best for i in row]
    yield _pixels("canvas", assemble(query, tiles), _read(folder, "canvas.png"))


def _read(folder: Path, name: str) -> Bytes:
    return read_picture(folder / name).rgb


def _pixels(name: str, ours: Bytes, truth: Bytes) -> Check:
    if ours.shape != truth.shape:
        return Check(name, float("inf"), 0, "pixels")
    return Check(name, float((ours != truth).any(axis=-1).sum()), 0, "pixels")


def _stand_in(patches: list[Bytes]) -> Tensor:
    """Unit vectors f64[N,256]: gray, 16x16, bilinear, minus 128 (facts, section 8)."""
    small = [Image.fromarray(patch).convert("L").resize((16, 16), Image.Resampling.BILINEAR) for patch in patches]
    rows = torch.from_numpy(np.stack([np.asarray(image, np.float64).ravel() - 128 for image in small]))
    lengths: Tensor = rows.norm(dim=1, keepdim=True)
    return rows / lengths


@torch.no_grad()
def check_pack(pack: str | Path) -> Iterator[Check]:
    """A pack's graphs in ONNX Runtime against its modules in PyTorch, then one whole page with the same noise."""
    modules = load_modules(pack)
    opened = open_pack(pack)
    for graph in graphs_of(modules, reuse=opened.reuses):
        engine = opened.engine(graph.name)
        feeds = graph.example()
        expected = graph.build(modules)(**graph.arguments(feeds))
        tensors = expected if isinstance(expected, tuple) else (expected,)
        found = engine({name: tensor.numpy() for name, tensor in feeds.items()})
        for spec, tensor in zip(graph.outputs, tensors, strict=True):
            error = relative_error(torch.from_numpy(found[spec.name]), tensor)
            yield Check(f"{graph.name}, {spec.name}", error, GRAPH_LIMIT)
    yield _page(pack)


def demo_page(size: tuple[int, int]) -> tuple[Bytes, list[Bytes]]:
    """A generated page in gray, u8[H,W,3], and references for it, of size (W, H)."""
    chapter = make_chapter(chapter_seed(DEMO_SEED, 0))
    page = np.repeat(chapter.page(0, size).gray()[..., None], 3, axis=2)
    return page, [chapter.reference(i, size) for i in range(3)]


def _page(pack: str | Path) -> Check:
    ours = Colorizer(pack)
    page, references = demo_page(ours.pack.config.pages.sizes[0])
    every_step = ColorizeOptions(guider_steps=MAX_STEPS)  # as published
    both = (ours, ReferenceColorizer(pack))
    first, second = (each.colorize(page, references, every_step).model_image for each in both)
    return Check("whole page", psnr(second, first), PAGE_LIMIT, "dB")
