"""The manifest of built engines: which plan was made from what, where, and whether it may be loaded here.

Loading a plan runs native code from it, so nothing is handed to TensorRT before its SHA-256, its ONNX file, its GPU and
its TensorRT version were compared with the manifest. A plan that differs in anything is named, and built again.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from colorflow_rt.engine.trt import Here
from colorflow_rt.errors import EngineError
from colorflow_rt.files import atomic_write
from colorflow_rt.records import write_toml
from colorflow_rt.verified import read_manifest

MANIFEST = "tensorrt.toml"
AGAIN = "build it again with: colorflow-export build-engines --target tensorrt"
SCHEMA = 1
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Origin:
    """All that a plan is made from; plans of equal origins are interchangeable.

    onnx, weights: SHA-256 of the graph and of its external data files by name. profile: (min, opt, max) shape of every
    input. flags: the builder's settings, in words.
    """

    onnx: str
    weights: dict[str, str]
    tensorrt: str
    compute_capability: str
    profile: dict[str, tuple[Shape, Shape, Shape]]
    flags: tuple[str, ...]

    @property
    def key(self) -> str:
        """SHA-256 of it all, hexadecimal."""
        parts = (self.onnx, self.weights, self.tensorrt, self.compute_capability, self.profile, self.flags)
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def differs(self, other: "Origin") -> str | None:
        """What differs first, in words; None where nothing does."""
        if self.onnx != other.onnx or self.weights != other.weights:
            return "its graph or weights have changed since"
        if self.tensorrt != other.tensorrt:
            return f"it was built by TensorRT {self.tensorrt}, here is {other.tensorrt}"
        if self.compute_capability != other.compute_capability:
            mine, theirs = self.compute_capability, other.compute_capability
            return f"it was built for a GPU of compute capability {mine}, here is {theirs}"
        return "it was built with other settings" if self != other else None


@dataclass(frozen=True)
class Plan:
    """One built engine. sha256: of the plan's file. scratch: bytes of device memory that it works in."""

    file: str
    sha256: str
    key: str
    graph: str
    gpu: str
    seconds: float
    scratch: int
    origin: Origin


@dataclass(frozen=True)
class Manifest:
    """tensorrt.toml. plans: by the name of the ONNX file that each was built from."""

    schema: int
    plans: dict[str, Plan]

    @classmethod
    def read(cls, folder: Path) -> "Manifest":
        """Of a folder of engines, empty where there is none yet. EngineError where it cannot be read."""
        path = folder / MANIFEST
        return read_manifest(cls, path, SCHEMA, f"delete it and {AGAIN}") if path.exists() else cls(SCHEMA, {})

    def write(self, folder: Path) -> None:
        atomic_write(folder / MANIFEST, write_toml(self).encode())

    def with_plan(self, name: str, plan: Plan) -> "Manifest":
        return Manifest(self.schema, self.plans | {name: plan})


def fault(folder: Path, plan: Plan | None, origin: Origin) -> str | None:
    """Why the plan cannot stand for `origin`, in words; None where it can. Reads and hashes the plan's file."""
    if plan is None:
        return "it was not built yet"
    why = plan.origin.differs(origin)
    if why is None and plan.key != origin.key:
        why = "its entry in the manifest was changed by hand"
    return why or _damage(folder / plan.file, plan)[1]


def admit(folder: Path, onnx: str, sha256: str, here: Here) -> tuple[Plan, bytes]:
    """The plan built from the ONNX file `onnx` of SHA-256 `sha256`, and its bytes, compared with the manifest.

    The bytes that were hashed are the bytes that are returned. EngineError names the plan and what is wrong with it:
    not built, stale, damaged, from another GPU or version.
    """
    plan = Manifest.read(folder).plans.get(onnx)
    if plan is None:
        raise EngineError(f"{folder / onnx} has no TensorRT engine in {folder / MANIFEST}: {AGAIN}")
    now = Origin(
        sha256, plan.origin.weights, here.tensorrt, here.compute_capability, plan.origin.profile, plan.origin.flags
    )
    why = plan.origin.differs(now)
    data, damage = (b"", None) if why else _damage(folder / plan.file, plan)
    if why or damage:
        raise EngineError(f"{folder / plan.file} cannot be used: {why or damage}; {AGAIN}")
    return plan, data


def _damage(path: Path, plan: Plan) -> tuple[bytes, str | None]:
    """The bytes of the plan's file, and what is wrong with them."""
    if Path(plan.file).name != plan.file:
        return b"", f"the manifest names the file {plan.file!r}, expected one of the same folder"
    try:
        data = path.read_bytes()
    except OSError as error:
        return b"", f"its file cannot be read ({error.strerror})"
    found = hashlib.sha256(data).hexdigest()
    if found != plan.sha256:
        return b"", f"it is damaged: SHA-256 {found[:12]}…, the manifest has {plan.sha256[:12]}…"
    return data, None
