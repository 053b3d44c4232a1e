# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""What is known about each scheduler class of Diffusers: driven, with how many steps, or refused, and why.

Plain data that imports nothing: `bridge.py` words its refusals with it, and `diffusers-imagen schedulers` prints it.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Driven:
    """A class that draws pictures.

    Args:
        family: As its bridge calls it.
        steps: Sensible values of `num_inference_steps`, written for people.
        note: What to know before using it; may be empty.
        needs: An optional package without which Diffusers does not offer it; may be empty.
    """

    family: str
    steps: str
    note: str = ""
    needs: str = ""


@dataclass(frozen=True)
class Refused:
    """A class that cannot draw pictures from noise.

    Args:
        reason: Why, as the end of "It ...".
        instead: The class to take in its place.
    """

    reason: str
    instead: str


_TOKENS = "turns tokens into tokens, and pictures here are continuous"
_INVERSION = "walks from a picture to its noise"
_HELIOS = "walks through several video resolutions in one run"
_DEPRECATED = "is deprecated in Diffusers and keeps to a loop of its own"
_DISTILLED = "for distilled models: a model that is not stays blurry"

SCHEDULERS: Mapping[str, Driven | Refused] = {
    "AmusedScheduler": Refused(_TOKENS, "DDIMScheduler"),
    "BlockRefinementScheduler": Refused(_TOKENS, "DDIMScheduler"),
    "CMStochasticIterativeScheduler": Driven("consistency", "2-40", _DISTILLED),
    "CogVideoXDDIMScheduler": Driven("noise index", "50-100", "with snr_shift_scale=1"),
    "CogVideoXDPMScheduler": Driven("noise index", "25-50", 'with snr_shift_scale=1, timestep_spacing="trailing"'),
    "ConsistencyDecoderScheduler": Refused("decodes latents in two steps", "CMStochasticIterativeScheduler"),
    "CosineDPMSolverMultistepScheduler": Driven("EDM", "25-50", "with sigma_min=0.006, sigma_max=80", "torchsde"),
    "DDIMInverseScheduler": Refused(_INVERSION, "DDIMScheduler"),
    "DDIMParallelScheduler": Driven("noise index", "50-100"),
    "DDIMScheduler": Driven("noise index", "50-100"),
    "DDPMParallelScheduler": Driven("noise index", "100-1000"),
    "DDPMScheduler": Driven("noise index", "100-1000", "the reference; slow"),
    "DDPMWuerstchenScheduler": Driven("Wuerstchen", "100-250", "leaves noise of 0.01"),
    "DEISMultistepScheduler": Driven("DPM solver", "15-30", "ends at the least noise of training"),
    "DPMSolverMultistepInverseScheduler": Refused(_INVERSION, "DPMSolverMultistepScheduler"),
    "DPMSolverMultistepScheduler": Driven("DPM solver", "10-25", "with use_exponential_sigmas or use_lu_lambdas"),
    "DPMSolverSDEScheduler": Driven("sigma", "25-50", "two evaluations a step", "torchsde"),
    "DPMSolverSinglestepScheduler": Driven("DPM solver", "20-50"),
    "DiscreteDDIMScheduler": Refused(_TOKENS, "DDIMScheduler"),
    "EDMDPMSolverMultistepScheduler": Driven("EDM", "15-30"),
    "EDMEulerScheduler": Driven("EDM", "30-60"),
    "EntropyBoundScheduler": Refused(_TOKENS, "DDIMScheduler"),
    "EulerAncestralDiscreteScheduler": Driven("sigma", "50-100"),
    "EulerDiscreteScheduler": Driven("sigma", "30-60", "with use_exponential_sigmas"),
    "FlowMapEulerDiscreteScheduler": Driven("flow matching", "25-50"),
    "FlowMatchEulerDiscreteScheduler": Driven("flow matching", "25-50"),
    "FlowMatchHeunDiscreteScheduler": Driven("flow matching", "40-100", "two evaluations a step; unstable with few"),
    "FlowMatchLCMScheduler": Driven("flow matching", "2-8", _DISTILLED),
    "HeliosDMDScheduler": Refused(_HELIOS, "FlowMatchEulerDiscreteScheduler"),
    "HeliosScheduler": Refused(_HELIOS, "FlowMatchEulerDiscreteScheduler"),
    "HeunDiscreteScheduler": Driven("sigma", "15-30", "two evaluations a step; with use_exponential_sigmas"),
    "IPNDMScheduler": Driven("IPNDM", "25-50"),
    "KDPM2AncestralDiscreteScheduler": Driven("sigma", "25-50", "two evaluations a step"),
    "KDPM2DiscreteScheduler": Driven("sigma", "15-30", "two evaluations a step; with use_exponential_sigmas"),
    "KarrasVeScheduler": Refused(_DEPRECATED, "EulerDiscreteScheduler"),
    "LCMScheduler": Driven("noise index", "2-8", _DISTILLED),
    "LMSDiscreteScheduler": Driven("sigma", "20-50", "", "scipy"),
    "LTXEulerAncestralRFScheduler": Driven("flow matching", "50-100"),
    "MiniMaxH3Scheduler": Driven("flow matching", "25-50", "with shift=1; evaluates once less than asked"),
    "PNDMScheduler": Driven("noise index", "20-50", "nine evaluations more, or skip_prk_steps=True"),
    "PiflowScheduler": Refused(
        "wants a network that predicts a whole path at once", "FlowMatchEulerDiscreteScheduler"
    ),
    "RFD4ProteinaScheduler": Refused("moves the atoms of proteins", "FlowMatchEulerDiscreteScheduler"),
    "RePaintScheduler": Refused(
        "fills holes in a picture that is given, and has no way to start anew", "DDPMScheduler"
    ),
    "SASolverScheduler": Driven("DPM solver", "25-50", "ends at the least noise of training"),
    "SCMScheduler": Driven("trigflow", "2-8", _DISTILLED),
    "ScoreSdeVeScheduler": Driven("score SDE", "100-1000", "by its predictor alone"),
    "ScoreSdeVpScheduler": Refused(_DEPRECATED, "DDPMScheduler"),
    "TCDScheduler": Driven("noise index", "4-16", _DISTILLED),
    "UnCLIPScheduler": Driven("noise index", "100-250"),
    "UniPCMultistepScheduler": Driven("DPM solver", "10-25"),
    "VQDiffusionScheduler": Refused(_TOKENS, "DDIMScheduler"),
}
