"""`colorflow-export build-engines`: the graphs of a pack for one target, checked, with a manifest.

Files are made under other names in the same folder and renamed; the manifest is written after each, so what a killed
build has finished is kept. One build at a time holds the folder's lock.
"""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path

from colorflow_export.checked import CheckedGraph, check, check_text_folded
from colorflow_export.engine_graphs import (
    TEXT,
    Wanted,
    engine_file,
    engine_graph,
    engine_modules,
    engine_places,
    weight_files,
    write_engine_weights,
)
from colorflow_export.packs import pack_folder
from colorflow_export.recipe import Recipe
from colorflow_export.to_onnx import export_graph, write_graph
from colorflow_export.weights import Place, read_places
from colorflow_rt.engine_set import (
    MANIFEST,
    PRECISIONS,
    SCHEMA,
    EngineManifest,
    EngineRecord,
    merge_records,
    weights_hash,
)
from colorflow_rt.errors import EngineError, OutputError
from colorflow_rt.files import atomic_write, file_sha256, temporary_in
from colorflow_rt.lock import WriterLock
from colorflow_rt.pack import Pack, engines_folder, open_pack

LOCK = "build.lock"
_PARTS = {"clip_encoder": ("clip",), "vae_encoder": ("vae",), "vae_decoder": ("vae",), "gsrp": ("vae", "fusion")}
_PARTS |= {"denoise_step": ("unet", "guider")}
_GRAPH_BYTES = 2_000_000  # of an ONNX file without its weights
Say = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """What a build would do. needed: bytes of disk that it takes at most; free: that the disk has."""

    pack: Pack
    folder: Path
    recipe: Recipe
    out: Path
    wanted: tuple[Wanted, ...]
    needed: int
    free: int

    @property
    def config_hash(self) -> str:
        return weights_hash(self.pack.config)

    @property
    def precision(self) -> str:
        """As in the manifest: "float16" or "float32"."""
        return PRECISIONS[self.recipe.precision]


def plan(recipe: Recipe, out: Path | None = None) -> Plan:
    """Settle a recipe. OptionError, PackError or UnknownPackError; nothing is written."""
    pack = open_pack(recipe.pack)
    recipe = recipe.settled(pack.config)
    out = out or engines_folder(pack.config.name, recipe.target, PRECISIONS[recipe.precision])
    folder, wanted = pack_folder(recipe.pack), tuple(recipe.wanted())
    missing = [part for part in ("unet", "guider", "vae", "clip") if part not in pack.config.modules]
    if missing:
        raise EngineError(
            f"pack {pack.config.name} does not describe its modules ({', '.join(missing)}): export it again"
        )
    needed = _needed(folder, pack, recipe, wanted)
    return Plan(pack, folder, recipe, out, wanted, needed, shutil.disk_usage(_existing(out)).free)


def _existing(path: Path) -> Path:
    return path if path.exists() else _existing(path.parent)


def _needed(folder: Path, pack: Pack, recipe: Recipe, wanted: tuple[Wanted, ...]) -> int:
    """Weights, graphs and, for TensorRT, a plan of each, which holds the weights of its graph."""
    size = 2 if recipe.precision == "fp16" else 4
    places: dict[str, Place] = {}
    for name in weight_files(pack.config):
        places |= read_places(folder / name)
    parts: dict[str, int] = {}
    for name, place in places.items():
        part = name.partition(".")[0]
        parts[part] = parts.get(part, 0) + prod(place.shape) * size
    plans = sum(parts.get(part, 0) for one in wanted for part in _PARTS[one.graph])
    return sum(parts.values()) + _GRAPH_BYTES * len(wanted) + (plans if recipe.target == "tensorrt" else 0)


def build(plan: Plan, say: Say = lambda line: None) -> list[CheckedGraph]:
    """Make every ONNX file of the plan and check it; `say` hears a line of each.

    What is there already and fits is kept. OutputError: another build is at work, the disk is too small, or the folder
    holds something else. PackError: a graph does not pass a check, or a file of the pack is damaged.
    """
    if plan.needed > plan.free:
        raise OutputError(
            f"{plan.out} needs up to {plan.needed / 1e9:.1f} GB and the disk has {plan.free / 1e9:.1f} GB free: "
            "choose another --out, or build fewer shapes at once"
        )
    plan.pack.verify()
    try:
        plan.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write {plan.out}: {error.strerror}; choose another --out") from error
    with WriterLock(plan.out / LOCK, str(plan.out), wait_s=1, error=OutputError):
        return list(_Build(plan, say).run())


class _Build:
    """One build, with the folder's lock held."""

    def __init__(self, plan: Plan, say: Say) -> None:
        self.plan, self.say, self.out = plan, say, plan.out
        self.manifest = self._manifest()
        for left in self.out.glob(".colorflow-*.tmp*"):
            left.unlink()  # of a killed build: the lock is ours

    def _manifest(self) -> EngineManifest:
        """What is there already, as far as it is of the same weights and form."""
        recipe, config = self.plan.recipe, self.plan.pack.config
        form = (recipe.target, self.plan.precision, recipe.opset)
        new = EngineManifest(SCHEMA, config.name, self.plan.config_hash, *form, {}, ())
        if not (self.out / MANIFEST).exists():
            others = [path.name for path in self.out.iterdir() if path.name != LOCK and not path.name.startswith(".")]
            if others:
                raise OutputError(f"{self.out} holds {others[0]} and no engines: choose another --out")
            return new
        try:
            found = EngineManifest.read(self.out)
        except EngineError as error:
            self.say(f"{error}: all of it is made again")
            return new
        if (found.target, found.precision, found.opset) != form:
            there = f"{found.target} {found.precision} at opset {found.opset}"
            raise OutputError(f"{self.out} holds engines for {there}: choose another --out")
        if found.pack_weights != self.plan.config_hash:
            self.say(f"the engines in {self.out} are of other weights: all of them are made again")
            return new
        return found

    def run(self) -> Iterator[CheckedGraph]:
        self._weights()
        for wanted in self.plan.wanted:
            record = next((r for r in self.manifest.engines if r.file == f"{wanted.stem}.onnx"), None)
            if record is None or not self._fits(record):
                record = self._graph(wanted)
            yield self._checked(record)

    def _weights(self) -> None:
        """Put the weights there, unless they are."""
        known = self.manifest.weights
        if known and all(_has(self.out / name, digest) for name, digest in known.items()):
            return
        if known:
            self.say(f"weights in {self.out} are damaged or missing: they are made again")
        self.manifest = replace(self.manifest, weights={}, engines=())
        self._store()
        with _disk(self.out):
            paths = list(write_engine_weights(self.plan.folder, self.plan.pack.config, self.out, self.plan.precision))
            weights = {path.name: file_sha256(path) for path in paths}
        self.manifest = replace(self.manifest, weights=weights)
        self._store()
        self.say(f"weights: {len(paths)} files, {sum(path.stat().st_size for path in paths) / 1e9:.2f} GB")

    def _store(self) -> None:
        atomic_write(self.out / MANIFEST, self.manifest.to_toml().encode())

    def _fits(self, record: EngineRecord) -> bool:
        if _has(self.out / record.file, record.sha256):
            self.say(f"{record.file}: kept, it fits")
            return True
        self.say(f"{record.file}: damaged or missing, made again")
        return False

    def _graph(self, wanted: Wanted) -> EngineRecord:
        """Export, check and install one graph."""
        config, recipe = self.plan.pack.config, self.plan.recipe
        form = "explicit" if recipe.target == "tensorrt" else "fused"
        modules = engine_modules(config, self.plan.precision, wanted.variant, form)
        graph = engine_graph(modules, config, wanted)
        places = engine_places(self._files(), wanted.variant)
        path = temporary_in(self.out).with_suffix(".tmp.onnx")
        try:
            with _disk(self.out):
                write_graph(export_graph(graph, modules, places, recipe.opset), path)
            fixed = wanted.page is not None
            counts = check(path, self.plan.precision, tensorrt=recipe.target == "tensorrt", fixed=fixed)
            check_text_folded(path)
            path.rename(self.out / f"{wanted.stem}.onnx")
        finally:
            path.unlink(missing_ok=True)
        file = self.out / f"{wanted.stem}.onnx"
        tensors = (graph.inputs, graph.outputs, counts.nodes, counts.flops)
        name = (wanted.graph, wanted.variant, wanted.page or (), wanted.batch)
        record = EngineRecord(*name, file.name, file_sha256(file), *tensors)
        there = {each.file: each for each in self.manifest.engines}
        self.manifest = replace(self.manifest, engines=merge_records(there, [record]))
        self._store()
        self.say(f"{file.name}: {counts.nodes} nodes, {counts.flops / 1e12:.3f} TFLOP a call, checked")
        return record

    def _files(self) -> dict[str, Path]:
        """The files of weights beside the engines; the prompt's keys and values as TEXT."""
        config, precision = self.plan.pack.config, self.plan.precision
        files = {name: self.out / engine_file(name, precision) for name in weight_files(config)}
        text = self.out / f"{TEXT}.{precision}.safetensors"
        return files | ({TEXT: text} if config.model.text_tokens else {})

    def _checked(self, record: EngineRecord) -> CheckedGraph:
        return CheckedGraph(
            path=self.out / record.file,
            graph=record.graph,
            variant=record.variant,
            page=(record.page[0], record.page[1]) if record.page else None,
            batch=record.batch,
            precision=self.plan.precision,
            opset=self.plan.recipe.opset,
            inputs=record.inputs,
            outputs=record.outputs,
            sha256=record.sha256,
            weights=self.manifest.weights,
            nodes=record.nodes,
            flops=record.flops,
        )


def _has(path: Path, digest: str) -> bool:
    return path.is_file() and file_sha256(path) == digest


@contextmanager
def _disk(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(f"cannot write {out}: {error.strerror or error}; choose another --out") from error
