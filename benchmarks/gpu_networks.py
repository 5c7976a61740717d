"""What `gpu.py` runs: networks of random weights, and the work of a page as a list of stages.

A stage is one call of a network and how often a page needs it. A page is done in two ways: "reference", as the demo
does it (both guidance halves through the guider, each condition encoded once a half), "ours" (docs/architecture.md).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from colorflow_export.graphs import DenoiseStep, SuperResolution, VaeDecoder, VaeEncoder
from colorflow_export.modules.bundle import Modules
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from colorflow_rt.pack_config import ModelConfig

_BLOCKS = {"down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"]}
_BLOCKS |= {"up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3}
_NET: dict[str, Any] = {"in_channels": 4, "layers_per_block": 2, "norm_num_groups": 32, "attention_head_dim": 8}
_FULL: dict[str, dict[str, Any]] = {
    "guider": _NET | {"block_out_channels": [320, 640, 1280, 1280]},
    "unet": _NET | {"block_out_channels": [320, 640, 1280, 1280], "out_channels": 4, "cross_attention_dim": 768},
    "vae": {"in_channels": 3, "out_channels": 3, "layers_per_block": 2, "latent_channels": 4, "norm_num_groups": 32}
    | {"block_out_channels": [128, 256, 512, 512]},
}
_SMALL = {
    "guider": _FULL["guider"] | {"block_out_channels": [16, 16, 32, 32], "norm_num_groups": 8, "layers_per_block": 1},
    "unet": _FULL["unet"] | {"block_out_channels": [16, 16, 32, 32], "norm_num_groups": 8, "layers_per_block": 1},
    "vae": _FULL["vae"] | {"block_out_channels": [8, 8, 16, 16], "norm_num_groups": 8, "layers_per_block": 1},
}
_SMALL["unet"] |= {"cross_attention_dim": 16}
_REST: dict[str, dict[str, Any]] = {"fusion": {}, "clip": {"image_size": 8, "patch_size": 8, "hidden_size": 8}}
_REST["clip"] |= {"intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "projection_dim": 8}
SCALE = 1.5


@dataclass(frozen=True)
class Size:
    """page: (W, H); the canvas is twice that, latents are an eighth of the canvas."""

    page: tuple[int, int]
    small: bool

    @property
    def model(self) -> ModelConfig:
        text = 4 if self.small else 77
        return ModelConfig(4, 8, 0.18215, 5, 0, "epsilon", text, 16 if self.small else 768)

    def networks(self, device: str, dtype: torch.dtype = torch.float32) -> Modules:
        """SD 1.5's (or, if small, tiny) networks, weights random and nowhere zero. On "meta": shapes alone."""
        torch.manual_seed(0)
        with torch.device(device):
            modules = Modules.create((_SMALL if self.small else _FULL) | _REST, self.model, "running")
            text = torch.randn(2, self.model.text_tokens, self.model.text_dim, dtype=dtype)
        modules.clip, modules.negative_prompt_embeds, modules.prompt_embeds = None, text[0], text[1]
        for net in modules.parts().values():
            nn.Module.to(net, dtype)
            for parameter in net.parameters():
                if device != "meta" and not parameter.any():
                    nn.init.normal_(parameter, std=0.02)
        return modules

    def inputs(self, device: str) -> dict[str, Tensor]:
        """Everything that the stages of one page take; float32, as graphs take it whatever is inside."""
        (w, h), (width, height) = (2 * self.page[0], 2 * self.page[1]), self.page
        large = (1, 3, round(height * SCALE), round(width * SCALE))
        latent = (1, 4, h // 8, w // 8)
        shapes = {"image": (1, 3, h, w), "color": large, "bw": large, "sample": latent, "x0_prev1": latent}
        shapes |= {"x0_prev2": latent, "condition": (1, self.model.condition_planes, *latent[2:])}
        torch.manual_seed(1)
        made = {name: torch.randn(shape, device=device) for name, shape in shapes.items()}
        told = {"predictor": [0.9, 0.1, 0.0], "denoiser": [1.5, -1.1], "corrector": [0.8, 0.1, 0.0, 0.1]}
        made |= {name: torch.tensor([row], device=device) for name, row in told.items()}
        return made | {
            "timestep": torch.full((1,), 500, device=device),
            "guidance_scale": torch.full((1,), 7.5, device=device),
        }


@dataclass(frozen=True)
class Stage:
    name: str
    net: Callable[..., Any]
    feeds: tuple[str, ...]
    count: int

    def run(self, inputs: dict[str, Tensor]) -> Any:
        return self.net(*(inputs[name] for name in self.feeds))


class ReferenceStep(nn.Module):
    """Guider and U-Net in both guidance halves, as the authors' demo runs them."""

    def __init__(self, modules: Modules) -> None:
        super().__init__()
        self.unet, self.guider = modules.unet, modules.guider
        self.text = nn.Buffer(torch.stack([modules.negative_prompt_embeds, modules.prompt_embeds]))

    def forward(self, sample: Tensor, timestep: Tensor, condition: Tensor, guidance_scale: Tensor) -> Tensor:
        dtype = self.text.dtype
        samples, timesteps = torch.cat([sample.to(dtype)] * 2), timestep.repeat(2)
        controls = self.guider(samples, timesteps, torch.cat([condition.to(dtype)] * 2))
        negative, positive = self.unet(samples, timesteps, self.text, controls).chunk(2)
        return negative + guidance_scale * (positive - negative)


class BothHalves(nn.Module):
    """The VAE's encoder on an image doubled for guidance."""

    def __init__(self, modules: Modules) -> None:
        super().__init__()
        self.vae = modules.vae

    def forward(self, image: Tensor) -> Tensor:
        return self.vae.moments(torch.cat([image.to(self.vae.dtype)] * 2))[0]


class PromptAlone(nn.Module):
    """A U-Net that always sees the prompt: for guidance 1, where the other half does not count."""

    def __init__(self, modules: Modules) -> None:
        super().__init__()
        self.unet, self.text = modules.unet, nn.Buffer(modules.prompt_embeds[None])

    @property
    def dtype(self) -> torch.dtype:
        return self.text.dtype

    def forward(self, x: Tensor, timestep: Tensor, text: None, controls: list[Tensor]) -> Tensor:
        return self.unet(x, timestep, self.text, controls)


def unguided(modules: Modules) -> DenoiseStep:
    step = DenoiseStep(modules)
    step.unet = PromptAlone(modules)
    return step


STEP = ("sample", "x0_prev1", "x0_prev2", "condition", "timestep", "predictor", "denoiser", "corrector")


def stages(
    modules: Modules, procedure: str, steps: int, wrap: Callable[[nn.Module], Any] = lambda net: net
) -> list[Stage]:
    """The work of one page. procedure: "reference", "ours" or "unguided"; wrap: compiles a network, or leaves it."""
    after = [
        Stage("vae_decode", wrap(VaeDecoder(modules)), ("sample",), 1),
        Stage("gsrp", wrap(SuperResolution(modules)), ("color", "bw"), 1),
    ]
    if procedure == "reference":
        feeds = ("sample", "timestep", "condition", "guidance_scale")
        return [
            Stage("vae_encode", wrap(BothHalves(modules)), ("image",), 2),
            Stage("denoise", wrap(ReferenceStep(modules)), feeds, steps),
            *after,
        ]
    step, feeds = (unguided, STEP) if procedure == "unguided" else (DenoiseStep, (*STEP, "guidance_scale"))
    return [
        Stage("vae_encode", wrap(VaeEncoder(modules)), ("image",), 1),
        Stage("denoise", wrap(step(modules)), feeds, steps),
        *after,
    ]


@torch.no_grad()
def flops(size: Size, procedure: str, steps: int) -> dict[str, float]:
    """TFLOP of a page by stage, 2 a multiply-add, counted on shapes alone."""
    modules, inputs = size.networks("meta"), size.inputs("meta")
    found = {}
    for stage in stages(modules, procedure, steps):
        with FlopCounterMode(display=False) as counter:
            stage.run(inputs)
        found[stage.name] = stage.count * counter.get_total_flops() / 1e12
    return found
