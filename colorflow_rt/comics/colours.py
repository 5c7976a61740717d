"""Colours that gray cannot tell: every part takes one of a few gray levels, and a hue of its own at it."""

import math

import numpy as np
from numpy.typing import NDArray

LEVELS = (66, 104, 140, 174, 208)  # Rec.601 luminance of the parts; each chapter moves them a little
SHADE = 0.77  # luminance of a shadow, relative to the lit colour
CHROMA = 70.0  # most that a channel departs from the gray
SPREAD, ODD = 0.65, 12  # see Palette; radians, parts
GOLDEN = (math.sqrt(5) - 1) / 2

Colour = tuple[int, int, int]


def luminance(colour: Colour) -> int:
    """Rec.601 luminance as Pillow's convert("L") rounds it."""
    red, green, blue = colour
    return (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16


def colour_at(level: int, hue: float, saturation: float) -> Colour:
    """The colour of exactly this luminance (16 to 240) in the chroma direction `hue` (radians).

    `saturation` 0 is gray and 1 as far as RGB reaches in this direction, or CHROMA away from gray.
    """
    cb, cr = math.cos(hue), math.sin(hue)
    chroma = (1.402 * cr, -0.344136 * cb - 0.714136 * cr, 1.772 * cb)
    reach = min((255 - level if c > 0 else level) / abs(c) for c in chroma if abs(c) > 1e-9)
    reach = min(reach, CHROMA / max(abs(c) for c in chroma))
    rgb = [round(level + saturation * reach * c) for c in chroma]
    while (error := level - luminance((rgb[0], rgb[1], rgb[2]))) != 0:
        i = 1 if abs(error) > 1 or not 0 < rgb[1] < 255 else 0  # green moves luminance by 0.59, red by 0.30
        i = i if 0 < rgb[i] < 255 else 2
        rgb[i] += 1 if error > 0 else -1
    return rgb[0], rgb[1], rgb[2]


class Palette:
    """The chapter's gray levels, and its colours by region id as they are chosen.

    Every level prefers a hue in this chapter; its parts lie SPREAD around it, one in ODD anywhere else. So a
    table from gray to colour explains about half of the colours, never all (measured in tests/test_comics.py).
    """

    def __init__(self, rng: np.random.Generator):
        self._rng = rng
        self.levels = [level + int(rng.integers(-7, 8)) for level in LEVELS]
        self._lit: list[Colour] = [(255, 255, 255)]
        self._shaded: list[Colour] = [(255, 255, 255)]
        wheel = (rng.permutation(len(LEVELS)) + rng.random() + rng.uniform(-0.25, 0.25, len(LEVELS))) / len(LEVELS)
        self._preferred = wheel * 2 * math.pi  # all around the colour wheel, so that a page is colourful
        self._count = rng.integers(0, 1000, len(LEVELS))  # parts so far of each level, from a random start

    def add(self, level: int, hue: float | None = None) -> int:
        """A new region id, its colour at the chapter's level number `level`; `hue` or one of the level's."""
        saturation = float(self._rng.uniform(0.7, 1.0))
        hue = self._next_hue(level) if hue is None else hue
        luma = self.levels[level]
        self._lit.append(colour_at(luma, hue, saturation))
        self._shaded.append(colour_at(round(luma * SHADE), hue, saturation * 0.95))
        return len(self._lit) - 1

    def _next_hue(self, level: int) -> float:
        self._count[level] += 1
        count = int(self._count[level])
        place = 2 * (count * GOLDEN % 1) - 1  # evenly spread whatever the number of parts
        if count % ODD == 0:
            return float(self._preferred[level] + math.pi + place * (math.pi - SPREAD))
        return float(self._preferred[level] + place * SPREAD)

    def table(self) -> NDArray[np.uint32]:
        """[513] packed RGBX by region id + 256 * shaded; 512 is ink."""
        table = np.zeros((513, 4), np.uint8)
        table[: len(self._lit), :3] = self._lit
        table[256 : 256 + len(self._shaded), :3] = self._shaded
        packed: NDArray[np.uint32] = table.view(np.uint32).reshape(-1)
        return packed
