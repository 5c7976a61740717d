"""The sampler as numbers: UniPC (arXiv 2302.04867) as linear combinations.

One step of the loop is linear in at most four tensors, so a run of N steps is three small tables, computed
once in float64 on the host and handed to the graph as inputs (docs/pack.md; formulas: facts, section 9).
Variant: bh2, order 2, x0 prediction, corrector on, final sigma 0, as diffusers' UniPCMultistepScheduler made
from the SD 1.5 configuration.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from colorflow_rt.errors import OptionError

Floats = NDArray[np.float64]

BETA_SCHEDULES = ("scaled_linear", "linear")
TIMESTEP_SPACINGS = ("linspace",)
PREDICTION_TYPES = ("epsilon", "v_prediction", "sample")


@dataclass(frozen=True)
class NoiseConfig:
    """The noise that a model was trained with: [scheduler] of pack.toml. Defaults are those of SD 1.5."""

    num_train_timesteps: int = 1000
    beta_start: float = 0.00085
    beta_end: float = 0.012
    beta_schedule: str = "scaled_linear"
    timestep_spacing: str = "linspace"

    def __post_init__(self) -> None:
        _require("num_train_timesteps", self.num_train_timesteps, self.num_train_timesteps >= 1, "1 or more")
        ordered = 0 < self.beta_start <= self.beta_end < 1
        _require("beta_start, beta_end", (self.beta_start, self.beta_end), ordered, "0 < start <= end < 1")
        _one_of("beta_schedule", self.beta_schedule, BETA_SCHEDULES)
        _one_of("timestep_spacing", self.timestep_spacing, TIMESTEP_SPACINGS)

    def alphas_cumprod(self) -> Floats:
        """Share of the signal's variance that is left at each training timestep, f64[num_train_timesteps]."""
        power = 0.5 if self.beta_schedule == "scaled_linear" else 1.0
        betas = np.linspace(self.beta_start**power, self.beta_end**power, self.num_train_timesteps)
        return np.asarray(np.cumprod(1.0 - betas ** (1 / power)))


@dataclass(frozen=True)
class SchedulerConfig(NoiseConfig):
    """The noise, and what the network says: "epsilon" (the noise), "v_prediction" or "sample" (x0 itself)."""

    prediction_type: str = "epsilon"

    def __post_init__(self) -> None:
        super().__post_init__()
        _one_of("prediction_type", self.prediction_type, PREDICTION_TYPES)


@dataclass(frozen=True, eq=False)
class Schedule:
    """The coefficients of a run of N steps; row i belongs to step i.

    timesteps i64[N]      what the network is told
    predictor f64[N,3]    x = predictor . (sample, x0_prev1, x0_prev2): the network's input
    denoiser  f64[N,2]    x0 = denoiser . (x, output)
    corrector f64[N,4]    sample_next = corrector . (sample, x0_prev1, x0_prev2, x0)

    The run starts from (noise, 0, 0); its result is the last x0.
    """

    timesteps: NDArray[np.int64]
    predictor: Floats
    denoiser: Floats
    corrector: Floats

    def __len__(self) -> int:
        return len(self.timesteps)

    @classmethod
    def create(cls, steps: int, config: SchedulerConfig) -> "Schedule":
        """The schedule of `steps` network calls; OptionError unless 1 <= steps <= num_train_timesteps."""
        most = config.num_train_timesteps
        _require("steps", steps, 1 <= steps <= most, f"1 to {most}")
        spaced = np.linspace(0, most - 1, steps + 1).round()[::-1][:-1]
        timesteps = spaced.astype(np.int64)
        left = config.alphas_cumprod()[timesteps]
        alpha, s = np.sqrt(left), np.sqrt(1.0 - left)
        predictor, corrector = _unipc(alpha, s)
        return cls(timesteps, predictor, _denoiser(alpha, s, config.prediction_type), corrector)


def _denoiser(alpha: Floats, s: Floats, prediction_type: str) -> Floats:
    """Factors of (x, output) in x0, where x = alpha x0 + s eps and v = alpha eps - s x0."""
    if prediction_type == "epsilon":
        return np.stack([1.0 / alpha, -s / alpha], axis=1)
    if prediction_type == "v_prediction":
        return np.stack([alpha, -s], axis=1)
    return np.stack([np.zeros_like(alpha), np.ones_like(alpha)], axis=1)


def _unipc(alpha: Floats, s: Floats) -> tuple[Floats, Floats]:
    """Predictor f64[N,3] and corrector f64[N,4]; corrector i mends the move that predictor i made.

    A timestep comes twice when steps = num_train_timesteps: its second step stands still, and the one after
    has only one point to lean on, so it is of order 1.
    """
    lam = np.log(alpha / s)
    predictor = np.tile([1.0, 0.0, 0.0], (len(alpha), 1))
    corrector = np.tile([1.0, 0.0, 0.0, 0.0], (len(alpha), 1))
    for i in range(1, len(alpha)):
        h = lam[i] - lam[i - 1]
        if h == 0:
            continue
        back = lam[i - 2] - lam[i - 1] if i >= 2 else 0.0
        keep, gain = s[i] / s[i - 1], -alpha[i] * np.expm1(-h)
        predictor[i] = _predict(keep, gain, back / h)
        corrector[i] = _correct(keep, gain, h, back / h)
    return predictor, corrector


def _predict(keep: float, gain: float, r: float) -> tuple[float, float, float]:
    """Factors of (sample, x0_prev1, x0_prev2); r: the last step over this one in log-SNR, 0: order 1."""
    p2 = gain / (2 * r) if r else 0.0
    return keep, gain - p2, p2


def _correct(keep: float, gain: float, h: float, r: float) -> tuple[float, float, float, float]:
    """Factors of (sample, x0_prev1, x0_prev2, x0), x0 being the one just found at the step's own end."""
    k2, k3 = 0.0, gain / 2
    if r:
        e = float(np.expm1(-h))
        p = -e / h - 1
        b1, b2 = p / e, 2 * (-p / h - 0.5) / e
        rho0 = (b1 - b2) / (1 - r)
        k2, k3 = gain * rho0 / r, gain * (b1 - rho0)
    return keep, gain - k2 - k3, k2, k3


def _require(name: str, value: object, holds: bool, expected: str) -> None:
    if not holds:
        raise OptionError(f"{name} is {value}, expected {expected}")


def _one_of(name: str, value: str, choices: tuple[str, ...]) -> None:
    _require(name, repr(value), value in choices, "one of " + ", ".join(choices))
