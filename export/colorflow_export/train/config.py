"""The bundled model's dimensions and its training recipe."""

from dataclasses import dataclass, replace
from typing import Any

# [modules] of the pack `mini`. Attention over few tokens: the canvas of a 128x192 page is 64x96 latents, and level 1,
# half of that, has 1,536. The guider compares page and references there, with few heads (on a CPU the softmax costs
# more than the products); the base U-Net, which only paints what the guider found, attends at its middle alone.
MINI: dict[str, Any] = {
    "unet": {
        "in_channels": 4,
        "out_channels": 4,
        "block_out_channels": [32, 64, 128],
        "down_block_types": ["DownBlock2D", "DownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "UpBlock2D", "UpBlock2D"],
        "layers_per_block": 1,
        "norm_num_groups": 8,
        "attention_head_dim": 2,
        "cross_attention_dim": 0,
    },
    "guider": {
        "in_channels": 4,
        "block_out_channels": [32, 64, 128],
        "down_block_types": ["DownBlock2D", "SelfAttnDownBlock2D", "SelfAttnDownBlock2D"],
        "up_block_types": ["SelfAttnUpBlock2D", "SelfAttnUpBlock2D", "UpBlock2D"],
        "layers_per_block": 1,
        "norm_num_groups": 8,
        "attention_head_dim": 2,
    },
    "vae": {
        "in_channels": 3,
        "out_channels": 3,
        "block_out_channels": [16, 32, 64],
        "layers_per_block": 1,
        "latent_channels": 4,
        "norm_num_groups": 8,
        "mid_block_add_attention": False,
    },
    "clip": {
        "image_size": 64,
        "patch_size": 8,
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "projection_dim": 64,
    },
}
CONDITION_CHANNELS = 5
LUMINANCE_PLANES = 16
RESAMPLE = "box"  # halos of bicubic would change the gray beside every line
CHROMA_NOISE = 20.0  # levels: gains 0.8 dB on gray pages, 0.2 on screentone; 14 to 26 are much the same
PALETTE_NOISE = 60.0  # levels: gains another 5 dB on gray pages
LATENT_STD = 0.53  # the latents' spread (stages.latent_targets): the pack's scaling_factor is its inverse
# "sample" rather than epsilon or v: a network that says x0 is right at every timestep as soon as it is right at one,
# and in an hour on two cores that decided (benchmarks/LOG.md). v is there for longer trainings.
PREDICTION_TYPE = "sample"
PAGE_SIZES = ((128, 192), (192, 128), (128, 128))


@dataclass(frozen=True)
class TrainOptions:
    """One training run. `work` holds checkpoints and the data pool, outside the repository."""

    stage: str
    steps: int
    batch: int
    learning_rate: float
    warmup: int = 100
    ema: float = 0.999
    seed: int = 0
    weight_decay: float = 0.01
    mu: float = 1.5  # timestep shift, paper section 3.2
    from_noise: float = 0.4  # share of steps at T, pure noise: there the colours are decided
    # mean: the first part of a training: no noise, one step from T, which is the mean of what may be; noise: the truth
    # under noise of any timestep; own: what the network itself paints from pure noise, under noise again
    phase: str = "noise"
    attention_weight: float = 1.0  # of the attention's own loss (supervise.py)
    center_weight: float = 1.0
    reference_weight: float = 0.05
    page_size: tuple[int, int] = PAGE_SIZES[0]
    save_every: int = 100


STAGES: dict[str, TrainOptions] = {
    "vae": TrainOptions("vae", steps=6000, batch=8, learning_rate=2e-3),
    "clip": TrainOptions("clip", steps=1500, batch=64, learning_rate=1e-3),
    "unet": TrainOptions("unet", steps=20000, batch=8, learning_rate=1e-3),
    "gsrp": TrainOptions("gsrp", steps=1500, batch=8, learning_rate=1e-3),
    "parts": TrainOptions("parts", steps=6000, batch=1, learning_rate=1e-3),
    "descreen": TrainOptions("descreen", steps=3000, batch=16, learning_rate=1.5e-3),
}


def stage_options(stage: str, **overrides: Any) -> TrainOptions:
    """The recipe of a stage with the given fields replaced (None keeps the recipe's value)."""
    return replace(STAGES[stage], **{k: v for k, v in overrides.items() if v is not None})
