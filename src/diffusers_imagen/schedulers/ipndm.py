# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Drive IPNDM, a linear multistep on a noise schedule of its own. Chosen by `bridge.py`."""

from diffusers.schedulers.scheduling_utils import SchedulerMixin
from torch import Tensor

from diffusers_imagen.diffusion.prediction import from_x_0
from diffusers_imagen.schedulers.family import Generators, SchedulerBridge


class IPNDMBridge(SchedulerBridge):
    """Drive IPNDM, which expects v; its `betas` are not variances but noise scales.

    Raises:
        ValueError: If it was given the betas of a training schedule.
    """

    family = "IPNDM"

    def __init__(self, scheduler: SchedulerMixin) -> None:
        super().__init__(scheduler)
        if scheduler.config.trained_betas is not None:
            raise ValueError(
                f"{self._name} has trained_betas, which it would take for the noise of each step; make it with "
                "trained_betas=None."
            )

    def noise_level(self, t: Tensor) -> tuple[float, float]:
        """Give (alpha, sigma) of the step."""
        index = self._step_index(t)
        return float(self.scheduler.alphas[index]), float(self.scheduler.betas[index])

    def model_output(self, x_0: Tensor, sample: Tensor, t: Tensor, variance: Tensor | None = None) -> Tensor:
        """Write x_0 as v; the variance is ignored."""
        return from_x_0(x_0, sample, *self.noise_level(t), "v_prediction")

    def _advance(self, output: Tensor, t: Tensor, sample: Tensor, generator: Generators) -> Tensor:
        index = self._step_index(t)
        result = super()._advance(output, t, sample, generator)
        if self.scheduler.alphas[index] > 0:
            return result
        # At pure noise it divides by alpha and takes x_0 for 0; v is -x_0 there.
        return result - self.scheduler.alphas[index + 1] * output

    def _falling(self) -> Tensor:
        return self.scheduler.betas
