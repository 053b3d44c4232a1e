# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Drive the predictor of the variance-exploding score SDE (arXiv:2011.13456). Chosen by `bridge.py`."""

from typing import Any

import torch
from torch import Tensor

from diffusers_imagen.schedulers.family import Generators, SchedulerBridge


class ScoreSdeVeBridge(SchedulerBridge):
    """Drive ScoreSdeVe by its predictor, sample = x_0 + sigma * eps; its output is the score, -eps / sigma.

    The corrector is left out: it would need further evaluations of the model for each step. Without it the predictor
    needs hundreds of steps.
    """

    family = "score SDE"

    def noise_level(self, t: Tensor) -> tuple[float, float]:
        """Give (1, sigma) at time t."""
        return 1.0, float(self.scheduler.discrete_sigmas[self._place(t)])

    def model_output(self, x_0: Tensor, sample: Tensor, t: Tensor, variance: Tensor | None = None) -> Tensor:
        """Write x_0 as the score; the variance is ignored."""
        _, sigma = self.noise_level(t)
        dtype = torch.promote_types(x_0.dtype, torch.float32)
        return (x_0.to(dtype) - sample.to(dtype)) / sigma**2

    def _lay_out(self, request: dict[str, Any], device: Any) -> None:
        super()._lay_out(request, device)
        self.scheduler.set_sigmas(request["num_inference_steps"])

    def _advance(self, output: Tensor, t: Tensor, sample: Tensor, generator: Generators) -> Tensor:
        result = self.scheduler.step_pred(output, t, sample, generator=generator)
        # After the last step its noise would stay in the picture.
        return result.prev_sample_mean if self._place(t) == 0 else result.prev_sample

    def _place(self, t: Tensor) -> int:
        """Give the index of t's noise level as the scheduler finds it."""
        return int((t * (len(self.scheduler.timesteps) - 1)).long())

    def _falling(self) -> Tensor:
        return torch.tensor([self._place(t) for t in self.scheduler.timesteps])
