"""Seconds add up by stage."""

import time

import pytest

from colorflow_rt.timing import StageClock


def test_seconds_add_up_by_stage():
    clock = StageClock()
    for _ in range(2):
        with clock("a"):
            time.sleep(0.01)
    with clock("b"):
        pass
    assert list(clock.seconds) == ["a", "b"]
    assert clock.seconds["a"] >= 0.02 > clock.seconds["b"] >= 0
    assert clock.total == sum(clock.seconds.values())


def test_a_stage_that_raises_is_counted():
    clock = StageClock()
    with pytest.raises(KeyError), clock("a"):
        raise KeyError
    assert "a" in clock.seconds
