"""What `colorflow colorize` does: plan a chapter, colour what is not finished, and say what happened."""

import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import Any, Protocol, runtime_checkable

import click

from colorflow_rt.cli.screen import Advance, progress, shown
from colorflow_rt.errors import Cancelled, ColorflowError, EngineError, ImageError
from colorflow_rt.jobs import CHROMA, JobFolder, NotOursError, Record, check_targets, fingerprint, sha256_or_nothing
from colorflow_rt.options import ColorizeOptions
from colorflow_rt.pack_config import PackConfig
from colorflow_rt.pixels import Limits, Picture, content_hash, read_picture, write_png
from colorflow_rt.pool import Pool
from colorflow_rt.references import AddReport, Reference
from colorflow_rt.references.records import Source
from colorflow_rt.result import Result

COLORED, FINISHED, IN_COLOR, FAILED = "coloured", "finished before", "already in colour", "failed"


class Described(Protocol):
    """A pack, as far as a job's records name it."""

    @property
    def config(self) -> PackConfig: ...


class Painter(Protocol):
    """What colours a page: a `Colorizer`, or a server."""

    limits: Limits

    @property
    def pack(self) -> Described: ...

    def colorize(
        self, page: Path, references: Any, options: ColorizeOptions, *, cancelled: Callable[[], bool]
    ) -> Result: ...


@runtime_checkable
class Fed(Protocol):
    """References to which results can be added: a set, here or on a server."""

    def list(self) -> Sequence[Reference]: ...

    def add(self, items: Sequence[Any], *, source: Source, limits: Limits) -> AddReport: ...

    def remove(self, which: Sequence[Reference]) -> int: ...


@dataclass(frozen=True)
class Outcome:
    """What became of a page. output: its file in the out folder, or None. details: as in its record."""

    page: Path
    state: str
    output: str | None = None
    error: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


class Chapter:
    """The pages of a job, planned when this is made: the name and the fingerprint of each."""

    def __init__(
        self,
        pages: list[Path],
        folder: JobFolder,
        colorizer: Painter,
        pool: Pool,
        options: ColorizeOptions,
        *,
        force: bool = False,
        approve: bool = False,
    ) -> None:
        self.pages, self._folder, self._colorizer, self._pool = pages, folder, colorizer, pool
        self._options, self._force = options, force
        self._approve_to = pool if approve and isinstance(pool, Fed) else None
        self._hashes = {page: sha256_or_nothing(page) for page in pages}
        self._names = folder.assign(pages, self._hashes)
        check_targets(folder.out, pages, self._names.values())
        self._common = {
            "references": _fingerprint_of(pool, folder.approved()),
            "options": _resolved(options, colorizer.pack),
            "pack": colorizer.pack.config.to_toml(),
        }
        self._outcomes: dict[Path, Outcome] = {}

    @property
    def outcomes(self) -> list[Outcome]:
        """Of all pages that are through, in their order."""
        return [self._outcomes[page] for page in self.pages if page in self._outcomes]

    def run(self) -> ColorflowError | None:
        """Colour what is not finished, giving `outcomes`; what ended the job early (Cancelled by Ctrl-C), or None."""
        todo = [page for page in self.pages if not self._finished(page)]
        with progress("colouring", len(todo)) as advance, _ctrl_c() as stop:
            try:
                self._withdraw(todo)
                for page in todo:
                    self._page(page, advance, stop)
            except ColorflowError as error:
                return error
        return None

    def _finished(self, page: Path) -> bool:
        record = None if self._force else self._folder.finished(self._names[page], self._fingerprint(page))
        if record is None:
            return False
        self._outcomes[page] = Outcome(page, FINISHED, f"{record.output}.png", details=record.details)
        self._approve(record)
        return True

    def _fingerprint(self, page: Path) -> str:
        return fingerprint(page=self._hashes[page], **self._common)

    def _page(self, page: Path, advance: Advance, stop: "_Stop") -> None:
        """Colour and write one page. What concerns this page alone becomes its outcome, the rest is raised."""
        started = time.perf_counter()
        try:
            outcome = self._color(page, stop)
        except (ImageError, EngineError, NotOursError) as error:
            outcome = Outcome(page, FAILED, error=" ".join(str(error).split()))
        except (ColorflowError, KeyboardInterrupt):
            raise
        except Exception as error:
            if click.get_current_context().find_root().params.get("debug"):
                raise
            outcome = Outcome(page, FAILED, error=f"{shown(page)}: unexpected {type(error).__name__}: {error}")
        self._outcomes[page] = outcome
        advance(_line(outcome, time.perf_counter() - started))

    def _color(self, page: Path, stop: "_Stop") -> Outcome:
        name = self._names[page]
        planned = [f"{name}.png", *([f"{CHROMA}/{name}.png"] if self._options.chroma_layer else [])]
        if not self._force:
            self._folder.check_free(name, planned)
        result = self._colorizer.colorize(page, self._pool, self._options, cancelled=stop)
        record = self._start(page, planned)
        details = details_of(result) | record.details
        record = replace(record, state="done", files=self._write(name, result), details=details)
        self._folder.write(record)
        self._approve(record)
        state = IN_COLOR if result.passed_through else COLORED
        return Outcome(page, state, f"{name}.png", details=record.details)

    def _start(self, page: Path, planned: list[str]) -> Record:
        """The record of a page whose files may now be replaced; a layer that it will not have any more is removed."""
        name, known = self._names[page], self._folder.record(self._names[page])
        before = known.files if known else {}
        approved = {"approved": known.details["approved"]} if known and "approved" in known.details else {}
        files = before | dict.fromkeys(planned, "")
        source = (str(page.resolve()), self._hashes[page], self._fingerprint(page))
        record = Record(name, *source, "started", files, approved)
        self._folder.write(record)
        layer = f"{CHROMA}/{name}.png"
        if layer in before and layer not in planned:
            (self._folder.out / layer).unlink(missing_ok=True)
        return record

    def _write(self, name: str, result: Result) -> dict[str, str]:
        """Write the files of a page; their SHA-256 by name relative to the out folder."""
        out = self._folder.out
        write_png(out / f"{name}.png", result.image, result.alpha)
        files = [f"{name}.png"]
        if result.chroma is not None:
            (out / CHROMA).mkdir(exist_ok=True)
            write_png(out / CHROMA / f"{name}.png", result.chroma[..., :3], result.chroma[..., 3])
            files.append(f"{CHROMA}/{name}.png")
        return {file: sha256_or_nothing(out / file) for file in files}

    # Feeding back. The record names the picture before the set has it: what this job has added itself must never
    # make its pages look as if their references had changed.

    def _approve(self, record: Record) -> None:
        """Add a finished result, as it now lies there, to the set; a page that was in colour is no result."""
        if self._approve_to is None or record.details.get("passed_through"):
            return
        rgb = read_picture(self._folder.out / f"{record.output}.png", self._colorizer.limits).rgb
        sha256, known = content_hash(Picture(rgb)), record.details.get("approved", [])
        if sha256 not in known:
            self._folder.write(replace(record, details=record.details | {"approved": [*known, sha256]}))
        if sha256 not in {reference.sha256 for reference in self._approve_to.list()}:
            name = f"{record.output}.png"
            self._approve_to.add([(name, rgb)], source="approved", limits=self._colorizer.limits)

    def _withdraw(self, todo: list[Path]) -> None:
        """Take what these pages have fed back before out of the set: they are no references for themselves."""
        if self._approve_to is None:
            return
        records = [record for page in todo if (record := self._folder.record(self._names[page]))]
        ours = {sha256 for record in records for sha256 in record.details.get("approved", ())}
        old = [r for r in self._approve_to.list() if r.source == "approved" and r.sha256 in ours]
        if old:
            self._approve_to.remove(old)


class _Stop:
    """Asked between steps whether Ctrl-C was pressed; pressed again, it stops at once."""

    pressed = False

    def __call__(self) -> bool:
        return self.pressed

    def press(self, number: int, frame: FrameType | None) -> None:
        if self.pressed:
            raise Cancelled("interrupted")
        self.pressed = True
        click.echo("stopping after this step (Ctrl-C again: at once)", err=True)


@contextmanager
def _ctrl_c() -> Iterator[_Stop]:
    stop = _Stop()
    before = signal.signal(signal.SIGINT, stop.press)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)


def _fingerprint_of(pool: Pool, ours: set[str]) -> list[list[str]]:
    """What results depend on in the references: pictures, names and states, but not what this job has fed back."""
    records = (r for r in pool.list() if not (r.source == "approved" and r.sha256 in ours))
    return sorted([r.sha256, r.name, r.tag or "", r.state] for r in records)


def _resolved(options: ColorizeOptions, pack: Described) -> dict[str, Any]:
    """The options with the pack's defaults filled in: naming a default changes nothing."""
    defaults = pack.config.defaults
    steps = defaults.steps if options.steps is None else options.steps
    guidance = defaults.guidance_scale if options.guidance_scale is None else options.guidance_scale
    guider = options.guider_steps or defaults.guider_steps or None
    return asdict(replace(options, steps=steps, guidance_scale=guidance, guider_steps=guider))


def details_of(result: Result) -> dict[str, Any]:
    """What a record keeps of a result; references are those on its canvas, the most similar first."""
    best: dict[str, float] = {}
    for match in result.matches:
        best[match.reference] = max(match.similarity, best.get(match.reference, -1.0))
    used = sorted(best.items(), key=lambda item: -item[1])
    return {
        "style": result.style,
        "passed_through": result.passed_through,
        "seconds": {stage: round(seconds, 4) for stage, seconds in result.seconds.items()},
        "references": [{"name": name, "similarity": round(value, 4)} for name, value in used],
    }


def _line(outcome: Outcome, seconds: float) -> str:
    if outcome.error:
        return f"error: {outcome.error}"
    what = IN_COLOR if outcome.state == IN_COLOR else outcome.details["style"]
    return f"{shown(outcome.page)} -> {shown(outcome.output or '')}  {what}  {seconds:.1f} s"
