# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Drive schedulers of the flow-matching space, sample = (1 - sigma) * x_0 + sigma * eps. Chosen by `bridge.py`."""

from diffusers.schedulers.scheduling_utils import SchedulerMixin
from torch import Tensor

from diffusers_imagen.diffusion.prediction import from_x_0
from diffusers_imagen.schedulers.family import SchedulerBridge


class FlowBridge(SchedulerBridge):
    """Drive flow-matching Euler and its kin, which expect eps - x_0 and never clip.

    Raises:
        ValueError: If the scheduler wants a shift by the size of the image, or walks from clean to noise.
    """

    prediction_types = ()

    def __init__(self, scheduler: SchedulerMixin) -> None:
        super().__init__(scheduler)
        if scheduler.config.use_dynamic_shifting:
            raise ValueError(
                f"{self._name} has use_dynamic_shifting, whose shift is tuned to the sequence lengths of latent "
                "models; make it with use_dynamic_shifting=False and a fixed shift, such as shift=3.0."
            )
        if scheduler.config.invert_sigmas:
            raise ValueError(
                f"{self._name} has invert_sigmas, which counts noise backwards; make it with invert_sigmas=False."
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
