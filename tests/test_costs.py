"""What a step costs: measured, chosen from, corrected."""

import pytest
from colorflow_server.costs import CostModel, choose_slots, full_slots, measure, measure_curve

from colorflow_rt.engine.fake import fake_config
from colorflow_rt.errors import EngineError
from colorflow_rt.pack import fake_pack


def curve(gain, most=8):
    """Seconds by rows where a batch of `most` serves `gain` times the pages of one by one."""
    a = (most - most / gain) / (most - 1)
    return {rows: a + (1 - a) * rows for rows in (1, 2, 4, 8)}


@pytest.mark.parametrize(("gain", "few", "full"), [(1.0, 1, 1), (1.1, 1, 8), (2.0, 8, 8), (8.0, 8, 8)])
def test_slots_for_a_curve(gain, few, full):
    assert (choose_slots(curve(gain)), full_slots(curve(gain))) == (few, full)
    model = CostModel(curve(gain), 100)
    assert [model.rows(ready) for ready in (1, 3, 7, 8, 20)] == [
        min(ready, full if ready >= full else few) for ready in (1, 3, 7, 8, 20)
    ]


def test_slots_that_are_given_are_kept():
    assert CostModel(curve(1.0), 100, slots=3).rows(9) == 3


def test_seconds_between_and_beyond_what_was_measured():
    model = CostModel({1: 1.0, 2: 1.5, 4: 2.5}, 100)
    assert model.seconds(3, 100) == 2.0
    assert model.seconds(8, 100) == 5.0
    assert model.seconds(1, 300) == 3.0
    assert model.page_step(100) == 2.5 / 4


def test_what_calls_take_is_learnt():
    model = CostModel({1: 1.0, 2: 2.0}, 100)
    for _ in range(40):
        model.observe(1, 100, 3.0)
        model.observe(1, 400, 8.0)
    assert model.seconds(1, 100) == pytest.approx(3.0, rel=0.01)
    assert model.seconds(1, 400) == pytest.approx(8.0, rel=0.01)


def test_steps_without_the_guider_cost_their_part(timed_pack):
    model = measure(timed_pack(denoise_step=0.06, guider=0.05, denoise_reuse=0.02), slots=2)
    assert model.seconds(2, 384) == pytest.approx(0.06)
    assert model.work(10, 10) == 1.0  # that both calls together may take another time than one is learnt
    assert model.work(4, 10) == pytest.approx((0.02 + 0.4 * 0.05) / 0.07)
    model.observe(2, 384, 0.035, work=model.work(1, 4))  # slower than measured, by the guider's share of one in four
    assert model.seconds(2, 384) == pytest.approx(0.06 + 0.2 * (0.035 / model.work(1, 4) - 0.06))


def test_a_pack_without_the_parts_has_no_cheaper_steps():
    model = measure(fake_pack(fake_config(reuse=False)), slots=1)
    assert model.rest == model.work(1, 10) == 1.0


def test_measuring_ends_where_batches_make_it_worse_or_cannot_be_run():
    assert measure_curve(lambda rows: rows**1.5, 8) == {1: 1.0, 2: 2**1.5}

    def one_only(rows):
        if rows > 1:
            raise EngineError("one at a time")
        return 1.0

    assert measure_curve(one_only, 8) == {1: 1.0}
    with pytest.raises(EngineError):
        measure_curve(one_only, 8, fixed=True)


@pytest.mark.parametrize("config", [fake_config(), fake_config(text=True, inner=True, luminance_planes=8)])
def test_a_pack_is_measured_by_its_own_engine(config):
    pack = fake_pack(config, cost={"denoise_step": lambda rows: 0.01})
    model = measure(pack)
    assert model.slots == 8 and 0.01 <= model.seconds(8, 16 * 24) < 0.2
    assert sorted(set(pack.engine("denoise_step").batches)) == [1, 2, 4, 8]
