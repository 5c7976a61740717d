"""Continuous batching by step: pages join and leave the engine's batch between any two steps.

One thread runs the loop of all pages; a few others run what is before and after it. Between two steps a page holds
no slot: its state is three small arrays, so which pages share the next call is decided anew each time (`turns`).
"""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial

from colorflow_rt.denoise import Slot, advance
from colorflow_rt.page import check_options, matches
from colorflow_rt.pipeline import Colorizer
from colorflow_server.costs import measure
from colorflow_server.events import (
    Accepted,
    Cancelled,
    DeadlineExceeded,
    Event,
    Failed,
    Finished,
    PageJob,
    Preview,
    Refused,
    Retrieved,
)
from colorflow_server.records import SchedulerOptions, SchedulerState
from colorflow_server.ticket import Model, State, Ticket
from colorflow_server.turns import POLICIES, Entry
from colorflow_server.workers import Stage, Workers

__all__ = ["DeadlineExceeded", "PageJob", "Refused", "Scheduler", "SchedulerOptions", "SchedulerState", "Ticket"]

log = logging.getLogger(__name__)

POLL_S = 0.05  # how often an idle engine looks for deadlines that have passed
_LATELY = 0.2  # weight of the latest page in the stages' mean seconds


class Scheduler:
    """Pages in, events out. Safe to use from several threads.

    colorizers: by pack name; each pack's engines are loaded and its step measured now (PackError, EngineError).
    """

    def __init__(self, colorizers: Mapping[str, Colorizer], options: SchedulerOptions | None = None) -> None:
        self.options = options or SchedulerOptions()
        self._models = {name: self._model(colorizer) for name, colorizer in colorizers.items()}
        self._turns = POLICIES[self.options.policy]()
        self._lock = threading.Condition(threading.RLock())
        self._tickets: dict[int, Ticket] = {}  # admitted and not ended, by id()
        self._batch: list[Ticket] = []
        self._counts: Counter[str] = Counter()
        self._batches: Counter[int] = Counter()
        self._refused: Counter[str] = Counter()
        self._draining = self._stopping = False
        self._workers = Workers(self.options.workers)
        self._engine = threading.Thread(target=self._loop, name="engine", daemon=True)
        self._engine.start()

    # From outside

    def submit(self, job: PageJob) -> Ticket:
        """Admit a page, or raise Refused at once. OptionError where its options do not suit the pack.

        Its events begin with Accepted, which may come before this returns.
        """
        with self._lock:
            if self._draining:
                raise self._refusal("draining", "the server is shutting down: send the page to another, or later", 5.0)
            model = self._models.get(job.pack)
            if model is None:
                known = ", ".join(self._models)
                raise self._refusal("unknown_pack", f"no pack is named {job.pack!r} here: choose one of {known}", 60.0)
            check_options(model.colorizer.pack, job.options)
            ticket = self._admit(job, model)
            self._tickets[id(ticket)] = ticket
            self._pump()
        return ticket

    def cancel(self, ticket: Ticket) -> None:
        """Leave a page: at once where it waits, at the next step boundary or stage where it is being worked on."""
        with self._lock:
            ticket.abandoned = True
            if ticket.state in (State.WAITING, State.READY):
                self._end(ticket, Cancelled(ticket.entry.done))

    def replace(self, pack: str, colorizer: Colorizer) -> None:
        """Serve `pack` by another colorizer from now on; admitted pages finish on the one they have.

        Its engines are loaded and measured first: PackError or EngineError leave the old one in service.
        """
        model = self._model(colorizer)
        with self._lock:
            self._models = self._models | {pack: model}

    def drain(self, grace_s: float) -> int:
        """Refuse new pages, wait for those that are here, cancel what is left after `grace_s`; returns how many."""
        with self._lock:
            self._draining = True
            self._lock.wait_for(lambda: not self._tickets, grace_s)
            late = list(self._tickets.values())
            for ticket in late:
                self.cancel(ticket)
        return len(late)

    def close(self) -> None:
        """`drain` without grace, and the threads' end. A call of the engine that runs is waited for."""
        self.drain(0.0)
        with self._lock:
            self._lock.wait_for(lambda: not self._tickets)
            self._stopping = True
            self._lock.notify_all()
        self._engine.join()
        self._workers.stop()

    def snapshot(self) -> SchedulerState:
        """How things stand, for metrics."""
        with self._lock:
            waiting = sum(ticket.state is State.WAITING for ticket in self._tickets.values())
            return SchedulerState(
                waiting=waiting,
                running=len(self._tickets) - waiting,
                slots=next((model.cost.slots for model in self._models.values()), 0),
                slots_used=len(self._batch),
                steps=self._batches.total(),
                page_steps=sum(rows * calls for rows, calls in self._batches.items()),
                finished=self._counts["finished"],
                failed=self._counts["failed"],
                cancelled=self._counts["cancelled"],
                refused=self._refused.total(),
                previews_dropped=self._counts["previews_dropped"],
                alive=self._engine.is_alive(),
                draining=self._draining,
                backlog_s=sum(ticket.entry.left_s for ticket in self._tickets.values()),
                batches=dict(self._batches),
                refused_by=dict(self._refused),
            )

    # Admission; the lock is held

    def _model(self, colorizer: Colorizer) -> Model:
        colorizer.pack.prefetch()
        return Model(colorizer, measure(colorizer.pack, self.options.slots))

    def _refusal(self, reason: str, message: str, retry_after_s: float) -> Refused:
        self._refused[reason] += 1
        return Refused(reason, message, retry_after_s)  # type: ignore[arg-type]

    def _admit(self, job: PageJob, model: Model) -> Ticket:
        now, backlog = time.monotonic(), sum(ticket.entry.left_s for ticket in self._tickets.values())
        if len(self._tickets) >= self.options.max_queue:
            message = f"{len(self._tickets)} pages are here, which is the limit: try again in a while"
            raise self._refusal("queue_full", message, max(0.1, backlog / 2))
        steps = job.options.steps or model.colorizer.pack.config.defaults.steps
        entry = Entry(job.client, job.priority, steps, 0.0, job.preview_every, key=id(model))
        ticket = Ticket(job, model, entry, now)
        entry.cost_s = ticket.step_s
        self._turns.enter(entry)
        before = [t for t in self._tickets.values() if self._turns.place(t.entry) < self._turns.place(entry)]
        wait = sum(t.entry.left_s for t in before)
        own = model.open_s + entry.left_s + model.close_s
        if job.deadline is not None and now + wait + own > job.deadline:
            self._turns.leave(entry)
            late = now + wait + own - job.deadline
            message = f"the page would be done in {wait + own:.1f} s, {late:.1f} s after its deadline: allow more time"
            raise self._refusal("deadline", message, max(0.1, late))
        ticket.events.send(Accepted(len(before), wait))
        return ticket

    def _pump(self) -> None:
        """Open the pages that wait and are among the first `max_open` of all."""
        first = sorted(self._tickets.values(), key=lambda t: self._turns.place(t.entry))[: self.options.max_open]
        for ticket in first:
            if ticket.state is State.WAITING:
                ticket.state, ticket.started = State.OPENING, time.monotonic()
                self._workers.do(Stage.OPEN, partial(self._guarded, ticket, self._open))
        self._lock.notify_all()

    def _end(self, ticket: Ticket, event: Event) -> None:
        """The page leaves, and its place is free."""
        with self._lock:
            if ticket.state is State.ENDED:
                return
            ticket.state = State.ENDED
            del self._tickets[id(ticket)]
            self._turns.leave(ticket.entry)
            self._counts[type(event).__name__.lower()] += 1
            ticket.run = ticket.window = ticket.preview = None
            ticket.opened = []
            self._pump()
        ticket.events.send(event)

    def _given_up(self, ticket: Ticket) -> bool:
        """Whether the page has ended, or ends now because it was cancelled or its time is over."""
        if ticket.abandoned:
            self._end(ticket, Cancelled(ticket.entry.done))
        elif ticket.job.deadline is not None and time.monotonic() >= ticket.job.deadline:
            where = f"after {ticket.entry.done} of {ticket.entry.steps} steps"
            self._end(ticket, Failed(DeadlineExceeded(f"the deadline of page {ticket.job.id} passed {where}")))
        return ticket.state is State.ENDED

    # The stages around the loop, in the workers

    def _guarded(self, ticket: Ticket, stage: Callable[[Ticket], None]) -> None:
        try:
            if not self._given_up(ticket):
                stage(ticket)
        except Exception as error:
            self._end(ticket, Failed(error))

    def _open(self, ticket: Ticket) -> None:
        """Read the page, and make its first window ready."""
        job, colorizer, start = ticket.job, ticket.model.colorizer, time.monotonic()
        pool = job.references() if callable(job.references) else job.references
        ticket.run = colorizer.begin(job.page, pool, job.options)
        if ticket.run.windows:
            self._open_window(ticket, 0)
        else:
            self._finish(ticket)
        self._learn(ticket.model, "open_s", time.monotonic() - start)

    def _open_window(self, ticket: Ticket, number: int) -> None:
        assert ticket.run is not None
        if self._given_up(ticket):
            return
        window = ticket.run.open(number)
        ticket.opened.append(window)
        found = (match for each in ticket.opened for match in matches(each.number, each.found))
        ticket.events.send(Retrieved(tuple(found)))
        with self._lock:
            ticket.window = window
            ticket.entry.key = (id(ticket.model), window.slot.sample.shape, window.slot.reuses)
            if not number:
                self._turns.resize(ticket.entry, ticket.run.steps, ticket.step_s)
            ticket.state = State.READY
            self._lock.notify_all()

    def _paint(self, ticket: Ticket) -> None:
        """After the last step of a window: the next one, or the end."""
        run, window, start = ticket.run, ticket.window, time.monotonic()
        assert run is not None and window is not None
        run.clock.seconds["denoise"] = ticket.loop_s
        run.paint(window)
        if window.number + 1 < run.windows:
            self._open_window(ticket, window.number + 1)
        else:
            self._finish(ticket)
        self._learn(ticket.model, "close_s", time.monotonic() - start)

    def _finish(self, ticket: Ticket) -> None:
        assert ticket.run is not None and ticket.started is not None
        result = ticket.run.finish()
        if not self._given_up(ticket):
            self._end(ticket, Finished(result, ticket.started - ticket.admitted))

    def _learn(self, model: Model, what: str, seconds: float) -> None:
        with self._lock:
            before = getattr(model, what) or seconds
            setattr(model, what, before + _LATELY * (seconds - before))

    def _show(self, ticket: Ticket) -> None:
        with self._lock:
            taken, run = ticket.preview, ticket.run
            ticket.preview, ticket.preview_asked = None, False
        if taken is not None and run is not None:
            step, window, x0 = taken
            ticket.events.send(Preview(step, run.steps, run.preview(window, x0)))

    # The loop, in the engine's thread

    def _loop(self) -> None:
        while batch := self._next():
            start = time.perf_counter()
            try:
                work = _work(batch)
                failed = _advance(batch)
                self._after(batch, failed, time.perf_counter() - start, work)
            except Exception as error:  # a defect of ours: the loop must live on for the other pages
                log.exception("a step of %d pages failed in a way that nobody meant", len(batch))
                for ticket in batch:
                    self._end(ticket, Failed(error))

    def _next(self) -> list[Ticket]:
        """Wait for pages that want a step; none: it is time to stop."""
        with self._lock:
            while not (batch := self._choose()) and not self._stopping:
                self._lock.wait(POLL_S if any(t.job.deadline for t in self._tickets.values()) else None)
            self._batch = batch
            for ticket in batch:
                ticket.state = State.STEPPING
            return batch

    def _choose(self) -> list[Ticket]:
        """The next batch, of pages that are ready and still wanted."""
        for ticket in list(self._tickets.values()):
            if ticket.state in (State.WAITING, State.READY):
                self._given_up(ticket)
        ready = {id(t.entry): t for t in self._tickets.values() if t.state is State.READY}
        chosen = self._turns.choose([t.entry for t in ready.values()], lambda e, n: ready[id(e)].model.cost.rows(n))
        return [ready[id(entry)] for entry in chosen]

    def _after(self, batch: list[Ticket], failed: dict[Ticket, Exception], seconds: float, work: float) -> None:
        """A step boundary: what failed, was cancelled or is done leaves. work: `_work` of the step."""
        ended: list[tuple[Ticket, Event]] = []
        with self._lock:
            self._turns.served(seconds)
            self._batches[len(batch)] += 1
            batch[0].model.cost.observe(len(batch), batch[0].area, seconds, work)
            self._batch = []
            for ticket in batch:
                ticket.loop_s += seconds
                if ticket in failed:
                    ended.append((ticket, Failed(failed[ticket])))
                else:
                    self._stepped(ticket)
        for ticket, event in ended:
            self._end(ticket, event)

    def _stepped(self, ticket: Ticket) -> None:
        window, run = ticket.window, ticket.run
        assert window is not None and run is not None
        ticket.entry.done += 1
        ticket.state = State.READY
        if self._given_up(ticket):
            return
        every = ticket.job.preview_every
        if every and window.slot.step % every == 0 and ticket.entry.done < ticket.entry.steps:
            self._ask_for_preview(ticket)
        if window.slot.done:
            ticket.state = State.PAINTING
            self._workers.do(Stage.CLOSE, partial(self._guarded, ticket, self._paint))

    def _ask_for_preview(self, ticket: Ticket) -> None:
        """The latest wins: one that no worker has taken up is stale, and dropped."""
        assert ticket.window is not None
        self._counts["previews_dropped"] += ticket.preview is not None
        ticket.preview = (ticket.entry.done, ticket.window, ticket.window.slot.x0_prev1)
        if not ticket.preview_asked:
            ticket.preview_asked = True
            self._workers.do(Stage.PREVIEW, partial(self._guarded_preview, ticket))

    def _guarded_preview(self, ticket: Ticket) -> None:
        try:
            self._show(ticket)
        except Exception as error:
            self._end(ticket, Failed(error))


def _advance(batch: list[Ticket]) -> dict[Ticket, Exception]:
    """One step of every page. Where the call fails each page is tried alone: one page must not fail the others."""
    try:
        advance(batch[0].model.colorizer.pack.engine, [_slot(ticket) for ticket in batch])
        return {}
    except Exception as error:
        if len(batch) == 1:
            return {batch[0]: error}
        return {ticket: why for one in batch for ticket, why in _advance([one]).items()}


def _work(batch: list[Ticket]) -> float:
    """How much of a denoise_step the next step of a batch is: its pages are of one kind (`Entry.key`)."""
    slots = [_slot(ticket) for ticket in batch]
    due = sum(slot.guider_is_due for slot in slots)
    return batch[0].model.cost.work(due, len(slots)) if slots[0].reuses else 1.0


def _slot(ticket: Ticket) -> Slot:
    assert ticket.window is not None
    return ticket.window.slot
