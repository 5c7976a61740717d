"""What any method must beat: colours from the references without a model.

Each baseline turns a page u8[H,W,3] and a chapter's references into a picture as a model would paint it, u8 of any
size and of the page's aspect; the luminance step comes after.
"""

from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter, gaussian_filter1d
from skimage.exposure import match_histograms

from colorflow_rt.pixels import F32, U8, luminance, resize

SMOOTH = 4.0  # gray levels: standard deviation of the table's smoothing
SAMPLES = 200_000  # pixels of the references that histograms are taken from
SMALL = 64 * 96  # pixels of a page or reference where patches are compared
WINDOW, STRIDE = 6, 2  # side of a patch at that size, and of the middle that is pasted
BLOCK = 256  # patches of the page that are compared at once: bounds memory


class ReferenceColours:
    """What the baselines know of a chapter's references u8[H,W,3] each; worked out when first needed."""

    def __init__(self, pictures: Sequence[U8]) -> None:
        self._pictures = pictures

    @cached_property
    def mean(self) -> U8:
        """u8[3]: the mean colour of all references."""
        means = [picture.reshape(-1, 3).mean(axis=0) for picture in self._pictures]
        mean: U8 = np.rint(np.mean(means, axis=0)).astype(np.uint8)
        return mean

    @cached_property
    def table(self) -> U8:
        """u8[256,3]: the mean reference colour of each gray level, smoothed over levels; gray where there is none."""
        sums, counts = np.zeros((256, 3)), np.zeros(256)
        for picture in self._pictures:
            level = gray(picture).ravel()
            counts += np.bincount(level, minlength=256)
            for channel in range(3):
                sums[:, channel] += np.bincount(level, picture[..., channel].ravel(), 256)
        sums, counts = gaussian_filter1d(sums, SMOOTH, axis=0), gaussian_filter1d(counts, SMOOTH)
        levels = np.arange(256.0)[:, None].repeat(3, 1)
        found = np.where(counts[:, None] > 1e-6, sums / np.maximum(counts, 1e-6)[:, None], levels)
        return np.rint(found).astype(np.uint8)

    @cached_property
    def sample(self) -> U8:
        """u8[N,1,3]: pixels spread evenly over all references."""
        every = max(1, sum(picture.shape[0] * picture.shape[1] for picture in self._pictures) // SAMPLES)
        return np.concatenate([picture.reshape(-1, 1, 3)[::every] for picture in self._pictures])

    @cached_property
    def patches(self) -> tuple[F32, U8]:
        """Luminance of the references' patches f32[N,36], and the colours of their middles u8[N,2,2,3]."""
        found = [_patches(_small(picture)) for picture in self._pictures]
        return np.concatenate([one for one, _ in found]), np.concatenate([two for _, two in found])


def gray(rgb: U8) -> U8:
    """u8[H,W]: luminance, rounded."""
    return np.rint(luminance(rgb)).astype(np.uint8)


def _levels(page: U8, style: str) -> U8:
    """The page's grays u8[H,W]; of a screentone page those that its dots stand for."""
    levels = gray(page)
    if style != "screentone":
        return levels
    smooth: U8 = gaussian_filter(levels, max(1.5, page.shape[1] / 150))
    return smooth


def gray_page(page: U8, style: str, colours: ReferenceColours) -> U8:
    """No colours at all."""
    return np.repeat(gray(page)[..., None], 3, axis=2)


def mean_colour(page: U8, style: str, colours: ReferenceColours) -> U8:
    """One colour everywhere."""
    return np.broadcast_to(colours.mean, page.shape).copy()


def table(page: U8, style: str, colours: ReferenceColours) -> U8:
    """Each gray level as it is coloured in the references on average."""
    painted: U8 = colours.table[_levels(page, style)]
    return painted


def histogram(page: U8, style: str, colours: ReferenceColours) -> U8:
    """Each channel's histogram brought to that of the references (scikit-image's match_histograms)."""
    levels = np.repeat(_levels(page, style)[..., None], 3, axis=2)
    matched = match_histograms(levels, colours.sample, channel_axis=-1)
    painted: U8 = np.rint(matched).clip(0, 255).astype(np.uint8)
    return painted


def nearest_patch(page: U8, style: str, colours: ReferenceColours) -> U8:
    """For every spot of the page the middle of the reference patch whose luminance is nearest (least squares)."""
    small = _small(page)
    known, middles = colours.patches
    lengths = np.einsum("nd,nd->n", known, known)
    queries = _patches(small)[0]
    best = [
        (lengths - 2 * (queries[start : start + BLOCK] @ known.T)).argmin(axis=1)
        for start in range(0, len(queries), BLOCK)
    ]
    rows, columns = small.shape[0] // STRIDE, small.shape[1] // STRIDE
    pasted = middles[np.concatenate(best)].reshape(rows, columns, STRIDE, STRIDE, 3)
    return np.ascontiguousarray(pasted.swapaxes(1, 2).reshape(rows * STRIDE, columns * STRIDE, 3))


def _small(rgb: U8) -> U8:
    """About SMALL pixels, sides even."""
    factor = (SMALL / (rgb.shape[0] * rgb.shape[1])) ** 0.5
    width, height = (max(STRIDE, round(side * factor / STRIDE) * STRIDE) for side in (rgb.shape[1], rgb.shape[0]))
    return np.asarray(Image.fromarray(rgb).resize((width, height), Image.Resampling.BOX))


def _patches(small: U8) -> tuple[F32, U8]:
    margin = (WINDOW - STRIDE) // 2
    padded = np.pad(luminance(small), margin, mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (WINDOW, WINDOW))[::STRIDE, ::STRIDE]
    rows, columns = small.shape[0] // STRIDE, small.shape[1] // STRIDE
    middles = small.reshape(rows, STRIDE, columns, STRIDE, 3).swapaxes(1, 2).reshape(-1, STRIDE, STRIDE, 3)
    return np.ascontiguousarray(windows.reshape(-1, WINDOW * WINDOW)), middles


def by_region(ids: NDArray[np.int32], colours: dict[int, U8], other: U8) -> U8:
    """What a perfect matcher would paint: each region in its colour in the references, and `other` u8[H,W,3] where
    these do not show it."""
    painted = resize(other, (ids.shape[1], ids.shape[0])) if other.shape[:2] != ids.shape else other.copy()
    for region, colour in colours.items():
        painted[ids == region] = colour
    return painted


BASELINES: dict[str, Callable[[U8, str, ReferenceColours], U8]] = {
    "gray_page": gray_page,
    "mean_colour": mean_colour,
    "table": table,
    "histogram": histogram,
    "nearest_patch": nearest_patch,
}
