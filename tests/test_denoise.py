"""The loop over an engine: against float64, in mixed batches, cancelled, watched."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from colorflow_rt.denoise import Engines, Slot, advance, denoise, run, spread
from colorflow_rt.engine import Engine, Tensors, TensorSpec, check_feeds
from colorflow_rt.engine.fake import FakeEngine, fake_config, fake_engines
from colorflow_rt.errors import Cancelled, EngineError
from colorflow_rt.schedule import Schedule, SchedulerConfig

LATENT = ("B", 2, "h", "w")
INPUTS = (
    TensorSpec("sample", "float32", LATENT),
    TensorSpec("x0_prev1", "float32", LATENT),
    TensorSpec("x0_prev2", "float32", LATENT),
    TensorSpec("condition", "float32", ("B", 3, "h", "w")),
    TensorSpec("timestep", "int64", ("B",)),
    TensorSpec("predictor", "float32", ("B", 3)),
    TensorSpec("denoiser", "float32", ("B", 2)),
    TensorSpec("corrector", "float32", ("B", 4)),
)
GUIDANCE = TensorSpec("guidance_scale", "float32", ("B",))
OUTPUTS = (TensorSpec("sample_next", "float32", LATENT), TensorSpec("x0", "float32", LATENT))


class Network:
    """A denoise_step with a nonlinear stand-in for the U-Net, in the dtype of its feeds."""

    def __init__(self, *, text: bool = False) -> None:
        self.inputs, self.outputs = (*INPUTS, GUIDANCE) if text else INPUTS, OUTPUTS
        self.calls: list[Tensors] = []

    def __call__(self, feeds: Tensors) -> dict[str, NDArray[Any]]:
        check_feeds("denoise_step", self.inputs, feeds)
        self.calls.append(feeds)
        rows = [{name: array[i] for name, array in feeds.items()} for i in range(len(feeds["timestep"]))]
        found = [step(row) for row in rows]
        return {"sample_next": np.stack([n for n, _ in found]), "x0": np.stack([x for _, x in found])}


def step(row: Tensors) -> tuple[NDArray[Any], NDArray[Any]]:
    p, d, c = row["predictor"], row["denoiser"], row["corrector"]
    x = p[0] * row["sample"] + p[1] * row["x0_prev1"] + p[2] * row["x0_prev2"]
    output = np.tanh(x[::-1] + row["condition"][:2] + row["timestep"].astype(x.dtype) / 1000)
    output = output * row.get("guidance_scale", x.dtype.type(1))
    x0 = d[0] * x + d[1] * output
    return c[0] * row["sample"] + c[1] * row["x0_prev1"] + c[2] * row["x0_prev2"] + c[3] * x0, x0


def only(engine: Engine) -> Engines:
    """The engines of a loop that calls denoise_step alone."""
    return {"denoise_step": engine}.__getitem__


def schedule_of(steps: int) -> Schedule:
    return Schedule.create(steps, SchedulerConfig(prediction_type="v_prediction"))


def inputs_of(batch: int, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    rng = np.random.default_rng(seed)
    noise, condition = rng.normal(size=(batch, 2, 4, 6)), rng.normal(size=(batch, 3, 4, 6))
    return noise.astype(np.float32), condition.astype(np.float32)


def in_float64(noise: NDArray[Any], condition: NDArray[Any], schedule: Schedule) -> NDArray[Any]:
    sample, m1, m2 = noise.astype(np.float64), np.zeros(noise.shape), np.zeros(noise.shape)
    for i in range(len(schedule)):
        row = {"sample": sample, "x0_prev1": m1, "x0_prev2": m2, "condition": condition.astype(np.float64)}
        row |= {"predictor": schedule.predictor[i], "denoiser": schedule.denoiser[i]}
        row |= {"corrector": schedule.corrector[i], "timestep": schedule.timesteps[i]}
        sample_next, x0 = step(row)
        sample, m1, m2 = sample_next, x0, m1
    return m1


@pytest.mark.parametrize("steps", [1, 2, 3, 10])
def test_float32_loop_equals_float64(steps: int) -> None:
    noise, condition = inputs_of(2)
    found = denoise(only(Network()), noise, condition, schedule_of(steps))
    assert found.dtype == np.float32
    assert found.shape == noise.shape
    for i in range(2):
        expected = in_float64(noise[i], condition[i], schedule_of(steps))
        assert np.linalg.norm(found[i] - expected) < 1e-5 * np.linalg.norm(expected)


def test_inputs_are_left_alone() -> None:
    noise, condition = inputs_of(1)
    before = noise.copy(), condition.copy()
    denoise(only(Network()), noise, condition, schedule_of(3))
    assert np.array_equal(noise, before[0])
    assert np.array_equal(condition, before[1])


def test_slots_at_their_own_steps_share_a_batch_and_change_nothing() -> None:
    """Three canvases with different numbers of steps join and leave; each must end as if it were alone."""
    network, (noise, condition) = Network(), inputs_of(3)
    slots = [Slot(noise[i], condition[i], schedule_of(n)) for i, n in enumerate((2, 5, 3))]
    arrivals = {0: [slots[1]], 1: [slots[0]], 3: [slots[2]]}
    running: list[Slot] = []
    for turn in range(6):
        running = [slot for slot in running if not slot.done] + arrivals.get(turn, [])
        advance(only(network), running)
    assert [slot.done for slot in slots] == [True, True, True]
    assert [len(call["timestep"]) for call in network.calls] == [1, 2, 2, 2, 2, 1]
    for i, slot in enumerate(slots):
        alone = denoise(only(Network()), noise[i : i + 1], condition[i : i + 1], slot.schedule)
        assert np.array_equal(slot.result(), alone[0])


def test_guidance_is_fed_to_graphs_that_have_it() -> None:
    noise, condition = inputs_of(2)
    plain, text = Network(), Network(text=True)
    without = denoise(only(plain), noise, condition, schedule_of(3), guidance_scale=7.5)
    assert "guidance_scale" not in plain.calls[0]
    assert np.array_equal(without, denoise(only(plain), noise, condition, schedule_of(3)))
    guided = denoise(only(text), noise, condition, schedule_of(3), guidance_scale=7.5)
    assert text.calls[0]["guidance_scale"].tolist() == [7.5, 7.5]
    assert not np.allclose(guided, without)


def test_every_step_is_reported_and_the_last_is_the_result() -> None:
    noise, condition = inputs_of(2)
    seen: list[tuple[int, int, NDArray[np.float32]]] = []
    result = denoise(
        only(Network()), noise, condition, schedule_of(4), on_step=lambda i, n, x0: seen.append((i, n, x0))
    )
    assert [(i, n) for i, n, _ in seen] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert np.array_equal(seen[-1][2], result)
    assert not np.array_equal(seen[0][2], result)


@pytest.mark.parametrize("after", [0, 2])
def test_cancelled_between_steps(after: int) -> None:
    network, (noise, condition) = Network(), inputs_of(1)
    with pytest.raises(Cancelled, match=f"cancelled after {after} of 5 steps"):
        denoise(only(network), noise, condition, schedule_of(5), cancelled=lambda: len(network.calls) == after)
    assert len(network.calls) == after


def test_a_result_that_is_not_finite_is_an_error() -> None:
    noise, condition = inputs_of(2)
    condition[1, 0, 0, 0] = np.nan
    slots = [Slot(noise[i], condition[i], schedule_of(2)) for i in range(2)]
    network = Network()
    for _ in range(2):
        advance(only(network), slots)
    assert np.isfinite(slots[0].result()).all()
    with pytest.raises(EngineError, match="not finite by step 2 of 2"):
        slots[1].result()


def test_shapes_that_do_not_fit_are_named_by_the_engine() -> None:
    noise, condition = inputs_of(1)
    with pytest.raises(EngineError, match="denoise_step takes condition"):
        denoise(only(Network()), noise, condition[:, :, :2], schedule_of(1))


def test_guidance_in_the_first_steps_only() -> None:
    engine = Network(text=True)
    noise, condition = inputs_of(1)
    slot = Slot(noise[0], condition[0], schedule_of(4), 7.5, guidance_steps=2)
    for _ in range(4):
        advance(only(engine), [slot])
    assert [float(call["guidance_scale"][0]) for call in engine.calls] == [7.5, 7.5, 1.0, 1.0]


# The guider in some of the steps only


def parted_slot(guider_steps: int | None, steps: int = 10, seed: int = 0) -> Slot:
    rng = np.random.default_rng(seed)
    noise, condition = rng.normal(size=(4, 4, 6)), rng.normal(size=(5, 4, 6))
    schedule = Schedule.create(steps, CONFIG.scheduler_config)
    return Slot(noise.astype(np.float32), condition.astype(np.float32), schedule, guider_steps=guider_steps)


CONFIG = fake_config()


def batches_of(engines: dict[str, FakeEngine]) -> dict[str, list[int]]:
    return {name: engines[name].batches for name in ("denoise_step", "guider", "denoise_reuse")}


@pytest.mark.parametrize(
    ("count", "steps", "expected"),
    [
        (4, 10, [0, 3, 6, 9]),
        (2, 10, [0, 9]),
        (3, 10, [0, 4, 9]),
        (2, 3, [0, 2]),
        (9, 10, [0, 1, 2, 3, 4, 5, 6, 7, 9]),
        (10, 10, list(range(10))),
        (50, 3, [0, 1, 2]),
        (1, 1, [0]),
    ],
)
def test_the_guider_s_steps_are_spread_with_both_ends(count: int, steps: int, expected: list[int]) -> None:
    assert spread(count, steps) == expected


def test_every_spread_has_both_ends_and_no_step_twice() -> None:
    for steps in range(2, 40):
        for count in range(2, steps + 1):
            found = spread(count, steps)
            assert (found[0], found[-1], len(set(found))) == (0, steps - 1, count)
            gaps = np.diff(found)
            assert gaps.max() - gaps.min() <= 1 and found == sorted(found)


@pytest.mark.parametrize("guider_steps", [10, 1000])
def test_as_many_as_there_are_steps_is_the_whole_procedure_exactly(guider_steps: int) -> None:
    engines = fake_engines(CONFIG)
    expected = run(engines.__getitem__, [parted_slot(None)])
    assert np.array_equal(run(engines.__getitem__, [parted_slot(guider_steps)]), expected)
    assert batches_of(engines) == {"denoise_step": [1] * 20, "guider": [], "denoise_reuse": []}


def test_the_guider_is_evaluated_when_it_is_due() -> None:
    engines, slot, asked, kept = fake_engines(CONFIG), parted_slot(4), list[bool](), list[bool]()
    expected = run(engines.__getitem__, [parted_slot(None)])
    while not slot.done:
        asked.append(slot.guider_is_due)
        advance(engines.__getitem__, [slot])
        kept.append(bool(slot.features))
    assert [step for step, due in enumerate(asked) if due] == [0, 3, 6, 9]
    assert kept == [True] * 9 + [False]  # nobody needs them after the last step
    assert batches_of(engines) == {"denoise_step": [1] * 10, "guider": [1] * 4, "denoise_reuse": [1] * 10}
    found, difference = slot.result(), np.linalg.norm(slot.result() - expected[0])
    assert 0 < difference < 0.02 * np.linalg.norm(found)


def test_only_the_engines_of_its_way_are_asked_for() -> None:
    asked, engines = set[str](), fake_engines(CONFIG)

    def load(graph: str) -> Engine:
        asked.add(graph)
        return engines[graph]

    run(load, [parted_slot(2)])
    assert asked == {"guider", "denoise_reuse"}


def test_slots_of_every_kind_share_a_batch_and_change_nothing() -> None:
    """Each must end, bit by bit, as if it were alone, whatever is beside it and whoever is due."""
    ways = [(None, 5), (2, 7), (3, 4), (4, 10), (7, 7), (2, 3)]
    slots = [parted_slot(few, steps, seed) for seed, (few, steps) in enumerate(ways)]
    engines, running = fake_engines(CONFIG), list[Slot]()
    waiting = [*slots]
    while waiting or any(not slot.done for slot in running):
        running = [slot for slot in running if not slot.done] + [waiting.pop(0) for _ in waiting[:1]]
        advance(engines.__getitem__, running[::-1] if len(waiting) % 2 else running)
    assert max(engines["denoise_reuse"].batches) > 1 and max(engines["guider"].batches) > 1
    for seed, (slot, (few, steps)) in enumerate(zip(slots, ways, strict=True)):
        alone = run(fake_engines(CONFIG).__getitem__, [parted_slot(few, steps, seed)])
        assert np.array_equal(slot.result(), alone[0])


def test_a_step_that_fails_moves_nobody_and_may_be_tried_again() -> None:
    engines, broken = fake_engines(CONFIG), fake_engines(CONFIG, fail_after={"denoise_reuse": 0})
    slots = [parted_slot(None), parted_slot(3)]
    with pytest.raises(EngineError, match="denoise_reuse failed"):
        advance(broken.__getitem__, slots)
    assert [slot.step for slot in slots] == [0, 0]
    for slot, few in zip(slots, (None, 3), strict=True):
        while not slot.done:
            advance(engines.__getitem__, [slot])
        assert np.array_equal(slot.result(), run(engines.__getitem__, [parted_slot(few)])[0])


def test_features_of_one_slot_are_handed_over_without_a_copy() -> None:
    engines, slot, fed = fake_engines(CONFIG), parted_slot(2), list[Tensors]()

    class Watched:
        inputs, outputs = engines["denoise_reuse"].inputs, engines["denoise_reuse"].outputs

        def __call__(self, feeds: Tensors) -> dict[str, NDArray[Any]]:
            fed.append(feeds)
            return engines["denoise_reuse"](feeds)

    table: dict[str, Engine] = {**engines, "denoise_reuse": Watched()}
    advance(table.__getitem__, [slot])
    assert all(np.shares_memory(fed[0][name], feature) for name, feature in slot.features.items())
    assert len(slot.features) == 3
