"""The published procedure in plain PyTorch, as the authors' demo runs it: the yardstick for parity and speed.

It wastes what the demo wastes (facts, section 7): the guider runs in both guidance halves, every condition image is
encoded once per half, the whole canvas is decoded; and it steps with diffusers' own scheduler. What is around the
networks (fitting, retrieval, canvas, initial noise) is the runtime's, so that results can be compared.
"""

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import UniPCMultistepScheduler
from numpy.typing import NDArray
from torch import Tensor, nn

from colorflow_export.graphs import graphs_of
from colorflow_export.modules.bundle import Modules
from colorflow_export.packs import load_modules
from colorflow_rt import latents as lat
from colorflow_rt.denoise import Slot
from colorflow_rt.engine import Engine, TensorSpec
from colorflow_rt.options import ColorizeOptions
from colorflow_rt.pack import Pack, open_pack
from colorflow_rt.page import PageRun
from colorflow_rt.pipeline import DEFAULT_OPTIONS, Colorizer
from colorflow_rt.pixels import Picture, Source
from colorflow_rt.schedule import SchedulerConfig

Floats = NDArray[np.float32]
OnStep = Callable[[int, Tensor], None]


class Procedure:
    """The networks and the loop of the published procedure, float32.

    channels_last: keep weights and images in that memory layout, the faster one on some machines.
    """

    def __init__(self, modules: Modules, scheduler: SchedulerConfig, *, channels_last: bool = False) -> None:
        self.modules = modules
        self.scheduler = scheduler
        self._layout = torch.channels_last if channels_last else torch.contiguous_format
        for module in modules.parts().values():
            module.to(memory_format=self._layout)  # type: ignore[call-overload]

    def put(self, array: NDArray[Any] | Tensor) -> Tensor:
        """As a tensor in the memory layout of the networks."""
        tensor = torch.as_tensor(array)
        return tensor.contiguous(memory_format=self._layout) if tensor.ndim == 4 else tensor

    @torch.no_grad()
    def encode(self, image: Tensor, halves: int) -> Tensor:
        """image f32[1,3,H,W] in [-1,1] -> latents f32[1,C,h,w]; encoded once per guidance half, as the demo does.

        The posterior's mean stands for its sample: as good, and the same in every backend.
        """
        mean = self.modules.vae.moments(torch.cat([image] * halves))[0]
        return mean[:1] * self.modules.model.scaling_factor

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """latents f32[1,C,h,w] (scaled) -> image f32[1,3,H,W], not clamped: the whole canvas."""
        return self.modules.vae.reconstruct(latents / self.modules.model.scaling_factor)

    @torch.no_grad()
    def denoise(
        self, noise: Tensor, condition: Tensor, steps: int, guidance_scale: float, on_step: OnStep | None = None
    ) -> Tensor:
        """Latents f32[1,C,h,w] from noise of this shape under condition f32[1,K,h,w].

        on_step(step, predicted sample): what the scheduler returns after each step, from step 0.
        """
        scheduler = _scheduler(self.scheduler, steps)
        sample = noise
        for i, timestep in enumerate(scheduler.timesteps):
            output = self._predict(sample, timestep, condition, guidance_scale)
            sample = scheduler.step(output, timestep, sample, return_dict=False)[0]
            if on_step is not None:
                on_step(i, sample)
        return sample

    def _predict(self, sample: Tensor, timestep: Tensor, condition: Tensor, guidance_scale: float) -> Tensor:
        """Guider and U-Net; under guidance both in both halves, [negative, positive]."""
        text = self._text(guidance_scale)
        halves = 1 if text is None else len(text)
        samples, conditions = self.put(torch.cat([sample] * halves)), self.put(torch.cat([condition] * halves))
        timesteps = timestep.expand(halves)
        controls = self.modules.guider(samples, timesteps, conditions)
        output: Tensor = self.modules.unet(samples, timesteps, text, controls)
        if halves == 1:
            return output
        negative, positive = output.chunk(2)
        return negative + guidance_scale * (positive - negative)

    def _text(self, guidance_scale: float) -> Tensor | None:
        """f32[halves,N,D]: [negative, positive] under guidance, the prompt alone at 1; None for a textless model."""
        prompt, negative = self.modules.prompt_embeds, self.modules.negative_prompt_embeds
        if prompt is None or negative is None:
            return None
        return prompt[None] if guidance_scale == 1 else torch.stack([negative, prompt])


def _scheduler(config: SchedulerConfig, steps: int) -> UniPCMultistepScheduler:
    scheduler = UniPCMultistepScheduler(
        num_train_timesteps=config.num_train_timesteps,
        beta_start=config.beta_start,
        beta_end=config.beta_end,
        beta_schedule=config.beta_schedule,
        timestep_spacing=config.timestep_spacing,
        prediction_type=config.prediction_type,
        solver_order=2,
        solver_type="bh2",
        predict_x0=True,
        lower_order_final=True,
        final_sigmas_type="zero",
    )
    with warnings.catch_warnings():
        # diffusers turns a torch tensor into a NumPy 2 array in the old way
        warnings.simplefilter("ignore", DeprecationWarning)
        scheduler.set_timesteps(steps)
    return scheduler


class TorchEngine:
    """One graph of a pack computed by PyTorch, as an engine of the runtime."""

    def __init__(self, net: nn.Module, specs: tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]], put: Any) -> None:
        self.inputs, self.outputs = specs
        self._net, self._put = net, put

    @torch.no_grad()
    def __call__(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        found = self._net(**{name: self._put(array) for name, array in feeds.items()})
        tensors = found if isinstance(found, tuple) else (found,)
        return {spec.name: tensor.numpy() for spec, tensor in zip(self.outputs, tensors, strict=True)}


class TorchSource:
    """Where a pack's engines come from, if they come from PyTorch (`colorflow_rt.pack.Pack`)."""

    reuses = False  # the published procedure evaluates the guider in every step

    def __init__(self, procedure: Procedure) -> None:
        self._procedure = procedure
        self._graphs = {graph.name: graph for graph in graphs_of(procedure.modules)}

    def load(self, graph: str) -> Engine:
        record = self._graphs[graph]
        net = record.build(self._procedure.modules)
        return TorchEngine(net, (record.inputs, record.outputs), self._procedure.put)

    def verify(self) -> None:
        """The modules were verified when they were loaded."""

    def encoder_hashes(self) -> list[str]:
        return ["pytorch"]


class ReferenceColorizer(Colorizer):
    """The runtime's pipeline on the published procedure: networks and loop differ, nothing else."""

    def __init__(self, pack: str | Path, *, channels_last: bool = False) -> None:
        config = open_pack(pack).config
        self.procedure = Procedure(load_modules(pack), config.scheduler_config, channels_last=channels_last)
        super().__init__(Pack(config, TorchSource(self.procedure)))

    def begin(self, page: Source | Picture, references: Any, options: ColorizeOptions = DEFAULT_OPTIONS) -> PageRun:
        """A page that is encoded as the demo does."""
        pool = self.references(references)
        return _ReferenceRun(self.procedure, self.pack, self._tiles, self.limits, page, pool, options)

    def _denoise(self, slot: Slot, on_step: Any, cancelled: Any) -> None:
        noise, known = torch.from_numpy(slot.sample[None]), torch.from_numpy(slot.condition[None])
        found = self.procedure.denoise(noise, known, len(slot.schedule), slot.guidance_scale)
        slot.x0_prev1, slot.step = found.numpy()[0], len(slot.schedule)


class _ReferenceRun(PageRun):
    def __init__(self, procedure: Procedure, pack: Pack, *arguments: Any) -> None:
        super().__init__(pack, *arguments)
        self._procedure = procedure
        self._halves = 2 if pack.config.model.text_tokens else 1

    def _encode(self, canvas: NDArray[np.uint8]) -> Floats:
        image = self._procedure.put(lat.to_model(canvas[np.newaxis]))
        return self._procedure.encode(image, self._halves).numpy()

    def _condition(self, canvas: NDArray[np.uint8]) -> Floats:
        if not self.pack.config.model.has_inner:
            self._encode(lat.inner_only(canvas))  # the demo encodes the centre alone whether the guider takes it or not
        return super()._condition(canvas)
