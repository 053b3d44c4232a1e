# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Choose how a scheduler is driven: by what it can do, or by the name of its class where that would mislead.

A further class of a known family needs nothing here, an exception one line, a further family one file beside it and
one line. `catalogue.py` has what is told about each class.
"""

from collections.abc import Mapping

from diffusers.schedulers.scheduling_utils import SchedulerMixin
from diffusers.utils import logging

from diffusers_imagen.schedulers.catalogue import SCHEDULERS, Refused
from diffusers_imagen.schedulers.cogvideox import CogVideoXDPMBridge
from diffusers_imagen.schedulers.consistency import ConsistencyBridge
from diffusers_imagen.schedulers.edm import CosineDPMBridge, EDMBridge
from diffusers_imagen.schedulers.family import SchedulerBridge
from diffusers_imagen.schedulers.flow import FlowBridge, FlowHeunBridge, LTXBridge, MiniMaxBridge
from diffusers_imagen.schedulers.ipndm import IPNDMBridge
from diffusers_imagen.schedulers.pndm import PNDMBridge
from diffusers_imagen.schedulers.score import ScoreSdeVeBridge
from diffusers_imagen.schedulers.trigflow import TrigFlowBridge
from diffusers_imagen.schedulers.unclip import UnCLIPBridge
from diffusers_imagen.schedulers.ve_sigma import (
    DPMSolverSDEBridge,
    EulerAncestralBridge,
    HeunBridge,
    KDPM2AncestralBridge,
    KDPM2Bridge,
    LMSBridge,
    VESigmaBridge,
)
from diffusers_imagen.schedulers.vp_index import DDPMBridge, UnclippedVPIndexBridge, VPIndexBridge
from diffusers_imagen.schedulers.vp_sigma import SASolverBridge, SinglestepBridge, UniPCBridge, VPSigmaBridge
from diffusers_imagen.schedulers.wuerstchen import WuerstchenBridge

__all__ = ["SchedulerBridge", "bridge_for"]

logger = logging.get_logger(__name__)

# What a scheduler has, and the family that has it. The first that fits counts.
_BY_PROTOCOL: tuple[tuple[tuple[str, ...], type[SchedulerBridge]], ...] = (
    (("precondition_outputs", "sigmas"), EDMBridge),
    (("_sigma_to_alpha_sigma_t", "sigmas"), VPSigmaBridge),
    (("scale_noise", "sigmas"), FlowBridge),
    (("scale_model_input", "sigmas"), VESigmaBridge),
    (("scale_model_input", "alphas_cumprod"), VPIndexBridge),
)

# Classes that have more, less or something else than they seem to.
_BY_NAME: Mapping[str, type[SchedulerBridge]] = {
    "CMStochasticIterativeScheduler": ConsistencyBridge,
    "CogVideoXDDIMScheduler": UnclippedVPIndexBridge,
    "CogVideoXDPMScheduler": CogVideoXDPMBridge,
    "CosineDPMSolverMultistepScheduler": CosineDPMBridge,
    "DDPMParallelScheduler": DDPMBridge,
    "DDPMScheduler": DDPMBridge,
    "DDPMWuerstchenScheduler": WuerstchenBridge,
    "DPMSolverSDEScheduler": DPMSolverSDEBridge,
    "DPMSolverSinglestepScheduler": SinglestepBridge,
    "EulerAncestralDiscreteScheduler": EulerAncestralBridge,
    "FlowMatchHeunDiscreteScheduler": FlowHeunBridge,
    "HeunDiscreteScheduler": HeunBridge,
    "IPNDMScheduler": IPNDMBridge,
    "KDPM2AncestralDiscreteScheduler": KDPM2AncestralBridge,
    "KDPM2DiscreteScheduler": KDPM2Bridge,
    "LMSDiscreteScheduler": LMSBridge,
    "LTXEulerAncestralRFScheduler": LTXBridge,
    "MiniMaxH3Scheduler": MiniMaxBridge,
    "PNDMScheduler": PNDMBridge,
    "SASolverScheduler": SASolverBridge,
    "SCMScheduler": TrigFlowBridge,
    "ScoreSdeVeScheduler": ScoreSdeVeBridge,
    "TCDScheduler": UnclippedVPIndexBridge,
    "UnCLIPScheduler": UnCLIPBridge,
    "UniPCMultistepScheduler": UniPCBridge,
}


def bridge_for(scheduler: SchedulerMixin) -> SchedulerBridge:
    """Build the bridge through which the sampling loop drives a scheduler.

    A class derived from a known one is driven as that one. Of a class that is not known at all the family is guessed
    from what it has, with a warning.

    Args:
        scheduler: A Diffusers scheduler.

    Returns:
        The bridge of its family.

    Raises:
        ValueError: If the class cannot draw pictures, or its settings cannot work.
    """
    if isinstance(scheduler, type):
        raise ValueError(
            f"`scheduler` is the class {scheduler.__name__}; give an object of it, {scheduler.__name__}()."
        )
    name = type(scheduler).__name__
    known = next((base.__name__ for base in type(scheduler).__mro__ if base.__name__ in SCHEDULERS), None)
    verdict = None if known is None else SCHEDULERS[known]
    if isinstance(verdict, Refused):
        raise ValueError(
            f"`scheduler` is a {name}, which {verdict.reason}. Take {verdict.instead} in its place, or see "
            "`diffusers-imagen schedulers` for all that work; any of them works with any model."
        )
    if known is not None and known in _BY_NAME:
        return _BY_NAME[known](scheduler)
    for attributes, family in _BY_PROTOCOL:
        if all(hasattr(scheduler, attribute) for attribute in attributes):
            if known is None:
                logger.warning(f"{name} is driven as its attributes suggest ({family.family}), which nobody tested.")
            return family(scheduler)
    raise ValueError(
        f"`scheduler` is a {name}, and in which space it keeps its samples is not known here. Take one of those that "
        "`diffusers-imagen schedulers` prints; any of them works with any model, for instance "
        "DPMSolverMultistepScheduler."
    )
