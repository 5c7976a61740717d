"""Generated comics with known colours: test data, training data, demo and benchmark at once.

    chapter = make_chapter(chapter_seed(DEMO_SEED, 0))
    page, reference = chapter.page(0), chapter.reference(0)

Colours cannot be guessed from gray: parts share a few gray levels, each with a hue of its own (see colours).
Seeds are namespaces: chapters of BENCHMARK_SEED, TRAINING_SEED and DEMO_SEED never coincide.
"""

from colorflow_rt.comics.chapter import (
    BENCHMARK_SEED,
    DEMO_SEED,
    TRAINING_SEED,
    Chapter,
    chapter_seed,
    make_chapter,
    region_names,
)
from colorflow_rt.comics.page import Page
from colorflow_rt.comics.store import write_chapters

__all__ = [
    "BENCHMARK_SEED",
    "DEMO_SEED",
    "TRAINING_SEED",
    "Chapter",
    "Page",
    "chapter_seed",
    "make_chapter",
    "region_names",
    "write_chapters",
]
