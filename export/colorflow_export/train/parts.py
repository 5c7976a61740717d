"""The network that tells parts of a drawing by their looks: `colorflow_rt/parts.onnx`.

Its features are alike where the same thing is drawn: the hair of one character on any page and in any reference,
whoever wears the same gray beside it. It learns that from generated chapters, whose every pixel is known to belong to
a part: of all places in a chapter's other pictures, the product of features shall find those of the same part (a
contrastive loss; van den Oord et al., arXiv 1807.03748). Grays tell parts apart in gray pictures, so there the choice
is among places of the same gray; pictures reduced to their lines are taught by the same network.
"""

import io
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from rich.progress import track
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from colorflow_export.train.beside import export_beside
from colorflow_export.train.config import TrainOptions
from colorflow_export.train.loop import Trainer, device
from colorflow_rt.comics import TRAINING_SEED, chapter_seed, make_chapter
from colorflow_rt.files import atomic_write
from colorflow_rt.linework import INK, line_layer

U8 = NDArray[np.uint8]
FIRST = 2_000_000  # chapters from here on, which the other trainings never see
SIZES = ((256, 384), (256, 384), (256, 384), (384, 256), (320, 320))  # as pages are looked at: 98,304 pixels
CHAPTERS = 700  # that are drawn before it begins
PAGES, REFERENCES = 4, 6  # drawn of each chapter
SEEN = 6  # pictures of a chapter in one step
SPOTS = 256  # of each picture, compared with those of all others
STRIDE, MULTIPLE = 4, 32  # pixels to a feature; of the network's input sides
WIDTHS, DEPTHS = (24, 48, 80, 96, 128), (1, 1, 1, 2, 2)
FEATURES = 32
SHARPEST = 100.0  # most that the product of two features is
ALIKE = 3.0  # levels: standard deviation of what counts as one gray
LINES = 0.6  # share of chapters that are seen by their lines alone
ROUGH = 0.5  # share of gray pages with the errors of one whose screentone was removed
INKED = 200  # lines darker than this cover their part


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(8, width)
        self.first, self.second = (nn.Conv2d(width, width, 3, padding=1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(F.silu(self.first(F.silu(self.norm(x)))))  # type: ignore[no-any-return]


class _Everywhere(nn.Module):
    """Each place of a small map sees all others."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(8, width)
        self.qkv, self.out = nn.Conv2d(width, 3 * width, 1), nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        parts = self.qkv(self.norm(x)).flatten(2).unflatten(1, (3, 4, -1)).transpose(-1, -2)
        seen = F.scaled_dot_product_attention(parts[:, 0], parts[:, 1], parts[:, 2])
        return x + self.out(seen.transpose(-1, -2).flatten(1, 2).view_as(x))  # type: ignore[no-any-return]


class PartsNet(nn.Module):
    """drawing f32[B,1,H,W] in 0..1, sides multiples of 32 -> f32[B,33,H/4,W/4]: 32 features, and paper's logit.

    The product of two places' features is the logarithm of how likely they show one part, up to a constant. Paper is
    what lies outside of all panels, and speech.
    """

    def __init__(self) -> None:
        super().__init__()
        self.into = nn.Conv2d(4, WIDTHS[0], 3, padding=1)
        levels = list(zip(WIDTHS, DEPTHS, strict=True))
        self.down = nn.ModuleList(nn.Sequential(*map(_Block, [w] * d)) for w, d in levels)
        self.up = nn.ModuleList(nn.Sequential(*map(_Block, [w] * d)) for w, d in levels[1:-1])
        pairs = list(pairwise(WIDTHS))
        self.shrink = nn.ModuleList(nn.Conv2d(fine, coarse, 4, stride=2, padding=1) for fine, coarse in pairs)
        self.grow = nn.ModuleList(nn.Conv2d(coarse, 4 * fine, 1) for fine, coarse in pairs[1:])
        self.everywhere = _Everywhere(WIDTHS[-1])
        self.out = nn.Conv2d(WIDTHS[1], FEATURES + 1, 1)
        self.sharpness = nn.Parameter(torch.tensor(10.0).log())

    def forward(self, drawing: Tensor) -> Tensor:
        x = self.shrink[0](self.down[0](self.into(F.pixel_unshuffle(drawing * 2 - 1, 2))))
        kept = []
        for level, shrink in zip(self.down[1:-1], self.shrink[1:], strict=True):
            kept.append(level(x))
            x = shrink(kept[-1])
        x = self.down[-1](self.everywhere(x))
        for level, grow, beside in reversed(list(zip(self.up, self.grow, kept, strict=True))):
            x = level(beside + F.pixel_shuffle(grow(x), 2))
        found = self.out(x).float()
        scale = self.sharpness.exp().clamp(max=SHARPEST).sqrt()
        return torch.cat([F.normalize(found[:, :-1], dim=1) * scale, found[:, -1:]], dim=1)


def pool_files(work: Path) -> list[Path]:
    """The chapters that are drawn."""
    return sorted((work / "parts").glob("*.npz"))


def fill_pool(work: Path, first: int, last: int) -> None:
    """Draw the chapters first .. last - 1 that are not there yet, 3 MB each. Can be interrupted and run again."""
    folder = work / "parts"
    folder.mkdir(parents=True, exist_ok=True)
    for number in track(range(first, last), "chapters"):
        path = folder / f"{number:06d}.npz"
        if not path.exists():
            buffer = io.BytesIO()
            np.savez(buffer, allow_pickle=False, **_draw(number))
            atomic_write(path, buffer.getvalue())


def _draw(number: int) -> dict[str, U8]:
    """gray, lines, part u8[N,H,W] of the pages, then of the references of a chapter."""
    chapter, size = make_chapter(chapter_seed(TRAINING_SEED, FIRST + number)), SIZES[number % len(SIZES)]
    pictures = [chapter.page(i, size) for i in range(PAGES)]
    pictures += [chapter.reference_page(i, size) for i in range(REFERENCES)]
    return {
        "gray": np.stack([picture.gray() for picture in pictures]),
        "lines": np.stack([picture.lines for picture in pictures]),
        "part": np.stack([picture.regions for picture in pictures]).astype(np.uint8),
    }


class _Chapters(IterableDataset[dict[str, Tensor]]):
    """Endless: some pictures of a chapter, all gray or all lines.

    drawing u8[N,H,W]; part u8[N,h,w], gray f32[N,h,w] and clear bool[N,h,w] (not under a line) of its spots; alike:
    levels within which grays are one.
    """

    def __init__(self, files: list[Path], seed: int) -> None:
        self.files, self.seed = files, seed

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        rng = np.random.default_rng(self.seed)
        while True:
            with np.load(self.files[rng.integers(len(self.files))]) as arrays:
                yield _sample({name: arrays[name] for name in arrays}, rng)


def _sample(chapter: dict[str, U8], rng: np.random.Generator) -> dict[str, Tensor]:
    order = rng.permutation(PAGES + REFERENCES)[:SEEN]
    gray, lines, part = (chapter[name][order] for name in ("gray", "lines", "part"))
    if rng.random() < 0.5:
        gray, lines, part = gray[..., ::-1], lines[..., ::-1], part[..., ::-1]
    alike = np.inf
    if rng.random() < LINES:
        drawing = np.stack([line_layer(g if rng.random() < 0.6 else m, INK) for g, m in zip(gray, lines, strict=True)])
    else:
        rough = rng.random() < ROUGH
        drawing, alike = gray, ALIKE * (2 if rough else 1)
        if rough:  # half of them, as pages are beside references
            drawing = np.stack([_roughened(g, rng) if i % 2 else g for i, g in enumerate(gray)])
    spots = (slice(None), slice(STRIDE // 2, None, STRIDE), slice(STRIDE // 2, None, STRIDE))
    return {
        "drawing": torch.from_numpy(np.ascontiguousarray(drawing)),
        "part": torch.from_numpy(part[spots].copy()),
        "gray": torch.from_numpy(drawing[spots].astype(np.float32)),
        "clear": torch.from_numpy(lines[spots] >= INKED),
        "alike": torch.tensor(alike, dtype=torch.float32),
    }


def _roughened(gray: U8, rng: np.random.Generator) -> U8:
    """As pages are whose screentone was removed: few levels, uneven fills, soft lines."""
    levels, offset = 24, rng.uniform(-3, 3)
    coarse = np.rint((gray + offset) * ((levels - 1) / 255)) * (255 / (levels - 1)) - offset
    uneven = rng.normal(0, 4, (gray.shape[0] // 8 + 1, gray.shape[1] // 8 + 1)).repeat(8, 0).repeat(8, 1)
    found = coarse + uneven[: gray.shape[0], : gray.shape[1]] + rng.normal(0, 3, gray.shape)
    return np.asarray(np.where(gray > 250, gray, found).clip(0, 255), np.uint8)


def likelihood(features: Tensor, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """(loss, accuracy) of features f32[N,33,h,w]: of the places of other pictures, how many of the same part."""
    count, spots = len(features), features[0, 0].numel()
    clear = batch["clear"].flatten(1)
    chosen = torch.multinomial(clear.float() + 1e-6, min(SPOTS, spots))  # i64[N,S]
    of = features[:, :-1].flatten(2).transpose(1, 2)
    vectors = torch.cat([one[place] for one, place in zip(of, chosen, strict=True)])
    part, gray = (batch[name].flatten(1).gather(1, chosen).flatten() for name in ("part", "gray"))
    picture = torch.arange(count, device=part.device).repeat_interleave(chosen.shape[1])
    logits = vectors @ vectors.T - ((gray[:, None] - gray) / batch["alike"]).square() / 2
    logits = logits.masked_fill((picture[:, None] == picture) | (part == 0), -1e4)
    same = part[:, None] == part
    hit = torch.logsumexp(logits.masked_fill(~same, -1e4), 1) - torch.logsumexp(logits, 1)
    asked = (part > 0) & (same & (logits > -50)).any(1)
    return -hit[asked].clamp(min=-8).mean(), hit[asked].exp().mean()


def train_parts(work: Path, options: TrainOptions, minutes: float | None) -> None:
    """Contrast of the parts of chapters; binary cross entropy on paper."""
    net = PartsNet().to(device()).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    trainer = Trainer(net, work, options)
    if trainer.rank == 0:
        fill_pool(work, 0, CHAPTERS)
    seed = options.seed + trainer.step + 1_000_000 * trainer.rank
    batches = iter(DataLoader(_Chapters(pool_files(work), seed), batch_size=None, num_workers=1, prefetch_factor=4))

    def loss(step: int) -> Tensor:
        batch = {name: value.to(device()) for name, value in next(batches).items()}
        with torch.autocast(device().type, torch.bfloat16):
            features = net(batch["drawing"][:, None].float() / 255)
        missed, _ = likelihood(features, batch)
        paper = F.binary_cross_entropy_with_logits(features[:, -1], (batch["part"] == 0).float(), reduction="none")
        total: Tensor = missed + (paper * batch["clear"]).mean()
        return total

    trainer.run(loss, minutes=minutes)


def export_parts(work: Path, out: Path) -> None:
    """Write the trained network as the runtime reads it, for drawings of any size."""
    export_beside(PartsNet(), work, "parts", out, ("drawing", "parts"), MULTIPLE)
