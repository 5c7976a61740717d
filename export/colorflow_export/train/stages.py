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
from colorflow_export.train.config import (
    CONDITION_CHANNELS,
    LATENT_STD,
    LUMINANCE_PLANES,
    MINI,
    PREDICTION_TYPE,
    TrainOptions,
)
from colorflow_export.train.crops import crop_batches, page_batches, pair_batches
from colorflow_export.train.loop import Trainer, checkpoint_path, device
from colorflow_export.train.matching import start_matching
from colorflow_export.train.samples import CanvasBatches
from colorflow_export.train.supervise import AttentionLoss
from colorflow_rt.schedule import SchedulerConfig

POSTERIOR_STD = 0.05  # of the latents, before scaling: the denoiser is never exact
CROPPED = 0.8  # share of the canvas's sides that lose something in training
LEAST_CANVAS = 0.4  # of the canvas's area that is left; the page is a quarter
CHANNEL_WEIGHTS = (0.5, 1.25, 1.25, 0.25)  # of luma, the two chromas, darkest luma: a gray page tells the others
TIE = 10.0  # how firmly the encoder is held to what its latents stand for
ENCODER_ERROR = (0.05, 0.03, 0.03, 0.15)  # what it still misses: the denoiser's condition is roughened by as much
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
        for conv in self.guider.zero_convs():  # both nets start from nothing: there is nothing to protect
            nn.init.normal_(conv.weight, std=0.5 / conv.in_channels**0.5)

    def forward(self, sample: Tensor, timestep: Tensor, condition: Tensor) -> Tensor:
        return self.unet(sample, timestep, None, self.guider(sample, timestep, condition))  # type: ignore[no-any-return]


class Contrastive(nn.Module):
    """The CLIP tower and the temperature of its contrastive loss."""

    def __init__(self) -> None:
        super().__init__()
        self.clip = Embedder(MINI["clip"])
        self.log_scale = nn.Parameter(torch.tensor(math.log(10.0)))


def load_ema(net: nn.Module, work: Path, stage: str) -> None:
    """Put the averaged weights of a finished stage into `net`, frozen."""
    path = checkpoint_path(work, stage)
    if not path.exists():
        raise SystemExit(f"stage {stage} is not trained yet: run `colorflow-export train {stage} --work {work}` first")
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    own = net.state_dict()
    net.load_state_dict({k: v.to(own[k].dtype) for k, v in state["ema"].items()})
    net.eval().requires_grad_(False)


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
    posterior mean is drawn to `latent_targets`: a gray page and its colours differ in two channels of four. The decoder
    learns from the targets as much as from the encoder, since the denoiser is trained on targets and hides nothing in
    them. float32: at 16 channels the bfloat16 convolutions of a CPU are slower, not faster.
    """
    vae = _placed(ColorVAE.create(MINI["vae"]))
    batches = crop_batches(work, options.batch, options.seed)

    def loss(step: int) -> Tensor:
        image = _images(next(batches))
        targets = latent_targets(image)
        mean, log_variance, _ = vae.moments(image)
        known = torch.rand(len(image), 1, 1, 1, device=image.device) < 0.5
        latents = torch.where(known, targets, mean)
        output = vae.reconstruct(latents + POSTERIOR_STD * torch.randn_like(mean))
        tied = TIE * F.mse_loss(mean, targets) + (log_variance - 2 * math.log(POSTERIOR_STD)).square().mean()
        return tied + F.l1_loss(output, image) + 0.5 * _edge_loss(output, image) + _chroma_loss(output, image)

    Trainer(vae, work, options).run(loss, minutes=minutes)


def latent_targets(image: Tensor) -> Tensor:
    """What each latent stands for, f32[B,4,H/4,W/4] of spread near 1: mean luma, two mean chromas, darkest luma."""
    y = _luma(image)
    mean, chroma = F.avg_pool2d(y, 4), F.avg_pool2d(image[:, [0, 2]] - y, 4)
    return torch.cat([1.6 * mean, 2.5 * chroma, 1.2 * -F.max_pool2d(-y, 4)], dim=1)


def _luma(image: Tensor) -> Tensor:
    """Rec.601: f32[B,3,H,W] -> f32[B,1,H,W], in the range of the image."""
    return (image * image.new_tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(dim=1, keepdim=True)


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


def condition(context: Tensor, latents: Tensor) -> Tensor:
    """context f32[B,3,H,W] in [-1,1] and its latents f32[B,4,h,w] -> condition f32[B,K,h,w] (docs/pack.md)."""
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
    """The extra planes of docs/pack.md: sines, then cosines of pi 2^k Y, of each cell's mean and upper quartile."""
    y = (_luma(context) + 1) / 2
    octaves = math.pi * 2.0 ** torch.arange(LUMINANCE_PLANES, device=y.device).view(1, -1, 1, 1)
    mean = F.avg_pool2d(y, factor) * octaves[:, : LUMINANCE_PLANES // 8]
    brightest = F.pixel_unshuffle(y, factor).topk(factor * factor // 4, dim=1).values[:, -1:]
    fill = brightest * octaves[:, : 3 * LUMINANCE_PLANES // 8]
    return torch.cat([mean.sin(), mean.cos(), fill.sin(), fill.cos()], dim=1)


def shifted_timesteps(count: int, mu: float, total: int = 1000) -> Tensor:
    """Random timesteps i64[count], shifted towards noise (paper, timestep shift): t' = e^mu / (e^mu + T/t - 1) T."""
    t = torch.rand(count).clamp(min=1e-4) * total
    shifted = math.exp(mu) / (math.exp(mu) + total / t - 1) * total
    return shifted.long().clamp(0, total - 1)


def train_unet(work: Path, options: TrainOptions, minutes: float | None) -> None:
    """The paper's recipe on generated chapters: timestep shift, screenstyle blend, patch-wise crops.

    The VAE takes no part: its latents stand for `latent_targets`, which cost nothing to compute. Of the three phases
    (TrainOptions) the last gives the network what sampling will: pictures that it has painted itself from pure noise.
    A network trained on the truth under noise alone takes its own first guess for the truth. At T nothing of the truth
    is left, as in a sampling that starts from noise; the schedule itself leaves 7 %, and a model that trusts it is
    misled by the noise it starts from.
    """
    net = _placed(Denoiser())
    attention = AttentionLoss(net.guider)
    trainer = Trainer(net, work, options)
    # A resumed run sees new samples: the seed moves on with the step.
    seed = options.seed + trainer.step + 1_000_000 * trainer.rank
    batches = _endless(CanvasBatches(work, options.batch, math.prod(options.page_size), seed))
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    left = torch.tensor(SchedulerConfig().alphas_cumprod(), dtype=torch.float32, device=device())

    def loss(step: int) -> Tensor:
        context, target = next(batches)
        known, x0 = _canvas_latents(_images(context), _images(target), rng)
        noise = torch.zeros_like(x0) if options.phase == "mean" else torch.randn_like(x0)
        noisy, t, kept = _noisy(net, x0, noise, known, left, options, step)
        attention.look_at(x0, known[:, 4:5])
        with _bf16():
            output: Tensor = net(noisy, t, known).float()
        weight = torch.where(known[:, 4:5] > 0.5, options.reference_weight, options.center_weight)
        goal = _goal(x0, noise, kept)
        error: Tensor = weight * (output - goal).square() * output.new_tensor(CHANNEL_WEIGHTS).view(1, 4, 1, 1)
        return error.mean() / weight.mean() + options.attention_weight * attention.loss()

    trainer.run(loss, minutes=minutes)


def _canvas_latents(context: Tensor, target: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """(condition f32[B,K,h,w], true latents f32[B,4,h,w]) of a random window of the canvases f32[B,3,H,W]."""
    top, bottom, before, behind = _crop(context.shape[-2], context.shape[-1], rng)
    latents = latent_targets(context)
    latents = latents + latents.new_tensor(ENCODER_ERROR).view(1, 4, 1, 1) * torch.randn_like(latents)
    known = condition(context, latents / LATENT_STD)
    x0 = latent_targets(target) / LATENT_STD
    return known[..., top:bottom, before:behind], x0[..., top:bottom, before:behind]


def _noisy(
    net: Denoiser, x0: Tensor, noise: Tensor, known: Tensor, left: Tensor, options: TrainOptions, step: int
) -> tuple[Tensor, Tensor, Tensor]:
    """What the network sees in this step of a training, its timestep i64[B], and the share f32[B] that is no noise.

    left f32[T]: that share at each timestep.
    """
    t = torch.full((len(x0),), len(left) - 1, device=x0.device)
    # The choice is the same in all processes: nobody waits for another's second prediction.
    if options.phase == "mean" or np.random.default_rng([options.seed, step]).random() < options.from_noise:
        return noise, t, torch.zeros_like(left[t])
    guess = _predict(net, noise, t, known) if options.phase == "own" else x0
    t = shifted_timesteps(len(x0), options.mu).to(x0.device)
    kept = left[t]
    return _signal(kept) * guess + _signal(1 - kept) * noise, t, kept


def _goal(x0: Tensor, noise: Tensor, kept: Tensor) -> Tensor:
    """What the network is to put out (PREDICTION_TYPE) where the share `kept` f32[B] is no noise."""
    if PREDICTION_TYPE == "sample":
        return x0
    return noise if PREDICTION_TYPE == "epsilon" else _signal(kept) * noise - _signal(1 - kept) * x0


def _signal(share: Tensor) -> Tensor:
    """The factor f32[B,1,1,1] of what makes up this share of the variance."""
    return share.sqrt().view(-1, 1, 1, 1)


def _predict(net: Denoiser, noise: Tensor, t: Tensor, known: Tensor) -> Tensor:
    """The network's own x0 from pure noise at T, without gradients."""
    if PREDICTION_TYPE != "sample":
        raise SystemExit(
            f"the phase 'own' needs a network that predicts the sample, this one predicts {PREDICTION_TYPE}"
        )
    with torch.no_grad(), _bf16():
        guess: Tensor = net(noise, t, known).float()
    return guess


def _endless(batches: CanvasBatches) -> Iterator[tuple[Tensor, Tensor]]:
    return iter(DataLoader(batches, batch_size=None, num_workers=1, prefetch_factor=4))


def _crop(
    height: int, width: int, rng: np.random.Generator, factor: int = 4, unit: int = 8
) -> tuple[int, int, int, int]:
    """A random window of the canvas in latents that holds the whole centre (paper, patch-wise training).

    Half of the canvas goes on average: twice the pages for the same work, and no place to count on.
    """
    while True:
        edges = []
        for side in (height // factor, width // factor):
            cut = rng.integers(1, side // 4 // unit + 1, size=2) * unit * (rng.random(2) < CROPPED)
            edges += [int(cut[0]), side - int(cut[1])]
        top, bottom, left, right = edges
        if (bottom - top) * (right - left) >= LEAST_CANVAS * (height // factor) * (width // factor):
            return top, bottom, left, right


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
        # Of a gray page only the chroma is taken over: it weighs the most.
        return F.l1_loss(output, truth) + _edge_loss(output, truth) + 2 * _chroma_loss(output, truth)

    Trainer(fusion, work, options).run(loss, minutes=minutes)


def _through(vae: ColorVAE, low: Tensor, size: torch.Size) -> Tensor:
    """What the loop hands over: the working-size page after the VAE, its latents a little noisy, brought to size."""
    with torch.no_grad():
        latents = vae.moments(low)[0]
        noisy = latents + 0.15 * latents.std() * torch.rand(len(low), 1, 1, 1) * torch.randn_like(latents)
        color = vae.reconstruct(noisy).float().clamp(-1, 1)
        return F.interpolate(color, list(size), mode="bicubic", align_corners=False).clamp(-1, 1)
