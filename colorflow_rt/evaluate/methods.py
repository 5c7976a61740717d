"""Every method of the table: ours, ours with something taken away, and the baselines. All get the same last step."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from colorflow_rt.evaluate.baselines import BASELINES, ReferenceColours, by_region
from colorflow_rt.evaluate.chapters import BenchPage, Chapter, read_ids
from colorflow_rt.evaluate.identity import RegionColours, region_colours
from colorflow_rt.jobs import sha256_or_nothing
from colorflow_rt.options import ColorizeOptions
from colorflow_rt.page import PageRun
from colorflow_rt.palette import Colours
from colorflow_rt.pipeline import DEFAULT_OPTIONS, Colorizer
from colorflow_rt.pixels import U8, Picture, Source
from colorflow_rt.pool import QUADRANTS, RANKS, Pool, Ranked
from colorflow_rt.references import Hit
from colorflow_rt.refine import refiner
from colorflow_rt.result import Match
from colorflow_rt.upscale import merge

OURS = ("ours", "random_references", "no_retrieval", "no_gsrp", "no_palette")
METHODS = ("ours", *BASELINES, *OURS[1:])
ORACLE = "oracle"  # not a method but what regions allow: in the record it stands apart


@dataclass(frozen=True, eq=False)
class Painted:
    """A coloured page: `image` u8[H,W,3] after the luminance step, `model` u8 of any size before it.

    matches: what retrieval took, for contact sheets.
    """

    image: U8
    model: U8
    matches: tuple[Match, ...] = ()


class _FirstReferences(PageRun):
    """Without retrieval: the first twelve references, each as a whole, go on the canvas."""

    def _retrieve(self, context: U8) -> Ranked:
        listed = self._job.pool.list()
        hits = [Hit(listed[i % len(listed)], 0, 0.0) for i in range(QUADRANTS * RANKS)]
        return [hits[start : start + RANKS] for start in range(0, len(hits), RANKS)]


class _WithoutGsrp(PageRun):
    """Without the third stage: the decoded picture is what the model gives."""

    def _super_resolve(self, color: U8, rgb: U8) -> U8:
        return color


class _WithoutPalette(PageRun):
    """Chroma as it was painted: not drawn to the references' own."""

    def _palette(self) -> list[Colours]:
        return []


class _Variant(Colorizer):
    """A Colorizer whose pages run differently."""

    def __init__(self, colorizer: Colorizer, run: type[PageRun]) -> None:
        super().__init__(colorizer.pack, limits=colorizer.limits)
        self._run = run

    def begin(self, page: Source | Picture, references: Any, options: ColorizeOptions = DEFAULT_OPTIONS) -> PageRun:
        return self._run(self.pack, self._tiles, self.limits, page, self.references(references), options)


class Painters:
    """The colouring methods of one pack; their engines and tiles are shared by all chapters."""

    def __init__(self, colorizer: Colorizer, options: ColorizeOptions) -> None:
        self.colorizer, self.options = colorizer, options
        self.variants: dict[str, Colorizer] = {
            "ours": colorizer,
            "random_references": colorizer,
            "no_retrieval": _Variant(colorizer, _FirstReferences),
            "no_gsrp": _Variant(colorizer, _WithoutGsrp),
            "no_palette": _Variant(colorizer, _WithoutPalette),
        }


class ChapterPainter:
    """The methods with the references of one chapter; `other`: that whose references stand for random ones, or None."""

    def __init__(self, painters: Painters, chapter: Chapter, other: Chapter | None) -> None:
        self.chapter, self._other, self._painters = chapter, other, painters

    def fingerprint(self) -> list[list[str]]:
        """What results depend on in the references: names and SHA-256 of files."""
        own = self.chapter.references
        regions = [path for reference in own if (path := self.chapter.reference_regions(reference))]
        other = self._other.references if self._other else []
        return [[path.name, sha256_or_nothing(path)] for path in (*own, *regions, *other)]

    def forget(self) -> None:
        """Drop what was read; it is read again when it is needed."""
        for name in ("pool", "other_pool", "colours", "region_colours"):
            self.__dict__.pop(name, None)

    @cached_property
    def pool(self) -> Pool:
        return self._painters.colorizer.references(self.chapter.references)

    @cached_property
    def other_pool(self) -> Pool | None:
        return self._painters.colorizer.references(self._other.references) if self._other else None

    @cached_property
    def colours(self) -> ReferenceColours:
        return ReferenceColours([self.pool.picture(reference).rgb for reference in self.pool.list()])

    @cached_property
    def region_colours(self) -> RegionColours:
        return region_colours(self.chapter)

    def paint(self, method: str, page: BenchPage, rgb: U8, drawn: U8 | None = None) -> Painted | None:
        """A page u8[H,W,3] by a method; None where it cannot be had (no other chapter, no regions).

        drawn: its `upscale.drawn_page`, where it is known.
        """
        options = replace(self._painters.options, style=page.style)
        if method in OURS:
            return self._ours(method, rgb, options)
        model = self._oracle(page, rgb) if method == ORACLE else BASELINES[method](rgb, page.style, self.colours)
        if model is None:
            return None
        refine = refiner(self._painters.colorizer.pack.config.pages, page.style)  # the same last step for all
        image = merge(rgb, model, options.luminance, options.saturation, page.style, drawn=drawn, refine=refine)
        return Painted(image, model)

    def _ours(self, method: str, rgb: U8, options: ColorizeOptions) -> Painted | None:
        pool = self.other_pool if method == "random_references" else self.pool
        if pool is None:
            return None
        result = self._painters.variants[method].colorize(rgb, pool, options)
        return Painted(result.image, result.model_image, result.matches)

    def _oracle(self, page: BenchPage, rgb: U8) -> U8 | None:
        """Each region in its colour in the references; paper is white, what they do not show is as in the table."""
        if page.regions is None or not self.region_colours.rgb:
            return None
        ids = read_ids(page.regions, rgb.shape[:2])
        rest = np.where((ids == 0)[..., None], np.uint8(255), BASELINES["table"](rgb, page.style, self.colours))
        return by_region(ids, self.region_colours.rgb, rest)


def chapter_painters(painters: Painters, chapters: Sequence[Chapter]) -> list[ChapterPainter]:
    """Of each chapter, the next one (of the last, the first) being the other."""
    others = [*chapters[1:], chapters[0]] if len(chapters) > 1 else [None]
    return [ChapterPainter(painters, chapter, other) for chapter, other in zip(chapters, others, strict=True)]
