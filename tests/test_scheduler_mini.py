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

STEPS = (4, 2, 3, 5, 1, 3)


@pytest.mark.parametrize(("slots", "policy"), [(1, "continuous"), (4, "continuous"), (3, "whole")])
def test_what_shares_a_batch_does_not_change_a_page(slots, policy):
    colorizer = Colorizer("mini")
    pool = colorizer.references([color_picture(seed) for seed in range(2)])
    options = [ColorizeOptions(steps=steps, seed=seed, style="gray") for seed, steps in enumerate(STEPS)]
    alone = [colorizer.colorize(gray_page(i), pool, each).image for i, each in enumerate(options)]
    scheduler, found, gone = (
        Scheduler({"mini": colorizer}, SchedulerOptions(slots=slots, policy=policy)),
        {},
        threading.Event(),
    )

    def listen(number):
        def see(event):
            if isinstance(event, END):
                found[number] = event
                if len(found) == len(STEPS):
                    gone.set()

        return see

    for i, each in enumerate(options):
        scheduler.submit(PageJob(f"{i}", f"{i}", "mini", gray_page(i), pool, each, 0, None, 0, listen(i)))
    assert gone.wait(120)
    batches = scheduler.snapshot().batches
    scheduler.close()
    assert max(batches) == slots or policy == "whole"
    for i, image in enumerate(alone):
        assert isinstance(found[i], Finished), found[i]
        np.testing.assert_array_equal(found[i].result.image, image)
