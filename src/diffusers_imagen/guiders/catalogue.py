# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""What is known about each guider class of Diffusers: driven, in which space, or refused, and why.

Plain data that imports nothing: `pipelines/guider_run.py` drives with it, `pipelines/guider_plan.py` words its
refusals with it. The table in `docs/guiders.md` is this one.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Driven:
    """A class that guides pictures.

    Args:
        space: What it is given in place of the predicted clean pictures, as Diffusers names prediction types: "sample"
            (x_0 itself), "epsilon" or "flow_prediction" (eps - x_0).
        why: Why this space.
        worse: Which of its predictions, by Diffusers' name, comes from a worse network; empty for none.
        flat: Whether it measures norms in a way that works for vectors only.
        needs: An optional package without which Diffusers cannot make it; may be empty.
    """

    space: str
    why: str
    worse: str = ""
    flat: bool = False
    needs: str = ""


@dataclass(frozen=True)
class Refused:
    """A class that cannot guide these U-Nets.

    Args:
        reason: Why, as the end of "It ...".
        instead: The class to take in its place.
    """

    reason: str
    instead: str


_LINEAR = "the same in every space"
_PAPER_X_0 = "arXiv:2410.02416 projects the denoised prediction"
_VELOCITY = "the velocity of flow matching"

GUIDERS: Mapping[str, Driven | Refused] = {
    "AdaptiveProjectedGuidance": Driven("sample", _PAPER_X_0),
    "AdaptiveProjectedMixGuidance": Driven("sample", _PAPER_X_0),
    "AutoGuidance": Driven("sample", _LINEAR, worse="pred_uncond"),
    "ClassifierFreeGuidance": Driven("sample", _LINEAR),
    "ClassifierFreeZeroStarGuidance": Driven("flow_prediction", f"arXiv:2503.18886 is about {_VELOCITY}"),
    "FrequencyDecoupledGuidance": Driven(
        "sample", "arXiv:2506.19713 splits pictures into frequencies", needs="kornia"
    ),
    "LTX2Guidance": Refused(
        "weighs passes of LTX-2's own transformer, one of them without sound", "ClassifierFreeGuidance"
    ),
    "MagnitudeAwareGuidance": Driven("flow_prediction", f"arXiv:2508.03442 measures {_VELOCITY}", flat=True),
    "PerturbedAttentionGuidance": Driven("sample", _LINEAR, worse="pred_cond_skip"),
    "SkipLayerGuidance": Driven("sample", _LINEAR, worse="pred_cond_skip"),
    "SmoothedEnergyGuidance": Driven("sample", _LINEAR, worse="pred_cond_seg"),
    "TangentialClassifierFreeGuidance": Driven("epsilon", "arXiv:2503.18137 compares scores, which are -eps / sigma"),
    "UNetAutoGuidance": Driven("sample", _LINEAR, worse="pred_uncond"),
}
# A class of a user's own, derived from none of these.
OWN = Driven("sample", "x_0 is what all stages have in common")


def verdict_on(guider: object) -> Driven | Refused:
    """Return what is known about a guider's class, or about the class that it is derived from."""
    return next((GUIDERS[base.__name__] for base in type(guider).__mro__ if base.__name__ in GUIDERS), OWN)
