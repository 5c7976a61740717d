"""What a pack has done to painted chroma once it lies beside the page's own grays: `evened`, then `steered`."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from colorflow_rt.evened import evened
from colorflow_rt.pack_config import PagesConfig
from colorflow_rt.palette import Colours, steered
from colorflow_rt.upscale import Refine


def refiner(pages: PagesConfig, style: str, palette: Sequence[Colours] = ()) -> Refine | None:
    """For `upscale.merge`; None for line art, which has no grays. palette: of the references, or nothing."""
    if style == "lineart" or not (pages.chroma_noise or palette):
        return None

    def refine(colors: NDArray[np.uint8], levels: NDArray[np.uint8]) -> NDArray[np.uint8] | NDArray[np.float32]:
        found = evened(colors, levels, pages.chroma_noise) if pages.chroma_noise else colors
        return steered(found, levels, palette, pages.palette_noise) if palette else found

    return refine
