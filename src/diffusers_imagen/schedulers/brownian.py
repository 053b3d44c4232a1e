# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Give the stochastic solvers that draw their noise from a Brownian path one that the call's generator decides."""

from typing import Any

import torch
from torch import Tensor

from diffusers_imagen.schedulers.family import Generators


def noise_sampler(sample: Tensor, sigmas: Tensor, generator: Generators) -> Any:
    """Build the noise source of DPMSolverSDE and CosineDPMSolverMultistep; needs torchsde.

    By itself the first would draw from the global random state, and the second repeat the same path in every call
    with the same generator.

    Args:
        sample: (B, C, H, W), whose shape and device the noise has.
        sigmas: (steps + 1,) all noise levels of the run.
        generator: One for the batch or one for each image; None for the global random state.

    Returns:
        Diffusers' `BrownianTreeNoiseSampler` from sigma 0 to the largest.
    """
    # Importable only where torchsde is installed.
    from diffusers.schedulers.scheduling_dpmsolver_sde import BrownianTreeNoiseSampler

    seed = [_draw_seed(each) for each in generator] if isinstance(generator, list) else _draw_seed(generator)
    # A little beyond the largest, which torchsde rounds.
    return BrownianTreeNoiseSampler(sample, 0.0, 1.001 * float(sigmas.max()), seed)


def _draw_seed(generator: torch.Generator | None) -> int:
    device = None if generator is None else generator.device
    return int(torch.randint(0, 2**63 - 1, (), generator=generator, device=device))
