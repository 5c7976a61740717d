"""What comes back for a page."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from colorflow_rt.errors import ColorflowError

Image = NDArray[np.uint8]


@dataclass(frozen=True)
class Match:
    """Which reference patch went to which cell of the canvas.

    cell: (row, column) in the 4 x 4 grid. quadrant: query patch 0 to 3 (top-left, top-right, bottom-left,
    bottom-right). rank: 0 is the most similar. patch: 0 the whole reference, 1 to 4 its crops in the order of
    the quadrants. window: 0, or of a long strip the window that the canvas belongs to.
    """

    cell: tuple[int, int]
    quadrant: int
    rank: int
    reference: str
    patch: int
    similarity: float
    window: int = 0


@dataclass(frozen=True, eq=False)
class Result:
    """A finished page.

    image: u8[H0,W0,3] RGB of the page's own size. alpha: u8[H0,W0] as the page brought it, or None.
    chroma: u8[H0,W0,4] RGBA, the colours alone (option `chroma_layer`), or None.
    model_image: u8[H0,W0,3], what the model painted, before the luminance step.
    canvas: u8[2H,2W,3], for contact sheets (of a strip: its first window's); None for a page passed through.
    seconds: wall-clock seconds by stage.
    style: "gray", "screentone" or "lineart", as chosen or detected; "color" for a page passed through.
    passed_through: the page was already in colour and `image` is the page itself.
    """

    image: Image
    alpha: Image | None
    chroma: Image | None
    matches: tuple[Match, ...]
    seconds: dict[str, float]
    style: str
    passed_through: bool
    canvas: Image | None
    model_image: Image


@dataclass(frozen=True)
class PageError:
    """A page of a sequence that failed: its place in the sequence, its name, the error. The rest goes on."""

    index: int
    name: str
    error: ColorflowError
