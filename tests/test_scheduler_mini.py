"""A page's bytes on the bundled pack: the same from the library, alone in the scheduler, and in any batch."""

import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from colorflow_server.events import END, Finished, PageJob
from colorflow_server.scheduler import Scheduler, SchedulerOptions

from colorflow_rt.options import ColorizeOptions
from colorflow_rt.pipeline import Colorizer

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
from campaign import color_picture, gray_page

PAGES = 4
WAIT_S = 300


@pytest.fixture(scope="module")
def colorizer():
    return Colorizer("mini")


@pytest.fixture(scope="module")
def pool(colorizer):
    return colorizer.references([color_picture(seed) for seed in range(2)])


@pytest.fixture(scope="module")
def options(colorizer):
    """Two pages with the guider in every step and, where the pack can do that, two with the guider in two of them."""
    few = 2 if colorizer.pack.reuses else None
    ways = ((3, None), (2, None), (4, few), (3, few))
    return [
        ColorizeOptions(steps=steps, seed=seed, style="gray", guider_steps=guider or steps)
        for seed, (steps, guider) in enumerate(ways)
    ]


@pytest.fixture(scope="module")
def alone(colorizer, pool, options):
    return [colorizer.colorize(gray_page(i), pool, each).image for i, each in enumerate(options)]


@pytest.mark.parametrize("slots", [1, 4])
def test_what_shares_a_batch_does_not_change_a_page(colorizer, pool, options, alone, slots):
    ready, found, gone = threading.Barrier(PAGES), {}, threading.Event()

    def references():  # so that all pages come to the loop at the same time
        ready.wait(WAIT_S)
        return pool

    def listen(number):
        def see(event):
            if isinstance(event, END):
                found[number] = event
                if len(found) == PAGES:
                    gone.set()

        return see

    scheduler = Scheduler({"mini": colorizer}, SchedulerOptions(slots=slots, workers=PAGES))
    for i, each in enumerate(options):
        job = PageJob(f"{i}", f"{i}", "mini", gray_page(i), references, each, 0, None, 0, listen(i))
        scheduler.submit(job)
    assert gone.wait(WAIT_S)
    batches = scheduler.snapshot().batches
    scheduler.close()
    assert max(batches) == 1 if slots == 1 else max(batches) > 1
    for i, image in enumerate(alone):
        assert isinstance(found[i], Finished), found[i]
        np.testing.assert_array_equal(found[i].result.image, image)
