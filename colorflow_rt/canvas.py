"""The canvas: a page fitted to the working size, its patches, and the page amid its twelve reference tiles.

Geometry from ../shared/facts/colorflow.md sections 1 and 2 (ColorFlow, arXiv 2412.11815, retrieval-augmented
pipeline and in-context colourisation). Sizes are (width, height), boxes (left, top, right, bottom); pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from colorflow_rt.errors import OptionError
from colorflow_rt.pixels import U8, resize

Size = tuple[int, int]
Box = tuple[int, int, int, int]
Fit = Literal["pad", "crop"]
FITS: tuple[Fit, ...] = ("pad", "crop")

# CELLS[quadrant][rank] = (row, column) of the 4 x 4 grid, quadrants in the order of `query_patches`.
CELLS: tuple[tuple[tuple[int, int], ...], ...] = (
    ((1, 0), (0, 1), (0, 0)),
    ((1, 3), (0, 2), (0, 3)),
    ((2, 0), (3, 1), (3, 0)),
    ((2, 3), (3, 2), (3, 3)),
)
STRETCH = 0.15  # `crop` stretches a page whose aspect is off by less than this, else cuts it
STRIP = 3.0  # a page longer than this times its other side is worked on in windows


@dataclass(frozen=True)
class Placement:
    """Where a page lies in its fitted image: `source` of a page of `page_size` fills `box` of one of `size`.

    `pad`: source is the whole page, box the part that is not padding. `crop`: box is the whole fitted image.
    """

    size: Size
    box: Box
    page_size: Size
    source: Box


def fit_page(rgb: U8, size: Size, mode: Fit = "pad", resample: str = "bicubic") -> tuple[U8, Placement]:
    """Bring a page u8[H0,W0,3] to the working size: u8[H,W,3] and where the page lies in it.

    pad: scaled by one factor (`pixels.resize`), centred on white; nothing is lost.
    crop: as the authors' demo: stretched if the aspect differs by less than 15 %, else centre-cropped first.
    """
    if mode not in FITS:
        raise OptionError(f"fit is {mode!r}, expected one of {', '.join(FITS)}; choose one of these")
    placement = _padded(_size(rgb), size) if mode == "pad" else _cropped(_size(rgb), size)
    left, top, right, bottom = placement.source
    part = resize(rgb[top:bottom, left:right], _box_size(placement.box), resample)
    left, top, right, bottom = placement.box
    fitted = np.full((size[1], size[0], 3), 255, np.uint8)
    fitted[top:bottom, left:right] = part
    return fitted, placement


def _size(rgb: NDArray[Any]) -> Size:
    return rgb.shape[1], rgb.shape[0]


def _box_size(box: Box) -> Size:
    return box[2] - box[0], box[3] - box[1]


def _whole(size: Size) -> Box:
    return 0, 0, size[0], size[1]


def _centred(outer: Size, inner: Size) -> Box:
    left, top = (outer[0] - inner[0]) // 2, (outer[1] - inner[1]) // 2
    return left, top, left + inner[0], top + inner[1]


def _padded(page_size: Size, size: Size) -> Placement:
    scale = min(size[0] / page_size[0], size[1] / page_size[1])
    inner = tuple(min(side, max(1, round(old * scale))) for old, side in zip(page_size, size, strict=True))
    return Placement(size, _centred(size, (inner[0], inner[1])), page_size, _whole(page_size))


def _cropped(page_size: Size, size: Size) -> Placement:
    width, height = page_size
    ratio, target = width / height, size[0] / size[1]
    if abs(ratio - target) / target < STRETCH:
        kept = page_size
    elif ratio > target:
        kept = max(1, int(height * target)), height
    else:
        kept = width, max(1, int(width / target))
    return Placement(size, _whole(size), page_size, _centred(page_size, kept))


def unfit(image: U8, placement: Placement, outside: U8 | None = None) -> U8:
    """Bring a fitted image back to the page's own extent, u8[H0,W0,3].

    `image` has the fitted size or a multiple of it (super-resolution). What `crop` had cut off is taken from
    `outside` u8[H0,W0,3], or is white.
    """
    source = placement.source
    part = _resize_box(image, placement, _box_size(source))
    width, height = placement.page_size
    page = np.full((height, width, 3), 255, np.uint8) if outside is None else outside.copy()
    page[source[1] : source[3], source[0] : source[2]] = part
    return page


def _resize_box(image: U8, placement: Placement, size: Size) -> U8:
    """What `image` shows in the placement's box, scaled to its size, at `size`.

    Of the page's pixels alone: Pillow's own `box` lets the padding beside it bleed in, so the part is cut out
    first and continued by its edge pixels (the box may end within a pixel: 1.5 times an odd number).
    """
    factors = image.shape[1] / placement.size[0], image.shape[0] / placement.size[1]
    left, top, right, bottom = (side * factors[axis % 2] for axis, side in enumerate(placement.box))
    x, y = ceil(left), ceil(top)
    part = np.pad(image[y : floor(bottom), x : floor(right)], ((1, 1), (1, 1), (0, 0)), mode="edge")
    box = left - x + 1, top - y + 1, right - x + 1, bottom - y + 1
    return np.array(Image.fromarray(part).resize(size, Image.Resampling.BICUBIC, box))


def choose_size(page_size: Size, sizes: Sequence[Size]) -> Size:
    """The working size whose aspect is nearest to the page's (as a ratio; the first of equals)."""
    aspect = np.log(page_size[0] / page_size[1])
    return min(sizes, key=lambda size: round(abs(float(np.log(size[0] / size[1]) - aspect)), 9))


def query_patches(page: U8) -> list[U8]:
    """The four 3/4-size crops of a fitted page: top-left, top-right, bottom-left, bottom-right."""
    width, height = _size(page)
    across, down = 3 * width // 4, 3 * height // 4
    return [page[top : top + down, left : left + across] for top in (0, height - down) for left in (0, width - across)]


def reference_patches(reference: U8) -> list[U8]:
    """The five patches of a fitted reference: the whole image, then its four crops as in `query_patches`."""
    return [reference, *query_patches(reference)]


def tile(patch: U8, page_size: Size, resample: str = "bicubic") -> U8:
    """A patch resized for its cell, u8[H/2-2,W/2-2,3]; `page_size` is that of the fitted page, (W, H)."""
    return resize(patch, (page_size[0] // 2 - 2, page_size[1] // 2 - 2), resample)


def assemble(context: U8, tiles: Sequence[U8]) -> U8:
    """The canvas u8[2H,2W,3]: the context image u8[H,W,3] in the centre, 12 tiles around it on white.

    `tiles` come in the order of CELLS: ranks 1, 2, 3 of the first quadrant, then of the second, and so on.
    """
    cells = [cell for quadrant in CELLS for cell in quadrant]
    if len(tiles) != len(cells):
        raise OptionError(f"a canvas takes {len(cells)} tiles, got {len(tiles)}; give 3 for each quadrant")
    width, height = _size(context)
    half_w, half_h = width // 2, height // 2
    canvas = np.full((2 * height, 2 * width, 3), 255, np.uint8)
    canvas[half_h : half_h + height, half_w : half_w + width] = context
    for (row, column), patch in zip(cells, tiles, strict=True):
        top, left = row * half_h + 1, column * half_w + 1
        canvas[top : top + patch.shape[0], left : left + patch.shape[1]] = patch
    return canvas


def centre(canvas: NDArray[Any]) -> NDArray[Any]:
    """The page's part [H,W,...] of a canvas [2H,2W,...]."""
    height, width = canvas.shape[0] // 2, canvas.shape[1] // 2
    top, left = height // 2, width // 2
    return canvas[top : top + height, left : left + width]


def windows(page_size: Size, size: Size, overlap: float = 0.25) -> list[Box]:
    """The boxes of a page in which it is coloured: itself, or overlapping windows if it is longer than 1:3.

    Windows have the page's short side and the working size's aspect, lie evenly from end to end, and overlap
    by at least `overlap` (0 to 0.5) of their length.
    """
    if not 0.0 <= overlap <= 0.5:
        raise OptionError(f"overlap is {overlap}, expected 0 to 0.5 of a window; choose one in between")
    width, height = page_size
    if max(page_size) <= STRIP * min(page_size):
        return [_whole(page_size)]
    if height > width:
        starts, length = _spread(height, max(1, round(width * size[1] / size[0])), overlap)
        return [(0, start, width, start + length) for start in starts]
    starts, length = _spread(width, max(1, round(height * size[0] / size[1])), overlap)
    return [(start, 0, start + length, height) for start in starts]


def _spread(total: int, length: int, overlap: float) -> tuple[list[int], int]:
    """Where windows of `length` begin, so that they cover 0..total evenly."""
    if length >= total:
        return [0], total
    step = max(1, int(length * (1.0 - overlap)))
    gaps = -(-(total - length) // step)
    return [round(index * (total - length) / gaps) for index in range(gaps + 1)], length


def join(parts: Sequence[NDArray[Any]], boxes: Sequence[Box], page_size: Size) -> NDArray[Any]:
    """Lay the parts (each as large as its box, all u8 or all f32) into one page, without seams.

    Boxes as from `windows`, in order. Across each overlap a part fades in linearly over those before it.
    """
    if len(parts) != len(boxes):
        raise OptionError(f"{len(parts)} parts for {len(boxes)} windows, expected as many; give one for each")
    vertical = len(boxes) > 1 and boxes[1][1] > boxes[0][1]
    page = np.zeros((page_size[1], page_size[0], *parts[0].shape[2:]), parts[0].dtype)
    along = page if vertical else page.swapaxes(0, 1)  # a view whose first axis is the strip's length
    filled = 0
    for part, box in zip(parts, boxes, strict=True):
        _fade_in(along, part if vertical else part.swapaxes(0, 1), box[1] if vertical else box[0], filled)
        filled = box[3] if vertical else box[2]
    return page


def _fade_in(page: NDArray[Any], part: NDArray[Any], start: int, filled: int) -> None:
    """Lay `part` at `start`; rows start..filled are already there and are blended."""
    shared = max(0, filled - start)
    page[start + shared : start + part.shape[0]] = part[shared:]
    ramp = (np.arange(shared, dtype=np.float32) + 1) / (shared + 1)
    ramp = ramp.reshape(-1, *[1] * (part.ndim - 1))
    before = page[start:filled].astype(np.float32) if shared else page[:0]
    blend = before + ramp * (part[:shared].astype(np.float32) - before)  # equal inputs come out unchanged
    page[start : start + shared] = np.rint(blend) if page.dtype.kind == "u" else blend
