"""From the rows of pages to the record: means by style and method, and what must be known to read them."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from colorflow_rt.bench import hardware
from colorflow_rt.evaluate import identity
from colorflow_rt.evaluate.chapters import Part
from colorflow_rt.evaluate.methods import METHODS, ORACLE
from colorflow_rt.evaluate.networks import frechet_distance
from colorflow_rt.evaluate.rows import Row
from colorflow_rt.evaluate.scores import unpacked

if TYPE_CHECKING:
    from colorflow_rt.evaluate.run import Evaluation

Parts = Mapping[str, Mapping[int, Part]]
FIGURES = (
    "psnr", "psnr_model", "ssim", "clip_is", "fid", "aesthetic", "ciede2000_identity", "ciede2000_references",
    "palette", "line_ssim",
)  # fmt: skip
MEANS = ("psnr", "psnr_model", "ssim", "clip_is", "aesthetic", "palette", "line_ssim")  # over pages
HOW_FID = "fid is not measured: give an Inception network as ONNX by --fid-network FILE"
HOW_AESTHETIC = "aesthetic is not measured: give an aesthetic predictor as ONNX by --aesthetic-network FILE"


def summarize(evaluation: "Evaluation", rows: Sequence[Row], parts: Parts) -> dict[str, Any]:
    """The record of the rows. `styles` holds FIGURES, null where there is none; `details` what stands behind them."""
    config, options = evaluation.colorizer.pack.config, evaluation.options
    styles = {style: [row for row in rows if row["style"] == style] for style in options.styles}
    return {
        "benchmark": str(evaluation.folder),
        "chapters": len({row["chapter"] for row in rows}),
        "pages": {style: len(of_style) for style, of_style in styles.items()},
        "pack": {"name": config.name, "version": config.version},
        "steps": options.colorize.steps or config.defaults.steps,
        "clip_is_tower": f"{config.encoder.id} of pack {config.name}",
        "notes": _notes(evaluation, rows),
        "styles": {style: _by_method(of_style, parts, METHODS) for style, of_style in styles.items()},
        "ceiling": {style: _by_method(of_style, parts, (ORACLE,)).get(ORACLE) for style, of_style in styles.items()},
        "details": {style: _details(of_style, parts) for style, of_style in styles.items()},
        "rows": [_page(row) for row in rows],
        "hardware": hardware(),
    }


def _notes(evaluation: "Evaluation", rows: Sequence[Row]) -> list[str]:
    options, tower = evaluation.options, evaluation.colorizer.pack.config.encoder.id
    notes = [f"clip_is is by the pack's own tower, {tower}: it does not compare with figures by other towers"]
    notes += [HOW_FID] if options.fid_network is None else []
    notes += [HOW_AESTHETIC] if options.aesthetic_network is None else []
    if not any("regions" in scores for row in rows for scores in row["methods"].values()):
        notes.append("there are no regions: ciede2000_identity and ciede2000_references are not measured")
    if len(evaluation.chapters) == 1:
        notes.append("there is one chapter: no other one's references for random_references")
    return notes


def _by_method(rows: Sequence[Row], parts: Parts, methods: Sequence[str]) -> dict[str, dict[str, float | None]]:
    measured = [method for method in methods if any(method in row["methods"] for row in rows)]
    return {method: _figures(rows, parts, method) for method in measured}


def _figures(rows: Sequence[Row], parts: Parts, method: str) -> dict[str, float | None]:
    found = {name: _mean(rows, method, name) for name in MEANS}
    people = _people(rows, parts, method)
    found["ciede2000_identity"], found["ciede2000_references"] = people["to_truth"], people["to_references"]
    found["fid"] = _fid(rows, method)
    return {name: found[name] for name in FIGURES}


def _details(rows: Sequence[Row], parts: Parts) -> dict[str, dict[str, Any]]:
    """By method, and for the truth itself: how far its own regions are apart, the floor of any method."""
    return {
        method: {
            "pages": sum(method in row["methods"] for row in rows),
            "line_recall": _mean(rows, method, "line_recall"),
            "characters": people["characters"],
            "ciede2000_between_pages": people["between_pages"],
            "ciede2000_references": people["to_references"],
            "characters_within_12": people["within"],
        }
        for method in (*METHODS, ORACLE, "truth")
        if any(method in row["methods"] for row in rows)
        for people in [_people(rows, parts, method)]
    }


def _people(rows: Sequence[Row], parts: Parts, method: str) -> dict[str, Any]:
    chapters: dict[str, list[dict[str, list[Any]]]] = {}
    for row in rows:
        if "regions" in (scores := row["methods"].get(method, {})):
            chapters.setdefault(row["chapter"], []).append(scores["regions"])
    return identity.summarize(chapters, parts)


def _mean(rows: Sequence[Row], method: str, figure: str) -> float | None:
    values = [value for row in rows if (value := row["methods"].get(method, {}).get(figure)) is not None]
    return float(np.mean(values)) if values else None


def _fid(rows: Sequence[Row], method: str) -> float | None:
    pairs = [
        (row["methods"]["truth"]["features"], row["methods"][method]["features"])
        for row in rows
        if "features" in row["methods"].get(method, {})
    ]
    if len(pairs) < 2:
        return None
    truth, ours = (np.stack([unpacked(text) for text in texts]) for texts in zip(*pairs, strict=True))
    return frechet_distance(truth, ours)


def _page(row: Row) -> dict[str, Any]:
    """A page for the record: its figures alone."""
    methods = {
        method: {name: value for name, value in scores.items() if name not in ("regions", "features")}
        for method, scores in row["methods"].items()
        if method != "truth"
    }
    return {"chapter": row["chapter"], "style": row["style"], "page": row["page"], "methods": methods}
