"""The graphs of a pack (docs/pack.md, Graphs and tensors): one record describes each, one small module computes it.

The modules' attributes carry the part names of the pack, so that an exported initializer is called
`<part>.<state-dict key>` without any translation.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from colorflow_export.modules import super_resolve
from colorflow_export.modules.bundle import Modules
from colorflow_export.modules.unet import ColorGuider, taps
from colorflow_rt.engine import TensorSpec
from colorflow_rt.pack_config import FEATURE, EncoderConfig, feature_name, graph_tensors, reuse_tensors


@dataclass(frozen=True)
class Graph:
    """One graph: its tensors, what computes it, and which lengths its named axes may take.

    multiples: for an axis name, the number its length must be a multiple of; other names take any length.
    """

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    build: Callable[[Modules], nn.Module]
    multiples: dict[str, int]

    def example(self, **lengths: int) -> dict[str, Tensor]:
        """Random inputs; an axis that is not given is 2 samples long, or 4 and 6 of its multiples."""
        defaults = {"B": 2} | {axis: n * (6 if axis in "wW" else 4) for axis, n in self.multiples.items()}
        sizes = defaults | lengths
        noise = torch.Generator().manual_seed(0)
        return {spec.name: _random(spec, sizes, noise) for spec in self.inputs}

    def arguments(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """What is given for each input, as the module takes it: the guider's features are one argument."""
        features = {name: value for name, value in given.items() if name.startswith(FEATURE)}
        rest = {name: value for name, value in given.items() if name not in features}
        return rest | ({"features": features} if features else {})

    def fixed(self, **lengths: int) -> "Graph":
        """The same graph with these axes of fixed length, and those that are written as a multiple or part of them."""
        inputs, outputs = (tuple(_fixed(spec, lengths) for spec in specs) for specs in (self.inputs, self.outputs))
        return replace(self, inputs=inputs, outputs=outputs)


def _fixed(spec: TensorSpec, lengths: dict[str, int]) -> TensorSpec:
    return replace(spec, shape=tuple(_length(axis, lengths) for axis in spec.shape))


def axis_parts(axis: str) -> tuple[str, int, int]:
    """An axis as in docs/pack.md, a name, or one times or over a number: (name, times, over)."""
    parts = re.fullmatch(r"(\w+?)(?:([*/])(\d+))?", axis)
    if parts is None:
        return axis, 1, 1
    factor = int(parts[3] or 1)
    return (parts[1], 1, factor) if parts[2] == "/" else (parts[1], factor, 1)


def _length(axis: int | str, lengths: dict[str, int]) -> int | str:
    name, times, over = axis_parts(str(axis))
    return axis if isinstance(axis, int) or name not in lengths else lengths[name] * times // over


def _random(spec: TensorSpec, sizes: dict[str, int], noise: torch.Generator) -> Tensor:
    shape = [int(_length(axis, sizes)) for axis in spec.shape]
    if spec.dtype == "int64":
        return torch.randint(0, 1000, shape, generator=noise)
    return torch.randn(shape, generator=noise)


class ClipEncoder(nn.Module):
    def __init__(self, modules: Modules) -> None:
        super().__init__()
        assert modules.clip is not None
        self.clip = modules.clip.tower

    def forward(self, pixel_values: Tensor) -> Tensor:
        return self.clip(pixel_values=pixel_values.to(self.clip.dtype)).image_embeds.float()  # type: ignore[no-any-return]


class VaeEncoder(nn.Module):
    def __init__(self, modules: Modules) -> None:
        super().__init__()
        self.vae = modules.vae
        self.scaling_factor = modules.model.scaling_factor

    def forward(self, image: Tensor) -> Tensor:
        return self.vae.moments(image.to(self.vae.dtype))[0].float() * self.scaling_factor


class VaeDecoder(nn.Module):
    def __init__(self, modules: Modules) -> None:
        super().__init__()
        self.vae = modules.vae
        self.scaling_factor = modules.model.scaling_factor

    def forward(self, latents: Tensor) -> Tensor:
        return self.vae.reconstruct((latents / self.scaling_factor).to(self.vae.dtype)).float()


class SuperResolution(nn.Module):
    def __init__(self, modules: Modules) -> None:
        super().__init__()
        assert modules.fusion is not None
        self.vae = modules.vae
        self.fusion = modules.fusion

    def forward(self, color: Tensor, bw: Tensor) -> Tensor:
        return super_resolve(self.vae, self.fusion, color.to(self.vae.dtype), bw.to(self.vae.dtype)).float()


class Text(nn.Module):
    """The constant prompt: f32[N,D] each."""

    prompt_embeds: Tensor
    negative_prompt_embeds: Tensor

    def __init__(self, prompt_embeds: Tensor, negative_prompt_embeds: Tensor) -> None:
        super().__init__()
        self.register_buffer("prompt_embeds", prompt_embeds)
        self.register_buffer("negative_prompt_embeds", negative_prompt_embeds)


class Step(nn.Module):
    """What every step has: the U-Net, guidance and the solver."""

    def __init__(self, modules: Modules) -> None:
        super().__init__()
        self.unet = modules.unet
        if modules.prompt_embeds is not None and modules.negative_prompt_embeds is not None:
            self.text = Text(modules.prompt_embeds, modules.negative_prompt_embeds)

    def output(self, x: Tensor, timestep: Tensor, controls: list[Tensor], guidance_scale: Tensor | None) -> Tensor:
        """What the U-Net says of x f32[B,C,h,w], with the guider's features."""
        short = x.to(self.unet.dtype)  # the networks may be in float16; the solver's state never is
        if guidance_scale is None:
            return self.unet(short, timestep, None, controls).float()  # type: ignore[no-any-return]
        return guide(self.halves(short, timestep, controls).float(), guidance_scale)

    def halves(self, x: Tensor, timestep: Tensor, controls: list[Tensor]) -> Tensor:
        """Both guidance halves, [negative, positive], in one call; the guider's output is the same for both."""
        batch = x.shape[0]
        prompts = torch.stack([self.text.negative_prompt_embeds, self.text.prompt_embeds])
        text = prompts.unsqueeze(1).expand(2, batch, -1, -1).flatten(0, 1)
        doubled = [torch.cat([control, control]) for control in controls]
        return self.unet(torch.cat([x, x]), torch.cat([timestep, timestep]), text, doubled)  # type: ignore[no-any-return]


class DenoiseStep(Step):
    """One step of the loop for a batch whose samples may each be at their own (docs/pack.md)."""

    def __init__(self, modules: Modules) -> None:
        super().__init__(modules)
        self.guider = modules.guider

    def forward(
        self,
        sample: Tensor,
        x0_prev1: Tensor,
        x0_prev2: Tensor,
        condition: Tensor,
        timestep: Tensor,
        predictor: Tensor,
        denoiser: Tensor,
        corrector: Tensor,
        guidance_scale: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        x = _combine(predictor, sample, x0_prev1, x0_prev2)
        controls = _controls(self.guider, x, timestep, condition)
        x0 = _combine(denoiser, x, self.output(x, timestep, controls, guidance_scale))
        return _combine(corrector, sample, x0_prev1, x0_prev2, x0), x0


class DenoiseReuse(Step):
    """The same step with features of the guider that are there already."""

    def forward(
        self,
        sample: Tensor,
        x0_prev1: Tensor,
        x0_prev2: Tensor,
        timestep: Tensor,
        predictor: Tensor,
        denoiser: Tensor,
        corrector: Tensor,
        features: dict[str, Tensor],
        guidance_scale: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        x = _combine(predictor, sample, x0_prev1, x0_prev2)
        controls = [feature.to(self.unet.dtype) for feature in features.values()]
        x0 = _combine(denoiser, x, self.output(x, timestep, controls, guidance_scale))
        return _combine(corrector, sample, x0_prev1, x0_prev2, x0), x0


class Guider(nn.Module):
    """The guider's features for the network's input of a step: one tensor for each tap of the U-Net."""

    def __init__(self, modules: Modules) -> None:
        super().__init__()
        self.guider = modules.guider

    def forward(
        self,
        sample: Tensor,
        x0_prev1: Tensor,
        x0_prev2: Tensor,
        condition: Tensor,
        timestep: Tensor,
        predictor: Tensor,
    ) -> tuple[Tensor, ...]:
        x = _combine(predictor, sample, x0_prev1, x0_prev2)
        return tuple(control.float() for control in _controls(self.guider, x, timestep, condition))


def _controls(guider: ColorGuider, x: Tensor, timestep: Tensor, condition: Tensor) -> list[Tensor]:
    return guider(x.to(guider.dtype), timestep, condition.to(guider.dtype))  # type: ignore[no-any-return]


def guide(both: Tensor, scale: Tensor) -> Tensor:
    """Classifier-free guidance: both halves [2B,C,h,w], negative first, and scale f32[B] -> [B,C,h,w]."""
    batch = scale.shape[0]
    # Not chunk(2): over a symbolic batch the exporter would silently pin the batch to the example's.
    negative, positive = both[:batch], both[batch:]
    return negative + scale[:, None, None, None] * (positive - negative)


def _combine(coefficients: Tensor, *tensors: Tensor) -> Tensor:
    """Sum over i of coefficients[b, i] x tensors[i][b]."""
    terms = [coefficients[:, i, None, None, None] * tensor for i, tensor in enumerate(tensors)]
    return sum(terms[1:], terms[0])


def graphs_of(modules: Modules, *, reuse: bool = False) -> tuple[Graph, ...]:
    """The graphs that these modules can make: all five, or fewer where fusion or clip is missing.

    reuse: and the two optional ones.
    """
    tables = graph_tensors(modules.model, _encoder(modules)) | reuse_tensors(modules.model, _features(modules))
    factor = modules.model.vae_factor
    multiple = 2 ** (len(modules.unet.config.block_out_channels) - 1)
    sides, latent = {"H": factor, "W": factor}, {"h": multiple, "w": multiple}
    return tuple(
        Graph(name, *tables[name], build, multiples)
        for name, build, multiples, present in (
            ("clip_encoder", ClipEncoder, {}, modules.clip),
            ("vae_encoder", VaeEncoder, sides, modules.vae),
            ("denoise_step", DenoiseStep, latent, modules.unet),
            ("guider", Guider, latent, modules.guider if reuse else None),
            ("denoise_reuse", DenoiseReuse, latent, modules.unet if reuse else None),
            ("vae_decoder", VaeDecoder, {"h": 1, "w": 1}, modules.vae),
            ("gsrp", SuperResolution, sides, modules.fusion),
        )
        if present is not None
    )


def _features(modules: Modules) -> tuple[TensorSpec, ...]:
    """The guider's outputs."""
    shapes = [
        ("B", channels, *(("h", "w") if s == 1 else (f"h/{s}", f"w/{s}"))) for channels, s in taps(modules.guider)
    ]
    return tuple(TensorSpec(feature_name(i), "float32", shape) for i, shape in enumerate(shapes))


def _encoder(modules: Modules) -> EncoderConfig:
    """Only the lengths matter here."""
    config = modules.clip.tower.config if modules.clip is not None else None
    image_size, dim = (config.image_size, config.projection_dim) if config is not None else (1, 1)
    return EncoderConfig("", image_size, "whole", (0.0,) * 3, (1.0,) * 3, dim)
