"""Does a character keep its colours: CIEDE2000 of its hair, skin and clothes, by the benchmark's region ids."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage import color

from colorflow_rt.evaluate.chapters import Chapter, Ids, Part, read_ids, read_rgb
from colorflow_rt.pixels import U8, luminance

F64 = NDArray[np.float64]

PARTS = ("hair", "skin", "upper", "lower", "pattern", "inner", "shoes")  # hair, skin and clothes
SCENE = "scene"
INK = 40  # pixels of the truth darker than this are lines, which say nothing of a region's colour
LEAST = 25  # pixels of a region that count: slivers are all border
EVERY = 3  # of the references' rows and columns one in three is enough for their colours
CLOSE = 12.0  # CIEDE2000 up to which a character counts as right


class RegionColours:
    """The colours of regions in a chapter's references: `lab` f64[3] mean, `rgb` u8[3] median, by region id."""

    def __init__(self, pictures: Iterable[tuple[U8, Ids]]) -> None:
        found: dict[int, list[U8]] = {}
        for rgb, ids in pictures:
            shown = (ids > 0) & (luminance(rgb) > INK)
            for region in np.unique(ids[shown]).tolist():
                found.setdefault(region, []).append(rgb[shown & (ids == region)])
        pixels = {region: np.concatenate(parts) for region, parts in found.items()}
        pixels = {region: some for region, some in pixels.items() if len(some) * EVERY**2 >= LEAST}
        self.lab: dict[int, F64] = {region: _lab(some).mean(axis=0) for region, some in pixels.items()}
        self.rgb = {region: np.median(some, axis=0).astype(np.uint8) for region, some in pixels.items()}


def region_colours(chapter: Chapter) -> RegionColours:
    """Read from the chapter's references; empty where it has no regions of them."""
    pairs = ((path, chapter.reference_regions(path)) for path in chapter.references)
    return RegionColours(
        (rgb[::EVERY, ::EVERY], read_ids(regions, rgb.shape[:2])[::EVERY, ::EVERY])
        for path, regions in pairs
        if regions is not None
        for rgb in [read_rgb(path)]
    )


def character_regions(parts: Mapping[int, Part]) -> list[int]:
    """Region ids of the hair, skin and clothes of the chapter's characters."""
    return sorted(region for region, name in parts.items() if name.character != SCENE and name.part in PARTS)


def _lab(rgb: U8) -> F64:
    """u8[N,3] to CIELAB f64[N,3]."""
    lab: F64 = color.rgb2lab(rgb[np.newaxis])[0]
    return lab


def measure(truth: U8, image: U8, ids: Ids, regions: list[int], known: Mapping[int, F64]) -> dict[str, list[Any]]:
    """Of each region on the page [pixels, error, distance, L, a, b]; keys are ids as text, for JSON.

    error: mean CIEDE2000 to the truth; L, a, b: the mean colour; distance: its CIEDE2000 to the region's in `known`,
    or None. Lines and slivers are left out.
    """
    counts = np.isin(ids, regions) & (luminance(truth) > INK)
    if not counts.any():
        return {}
    where, ours = ids[counts], _lab(image[counts])
    errors = color.deltaE_ciede2000(_lab(truth[counts]), ours)
    found: dict[str, list[Any]] = {}
    for region in np.unique(where).tolist():
        own = where == region
        if (pixels := int(own.sum())) >= LEAST:
            mean = ours[own].mean(axis=0)
            apart = float(color.deltaE_ciede2000(known[region], mean)) if region in known else None
            found[str(region)] = [pixels, _short(errors[own].mean()), _short(apart), *map(_short, mean)]
    return found


def _short(value: float | None) -> float | None:
    return None if value is None else round(float(value), 4)


def summarize(
    chapters: Mapping[str, list[dict[str, list[Any]]]], parts: Mapping[str, Mapping[int, Part]]
) -> dict[str, Any]:
    """Means over all characters of what `measure` found, chapter -> pages; each figure None where there is nothing.

    A character's figure is the mean over its parts, a part's the mean over the pages that show it (to_truth: weighted
    by its pixels). to_truth and to_references: mean CIEDE2000. between_pages: of all pairs of pages that show the
    part. characters: how many. within: the share of them that are within CLOSE of the truth.
    """
    truth, references, between = [], [], []
    for name, pages in chapters.items():
        for regions in _by_character(parts[name]).values():
            rows = [[page[key] for page in pages if key in page] for key in map(str, regions)]
            rows = [row for row in rows if row]
            truth += _mean_of([np.average([r[1] for r in row], weights=[r[0] for r in row]) for row in rows])
            references += _mean_of([np.mean(some) for row in rows if (some := [r[2] for r in row if r[2] is not None])])
            between += _mean_of([_between([r[3:] for r in row]) for row in rows if len(row) > 1])
    return {
        "to_truth": _mean(truth),
        "to_references": _mean(references),
        "between_pages": _mean(between),
        "characters": len(truth),
        "within": _mean([float(value <= CLOSE) for value in truth]),
    }


def _by_character(parts: Mapping[int, Part]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for region in character_regions(parts):
        found.setdefault(parts[region].character, []).append(region)
    return found


def _between(colours: list[list[float]]) -> float:
    labs = np.array(colours)
    one, two = np.triu_indices(len(labs), 1)
    return float(color.deltaE_ciede2000(labs[one], labs[two]).mean())


def _mean_of(values: list[Any]) -> list[float]:
    """The mean as a list of one, or nothing."""
    return [float(np.mean(values))] if values else []


def _mean(values: list[float]) -> float | None:
    return float(np.mean(values)) if values else None
