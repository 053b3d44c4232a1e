"""What is told about each guider agrees with what Diffusers exports and with what the pipeline does."""

import diffusers.guiders
import pytest
from diffusers.guiders.guider_utils import BaseGuidance

from diffusers_imagen.diffusion.noise import PREDICTION_TYPES
from diffusers_imagen.guiders.catalogue import GUIDERS, OWN, Driven, Refused, verdict_on
from diffusers_imagen.guiders.unet_auto_guidance import UNetAutoGuidance
from diffusers_imagen.pipelines.guider_plan import plan_guider

REFUSED = [name for name, verdict in GUIDERS.items() if isinstance(verdict, Refused)]
DRIVEN = [name for name, verdict in GUIDERS.items() if isinstance(verdict, Driven)]


def exported():
    """Give every guider class that the installed Diffusers has."""
    for name in dir(diffusers.guiders):
        found = getattr(diffusers.guiders, name)
        if isinstance(found, type) and issubclass(found, BaseGuidance) and found is not BaseGuidance:
            yield name


def test_every_class_that_diffusers_exports_is_driven_or_refused_on_purpose():
    assert sorted(GUIDERS) == sorted([*exported(), UNetAutoGuidance.__name__])


@pytest.mark.parametrize("name", REFUSED)
def test_a_refused_class_is_told_the_reason_and_a_class_that_works(name, cascade_parts):
    found = getattr(diffusers.guiders, name)
    guider = found.__new__(found)
    verdict = GUIDERS[name]
    with pytest.raises(
        ValueError, match=f"`guider` is a {name} for 'base', which {verdict.reason}. Take {verdict.instead}"
    ):
        plan_guider("base", guider, cascade_parts["unet"], (8, 8))
    assert isinstance(GUIDERS[verdict.instead], Driven)


def test_a_class_derived_from_a_refused_one_is_refused_too(cascade_parts):
    derived = type("Mine", (diffusers.guiders.LTX2Guidance,), {})
    with pytest.raises(ValueError, match="`guider` is a Mine for 'base', which weighs passes of LTX-2"):
        plan_guider("base", derived(), cascade_parts["unet"], (8, 8))


def test_a_class_derived_from_a_driven_one_is_driven_as_that_one():
    derived = type("Mine", (diffusers.guiders.ClassifierFreeZeroStarGuidance,), {})
    assert verdict_on(derived()) is GUIDERS["ClassifierFreeZeroStarGuidance"]
    assert verdict_on(type("Other", (BaseGuidance,), {"_input_predictions": ["pred_cond"]})()) is OWN


@pytest.mark.parametrize("name", DRIVEN)
def test_a_space_is_a_prediction_type_and_has_a_reason(name):
    assert GUIDERS[name].space in PREDICTION_TYPES
    assert GUIDERS[name].why
