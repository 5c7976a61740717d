"""The scheduler on fake engines: events, slots, cancelling, deadlines, draining, reloading; bytes as in-process."""

import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from colorflow_server.events import END, Accepted, Cancelled, Failed, Finished, PageJob, Preview, Refused, Retrieved
from colorflow_server.scheduler import DeadlineExceeded, Scheduler, SchedulerOptions

from colorflow_rt.engine.fake import fake_config
from colorflow_rt.errors import EngineError, ImageError, OptionError
from colorflow_rt.options import ColorizeOptions
from colorflow_rt.pack import fake_pack
from colorflow_rt.pipeline import Colorizer

STEP_S = 0.004


def picture(size=(64, 96), seed=0):
    return np.kron(
        np.random.default_rng(seed).integers(40, 256, (size[1] // 8, size[0] // 8), np.uint8), np.ones((8, 8), np.uint8)
    )


def color(seed):
    return np.kron(np.random.default_rng(seed).integers(0, 256, (9, 6, 3), np.uint8), np.ones((8, 8, 1), np.uint8))


REFERENCES = Colorizer("fake").references([(f"ref{i}", color(i)) for i in range(2)])
WAIT_S = 30


class Page:
    """A page that was sent, and what came back."""

    def __init__(self, scheduler, name="page", page=None, steps=4, **more):
        self.events, self.ended = [], threading.Event()
        self.times = []
        options = ColorizeOptions(steps=steps, seed=more.pop("seed", 0))
        job = PageJob(
            id=name,
            client=more.pop("client", name),
            pack=more.pop("pack", "fake"),
            page=picture() if page is None else page,
            references=more.pop("references", REFERENCES),
            options=more.pop("options", options),
            priority=more.pop("priority", 0),
            deadline=more.pop("deadline", None),
            preview_every=more.pop("preview_every", 0),
            on_event=self.see,
        )
        assert not more
        self.job = job
        self.ticket = scheduler.submit(job)

    def see(self, event):
        self.events.append(event)
        self.times.append(time.monotonic())
        if isinstance(event, END):
            self.ended.set()

    def end(self):
        assert self.ended.wait(WAIT_S), [type(e).__name__ for e in self.events]
        return self.events[-1]

    def until(self, kind):
        until(lambda: any(isinstance(event, kind) for event in self.events))


def until(condition):
    limit = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.001)


@pytest.fixture
def serving():
    """serving(pack, **options) -> Scheduler, closed at the end of the test."""
    made = []

    def make(pack=None, **options):
        packs = pack if isinstance(pack, dict) else {"fake": pack or fake_pack()}
        colorizers = {name: Colorizer(pack) for name, pack in packs.items()}
        made.append(Scheduler(colorizers, SchedulerOptions(**options)))
        return made[-1]

    yield make
    for scheduler in made:
        scheduler.close()
        state = scheduler.snapshot()
        assert (state.waiting, state.running, state.slots_used, state.alive) == (0, 0, 0, False)


def slow(seconds=STEP_S, gain=True):
    """A fake pack whose step takes time: the same for any batch (gain), or in proportion."""
    return fake_pack(cost={"denoise_step": (lambda rows: seconds) if gain else (lambda rows: rows * seconds)})


def test_a_page_comes_back_as_in_process(serving):
    scheduler = serving()
    for size in ((64, 96), (96, 64), (40, 300)):
        options = ColorizeOptions(steps=6, seed=3, chroma_layer=True)
        page = Page(scheduler, page=picture(size), options=options, preview_every=2)
        event = page.end()
        assert isinstance(event, Finished) and event.queue_s >= 0
        expected = Colorizer("fake").colorize(picture(size), REFERENCES, options)
        for name in ("image", "chroma", "model_image", "canvas"):
            np.testing.assert_array_equal(getattr(event.result, name), getattr(expected, name))
        assert event.result.matches == expected.matches
        assert list(event.result.seconds) == list(expected.seconds)


def test_events_come_in_order(serving):
    shown = {}
    options = ColorizeOptions(steps=6, preview_every=2)
    Colorizer("fake").colorize(picture(), REFERENCES, options, on_preview=lambda p, s, n, i: shown.update({s: i}))
    scheduler = serving(slow(0.02))
    page = Page(scheduler, steps=6, preview_every=2)
    page.end()
    kinds = [type(event) for event in page.events]
    assert kinds == [Accepted, Retrieved, Preview, Preview, Finished]  # the last step's preview is the result
    assert page.events[0] == Accepted(0, 0.0)
    assert page.events[1].matches == page.events[-1].result.matches
    for event, step in zip(page.events[2:4], (2, 4), strict=True):
        assert (event.step, event.steps) == (step, 6)
        np.testing.assert_array_equal(event.image, shown[step])


def test_a_page_in_colour_is_passed_through(serving):
    event = Page(serving(), page=color(3)).end()
    assert event.result.passed_through
    np.testing.assert_array_equal(event.result.image, color(3))


def test_pages_share_calls_and_are_the_same_as_alone(serving):
    pack = slow()
    scheduler = serving(pack, slots=4)
    pages = [Page(scheduler, f"{i}", picture(seed=i), steps=4 + 3 * (i % 3), seed=i) for i in range(12)]
    results = [page.end().result for page in pages]
    for page, result in zip(pages, results, strict=True):
        alone = Colorizer("fake").colorize(page.job.page, REFERENCES, page.job.options)
        np.testing.assert_array_equal(result.image, alone.image)
    state = scheduler.snapshot()
    assert max(state.batches) == 4
    assert state.page_steps == sum(page.job.options.steps for page in pages) > 2 * state.steps
    assert state.finished == 12


def test_a_page_joins_a_batch_that_is_under_way(serving):
    scheduler = serving(slow(), slots=2)
    long = Page(scheduler, "long", steps=200)
    until(lambda: scheduler.snapshot().steps > 20)
    short = Page(scheduler, "short", steps=3)
    assert isinstance(short.end(), Finished)
    assert not long.ended.is_set()
    assert scheduler.snapshot().batches[2] == 3
    scheduler.cancel(long.ticket)


@pytest.mark.parametrize(("gain", "slots"), [(True, 8), (False, 1)])
def test_slots_are_chosen_from_what_calls_cost(serving, gain, slots):
    assert serving(slow(0.01, gain)).snapshot().slots == slots


def test_shapes_and_packs_never_share_a_call_but_share_the_device(serving):
    scheduler = serving({"fake": slow(), "other": slow()}, slots=4)
    long = [Page(scheduler, f"{i}", steps=300) for i in range(2)]
    until(lambda: scheduler.snapshot().steps > 20)
    wide = Page(scheduler, "wide", picture((96, 64)), steps=5)
    other = Page(scheduler, "other", steps=5, pack="other")
    assert isinstance(wide.end(), Finished) and isinstance(other.end(), Finished)
    assert not any(page.ended.is_set() for page in long)
    for page in long:
        scheduler.cancel(page.ticket)


# Leaving early


@pytest.mark.parametrize("moment", ["waiting", "opening", "stepping", "ended"])
def test_cancel_at_every_stage(serving, moment):
    gate = threading.Event()
    pack = slow()
    scheduler = serving(pack, workers=1, max_open=1 if moment == "waiting" else 32)
    blocker = Page(scheduler, "blocker", steps=1000) if moment == "waiting" else None
    if blocker:
        until(lambda: scheduler.snapshot().steps > 2)

    def references():
        gate.wait(WAIT_S)
        return REFERENCES

    page = Page(scheduler, steps=2 if moment == "ended" else 1000, references=references)
    if moment != "opening":
        gate.set()
    if moment == "stepping":
        until(lambda: page.ticket.entry.done > 5)
    if moment == "ended":
        page.end()
    scheduler.cancel(page.ticket)
    gate.set()
    event = page.end()
    if moment == "ended":
        assert isinstance(event, Finished) and scheduler.snapshot().cancelled == 0
        return
    assert isinstance(event, Cancelled) and (event.step > 5) == (moment == "stepping")
    steps = scheduler.snapshot().page_steps
    if blocker is None:
        time.sleep(10 * STEP_S)
        assert scheduler.snapshot().page_steps == steps
    assert scheduler.snapshot().cancelled == 1
    if blocker:
        scheduler.cancel(blocker.ticket)


def test_the_device_stops_within_a_step_of_a_cancel(serving):
    scheduler = serving(slow(0.05))
    page = Page(scheduler, steps=100)
    until(lambda: page.ticket.entry.done == 2)
    start = time.monotonic()
    scheduler.cancel(page.ticket)
    page.end()
    assert page.times[-1] - start < 0.05 + 0.05
    assert page.events[-1].step <= 4


def test_a_deadline_that_passes_ends_a_page_waiting_or_not(serving):
    scheduler = serving(slow(gain=False), max_open=1)
    running = Page(scheduler, "running", steps=5)
    for page in (running, Page(scheduler, "later", steps=400)):
        assert page.ticket
    soon = time.monotonic() + 0.3
    job = replace(running.job, deadline=soon)
    late = Page(scheduler, "late", steps=1, deadline=None, priority=-1)
    late.ticket.job = replace(late.ticket.job, deadline=job.deadline)  # as if the estimate had been wrong
    event = late.end()
    assert isinstance(event, Failed) and isinstance(event.error, DeadlineExceeded)
    assert late.ticket.entry.done == 0 and late.times[-1] - soon < 0.3
    scheduler.drain(0)


def test_pages_that_cannot_be_done_by_their_deadline_are_refused(serving):
    scheduler = serving(slow(0.01, gain=False))
    Page(scheduler, "first", steps=100, client="a")
    with pytest.raises(Refused, match="after its deadline") as refused:
        Page(scheduler, "hopeless", steps=100, client="a", deadline=time.monotonic() + 0.5)
    assert refused.value.reason == "deadline" and refused.value.retry_after_s >= 0.5
    ok = Page(scheduler, "modest", steps=1, client="b", deadline=time.monotonic() + 5)
    assert isinstance(ok.end(), Finished)
    scheduler.drain(0)


def test_a_full_queue_refuses_at_once(serving):
    scheduler = serving(slow(0.01), max_queue=3)
    pages = [Page(scheduler, f"{i}", steps=500) for i in range(3)]
    start = time.perf_counter()
    with pytest.raises(Refused, match="3 pages are here") as refused:
        Page(scheduler, "more")
    assert time.perf_counter() - start < 0.1
    assert refused.value.reason == "queue_full" and refused.value.retry_after_s >= 0.1
    assert scheduler.snapshot().refused_by == {"queue_full": 1}
    scheduler.cancel(pages[0].ticket)
    pages[0].end()
    Page(scheduler, "more")
    scheduler.drain(0)


def test_an_unknown_pack_and_unsuitable_options_are_refused(serving):
    scheduler = serving()
    with pytest.raises(Refused, match=r"'none'.*choose one of fake"):
        Page(scheduler, pack="none")
    with pytest.raises(OptionError, match="multiples of 32"):
        Page(scheduler, options=ColorizeOptions(size=(100, 100)))
    assert scheduler.snapshot().waiting == scheduler.snapshot().running == 0


# Failing


@pytest.mark.parametrize("bad", [b"no picture", b"", np.zeros((4, 4), np.uint8)])
def test_a_bad_picture_fails_its_page_alone(serving, bad):
    scheduler = serving(slow())
    good, wrong = Page(scheduler, "good"), Page(scheduler, "bad", bad)
    assert isinstance(wrong.end(), Failed) and isinstance(wrong.events[-1].error, ImageError)
    assert isinstance(good.end(), Finished)


def test_pages_that_reuse_the_guider_share_batches_and_keep_their_bytes(serving):
    config = fake_config()
    seconds = {"denoise_step": 0.006, "guider": 0.004, "denoise_reuse": 0.002}
    pack = fake_pack(
        replace(config, defaults=replace(config.defaults, steps=6, guider_steps=3)),
        cost={graph: lambda rows, s=s: s for graph, s in seconds.items()},
    )
    scheduler = serving(pack, slots=4, workers=4)
    ways = [{}, {}, {"guider_steps": 2}, {"guider_steps": 6}, {"steps": 9}, {"steps": 4, "guider_steps": 1000}]
    pages = [Page(scheduler, f"{i}", options=ColorizeOptions(seed=i, **way)) for i, way in enumerate(ways)]
    for i, (page, way) in enumerate(zip(pages, ways, strict=True)):
        event = page.end()
        assert isinstance(event, Finished)
        alone = Colorizer(fake_pack(pack.config)).colorize(picture(), REFERENCES, ColorizeOptions(seed=i, **way))
        np.testing.assert_array_equal(event.result.image, alone.image)
    assert max(pack.engine("denoise_reuse").batches) > 1


def test_a_page_is_not_thought_dearer_than_it_is(serving, timed_pack):
    """With the guider in 2 of 10 steps, of which it is three quarters: 0.4 of the whole."""
    scheduler = serving(timed_pack(denoise_step=0.04, guider=0.03, denoise_reuse=0.01), slots=1)
    whole, parted = (
        Page(scheduler, name, options=ColorizeOptions(steps=10, guider_steps=few)).ticket
        for name, few in (("whole", 10), ("parted", 2))
    )
    assert parted.step_s == pytest.approx(0.4 * whole.step_s)


def test_guider_steps_that_the_pack_cannot_do_are_refused_at_once(serving):
    scheduler = serving(fake_pack(fake_config(reuse=False)))
    with pytest.raises(OptionError, match="guider_steps is 2 of 4"):
        Page(scheduler, options=ColorizeOptions(guider_steps=2))


def test_a_failing_call_fails_only_the_pages_that_fail_alone(serving):
    class Picky:
        """Takes no batch that holds the page with guidance 2, which stands for one that breaks the engine."""

        def __init__(self, engine):
            self.engine, self.inputs, self.outputs = engine, engine.inputs, engine.outputs

        def __call__(self, feeds):
            if (feeds["timestep"] == self.bad).any():
                raise EngineError("no")
            return self.engine(feeds)

    pack = slow(0.01)
    scheduler = serving(pack, slots=4)
    engine = Picky(pack.engine("denoise_step"))
    engine.bad = 666  # of 999, 666, 333 for three steps
    pack._engines["denoise_step"] = engine
    good = [Page(scheduler, f"{i}", steps=8) for i in range(3)]
    bad = Page(scheduler, "bad", steps=3)
    assert isinstance(bad.end(), Failed) and isinstance(bad.events[-1].error, EngineError)
    assert [type(page.end()) for page in good] == [Finished] * 3
    assert scheduler.snapshot().failed == 1


def test_errors_of_references_and_listeners_stay_with_their_page(serving):
    def references():
        raise EngineError("no references")

    scheduler = serving()
    page = Page(scheduler, references=references)
    assert str(page.end().error) == "no references"
    loud = Page(scheduler, "loud")
    loud.end()
    seen = []

    def listen(event):
        seen.append(event)
        raise ValueError

    scheduler.submit(replace(page.job, references=REFERENCES, on_event=listen))
    until(lambda: seen and isinstance(seen[-1], Finished))
    assert isinstance(Page(scheduler, "after").end(), Finished)


# Previews, reload, drain


def test_stale_previews_are_dropped(serving):
    gate = threading.Event()
    pack = slow(0.002)
    decode = pack.engine("vae_decoder")

    class Slow:
        inputs, outputs = decode.inputs, decode.outputs

        def __call__(self, feeds):
            gate.wait(WAIT_S)
            return decode(feeds)

    pack._engines["vae_decoder"] = Slow()
    scheduler = serving(pack, workers=1)
    page = Page(scheduler, steps=30, preview_every=1)
    until(lambda: page.ticket.entry.done >= 29)
    gate.set()
    page.end()
    steps = [event.step for event in page.events if isinstance(event, Preview)]
    assert len(steps) < 5 and steps == sorted(steps)
    assert scheduler.snapshot().previews_dropped + len(steps) >= 28


def test_reload_serves_new_pages_by_the_new_pack_and_finishes_the_old(serving):
    old, new = slow(), slow()
    scheduler = serving(old)
    page = Page(scheduler, steps=100)
    until(lambda: page.ticket.entry.done > 2)
    scheduler.replace("fake", Colorizer(new))
    before = len(new.engine("denoise_step").batches)
    assert isinstance(Page(scheduler, "next", steps=4).end(), Finished)
    assert len(new.engine("denoise_step").batches) >= before + 4
    assert isinstance(page.end(), Finished)


def test_a_pack_that_does_not_run_leaves_the_old_one_serving(serving):
    scheduler = serving()
    with pytest.raises(EngineError):
        scheduler.replace("fake", Colorizer(fake_pack(fail_after={"denoise_step": 0})))
    assert isinstance(Page(scheduler).end(), Finished)


def test_drain_finishes_what_is_here_and_refuses_the_rest(serving):
    scheduler = serving(slow())
    pages = [Page(scheduler, f"{i}", steps=20) for i in range(5)]
    refused = []

    def late():
        until(lambda: scheduler.snapshot().draining)
        try:
            Page(scheduler, "late")
        except Refused as error:
            refused.append(error.reason)

    thread = threading.Thread(target=late)
    thread.start()
    assert scheduler.drain(WAIT_S) == 0
    thread.join()
    assert refused == ["draining"]
    assert [type(page.end()) for page in pages] == [Finished] * 5


def test_drain_cancels_what_outlasts_the_grace(serving):
    scheduler = serving(slow())
    page = Page(scheduler, steps=1000)
    assert scheduler.drain(0.1) == 1
    assert isinstance(page.end(), Cancelled)


@pytest.mark.parametrize("options", [{"policy": "random"}, {"max_queue": 0}, {"slots": -1}, {"workers": 0}])
def test_options_out_of_range(options):
    with pytest.raises(OptionError):
        SchedulerOptions(**options)
