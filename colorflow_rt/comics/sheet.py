"""The drawing surface: region ids, ink and light are drawn together, in one picture of three channels.

A part is filled, shaded and outlined in one call, so that what lies in front hides what lies behind in all
three channels at once (painter's algorithm). Colours come last, from a table of region ids.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageChops, ImageDraw

from colorflow_rt.comics.shapes import Points

Pattern = Callable[["Pen", tuple[int, int]], list[Points]]  # pen, size of the mask -> figures in its pixels

Box = tuple[int, int, int, int]  # x0, y0, x1, y1

LIT, SHADED, HATCHED = 255, 170, 0  # values of the light channel
INKED, CLEAR = 0, 255  # values of the ink channel


class Sheet:
    """A panel being drawn: `picture` is RGB with R = region id, G = ink (0 black), B = light.

    `line` is the width of an ordinary outline in pixels of this sheet. `hatched` draws shadows as hatching
    instead of a darker colour; `shadows` switches them off altogether.
    """

    def __init__(self, width: int, height: int, line: float, *, hatched: bool = False, shadows: bool = True):
        self.width, self.height, self.line = width, height, line
        self.hatched, self.shadows = hatched, shadows
        self.picture = Image.new("RGB", (width, height), (0, CLEAR, LIT))
        self.draw = ImageDraw.Draw(self.picture)
        self._hatching: Image.Image | None = None

    def stroke(self, points: Points, width: float, value: tuple[int, int, int]) -> None:
        """A polyline of `width` ordinary outlines; joints are only rounded where they could be seen."""
        pixels = max(1, round(width * self.line))
        self.draw.line(points.ravel().tolist(), value, pixels, "curve" if pixels > 4 else None)

    def hatching(self) -> Image.Image:
        """Diagonal strokes over the whole sheet (L, 255 = stroke), drawn once."""
        if self._hatching is None:
            self._hatching = Image.new("L", (self.width, self.height))
            draw = ImageDraw.Draw(self._hatching)
            width = max(1, round(self.line * 0.6))
            for x in range(-self.height, self.width, max(4, round(self.line * 3.2))):
                draw.line((x, self.height, x + self.height, 0), 255, width)
        return self._hatching


@dataclass(frozen=True)
class Pen:
    """Draws on a sheet in units of its own: pixel = origin + scale * rotation * (mirror * x, y)."""

    sheet: Sheet
    x: float
    y: float
    scale: float
    angle: float = 0.0  # radians
    mirror: bool = False

    def at(self, x: float, y: float, scale: float = 1.0, angle: float = 0.0, mirror: bool = False) -> "Pen":
        """A pen whose origin is this pen's (x, y)."""
        px, py = self.to_pixels(np.array([[x, y]]))[0]
        turn = -angle if self.mirror else angle
        flip = self.mirror != mirror
        return replace(self, x=px, y=py, scale=self.scale * scale, angle=self.angle + turn, mirror=flip)

    def to_pixels(self, points: Points) -> Points:
        """Points of this pen as sheet pixels."""
        cos, sin = math.cos(self.angle) * self.scale, math.sin(self.angle) * self.scale
        flip = -1.0 if self.mirror else 1.0
        matrix = np.array([[cos * flip, sin * flip], [-sin, cos]])
        pixels: Points = points @ matrix + (self.x, self.y)
        return pixels

    def fill(
        self,
        points: Points,
        part: int,
        *,
        outline: float = 1.0,
        shade: float = 0.0,
        pattern: "tuple[int, Pattern] | None" = None,
    ) -> None:
        """Fills a closed shape with a region; `shade` is how far the shadow on its lower right reaches in.

        `pattern` is a second region and the figures that it fills. `outline` 0 draws none.
        """
        pixels = self.to_pixels(points)
        if not self._visible(pixels):
            return
        if pattern is None and not (shade and self.sheet.shadows):
            self.sheet.draw.polygon(pixels.ravel().tolist(), (part, CLEAR, LIT))
        else:
            self._fill_masked(pixels, part, shade * self.scale, pattern)
        if outline:
            self.sheet.stroke(np.concatenate([pixels, pixels[:2]]), outline, (part, INKED, LIT))

    def line(self, points: Points, width: float = 1.0, part: int = 0) -> None:
        """An open ink line."""
        self.sheet.stroke(self.to_pixels(points), width, (part, INKED, LIT))

    def band(self, points: Points, width: float, part: int) -> None:
        """An open line of a region's colour, `width` in units of this pen."""
        pixels = self.to_pixels(points)
        self.sheet.draw.line(pixels.ravel().tolist(), (part, CLEAR, LIT), max(1, round(width * self.scale)))

    def black(self, points: Points, part: int = 0) -> None:
        """A closed shape filled with ink."""
        self.sheet.draw.polygon(self.to_pixels(points).ravel().tolist(), (part, INKED, LIT))

    def _visible(self, pixels: Points) -> bool:
        (x0, y0), (x1, y1) = pixels.min(0), pixels.max(0)
        return bool(x1 >= 0 and y1 >= 0 and x0 < self.sheet.width and y0 < self.sheet.height)

    def _fill_masked(self, pixels: Points, part: int, shade: float, pattern: "tuple[int, Pattern] | None") -> None:
        box = _box(pixels, self.sheet.width, self.sheet.height)
        mask = Image.new("L", (box[2] - box[0], box[3] - box[1]))
        corner = np.array(box[:2], np.float64)
        ImageDraw.Draw(mask).polygon((pixels - corner).ravel().tolist(), 255)
        shadow = mask.copy()
        ImageDraw.Draw(shadow).polygon((pixels - corner - (shade, shade * 0.6)).ravel().tolist(), 0)
        self._paint(part, mask, shadow if shade else None, box)
        if pattern is not None:
            self._fill_pattern(*pattern, mask, shadow if shade else None, box)

    def _fill_pattern(
        self, part: int, pattern: Pattern, mask: Image.Image, shadow: Image.Image | None, box: Box
    ) -> None:
        """The pattern's figures inside the mask, with fine outlines: line art has to show them too."""
        inside, edges = Image.new("L", mask.size), Image.new("L", mask.size)
        fill, outline = ImageDraw.Draw(inside), ImageDraw.Draw(edges)
        width = max(1, round(self.sheet.line * 0.6))
        for figure in pattern(replace(self, x=self.x - box[0], y=self.y - box[1]), mask.size):
            corners = figure.ravel().tolist()
            fill.polygon(corners, 255)
            outline.line(corners + corners[:2], 255, width)
        self._paint(part, ImageChops.darker(inside, mask), shadow, box)
        self.sheet.picture.paste((part, INKED, LIT), box, ImageChops.darker(edges, mask))

    def _paint(self, part: int, mask: Image.Image, shadow: Image.Image | None, box: tuple[int, int, int, int]) -> None:
        sheet = self.sheet
        sheet.picture.paste((part, CLEAR, LIT), box, mask)
        if shadow is None or not sheet.shadows:
            return
        dark = ImageChops.darker(mask, shadow)
        if sheet.hatched:
            dark = ImageChops.darker(dark, sheet.hatching().crop(box))
        sheet.picture.paste((part, CLEAR, HATCHED if sheet.hatched else SHADED), box, dark)


def _box(pixels: Points, width: int, height: int) -> Box:
    x0, y0 = np.floor(pixels.min(0)).astype(int).tolist()
    x1, y1 = np.ceil(pixels.max(0)).astype(int).tolist()
    x0, y0 = min(max(x0, 0), width - 1), min(max(y0, 0), height - 1)
    return x0, y0, max(x0 + 1, min(x1 + 1, width)), max(y0 + 1, min(y1 + 1, height))
