"""What a pack has done to painted colours once they lie beside the page's own drawing."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from colorflow_rt.evened import evened
from colorflow_rt.pack_config import PagesConfig
from colorflow_rt.palette import Colours, filled, steered
from colorflow_rt.upscale import Refine


def refiner(pages: PagesConfig, style: str, palette: Sequence[Colours] = ()) -> Refine | None:
    """For `upscale.merge`: chroma is `evened`, then `steered` to the palette; line art is `filled` from it.

    None where there is nothing to do. palette: of the references, or nothing.
    """

    def refine(colors: NDArray[np.uint8], levels: NDArray[np.uint8]) -> NDArray[np.uint8] | NDArray[np.float32]:
        found = evened(colors, levels, pages.chroma_noise) if pages.chroma_noise else colors
        return steered(found, levels, palette, pages.palette_noise, exact=style == "gray") if palette else found

    def fill(colors: NDArray[np.uint8], levels: NDArray[np.uint8]) -> NDArray[np.uint8] | NDArray[np.float32]:
        return filled(colors, levels, palette)

    if style == "lineart":
        return fill if palette else None
    return refine if pages.chroma_noise or palette else None
