"""The VAE with encoder taps and decoder injection (paper section 3.3, facts section 3)."""

from collections.abc import Sequence
from typing import Any

from diffusers import AutoencoderKL
from torch import Tensor

VAE_ARGUMENTS = frozenset(
    {
        "block_out_channels",
        "layers_per_block",
        "latent_channels",
        "norm_num_groups",
        "in_channels",
        "out_channels",
        "mid_block_add_attention",
    }
)


class ColorVAE(AutoencoderKL):  # type: ignore[misc]
    """diffusers' AutoencoderKL whose encoder can be tapped and whose decoder can be fed."""

    @classmethod
    def create(cls, config: dict[str, Any]) -> "ColorVAE":
        """Build from pack.toml's [modules] vae. The page-to-latent factor is 2^(levels - 1)."""
        arguments = {key: value for key, value in config.items() if key in VAE_ARGUMENTS}
        levels = len(arguments["block_out_channels"])
        return cls(
            down_block_types=["DownEncoderBlock2D"] * levels,
            up_block_types=["UpDecoderBlock2D"] * levels,
            **arguments,
        )

    def moments(self, image: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """image f32[B,3,H,W] in [-1,1] -> posterior mean, log variance f32[B,C,H/f,W/f] (unscaled), taps.

        Taps: after conv_in, then after each down block.
        """
        encoder = self.encoder
        hidden = encoder.conv_in(image)
        taps = [hidden]
        for block in encoder.down_blocks:
            hidden = block(hidden)
            taps.append(hidden)
        hidden = encoder.mid_block(hidden)
        hidden = encoder.conv_out(encoder.conv_act(encoder.conv_norm_out(hidden)))
        mean, log_variance = self.quant_conv(hidden).chunk(2, dim=1)
        return mean, log_variance, taps

    def reconstruct(self, latents: Tensor, features: Sequence[Tensor] | None = None) -> Tensor:
        """latents f32[B,C,h,w] (unscaled) -> image f32[B,3,H,W], not clamped.

        `features`: the fused taps in the encoder's order; the last is added after conv_in, then one before
        each up block.
        """
        decoder = self.decoder
        pending = list(features) if features is not None else []
        hidden = decoder.conv_in(self.post_quant_conv(latents))
        hidden = decoder.mid_block(hidden + pending.pop() if pending else hidden)
        for block in decoder.up_blocks:
            hidden = block(hidden + pending.pop() if pending else hidden)
        return decoder.conv_out(decoder.conv_act(decoder.conv_norm_out(hidden)))  # type: ignore[no-any-return]


def tap_channels(config: dict[str, Any]) -> tuple[list[int], list[int]]:
    """(channels of each encoder tap, channels of the decoder where the fused tap of that place is added)."""
    widths = list(config["block_out_channels"])
    return [widths[0], *widths], [*widths[1:], widths[-1], widths[-1]]
