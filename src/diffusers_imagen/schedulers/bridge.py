# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Choose how a scheduler is driven.

A further class is one line in the table here, a further family one file beside it.
"""

from collections.abc import Mapping

from diffusers.schedulers.scheduling_utils import SchedulerMixin

from diffusers_imagen.schedulers.family import SchedulerBridge
from diffusers_imagen.schedulers.flow import FlowBridge
from diffusers_imagen.schedulers.ve_sigma import VESigmaBridge
from diffusers_imagen.schedulers.vp_index import DDPMBridge, VPIndexBridge
from diffusers_imagen.schedulers.vp_sigma import VPSigmaBridge

__all__ = ["SchedulerBridge", "bridge_for"]

_BRIDGES: Mapping[str, type[SchedulerBridge]] = {
    "DDPMScheduler": DDPMBridge,
    "DDIMScheduler": VPIndexBridge,
    "DPMSolverMultistepScheduler": VPSigmaBridge,
    "EulerDiscreteScheduler": VESigmaBridge,
    "FlowMatchEulerDiscreteScheduler": FlowBridge,
}


def bridge_for(scheduler: SchedulerMixin) -> SchedulerBridge:
    """Build the bridge through which the sampling loop drives a scheduler.

    The family is found by the name of the scheduler's class or of the nearest base class known here.

    Args:
        scheduler: A Diffusers scheduler.

    Returns:
        The bridge of its family.

    Raises:
        ValueError: If the class is not supported, or its settings cannot work.
    """
    for base in type(scheduler).__mro__:
        if base.__name__ in _BRIDGES:
            return _BRIDGES[base.__name__](scheduler)
    raise ValueError(
        f"`scheduler` is a {type(scheduler).__name__}, and in which space it keeps its samples is not known here. Take "
        f"one of {', '.join(_BRIDGES)}; any of them works with any model, for instance "
        "DPMSolverMultistepScheduler.from_config(scheduler.config)."
    )
