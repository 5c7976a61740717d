"""The four trainings: VAE, CLIP tower, guider + U-Net, fusion net. Each hands its loss to the Trainer."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader

from colorflow_export.modules import ColorGuider, ColorUNet, ColorVAE, Embedder, FusionNet, super_resolve
from colorflow_export.train.config import CONDITION_CHANNELS, LUMINANCE_PLANES, MINI, PREDICTION_TYPE, TrainOptions
from colorflow_export.train.crops import crop_batches, page_batches, pair_batches
from colorflow_export.train.loop import Trainer, checkpoint_path, device
from colorflow_export.train.matching import start_matching
from colorflow_export.train.samples import CanvasBatches
from colorflow_rt.schedule import SchedulerConfig

POSTERIOR_STD = 0.05  # of the latents, before scaling: the denoiser is never exact
Net = TypeVar("Net", bound=nn.Module)


class Denoiser(nn.Module):
    """Guider and base U-Net, trained together on the canvas latents."""

    def __init__(self) -> None:
        super().__init__()
        self.unet = ColorUNet.create(MINI["unet"])
        self.guider = ColorGuider.create(MINI["guider"], CONDITION_CHANNELS + LUMINANCE_PLANES)
        with torch.no_grad():  # noise is let in by training: at first it would only drown what is to be compared
            self.unet.conv_in.weight.zero_()
            self.guider.conv_in_condition.weight[:, : MINI["guider"]["in_channels"]].zero_()
        start_matching(self.guider)

    def forward(self, sample: Tensor, timestep: Tensor, condition: Tensor) -> Tensor:
        return self.unet(sample, timestep, None, self.guider(sample, timestep, condition))  # type: ignore[no-any-return]


class Contrastive(nn.Module):
    """The CLIP tower and the temperature of its contrastive loss."""

    def __init__(self) -> None:
        super().__init__()
        self.clip = Embedder(MINI["clip"])
        self.log_scale = nn.Parameter(torch.tensor(math.log(10.0)))


def load_ema(net: nn.Module, work: Path, stage: str) -> dict[str, Any]:
    """Put the averaged weights of a finished stage into `net`, frozen; returns the rest of the checkpoint."""
    path = checkpoint_path(work, stage)
    if not path.exists():
        raise SystemExit(f"stage {stage} is not trained yet: run `colorflow-export train {stage} --work {work}` first")
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    own = net.state_dict()
    net.load_state_dict({k: v.to(own[k].dtype) for k, v in state["ema"].items()})
    net.eval().requires_grad_(False)
    return state


def _placed(net: Net) -> Net:
    """On the device, channels last: convolutions train three times faster on a CPU that way."""
    return net.to(device()).to(memory_format=torch.channels_last)  # type: ignore[no-any-return, call-overload]


def _images(batch: Tensor) -> Tensor:
    """u8[B,H,W,3] -> f32[B,3,H,W] in [-1,1], channels last."""
    return batch.to(device()).permute(0, 3, 1, 2).float() / 127.5 - 1


def _bf16() -> torch.autocast:
    return torch.autocast(device().type, torch.bfloat16)


def train_vae(work: Path, options: TrainOptions, minutes: float | None) -> None:
    """L1 on pixels, their differences (lines) and chroma, over latents that are tied to what a colouriser needs.

    A free latent space hides chroma in detail, and the denoiser takes hours to find it (benchmarks/LOG.md). So the
    posterior mean is drawn to `latent_targets`: a gray page and its colours differ in two channels of four.
    float32: at 16 channels the bfloat16 convolutions of a CPU are slower, not faster.
    """
    vae = _placed(ColorVAE.create(MINI["vae"]))
    batches = crop_batches(work, options.batch, options.seed)
    kept: list[Tensor] = []

    def loss(step: int) -> Tensor:
        image = _images(next(batches))
        mean, log_variance, _ = vae.moments(image)
        output = vae.reconstruct(mean + POSTERIOR_STD * torch.randn_like(mean))
        kept[:] = [mean.detach()]
        tied = F.mse_loss(mean, latent_targets(image)) + (log_variance - 2 * math.log(POSTERIOR_STD)).square().mean()
        return tied + F.l1_loss(output, image) + 0.5 * _edge_loss(output, image) + _chroma_loss(output, image)

    trainer = Trainer(vae, work, options)
    trainer.run(loss, lambda: {"latent_std": float(kept[0].std()) if kept else 1.0}, minutes)


def latent_targets(image: Tensor) -> Tensor:
    """What each latent stands for, f32[B,4,H/4,W/4] of spread near 1: mean luma, two mean chromas, darkest luma."""
    weights = image.new_tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    y = (image * weights).sum(dim=1, keepdim=True)
    mean, chroma = F.avg_pool2d(y, 4), F.avg_pool2d(image[:, [0, 2]] - y, 4)
    return torch.cat([1.6 * mean, 2.5 * chroma, 1.2 * -F.max_pool2d(-y, 4)], dim=1)


def _edge_loss(output: Tensor, image: Tensor) -> Tensor:
    across = F.l1_loss(output.diff(dim=3), image.diff(dim=3))
    return across + F.l1_loss(output.diff(dim=2), image.diff(dim=2))


def _chroma_loss(output: Tensor, image: Tensor) -> Tensor:
    """L1 of the colour differences R-G and B-G over 2x2 cells."""
    error = F.avg_pool2d(output - image, 2)
    return (error[:, 0] - error[:, 1]).abs().mean() + (error[:, 2] - error[:, 1]).abs().mean()


def train_clip(work: Path, options: TrainOptions, minutes: float | None) -> None:
    """Contrastive: a black-and-white patch of a page to a colour patch that shows the same characters."""
    net = Contrastive().to(device())
    batches = pair_batches(work, options.batch, options.seed, MINI["clip"]["image_size"])

    def loss(step: int) -> Tensor:
        query, reference = next(batches)
        with _bf16():
            q, r = (F.normalize(net.clip(x.to(device())).float(), dim=1) for x in (query, reference))
        logits = q @ r.T * net.log_scale.exp().clamp(max=100.0)
        same = torch.arange(len(q), device=logits.device)
        return (F.cross_entropy(logits, same) + F.cross_entropy(logits.T, same)) / 2

    Trainer(net, work, options).run(loss, minutes=minutes)


def condition(vae: ColorVAE, scale: float, context: Tensor) -> Tensor:
    """context f32[B,3,H,W] in [-1,1] -> condition f32[B,K,h,w] (docs/pack.md)."""
    latents = vae.moments(context)[0] * scale
    factor = context.shape[-1] // latents.shape[-1]
    mask = reference_mask(context.shape[-2], context.shape[-1], context.device)
    mask = F.interpolate(mask, latents.shape[-2:], mode="bilinear", align_corners=False)
    planes = luminance_planes(context, factor)
    return torch.cat([latents, mask.expand(len(latents), -1, -1, -1), planes], dim=1)


def reference_mask(height: int, width: int, on: torch.device) -> Tensor:
    mask = torch.ones(1, 1, height, width, device=on)
    mask[:, :, height // 4 : height * 3 // 4, width // 4 : width * 3 // 4] = 0
    return mask


def luminance_planes(context: Tensor, factor: int) -> Tensor:
    """The extra planes of docs/pack.md: all sines, then all cosines of pi 2^k Y."""
    weights = context.new_tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    y = F.avg_pool2d(((context + 1) / 2 * weights).sum(dim=1, keepdim=True), factor)
    angles = torch.cat([math.pi * 2**k * y for k in range(LUMINANCE_PLANES // 2)], dim=1)
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def shifted_timesteps(count: int, mu: float, total: int = 1000) -> Tensor:
    """Random timesteps i64[count], shifted towards noise (paper, timestep shift): t' = e^mu / (e^mu + T/t - 1) T."""
    t = torch.rand(count).clamp(min=1e-4) * total
    shifted = math.exp(mu) / (math.exp(mu) + total / t - 1) * total
    return shifted.long().clamp(0, total - 1)


def train_unet(work: Path, options: TrainOptions, minutes: float | None) -> None:
    """The paper's recipe on generated chapters: timestep shift, screenstyle blend, patch-wise crops."""
    vae = ColorVAE.create(MINI["vae"])
    scale = 1.0 / load_ema(vae, work, "vae")["latent_std"]
    vae = _placed(vae)
    net = _placed(Denoiser())
    left = torch.tensor(SchedulerConfig().alphas_cumprod(), dtype=torch.float32, device=device())
    area = options.page_size[0] * options.page_size[1]
    trainer = Trainer(net, work, options)
    # A resumed run sees new samples: the seed moves on with the step.
    batches = _endless(CanvasBatches(work, options.batch, area, options.seed + trainer.step))
    rng = np.random.default_rng(options.seed + trainer.step)

    def loss(step: int) -> Tensor:
        context, target = (_images(x) for x in next(batches))
        top, bottom, before, behind = _crop(context.shape[-2], context.shape[-1], rng)
        with torch.no_grad(), _bf16():
            known = condition(vae, scale, context).float()[..., top:bottom, before:behind]
            x0 = (vae.moments(target)[0].float() * scale)[..., top:bottom, before:behind]
        t = torch.full((len(x0),), len(left) - 1) if options.mean else shifted_timesteps(len(x0), options.mu)
        t = t.to(x0.device)
        a, s = left[t].sqrt().view(-1, 1, 1, 1), (1 - left[t]).sqrt().view(-1, 1, 1, 1)
        noise = torch.zeros_like(x0) if options.mean else torch.randn_like(x0)
        with _bf16():
            output: Tensor = net(noise if options.mean else a * x0 + s * noise, t, known).float()
        weight = torch.where(known[:, 4:5] > 0.5, options.reference_weight, options.center_weight)
        target = {"sample": x0, "epsilon": noise, "v_prediction": a * noise - s * x0}[PREDICTION_TYPE]
        error: Tensor = weight * (output - target).square()
        return error.mean() / weight.mean()

    trainer.run(loss, minutes=minutes)


def _endless(batches: CanvasBatches) -> Iterator[tuple[Tensor, Tensor]]:
    return iter(DataLoader(batches, batch_size=None, num_workers=1, prefetch_factor=4))


def _crop(
    height: int, width: int, rng: np.random.Generator, factor: int = 4, unit: int = 8
) -> tuple[int, int, int, int]:
    """A random window of the canvas in latents that holds the whole centre (paper, patch-wise training)."""
    edges = []
    for side in (height, width):
        most = side // 4 // factor // unit
        cut = rng.integers(0, most + 1, size=2) * unit * (rng.random(2) < 0.4)
        edges += [int(cut[0]), side // factor - int(cut[1])]
    return edges[0], edges[1], edges[2], edges[3]


def train_gsrp(work: Path, options: TrainOptions, minutes: float | None) -> None:
    """Only the fusion net is trained, with L1 (paper section 3.3): small colour page + sharp page -> the truth."""
    vae = ColorVAE.create(MINI["vae"])
    load_ema(vae, work, "vae")
    vae = _placed(vae)
    fusion = _placed(FusionNet(MINI["vae"], "running"))
    batches = page_batches(work, options.batch, options.seed)

    def loss(step: int) -> Tensor:
        low, bw, truth = (_images(x) for x in next(batches))
        with _bf16():
            output = super_resolve(vae, fusion, _through(vae, low, truth.shape[-2:]), bw).float()
        return F.l1_loss(output, truth) + _edge_loss(output, truth)

    Trainer(fusion, work, options).run(loss, minutes=minutes)


def _through(vae: ColorVAE, low: Tensor, size: torch.Size) -> Tensor:
    """What the loop hands over: the working-size page after the VAE, its latents a little noisy, brought to size."""
    with torch.no_grad():
        latents = vae.moments(low)[0]
        noisy = latents + 0.15 * latents.std() * torch.rand(len(low), 1, 1, 1) * torch.randn_like(latents)
        color = vae.reconstruct(noisy).float().clamp(-1, 1)
        return F.interpolate(color, list(size), mode="bicubic", align_corners=False).clamp(-1, 1)
