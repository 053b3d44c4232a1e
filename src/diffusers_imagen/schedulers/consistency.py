# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Drive the sampler of consistency models (arXiv:2303.01469), sample = x_0 + sigma * eps. Chosen by `bridge.py`."""

import torch
from torch import Tensor

from diffusers_imagen.schedulers.family import SchedulerBridge


class ConsistencyBridge(SchedulerBridge):
    """Drive CMStochasticIterative, which reads x_0 = c_skip * sample + c_out * output and draws new noise each step."""

    family = "consistency"

    def noise_level(self, t: Tensor) -> tuple[float, float]:
        """Give (1, sigma) of the step."""
        return 1.0, float(self.scheduler.sigmas[self._step_index(t)])

    def model_output(self, x_0: Tensor, sample: Tensor, t: Tensor, variance: Tensor | None = None) -> Tensor:
        """Write x_0 as the output of a consistency model; the variance is ignored."""
        sigma = torch.tensor(self.noise_level(t)[1], dtype=torch.float64)
        c_skip, c_out = (float(value) for value in self.scheduler.get_scalings_for_boundary_condition(sigma))
        dtype = torch.promote_types(x_0.dtype, torch.float32)
        return (x_0.to(dtype) - c_skip * sample.to(dtype)) / c_out
