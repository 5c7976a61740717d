"""The reference sets of a server: `colorflow_rt.references` behind the protocol. All of it blocks: for threads."""

import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from google.rpc import code_pb2 as codes

from colorflow_rt.errors import ReferencesError
from colorflow_rt.lock import is_held
from colorflow_rt.pipeline import Colorizer
from colorflow_rt.pixels import Limits, encode_png, read_picture
from colorflow_rt.pool import nearest
from colorflow_rt.references import AddReport, Hit, Reference, ReferenceSet
from colorflow_rt.references.layout import sets_root
from colorflow_rt.references.records import is_set_name
from colorflow_server.convert import FAST, Source
from colorflow_server.status import exists, invalid, later, not_found

KEPT = 32  # open sets: each keeps its index in memory
RULE = "1 to 64 of A-Z, a-z, 0-9, '.', '_' and '-', not starting with a dot"
BUSY_S = 1.0


class Sets:
    """Sets of one folder. What is not there, or there already, is `Rejected`; what else fails is a ColorflowError."""

    def __init__(self, root: str, limits: Limits) -> None:
        self._root, self._limits = sets_root(Path(root) if root else None), limits
        self._open: OrderedDict[str, ReferenceSet] = OrderedDict()
        self._lock = threading.Lock()

    def names(self) -> list[str]:
        """Of all sets, sorted."""
        return ReferenceSet.names(self._root)

    def open(self, name: str) -> ReferenceSet:
        """A set, kept open."""
        check_name(name)
        with self._lock:
            found = self._open.get(name)
            if found is None or not found.folder.is_dir():
                found = self._open[name] = self._find(name)
            self._open.move_to_end(name)
            while len(self._open) > KEPT:
                self._open.popitem(last=False)
        return found

    def _find(self, name: str) -> ReferenceSet:
        self._open.pop(name, None)
        if name not in self.names():
            raise not_found(
                "reference set", name, f"no reference set is named {name!r}: make it, or list those there are"
            )
        return ReferenceSet.open(name, self._root)

    def create(self, name: str) -> None:
        """Make an empty set."""
        check_name(name)
        if name in self.names():
            raise exists(
                "reference set", name, f"reference set {name!r} exists already: use it, or choose another name"
            )
        ReferenceSet.create(name, self._root)

    def delete(self, name: str) -> None:
        """Delete a set with its pictures."""
        found = self.open(name)
        with self._lock:
            self._open.pop(name, None)
        with self._writing(found):
            ReferenceSet.delete(name, self._root)

    def add(self, name: str, item: tuple[str, Source], tag: str, approved: bool) -> AddReport:
        """Add one picture; when this returns it is stored for good, or refused."""
        found = self.open(name)
        with self._writing(found):
            return found.add([item], tag=tag or None, source="approved" if approved else "added", limits=self._limits)

    def references(self, name: str) -> list[Reference]:
        """The pictures of a set, in the order they were added."""
        return self.open(name).list()

    def picture(self, name: str, id: int) -> tuple[Reference, bytes]:
        """A picture of a set, as PNG."""
        reference = self._reference(name, id)
        picture = self.open(name).picture(reference)
        return reference, encode_png(picture.rgb, picture.alpha, level=FAST)

    def remove(self, name: str, ids: list[int]) -> int:
        """Remove pictures; how many."""
        found = self.open(name)
        for id in ids:
            self._reference(name, id)
        with self._writing(found):
            return found.remove(ids) if ids else 0

    def _reference(self, name: str, id: int) -> Reference:
        for reference in self.references(name):
            if reference.id == id:
                return reference
        raise not_found("reference", f"{name}/{id}", f"reference set {name!r} has no picture {id}: list its pictures")

    def search(self, name: str, page: Source, colorizer: Colorizer, count: int) -> list[list[Hit]]:
        """The nearest patches for each quadrant of a page, as the pack's encoder sees it."""
        return nearest(self.open(name), colorizer.pack, read_picture(page, self._limits, "page").rgb, count)

    @contextmanager
    def _writing(self, found: ReferenceSet) -> Iterator[None]:
        """A set that another process holds is no fault of the call: it may come again."""
        try:
            yield
        except ReferencesError as error:
            if is_held(found.folder / "writer.lock"):
                raise later(codes.UNAVAILABLE, str(error), BUSY_S) from error
            raise


def check_name(name: str) -> str:
    """The name itself. Rejected: it breaks the rule."""
    if not is_set_name(name):
        raise invalid("set", f"reference set name {name!r:.100} is invalid: use {RULE}")
    return name
