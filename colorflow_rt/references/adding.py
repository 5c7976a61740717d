"""Adding pictures to a set, one at a time: first the file, then the row that makes it count."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from sqlite3 import Connection

from colorflow_rt import pixels
from colorflow_rt.errors import ImageError
from colorflow_rt.pixels import Limits, Picture
from colorflow_rt.references import database, images
from colorflow_rt.references.records import AddReport, Reference, Source, clean_text, unnamed

Item = pixels.Source | tuple[str, pixels.Source]


@dataclass
class Adding:
    """One call of `ReferenceSet.add`; the set's lock is held."""

    db: Connection
    images: Path
    tag: str | None
    source: Source
    limits: Limits
    report: AddReport = field(default_factory=AddReport)

    def add(self, item: Item, place: int) -> None:
        """Add, recognise or refuse a picture. OutputError: nothing can be written any more."""
        name, data = _named(item)
        label = name or f"picture {place}"
        try:
            picture = pixels.read_picture(data, self.limits, label)
        except ImageError as error:
            self.report.refused.append((label, str(error)))
            return
        sha256 = pixels.content_hash(picture)
        known = database.find(self.db, sha256)
        if known:
            self._meet_again(known, name, picture)
            return
        images.store(self.images, sha256, picture)
        new = unnamed(sha256, picture.size)
        new = replace(new, name=name or new.name, tag=clean_text(self.tag), source=self.source)
        self.report.added.append(database.insert(self.db, new))

    def _meet_again(self, known: Reference, name: str, picture: Picture) -> None:
        """The pixels are known: make sure that their file is good, and give a recovered picture its name back."""
        if not images.is_good(self.images, known.sha256):
            images.store(self.images, known.sha256, picture)
            self.report.repaired.append(known)
        if name and known.name == unnamed(known.sha256, known.size).name:
            database.update(self.db, "name", name, [known])
            known = replace(known, name=name)
        self.report.duplicates.append((name or known.name, known))


def _named(item: Item) -> tuple[str, pixels.Source]:
    """The name and the picture; "" for a picture without a name."""
    if isinstance(item, tuple):
        return clean_text(item[0]) or "", item[1]
    if isinstance(item, str | Path):
        return clean_text(Path(item).name) or "", item
    name = getattr(item, "name", None)  # of an open file
    return (clean_text(Path(name).name) or "" if isinstance(name, str) else ""), item
