"""The loop over an engine: against float64, in mixed batches, cancelled, watched."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from colorflow_rt.denoise import Slot, advance, denoise
from colorflow_rt.engine import Tensors, TensorSpec, check_feeds
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
    found = denoise(Network(), noise, condition, schedule_of(steps))
    assert found.dtype == np.float32
    assert found.shape == noise.shape
    for i in range(2):
        expected = in_float64(noise[i], condition[i], schedule_of(steps))
        assert np.linalg.norm(found[i] - expected) < 1e-5 * np.linalg.norm(expected)


def test_inputs_are_left_alone() -> None:
    noise, condition = inputs_of(1)
    before = noise.copy(), condition.copy()
    denoise(Network(), noise, condition, schedule_of(3))
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
        advance(network, running)
    assert [slot.done for slot in slots] == [True, True, True]
    assert [len(call["timestep"]) for call in network.calls] == [1, 2, 2, 2, 2, 1]
    for i, slot in enumerate(slots):
        alone = denoise(Network(), noise[i : i + 1], condition[i : i + 1], slot.schedule)
        assert np.array_equal(slot.result(), alone[0])


def test_guidance_is_fed_to_graphs_that_have_it() -> None:
    noise, condition = inputs_of(2)
    plain, text = Network(), Network(text=True)
    without = denoise(plain, noise, condition, schedule_of(3), guidance_scale=7.5)
    assert "guidance_scale" not in plain.calls[0]
    assert np.array_equal(without, denoise(plain, noise, condition, schedule_of(3)))
    guided = denoise(text, noise, condition, schedule_of(3), guidance_scale=7.5)
    assert text.calls[0]["guidance_scale"].tolist() == [7.5, 7.5]
    assert not np.allclose(guided, without)


def test_every_step_is_reported_and_the_last_is_the_result() -> None:
    noise, condition = inputs_of(2)
    seen: list[tuple[int, int, NDArray[np.float32]]] = []
    result = denoise(Network(), noise, condition, schedule_of(4), on_step=lambda i, n, x0: seen.append((i, n, x0)))
    assert [(i, n) for i, n, _ in seen] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert np.array_equal(seen[-1][2], result)
    assert not np.array_equal(seen[0][2], result)


@pytest.mark.parametrize("after", [0, 2])
def test_cancelled_between_steps(after: int) -> None:
    network, (noise, condition) = Network(), inputs_of(1)
    with pytest.raises(Cancelled, match=f"cancelled after {after} of 5 steps"):
        denoise(network, noise, condition, schedule_of(5), cancelled=lambda: len(network.calls) == after)
    assert len(network.calls) == after


def test_a_result_that_is_not_finite_is_an_error() -> None:
    noise, condition = inputs_of(2)
    condition[1, 0, 0, 0] = np.nan
    slots = [Slot(noise[i], condition[i], schedule_of(2)) for i in range(2)]
    network = Network()
    for _ in range(2):
        advance(network, slots)
    assert np.isfinite(slots[0].result()).all()
    with pytest.raises(EngineError, match="not finite by step 2 of 2"):
        slots[1].result()


def test_shapes_that_do_not_fit_are_named_by_the_engine() -> None:
    noise, condition = inputs_of(1)
    with pytest.raises(EngineError, match="denoise_step takes condition"):
        denoise(Network(), noise, condition[:, :, :2], schedule_of(1))


def test_guidance_in_the_first_steps_only() -> None:
    engine = Network(text=True)
    noise, condition = inputs_of(1)
    slot = Slot(noise[0], condition[0], schedule_of(4), 7.5, guidance_steps=2)
    for _ in range(4):
        advance(engine, [slot])
    assert [float(call["guidance_scale"][0]) for call in engine.calls] == [7.5, 7.5, 1.0, 1.0]
