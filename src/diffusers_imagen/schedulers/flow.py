# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Drive schedulers of the flow-matching space, sample = (1 - sigma) * x_0 + sigma * eps. Chosen by `bridge.py`."""

from typing import Any

from diffusers.schedulers.scheduling_utils import SchedulerMixin
from torch import Tensor

from diffusers_imagen.diffusion.prediction import from_x_0
from diffusers_imagen.schedulers.family import SchedulerBridge


class FlowBridge(SchedulerBridge):
    """Drive flow-matching Euler and its kin, which expect eps - x_0 and never clip.

    Raises:
        ValueError: If the scheduler wants a shift by the size of the image, walks from clean to noise, or enlarges the
            picture on the way.
    """

    family = "flow matching"

    def __init__(self, scheduler: SchedulerMixin) -> None:
        super().__init__(scheduler)
        if scheduler.config.get("use_dynamic_shifting"):
            raise ValueError(
                f"{self._name} has use_dynamic_shifting, whose shift is tuned to the sequence lengths of latent "
                "models; make it with use_dynamic_shifting=False and a fixed shift, such as shift=3.0."
            )
        if scheduler.config.get("invert_sigmas"):
            raise ValueError(
                f"{self._name} has invert_sigmas, which counts noise backwards; make it with invert_sigmas=False."
            )
        if scheduler.config.get("scale_factors"):
            raise ValueError(
                f"{self._name} has scale_factors, which enlarge the picture between steps; make it with "
                "scale_factors=None: the cascade has stages for that."
            )
        self._read: Tensor | None = None
        self._sigmas: list[float] = []

    def noise_level(self, t: Tensor) -> tuple[float, float]:
        """Give (1 - sigma, sigma) of the step."""
        if self._read is not self.scheduler.sigmas:
            # These lie where the timesteps do; fetching one per step would stop the accelerator at each.
            self._read = self.scheduler.sigmas
            self._sigmas = self._read.tolist()
        sigma = self._sigmas[self._step_index(t)]
        return 1 - sigma, sigma

    def model_output(self, x_0: Tensor, sample: Tensor, t: Tensor, variance: Tensor | None = None) -> Tensor:
        """Write x_0 as eps - x_0; the variance is ignored."""
        alpha, sigma = self.noise_level(t)
        return from_x_0(x_0, sample, alpha, sigma, "flow_prediction")

    def _largest_timestep(self) -> float:
        return self.scheduler.config.num_train_timesteps


class FlowHeunBridge(FlowBridge):
    """Drive flow-matching Heun, which evaluates at the end of each step once more and goes on from its beginning."""

    kept_sample = "sample"


class LTXBridge(FlowBridge):
    """Drive LTX's ancestral Euler, which takes custom steps with the 0 at their end."""

    def _lay_out(self, request: dict[str, Any], device: Any) -> None:
        if "timesteps" in request:
            # It would take timesteps for sigmas.
            request = {"sigmas": [t / self.scheduler.config.num_train_timesteps for t in request["timesteps"]]}
        if "sigmas" in request:
            request = {"sigmas": _ending_at_zero(request["sigmas"])}
        super()._lay_out(request, device)

    def _timesteps(self) -> Tensor:
        return self.scheduler.timesteps[: len(self.scheduler.sigmas) - 1]


class MiniMaxBridge(FlowBridge):
    """Drive MiniMaxH3, which expects x_0 - eps, counts time from noise to clean and evaluates once less than asked."""

    def model_output(self, x_0: Tensor, sample: Tensor, t: Tensor, variance: Tensor | None = None) -> Tensor:
        """Write x_0 as x_0 - eps; the variance is ignored."""
        return -super().model_output(x_0, sample, t)

    def _lay_out(self, request: dict[str, Any], device: Any) -> None:
        if "sigmas" in request:
            request = {"sigmas": _ending_at_zero(request["sigmas"])}
        super()._lay_out(request, device)


def _ending_at_zero(sigmas: Any) -> list[float]:
    return [*sigmas] if sigmas[-1] == 0 else [*sigmas, 0.0]
