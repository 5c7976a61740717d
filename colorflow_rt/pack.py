"""Model packs: found, checked and opened (docs/pack.md)."""

import hashlib
import os
import threading
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Protocol

import platformdirs

from colorflow_rt.engine.fake import Cost, fake_config, fake_engines
from colorflow_rt.engine.onnx_graph import external_files
from colorflow_rt.engine.protocol import Engine
from colorflow_rt.errors import DamagedPackError, EngineError, PackError, UnknownPackError, check_choice, install_hint
from colorflow_rt.files import file_sha256
from colorflow_rt.pack_config import GRAPHS, REUSE_GRAPHS, GraphConfig, PackConfig, read_pack_toml
from colorflow_rt.verified import Verified

ENGINES = ("auto", "onnx-cpu", "onnx-cuda", "tensorrt")
BUNDLED = Path(__file__).parent / "packs"
FAKE = "fake"


class _Source(Protocol):
    """Where a pack's engines come from."""

    def load(self, graph: str) -> Engine: ...

    def verify(self) -> None: ...

    def encoder_hashes(self) -> list[str]: ...

    @property
    def reuses(self) -> bool: ...


class Pack:
    """An open model pack: its description and, on demand, its engines. Safe to use from several threads.

    config: the whole pack.toml. Files are read when they are first needed and their SHA-256 is checked before:
    DamagedPackError where it differs. Make one by `open_pack` or `fake_pack`.
    """

    def __init__(self, config: PackConfig, source: _Source) -> None:
        self.config = config
        self._source = source
        self._engines: dict[str, Engine] = {}
        self._locks = {graph: threading.Lock() for graph in (*GRAPHS, *REUSE_GRAPHS)}

    @property
    def reuses(self) -> bool:
        """Whether there are engines of the two optional graphs, so that a loop may leave the guider out of steps."""
        return self._source.reuses

    @property
    def graphs(self) -> tuple[str, ...]:
        """The graphs that there are engines of."""
        return (*GRAPHS, *REUSE_GRAPHS) if self.reuses else GRAPHS

    def engine(self, graph: str) -> Engine:
        """The engine of a graph of `graphs`, loaded once; other graphs can be had while it loads."""
        check_choice("graph", graph, self.graphs)
        with self._locks[graph]:
            if graph not in self._engines:
                self._engines[graph] = self._source.load(graph)
            return self._engines[graph]

    def graph_file(self, graph: str) -> Path:
        """The ONNX file of a graph, it and its weights checked. PackError for a pack without files (fake engines)."""
        check_choice("graph", graph, self.graphs)
        if not isinstance(self._source, _Folder):
            raise PackError(f"pack {self.config.name} has no graph files to look into: choose a pack of a folder")
        return self._source.graph_file(graph)

    def prefetch(self) -> None:
        """Check every file and load every engine now."""
        for graph in self.graphs:
            self.engine(graph)

    def verify(self) -> None:
        """Check every file now, also those that no engine needed yet; DamagedPackError names the first."""
        self._source.verify()

    @cached_property
    def encoder_key(self) -> str:
        """SHA-256, in hexadecimal, of all that an embedding depends on: graph, weights and encoder settings.

        Embeddings of one key can be compared; they are stored under it and made again where it changes.
        """
        encoder = self.config.encoder
        settings = (encoder.image_size, encoder.crop, encoder.mean, encoder.std, encoder.dim)
        parts = [*self._source.encoder_hashes(), repr(settings)]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def home() -> Path:
    """COLORFLOW_HOME, or the user's data folder of the platform. It need not exist."""
    chosen = os.environ.get("COLORFLOW_HOME", "")
    return Path(chosen).expanduser() if chosen else platformdirs.user_data_path("colorflow")


def installed_packs() -> dict[str, Path]:
    """Folders of all packs by name: those of the user, which go first where names are equal, and the bundled."""
    found: dict[str, Path] = {}
    for root in (BUNDLED, home() / "packs"):
        found |= {path.parent.name: path.parent for path in sorted(root.glob("*/pack.toml"))}
    return dict(sorted(found.items()))


def engines_folder(pack: str, target: str, precision: str) -> Path:
    """Where engines of a pack are looked for, and built unless another folder is named; it need not exist."""
    return home() / "engines" / f"{pack}-{target}-{precision}"


def open_pack(name_or_dir: str | Path, engine: str = "auto", engines: Path | None = None) -> Pack:
    """The pack of a folder with a pack.toml, of a name in `installed_packs`, or "fake" (`fake_pack`).

    engine: "onnx-cpu" is the pack's own graphs; "onnx-cuda" and "tensorrt" are engines that were built of it, in the
    folder `engines` or where they are built by default; "auto" takes of those what is there and can run here, the
    fastest first, or else the CPU. With `engines`, "onnx-cpu" takes the engines of that folder too.

    UnknownPackError names those there are; PackError says what is wrong with the pack's description or files;
    EngineError what is wrong with its engines (UnavailableError: this machine cannot run them). Weights and graphs
    are not read yet.
    """
    check_choice("engine", engine, ENGINES)
    folder = Path(name_or_dir)
    if not (folder / "pack.toml").is_file():
        packs = installed_packs()
        if str(name_or_dir) == FAKE and FAKE not in packs:
            if engine not in ("auto", "onnx-cpu") or engines is not None:
                raise EngineError("the fake pack has no engines but its own: choose --engine auto")
            return fake_pack()
        if str(name_or_dir) not in packs:
            raise UnknownPackError(
                f"no pack is named {str(name_or_dir)!r} and no folder of that path has a pack.toml; "
                f"packs here: {', '.join(packs) or 'none'} (and fake, for tests)"
            )
        folder = packs[str(name_or_dir)]
    config = read_pack_toml(folder / "pack.toml")
    return Pack(config, _built(config, engine, engines) or _Folder(folder, config))


def _built(config: PackConfig, engine: str, engines: Path | None) -> _Source | None:
    """The built engines to use; None for the pack's own graphs."""
    from colorflow_rt.engine_set import MANIFEST, EngineManifest, open_engines

    targets = ("tensorrt", "onnx-cuda") if engine == "auto" else (engine,)
    if engines is not None:
        return open_engines(engines, config, EngineManifest.read(engines).target if engine == "auto" else engine)
    if engine == "onnx-cpu":
        return None
    places = [(target, engines_folder(config.name, target, p)) for target in targets for p in ("float16", "float32")]
    for target, place in places:
        if (place / MANIFEST).is_file() and (engine != "auto" or cannot_run(target) is None):
            return open_engines(place, config, target)
    if engine == "auto":
        return None
    raise EngineError(
        f"no {engine} engines of pack {config.name} are in {home() / 'engines'}: build them with "
        f"colorflow-export build-engines --pack {config.name} --target {engine}, or give --engines DIR"
    )


def cannot_run(target: str) -> str | None:
    """One sentence that says what an engine target lacks on this machine, or None."""
    if target == "tensorrt":
        from colorflow_rt.engine.tensorrt import missing

        return missing()
    if target == "onnx-cuda":
        import onnxruntime as ort

        if "CUDAExecutionProvider" not in ort.get_available_providers():
            return (
                f"onnxruntime {ort.__version__} here has no CUDAExecutionProvider: on a machine with an NVIDIA GPU "
                f"install it with {install_hint('gpu')}"
            )
    return None


def fake_pack(
    config: PackConfig | None = None,
    *,
    cost: Mapping[str, Cost] | None = None,
    fail_after: Mapping[str, int] | None = None,
) -> Pack:
    """A pack without files, on fake engines (`colorflow_rt.engine.fake`): whole pages in milliseconds, for tests."""
    config = config or fake_config()
    return Pack(config, _Fake(fake_engines(config, cost=cost, fail_after=fail_after)))


def file_hash(path: Path) -> str:
    """What [files] of pack.toml holds of a file: "sha256:" and the SHA-256 of its bytes."""
    return f"sha256:{file_sha256(path)}"


class _Fake:
    def __init__(self, engines: Mapping[str, Engine]) -> None:
        self._engines = engines
        self.reuses = REUSE_GRAPHS[0] in engines

    def load(self, graph: str) -> Engine:
        return self._engines[graph]

    def verify(self) -> None:
        """There are no files."""

    def encoder_hashes(self) -> list[str]:
        return [FAKE]


class _Folder:
    """The files of a pack. That they exist inside the folder is checked at once, their hashes before first use."""

    def __init__(self, folder: Path, config: PackConfig) -> None:
        self._folder, self._config, self.reuses = folder, config, config.reuses
        digests = {name: digest.removeprefix("sha256:") for name, digest in config.files.items()}
        self._files = Verified(folder, digests, self._again(), unreadable=PackError, damaged=DamagedPackError)
        root = folder.resolve()
        for name in config.files:
            path = folder / name
            if not path.resolve().is_relative_to(root):
                raise PackError(f"{path} leads out of the pack's folder, expected a file inside it")
            if not path.is_file():
                raise PackError(f"{path} is missing: {self._again()}")

    def load(self, graph: str) -> Engine:
        from colorflow_rt.engine.onnx import OnnxEngine  # a slow import, needed only here

        config = self._config.graphs[graph]
        return OnnxEngine(self.graph_file(graph), graph, (config.inputs, config.outputs))

    def graph_file(self, graph: str) -> Path:
        config = self._config.graphs[graph]
        self._files.check([config.file])
        self._files.check(self._weights(graph, config))
        return self._folder / config.file

    def verify(self) -> None:
        self._files.check_all()

    def encoder_hashes(self) -> list[str]:
        graph = self._config.graphs["clip_encoder"]
        self._files.check([graph.file])
        return [self._config.files[name] for name in (graph.file, *self._weights("clip_encoder", graph))]

    def _weights(self, graph: str, config: GraphConfig) -> list[str]:
        """Names in [files] of the files that the graph keeps its weights in."""
        beside = PurePosixPath(config.file).parent
        model = (self._folder / config.file).read_bytes()
        names = sorted(str(beside / name) for name in external_files(model))
        if stray := [name for name in names if name not in self._config.files]:
            raise PackError(f"{graph} of {self._folder} needs {stray[0]!r}, which [files] of pack.toml lacks")
        return names

    def _again(self) -> str:
        if self._folder.is_relative_to(BUNDLED):
            return "install colorflow-rt again (pip install --force-reinstall colorflow-rt)"
        return f"copy the pack {self._config.name} into {self._folder} again"
