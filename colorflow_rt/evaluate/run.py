"""The evaluation: which pages, each measured once, and the record of them all."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from colorflow_rt.context import STYLES
from colorflow_rt.descreen import FILE as DESCREEN
from colorflow_rt.errors import EngineError, OptionError, check_choice
from colorflow_rt.evaluate.chapters import BenchPage, chosen_pages, read_benchmark, read_ids, read_rgb
from colorflow_rt.evaluate.identity import character_regions, measure
from colorflow_rt.evaluate.methods import METHODS, ORACLE, OURS, ChapterPainter, Painted, Painters, chapter_painters
from colorflow_rt.evaluate.networks import Network
from colorflow_rt.evaluate.rows import Row, Rows
from colorflow_rt.evaluate.scores import packed, page_scores
from colorflow_rt.evaluate.summary import summarize
from colorflow_rt.jobs import fingerprint, sha256_or_nothing
from colorflow_rt.options import ColorizeOptions
from colorflow_rt.parts import FILE as PARTS
from colorflow_rt.pipeline import DEFAULT_OPTIONS, Colorizer
from colorflow_rt.pixels import U8
from colorflow_rt.pool import PatchEncoder
from colorflow_rt.upscale import drawn_page

# What makes a page's picture or its figures, beside the pack: where it changes, rows of before are measured again.
CODE = (
    *("canvas", "context", "denoise", "descreen", "evened", "guided", "latents", "linework", "metrics", "options"),
    *("page", "palette", "parts", "pixels", "pool", "refine", "retrieval", "schedule", "screentone", "upscale"),
)
FID_SIDE, AESTHETIC_SIDE = 299, 224  # pixels, where a network leaves its size open
OnPage = Callable[[str], None]


@dataclass(frozen=True)
class EvaluateOptions:
    """What to measure. OptionError names the valid choices.

    styles: page styles. limit: pages of each style, an even share of every chapter; None for all. methods: of METHODS.
    colorize: how ours colours (its style is set by the page). ceiling: also measure what true regions allow.
    fid_network, aesthetic_network: ONNX files (`networks.Network`), or None for no such figures.
    """

    pack: str = "mini"
    styles: tuple[str, ...] = STYLES
    limit: int | None = None
    methods: tuple[str, ...] = METHODS
    colorize: ColorizeOptions = DEFAULT_OPTIONS
    ceiling: bool = True
    fid_network: Path | None = None
    aesthetic_network: Path | None = None

    def __post_init__(self) -> None:
        for kind, chosen, known in (("style", self.styles, STYLES), ("method", self.methods, METHODS)):
            if not chosen:
                raise OptionError(f"no {kind} given: choose of {', '.join(known)}")
            for value in chosen:
                check_choice(kind, value, known)
        if self.limit is not None and self.limit < 1:
            raise OptionError(f"limit is {self.limit}, expected 1 or more")


class Evaluation:
    """An evaluation that is planned: `run` measures, `record` sums up; run again, it measures what is missing."""

    def __init__(self, folder: Path, options: EvaluateOptions, rows: Path) -> None:
        self.options, self.folder = options, folder
        self.methods = (*options.methods, ORACLE) if options.ceiling else options.methods
        self.colorizer = Colorizer(options.pack)
        self.chapters = read_benchmark(folder)
        self._networks = {
            name: Network(path, side)
            for name, path, side in (
                ("fid", options.fid_network, FID_SIDE),
                ("aesthetic", options.aesthetic_network, AESTHETIC_SIDE),
            )
            if path is not None
        }
        painters = chapter_painters(Painters(self.colorizer, options.colorize), self.chapters)
        self.painters = {painter.chapter.name: painter for painter in painters}
        self.pages = self._plan()
        self._rows = Rows(rows)
        self._common = {
            "code": _code(),
            "pack": self.colorizer.pack.config.to_toml(),
            "methods": self.methods,
            "options": asdict(options.colorize),
            "networks": {name: network.sha256 for name, network in self._networks.items()},
        }
        self._references = {painter.chapter.name: painter.fingerprint() for painter in painters}

    def _plan(self) -> list[BenchPage]:
        """The pages, those of a chapter together."""
        chosen = [
            page for style in self.options.styles for page in chosen_pages(self.chapters, style, self.options.limit)
        ]
        if not chosen:
            raise OptionError(f"no pages of style {', '.join(self.options.styles)} in {self.folder}")
        order = {chapter.name: number for number, chapter in enumerate(self.chapters)}
        return sorted(chosen, key=lambda page: order[page.chapter])

    def run(self, on_page: OnPage = lambda line: None) -> None:
        """Measure every page that has no row yet. on_page hears a line for each page, "" where there was a row."""
        for page in self.pages:
            print_now = self._fingerprint(page)
            row = self._rows.get(print_now)
            line = ""
            if row is None:
                started = perf_counter()
                row = self._measure(page) | {"fingerprint": print_now}
                row["seconds"] = round(perf_counter() - started, 3)
                self._rows.add(row)
                line = _line(row)
            on_page(line)
            self._forget(page.chapter)

    def rows(self) -> list[Row]:
        """Of the pages that are measured, in their order."""
        found = (self._rows.get(self._fingerprint(page)) for page in self.pages)
        return [row for row in found if row is not None]

    def record(self) -> dict[str, Any]:
        """What `colorflow evaluate --json` writes."""
        parts = {chapter.name: chapter.parts for chapter in self.chapters}
        return summarize(self, self.rows(), parts)

    def _fingerprint(self, page: BenchPage) -> str:
        files = [sha256_or_nothing(path) if path else "" for path in (page.page, page.truth, page.regions, page.lines)]
        return fingerprint(page=page.name, files=files, references=self._references[page.chapter], **self._common)

    def _forget(self, chapter: str) -> None:
        """Drop the pictures of the chapters before: pages come chapter by chapter."""
        for name, painter in self.painters.items():
            if name == chapter:
                return
            painter.forget()

    def _measure(self, page: BenchPage) -> Row:
        painter = self.painters[page.chapter]
        rgb, truth = read_rgb(page.page), read_rgb(page.truth)
        if rgb.shape != truth.shape:
            raise OptionError(f"{page.page} is {rgb.shape[:2]}, its truth {truth.shape[:2]}: they must be of one size")
        lines = read_rgb(page.lines)[..., 0] if page.lines else None
        painted = dict(self._painted(painter, page, rgb))
        scores: dict[str, dict[str, Any]] = {name: page_scores(truth, one, lines) for name, one in painted.items()}
        pictures = {"truth": truth} | {name: one.image for name, one in painted.items()}
        scores["truth"] = {}
        for name, value in self._clip_is(pictures).items():
            scores[name]["clip_is"] = value
        for name, picture in pictures.items():
            scores[name] |= self._by_networks(picture) | self._by_region(painter, page, truth, picture)
        return {"chapter": page.chapter, "style": page.style, "page": page.page.stem, "methods": scores}

    def _painted(self, painter: ChapterPainter, page: BenchPage, rgb: U8) -> Iterator[tuple[str, Painted]]:
        drawn = drawn_page(rgb, page.style) if set(self.methods) - {*OURS} else None  # ours find it themselves
        for method in self.methods:
            try:
                painted = painter.paint(method, page, rgb, drawn)
            except EngineError as error:
                raise EngineError(f"{page.name} by {method}: {error}") from error
            if painted is not None:
                yield method, painted

    def _clip_is(self, pictures: dict[str, U8]) -> dict[str, float]:
        """Cosine similarity of each picture's embedding by the pack's tower to the truth's, which comes first."""
        encoder = PatchEncoder(self.colorizer.pack, (0, 0), "pad")  # patches are taken as they are: no size matters
        truth, *others = encoder.patches(list(pictures.values())).astype(np.float64)
        return {name: float(truth @ other) for name, other in zip(list(pictures)[1:], others, strict=True)}

    def _by_networks(self, picture: U8) -> dict[str, Any]:
        found: dict[str, Any] = {}
        if fid := self._networks.get("fid"):
            found["features"] = packed(fid(picture))
        if aesthetic := self._networks.get("aesthetic"):
            found["aesthetic"] = float(aesthetic(picture)[0])
        return found

    def _by_region(self, painter: ChapterPainter, page: BenchPage, truth: U8, picture: U8) -> dict[str, Any]:
        if page.regions is None or not painter.chapter.parts:
            return {}
        ids = read_ids(page.regions, truth.shape[:2])
        regions = character_regions(painter.chapter.parts)
        return {"regions": measure(truth, picture, ids, regions, painter.region_colours.lab)}


def _code() -> list[str]:
    """SHA-256 of the source of CODE, of the network that takes dots away, and of this package."""
    here = Path(__file__).parent
    files = [*(here.parent / f"{name}.py" for name in CODE), DESCREEN, PARTS, *sorted(here.glob("*.py"))]
    return [sha256_or_nothing(path) for path in files]


def evaluate(folder: Path, options: EvaluateOptions, rows: Path, on_page: OnPage = lambda line: None) -> dict[str, Any]:
    """Measure the benchmark in `folder`; `rows` is the file of what is measured so far, where a later call goes on.

    Returns the record that `colorflow evaluate --json` writes. Raises OptionError, ImageError, PackError, EngineError,
    ReferencesError or OutputError.
    """
    evaluation = Evaluation(folder, options, rows)
    evaluation.run(on_page)
    return evaluation.record()


def _line(row: Row) -> str:
    scores = ", ".join(f"{name} {each['psnr']:.2f}" for name, each in row["methods"].items() if "psnr" in each)
    return f"{row['chapter']}/{row['style']}/{row['page']}  PSNR {scores} dB  {row['seconds']:.1f} s"
