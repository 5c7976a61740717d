"""A finished page and its black-and-white styles."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from colorflow_rt.comics.sheet import Sheet
from colorflow_rt.screentone import blend as blend_tone
from colorflow_rt.screentone import screentone

U8 = NDArray[np.uint8]
BINS = 12  # quantised gray levels that get a tone of their own
ANGLES = (0.0, 15.0, 30.0, 45.0, 60.0, 75.0)


@dataclass(frozen=True)
class Page:
    """A page with everything known about it.

    truth: u8[H, W, 3], colours with lines, lettering and white gutters. lines: u8[H, W], black on white.
    shading: u8[H, W], 255 = lit, darker = the page's own shadows and hatching. regions: u16[H, W], 0 = none.
    """

    truth: U8
    lines: U8
    shading: U8
    regions: NDArray[np.uint16]

    def gray(self) -> U8:
        """Rec.601 luminance of the truth, u8[H, W]."""
        return np.array(Image.fromarray(self.truth).convert("L"))

    def screentone(self, seed: int, blend: float | None = None, unit: float | None = None) -> U8:
        """Dots in place of grays, u8[H, W]: each gray level has a pitch and an angle drawn from `seed`.

        `blend` 0..1 mixes in the gray page (ColorFlow, training: random linear blend of gray and screentone):
        0 is the gray page, 1 or None is dots only. Lines stay black and paper stays white. Pitches are 0.8 to 1.6 of
        `unit` pixels, which is 1/110 of the page's width but at least 3.
        """
        gray = self.gray()
        unit = max(3.0, gray.shape[1] / 110) if unit is None else unit
        dots = np.minimum(_dots(_without_lines(gray, self.lines), unit, np.random.default_rng(seed)), self.lines)
        return dots if blend is None else blend_tone(gray, dots, blend)

    def lineart(self, shaded: bool = False) -> U8:
        """The lines alone, or with the page's own shading, u8[H, W]."""
        if not shaded:
            return self.lines.copy()
        return (self.lines.astype(np.uint16) * self.shading // 255).astype(np.uint8)


def _without_lines(gray: U8, lines: U8) -> U8:
    """The gray of the fill beside a line's soft edge; black where the line covers all."""
    fill = gray.astype(np.float32) * (255.0 / np.maximum(lines, 64))
    return np.minimum(fill, 255).astype(np.uint8)


def _dots(gray: U8, unit: float, rng: np.random.Generator) -> U8:
    step = 256 / BINS
    bins = (gray / np.float32(step)).astype(np.uint8)
    tones = [(unit * float(rng.uniform(0.8, 1.6)), float(rng.choice(ANGLES))) for _ in range(4)]
    choice = rng.integers(0, 4, BINS)
    out = np.full_like(gray, 255)
    for i, (pitch, angle) in enumerate(tones):
        table = np.zeros(256, bool)
        table[:BINS] = choice == i
        member = table[bins]
        out[member] = screentone(gray, pitch=pitch, angle=angle, levels=BINS * 2)[member]
    return out


def finish(sheet: Sheet, table: NDArray[np.uint32], factor: int) -> Page:
    """Colours the sheet by the palette's table and reduces it by `factor`.

    The ids are taken without smoothing (one of each factor x factor pixels).
    """
    pixels = np.asarray(sheet.picture)
    part, ink, light = pixels[..., 0], pixels[..., 1], pixels[..., 2]
    index = part.astype(np.uint16)
    index += (light < 255) * np.uint16(256)
    index[(ink == 0) | (light == 0)] = 512
    packed = Image.frombuffer("RGBX", (sheet.width, sheet.height), table[index].tobytes(), "raw", "RGBX", 0, 1)
    truth = np.array(packed.reduce(factor).convert("RGB"))
    return Page(
        truth=truth,
        lines=np.array(sheet.picture.getchannel("G").reduce(factor)),
        shading=np.array(sheet.picture.getchannel("B").reduce(factor)),
        regions=part[factor // 2 :: factor, factor // 2 :: factor].astype(np.uint16),
    )
