"""Batches for the trainings that see pages rather than canvases: VAE crops, CLIP pairs, super-resolution pages."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from colorflow_export.train.config import PAGE_SIZES
from colorflow_export.train.pool import PoolChapter, turn_chroma
from colorflow_export.train.samples import Pool, canvas_sample, resized, stacked, styled, working_size
from colorflow_rt import canvas

U8 = NDArray[np.uint8]
CROP = 64
CLIP_MEAN = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)
CLIP_STD = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)


def crop_batches(work: Path, batch: int, seed: int) -> Iterator[Tensor]:
    """Crops u8[B,64,64,3] of what the VAE meets: canvases with a page in any style, pages at 1.5x, in any palette."""
    pool = Pool(work, seed)
    while True:
        chapter = pool.chapter()
        area = PAGE_SIZES[0][0] * PAGE_SIZES[0][1]
        size = working_size(chapter.truth.shape[2], chapter.truth.shape[1], area)
        sample = canvas_sample(chapter, size, pool.rng)
        large = turn_chroma([chapter.truth[int(pool.rng.integers(len(chapter.truth)))]], pool.rng)[0]
        page = np.repeat(styled(chapter, int(pool.rng.integers(len(chapter.truth))), pool.rng)[..., None], 3, axis=2)
        sources = [sample.target, sample.target, sample.context, large, page]
        yield stacked([_crop(sources[i % len(sources)], pool.rng) for i in range(batch)])


def _crop(image: U8, rng: np.random.Generator) -> U8:
    y, x = (int(rng.integers(side - CROP + 1)) for side in image.shape[:2])
    return image[y : y + CROP, x : x + CROP]


def page_batches(work: Path, batch: int, seed: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """What the super-resolution learns from: pieces of pages.

    (low u8[B,64,64,3] true colours at working size, page u8[B,96,96,3] in a style, truth u8[B,96,96,3])
    """
    pool = Pool(work, seed)
    while True:
        pieces: list[tuple[U8, U8, U8]] = []
        while len(pieces) < batch:
            pieces += _pieces(pool.chapter(), 4, pool.rng)
        low, page, truth = (stacked(list(images)) for images in zip(*pieces[:batch], strict=True))
        yield low, page, truth


def _pieces(chapter: PoolChapter, count: int, rng: np.random.Generator) -> list[tuple[U8, U8, U8]]:
    """Pieces of one page at the bundled model's own sizes, so that lines are as thin as it will see them."""
    size = working_size(chapter.truth.shape[2], chapter.truth.shape[1], PAGE_SIZES[0][0] * PAGE_SIZES[0][1])
    large = size[0] * 3 // 2, size[1] * 3 // 2
    page = int(rng.integers(len(chapter.truth)))
    truth = turn_chroma([resized(chapter.truth[page], large)], rng)[0]
    small = resized(truth, size)
    sharp = np.repeat(resized(styled(chapter, page, rng), large)[..., None], 3, axis=2)
    pieces = []
    for _ in range(count):
        x, y = (int(rng.integers((side - CROP) // 2 + 1)) * 2 for side in size)
        place = np.s_[y * 3 // 2 : (y + CROP) * 3 // 2, x * 3 // 2 : (x + CROP) * 3 // 2]
        pieces.append((small[y : y + CROP, x : x + CROP], sharp[place], truth[place]))
    return pieces


def pair_batches(work: Path, batch: int, seed: int, side: int) -> Iterator[tuple[Tensor, Tensor]]:
    """(query f32[B,3,S,S] in a page style, reference f32[B,3,S,S] in colour): row i shows the same things.

    The two come from different pages of a chapter wherever these share something, and the colours are turned to
    a random palette: the encoder learns shapes, gray levels and patterns, since colours say nothing here.
    """
    pool = Pool(work, seed)
    while True:
        rows = [_pair(pool.chapter(), pool.rng, side) for _ in range(batch)]
        query, reference = (np.stack(column) for column in zip(*rows, strict=True))
        yield torch.from_numpy(query), torch.from_numpy(reference)


def _pair(chapter: PoolChapter, rng: np.random.Generator, side: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    page, quadrant = int(rng.integers(len(chapter.truth))), int(rng.integers(4))
    shared = np.minimum(chapter.shown[page, quadrant], chapter.shown).sum(axis=2)
    if rng.random() < 0.8:
        shared[page] = 0  # mostly another page: the same page would be matched by its layout
    other, place = np.unravel_index(int(shared.argmax()), shared.shape)
    query = np.repeat(styled(chapter, page, rng)[..., None], 3, axis=2)
    seen = resized(canvas.query_patches(query)[quadrant], (side, side))
    colour = resized(canvas.query_patches(chapter.truth[other])[int(place)], (side, side))
    return _encoder_view(seen), _encoder_view(turn_chroma([colour], rng)[0])


def _encoder_view(patch: U8) -> NDArray[np.float32]:
    return np.ascontiguousarray(((patch.astype(np.float32) / 255 - CLIP_MEAN) / CLIP_STD).transpose(2, 0, 1))
