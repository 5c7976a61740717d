"""Retrieval: patches to unit vectors, and the reference patches nearest to each (ColorFlow, section RAP).

Facts: ../shared/facts/colorflow.md section 1; hnswlib's traps: ../shared/facts/performance.md.
"""

import hashlib
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

import hnswlib
import numpy as np
from numpy.typing import NDArray

from colorflow_rt.engine import Engine
from colorflow_rt.errors import EngineError, OptionError, OutputError, ReferencesError
from colorflow_rt.files import atomic_path
from colorflow_rt.pixels import F32, U8, resize

Crop = Literal["whole", "center"]
CROPS: tuple[Crop, ...] = ("whole", "center")

# Measured (benchmarks/LOG.md, 2026-11-21): at 50,000 patches a page's search takes 0.9 ms exactly and 0.9 ms in the
# graph for dim 64, 18 and 3.4 ms for dim 1024, where the graph costs 44 s to build and 1.1 s to load: it pays after
# 3,000 pages. Exact search is the choice well past any set that one chapter needs.
EXACT_LIMIT = 100_000
# The graph: recall@3 against exact search >= 0.99 on 50,000 clustered patches (tests/test_retrieval.py).
_M, _EF_CONSTRUCTION, _EF, _SEED = 16, 200, 256, 1
_HEADER = struct.Struct("<6Q")  # level-0 offset, capacity, count, bytes an element, offset of label, of vector
_SCORE_NOISE = 1e-5  # float32 sums of one row differ by less than this, whatever their order


def encoder_input(patch: U8, image_size: int, crop: Crop, mean: Sequence[float], std: Sequence[float]) -> F32:
    """A patch u8[h,w,3] as the encoder sees it, f32[3,S,S], S = `image_size`.

    whole: squeezed to S x S. center: shortest edge to S (bicubic), then the middle S x S, as CLIPImageProcessor does.
    """
    if crop not in CROPS:
        raise OptionError(f"encoder crop is {crop!r}, expected one of {', '.join(CROPS)}; mend pack.toml")
    square = resize(patch, (image_size, image_size)) if crop == "whole" else _middle(patch, image_size)
    scaled = square.astype(np.float32) / np.float32(255)
    normalised = (scaled - np.asarray(mean, np.float32)) / np.asarray(std, np.float32)
    return np.ascontiguousarray(normalised.transpose(2, 0, 1))


def _middle(patch: U8, side: int) -> U8:
    height, width = patch.shape[:2]
    short = min(width, height)
    resized = resize(patch, (side * width // short, side * height // short))
    top, left = (resized.shape[0] - side) // 2, (resized.shape[1] - side) // 2
    return resized[top : top + side, left : left + side]


def embed(
    engine: Engine,
    patches: Sequence[U8],
    image_size: int,
    crop: Crop,
    mean: Sequence[float],
    std: Sequence[float],
    batch_size: int = 32,
) -> F32:
    """Embeddings f32[N,D] of unit length of N >= 1 patches u8[h,w,3], `batch_size` a call of the engine."""
    rows = []
    for start in range(0, len(patches), batch_size):
        batch = patches[start : start + batch_size]
        pixels = np.stack([encoder_input(patch, image_size, crop, mean, std) for patch in batch])
        rows.append(engine({"pixel_values": pixels})["image_embeds"])
    return _unit(np.concatenate(rows))


def _unit(rows: NDArray[Any]) -> F32:
    lengths = np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    if not np.isfinite(lengths).all():
        raise EngineError("clip_encoder gave numbers that are not finite; check the pack by `colorflow doctor`")
    unit: F32 = (rows / np.maximum(lengths, 1e-12)).astype(np.float32)
    return unit


class PatchIndex:
    """The nearest of N reference patches by cosine similarity: exact up to `exact_limit` of them, else by hnswlib.

    `embeddings` f32[N,D], rows of unit length (or zero). Searching is safe from several threads at once.
    """

    def __init__(self, embeddings: F32, exact_limit: int = EXACT_LIMIT) -> None:
        """Takes seconds to minutes above the limit: builds the graph."""
        self.embeddings = _checked(embeddings)
        self._graph = _Graph.build(self.embeddings) if len(self.embeddings) > exact_limit else None

    @property
    def exact(self) -> bool:
        """Whether searches are exact; if so there is nothing to save."""
        return self._graph is None

    def search(self, queries: F32, k: int, allowed: NDArray[np.bool_] | None = None) -> tuple[NDArray[np.int64], F32]:
        """For each query f32[Q,D] the k patches most similar to it, best first: indices i64[Q,k], scores f32[Q,k].

        `allowed` bool[N]: the patches that may be found. k is cut to their number. Of equal scores the lowest index
        comes first. Raises ReferencesError if nothing is allowed.
        """
        admitted = np.ones(len(self.embeddings), np.bool_) if allowed is None else allowed
        count = int(admitted.sum())
        if not count:
            raise ReferencesError("no reference is left to choose from: lift a ban or add references")
        found = None
        if self._graph and not _few(admitted):
            found = self._graph.candidates(queries, min(k, count), None if count == len(admitted) else admitted)
        candidates = found or _exact(self.embeddings, queries, min(k, count), admitted)
        ranked = [_rank(self.embeddings, query, row, k) for query, row in zip(queries, candidates, strict=True)]
        return np.stack([row for row, _ in ranked]), np.stack([scores for _, scores in ranked])

    def save(self, path: str | Path) -> None:
        """Write the graph to `path`, atomically, and prove that it can be read. Raises OutputError."""
        if self._graph is None:
            raise ReferencesError(f"an index of {len(self.embeddings)} patches is exact and has nothing to save")
        with atomic_path(path) as temporary:
            self._graph.save(temporary, str(path))

    @classmethod
    def load(cls, path: str | Path, embeddings: F32, sha256: str | None = None) -> Self:
        """Read a graph that `save` wrote for these embeddings. Raises ReferencesError if it is not theirs.

        A damaged file can crash the process: give its `sha256` (hex), or None if it has just been checked.
        """
        index = cls.__new__(cls)
        index.embeddings = _checked(embeddings)
        index._graph = _Graph.load(Path(path), index.embeddings, sha256)
        return index


def _checked(embeddings: F32) -> F32:
    if embeddings.ndim != 2 or not embeddings.size:
        shape = list(embeddings.shape)
        raise ReferencesError(f"an index takes embeddings [N,D] of at least one patch, got {shape}; add references")
    if not (np.einsum("nd,nd->n", embeddings, embeddings) < 1.01).all():  # so written, NaN fails too
        raise ReferencesError("an index takes embeddings of unit length, got longer ones or NaN; embed them again")
    return np.ascontiguousarray(embeddings, np.float32)


def _exact(embeddings: F32, queries: F32, k: int, allowed: NDArray[np.bool_]) -> Sequence[NDArray[np.int64]]:
    """For each query every patch whose score may be among the k best ones (more than k where scores are close)."""
    places = np.flatnonzero(allowed) if _few(allowed) else np.arange(len(allowed))
    scores = queries @ (embeddings[places] if _few(allowed) else embeddings).T
    scores[:, ~allowed[places]] = -np.inf
    least = np.partition(scores, -k, axis=1)[:, -k]
    return [places[row >= bound - _SCORE_NOISE] for row, bound in zip(scores, least, strict=True)]


def _few(allowed: NDArray[np.bool_]) -> bool:
    """So few that copying their rows costs nothing, and that a graph would be walked in vain."""
    return bool(10 * allowed.sum() <= len(allowed))


def _rank(embeddings: F32, query: F32, candidates: NDArray[np.int64], k: int) -> tuple[NDArray[np.int64], F32]:
    """The k best candidates, scored again in float64: equal vectors score equal, wherever BLAS had met them."""
    candidates = np.sort(candidates)
    scores = np.einsum("nd,d->n", embeddings[candidates].astype(np.float64), query.astype(np.float64))
    best = np.argsort(-scores, kind="stable")[:k]
    return candidates[best], scores[best].astype(np.float32)


class _Graph:
    """hnswlib over the distinct embeddings. Patches that are alike (blank ones come by the thousand) are one node of
    it, named by the first of them: otherwise they fill each other's links and recall falls to a half and less.
    """

    def __init__(self, embeddings: F32) -> None:
        keys = np.rint(embeddings * 1e4).astype(np.int16)  # equal but for the noise of batching
        rows = keys.view(f"V{2 * keys.shape[1]}").ravel()
        _, first, self._group = np.unique(rows, return_index=True, return_inverse=True)
        self._members = np.argsort(self._group, kind="stable")
        self._bounds = np.searchsorted(self._group[self._members], np.arange(len(first) + 1))
        self.nodes = np.sort(first)
        self._hnsw = hnswlib.Index("ip", embeddings.shape[1])

    @classmethod
    def build(cls, embeddings: F32) -> Self:
        """On one thread, so that it is the same each time."""
        graph = cls(embeddings)
        graph._hnsw.init_index(len(graph.nodes), M=_M, ef_construction=_EF_CONSTRUCTION, random_seed=_SEED)
        graph._hnsw.add_items(embeddings[graph.nodes], graph.nodes, num_threads=1)
        graph._hnsw.set_ef(_EF)
        return graph

    def candidates(self, queries: F32, k: int, allowed: NDArray[np.bool_] | None) -> list[NDArray[np.int64]] | None:
        """For each query the patches of the k nearest nodes; None if fewer than k patches were met."""
        admits, nodes = None, len(self.nodes)
        if allowed is not None:
            by_group = np.bincount(self._group, weights=allowed) > 0
            by_label = by_group[self._group].tobytes()  # bytes: the filter is called for each node met
            admits, nodes = (lambda label: by_label[label] == 1), int(by_group.sum())
        try:
            labels, _ = self._hnsw.knn_query(queries, k=min(k, nodes), num_threads=1, filter=admits)
        except RuntimeError:  # hnswlib met too few
            return None
        found = [np.concatenate([self._alike(label) for label in row]) for row in labels.astype(np.int64)]
        found = found if allowed is None else [row[allowed[row]] for row in found]
        return found if min(map(len, found)) >= k else None

    def _alike(self, label: int) -> NDArray[np.int64]:
        group = self._group[label]
        members: NDArray[np.int64] = self._members[self._bounds[group] : self._bounds[group + 1]]
        return members

    def save(self, path: Path, name: str) -> None:
        """hnswlib reports neither a full disk nor a missing folder: so the file is measured and opened again."""
        self._hnsw.save_index(str(path))
        if path.stat().st_size != self._hnsw.index_file_size():
            raise OutputError(f"{name}: the index was cut short; free some space on the disk")
        hnswlib.Index("ip", self._hnsw.dim).load_index(str(path))

    @classmethod
    def load(cls, path: Path, embeddings: F32, sha256: str | None) -> Self:
        """With every check that hnswlib leaves out."""
        graph = cls(embeddings)
        _check_file(path, (len(graph.nodes), embeddings.shape[1]), sha256)
        some = graph.nodes[np.linspace(0, len(graph.nodes) - 1, min(100, len(graph.nodes))).astype(np.int64)]
        try:
            graph._hnsw.load_index(str(path))
            stored = np.asarray(graph._hnsw.get_items(some))
        except RuntimeError as error:
            raise ReferencesError(f"{path.name}: damaged index ({error}); it must be rebuilt") from None
        if not np.array_equal(stored, embeddings[some]):
            raise ReferencesError(f"{path.name}: index of other embeddings; it must be rebuilt")
        graph._hnsw.set_ef(_EF)  # not part of the file
        return graph


def _check_file(path: Path, shape: tuple[int, int], sha256: str | None) -> None:
    try:
        with path.open("rb") as file:
            head = file.read(_HEADER.size)
            file.seek(0)
            digest = hashlib.file_digest(file, "sha256").hexdigest() if sha256 else None
    except OSError as error:
        raise ReferencesError(f"{path.name}: index cannot be read ({error.strerror}); it must be rebuilt") from None
    if digest != sha256:
        raise ReferencesError(f"{path.name}: damaged index, SHA-256 {digest}, expected {sha256}; it must be rebuilt")
    if len(head) < _HEADER.size:
        raise ReferencesError(f"{path.name}: index cut short; it must be rebuilt")
    _, _, count, _, label, vector = _HEADER.unpack(head)
    if (count, (label - vector) // 4) != shape:
        held = f"{count} x {(label - vector) // 4}"
        raise ReferencesError(f"{path.name}: index of {held}, expected {shape[0]} x {shape[1]}; it must be rebuilt")
