"""The coefficient tables against diffusers, which keeps its state per run, and at their edges."""

import numpy as np
import pytest
import torch
from diffusers import PNDMScheduler, UniPCMultistepScheduler

from colorflow_rt.errors import OptionError
from colorflow_rt.schedule import Schedule, SchedulerConfig

# diffusers turns a torch tensor into a NumPy 2 array in the old way, in set_timesteps.
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning:"
    "diffusers.schedulers.scheduling_unipc_multistep"
)

SD15 = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "skip_prk_steps": True,
    "set_alpha_to_one": False,
    "steps_offset": 1,
    "timestep_spacing": "linspace",
}
SHAPE = (2, 4, 3, 5)
MIX = np.random.default_rng(7).normal(size=(4, 4)) / 2


def model(x: np.ndarray, timestep: int) -> np.ndarray:
    """A nonlinear stand-in for the network that mixes channels and depends on the timestep."""
    return np.tanh(np.einsum("ij,bjhw->bihw", MIX, x) + timestep / 1000) + 0.1 * x * np.cos(timestep)


def noise() -> np.ndarray:
    return np.random.default_rng(3).normal(size=SHAPE)


def run_ours(schedule: Schedule) -> list[np.ndarray]:
    sample, m1, m2, found = noise(), np.zeros(SHAPE), np.zeros(SHAPE), []
    for t, p, d, c in zip(schedule.timesteps, schedule.predictor, schedule.denoiser, schedule.corrector, strict=True):
        x = p[0] * sample + p[1] * m1 + p[2] * m2
        x0 = d[0] * x + d[1] * model(x, int(t))
        sample, m1, m2 = c[0] * sample + c[1] * m1 + c[2] * m2 + c[3] * x0, x0, m1
        found.append(x0)
    return found


def diffusers_scheduler(steps: int, prediction_type: str) -> UniPCMultistepScheduler:
    scheduler = UniPCMultistepScheduler.from_config(PNDMScheduler(**SD15).config, prediction_type=prediction_type)
    scheduler.set_timesteps(steps)
    return scheduler


def in_float64(scheduler: UniPCMultistepScheduler) -> UniPCMultistepScheduler:
    """Its noise levels are float32 by construction; give it those of float64: only formulas are compared."""
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    left = np.cumprod(1 - betas)[scheduler.timesteps.numpy()]
    scheduler.sigmas = torch.from_numpy(np.append(np.sqrt((1 - left) / left), 0.0))
    return scheduler


def run_diffusers(scheduler: UniPCMultistepScheduler) -> list[np.ndarray]:
    sample, found = torch.from_numpy(noise()), []
    for t in scheduler.timesteps:
        output = torch.from_numpy(model(sample.numpy(), int(t)))
        sample = scheduler.step(output, t, sample).prev_sample
        found.append(scheduler.model_outputs[-1].numpy())
    assert np.allclose(found[-1], sample, rtol=1e-12)  # final sigma zero: the result is the last x0
    return found


def largest_error(ours: list[np.ndarray], theirs: list[np.ndarray]) -> float:
    return max(float(np.linalg.norm(a - b) / np.linalg.norm(b)) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 10, 20, 50])
def test_whole_run_equals_diffusers(steps: int, prediction_type: str) -> None:
    ours = run_ours(Schedule.create(steps, SchedulerConfig(prediction_type=prediction_type)))
    theirs = diffusers_scheduler(steps, prediction_type)
    # diffusers keeps its sigmas in float32, which a network that puts out x0 does not divide away again.
    assert largest_error(ours, run_diffusers(theirs)) < (1e-5 if prediction_type == "sample" else 1e-6)
    exact = run_diffusers(in_float64(diffusers_scheduler(steps, prediction_type)))
    assert largest_error(ours, exact) < 1e-11


@pytest.mark.parametrize("steps", [1, 2, 7, 10, 50, 999, 1000])
def test_timesteps_are_those_of_diffusers(steps: int) -> None:
    schedule = Schedule.create(steps, SchedulerConfig())
    assert schedule.timesteps.dtype == np.int64
    assert schedule.timesteps.tolist() == diffusers_scheduler(steps, "epsilon").timesteps.tolist()


def test_ten_steps_are_the_demo_s() -> None:
    timesteps = Schedule.create(10, SchedulerConfig()).timesteps
    assert timesteps.tolist() == [999, 899, 799, 699, 599, 500, 400, 300, 200, 100]


@pytest.mark.parametrize("beta_schedule", ["scaled_linear", "linear"])
def test_beta_schedules(beta_schedule: str) -> None:
    theirs = UniPCMultistepScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule=beta_schedule)
    ours = SchedulerConfig(beta_schedule=beta_schedule).alphas_cumprod()
    np.testing.assert_allclose(ours, theirs.alphas_cumprod.numpy(), rtol=1e-5)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("steps", [1, 4, 998, 999, 1000])
def test_a_perfect_model_finds_the_picture(steps: int, prediction_type: str) -> None:
    """A model that knows x0 is led to it whatever the number of steps, also where a timestep comes twice."""
    config = SchedulerConfig(prediction_type=prediction_type)
    schedule = Schedule.create(steps, config)
    target, sample, m1, m2 = 0.5, 1.7, 0.0, 0.0
    for t, p, d, c in zip(schedule.timesteps, schedule.predictor, schedule.denoiser, schedule.corrector, strict=True):
        left = config.alphas_cumprod()[t]
        x = p @ [sample, m1, m2]
        eps = (x - np.sqrt(left) * target) / np.sqrt(1 - left)
        v = np.sqrt(left) * eps - np.sqrt(1 - left) * target
        output = {"epsilon": eps, "v_prediction": v, "sample": target}[prediction_type]
        x0 = d @ [x, output]
        assert x0 == pytest.approx(target, rel=1e-9)
        sample, m1, m2 = c @ [sample, m1, m2, x0], x0, m1
        final = np.sqrt(1 - left)
    # The trajectory of a constant x0 keeps its noise: what is left of 1.7 scales with the noise level.
    if steps > 1:
        first = config.alphas_cumprod()[schedule.timesteps[0]]
        start_eps = (1.7 - np.sqrt(first) * target) / np.sqrt(1 - first)
        assert sample == pytest.approx(np.sqrt(left) * target + final * start_eps, rel=1e-6)


@pytest.mark.parametrize("steps", [0, -1, 1001])
def test_steps_out_of_range_are_refused(steps: int) -> None:
    with pytest.raises(OptionError, match=f"steps is {steps}, expected 1 to 1000"):
        Schedule.create(steps, SchedulerConfig())


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("beta_schedule", "cosine", "beta_schedule is 'cosine', expected one of scaled_linear, linear"),
        ("timestep_spacing", "leading", "timestep_spacing is 'leading', expected one of linspace"),
        ("prediction_type", "flow", "prediction_type is 'flow', expected one of epsilon, v_prediction, sample"),
        ("num_train_timesteps", 0, "num_train_timesteps is 0, expected 1 or more"),
        ("beta_start", 0.0, "expected 0 < start <= end < 1"),
        ("beta_end", 0.0001, "expected 0 < start <= end < 1"),
    ],
)
def test_config_is_checked(field: str, value: object, expected: str) -> None:
    with pytest.raises(OptionError, match=expected):
        SchedulerConfig(**{field: value})
