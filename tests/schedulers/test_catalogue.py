"""What is told about each class agrees with what Diffusers exports and with what the bridges do."""

import diffusers.schedulers
import pytest
from diffusers import SchedulerMixin

from diffusers_imagen.schedulers.bridge import bridge_for
from diffusers_imagen.schedulers.catalogue import SCHEDULERS, Driven, Refused


def exported():
    """Give every scheduler class that the installed Diffusers has, also those whose optional package is missing."""
    for name in dir(diffusers.schedulers):
        found = getattr(diffusers.schedulers, name)
        if (
            isinstance(found, type)
            and name.endswith("Scheduler")
            and (issubclass(found, SchedulerMixin) or hasattr(found, "_backends"))
        ):
            yield name


def test_every_class_that_diffusers_exports_is_driven_or_refused_on_purpose():
    assert sorted(SCHEDULERS) == sorted(exported())


@pytest.mark.parametrize("name", [name for name, verdict in SCHEDULERS.items() if isinstance(verdict, Driven)])
def test_a_driven_class_belongs_to_the_family_that_is_told(make_scheduler, name):
    assert bridge_for(make_scheduler(name)).family == SCHEDULERS[name].family


@pytest.mark.parametrize("name", [name for name, verdict in SCHEDULERS.items() if isinstance(verdict, Refused)])
def test_a_refused_class_is_told_the_reason_and_a_class_that_works(name):
    found = getattr(diffusers.schedulers, name)
    scheduler = found.__new__(found)  # several cannot be made without the rest of their own pipelines
    verdict = SCHEDULERS[name]
    with pytest.raises(
        ValueError, match=f"`scheduler` is a {name}, which {verdict.reason}. Take {verdict.instead} in"
    ):
        bridge_for(scheduler)
    assert isinstance(SCHEDULERS[verdict.instead], Driven)


def test_a_class_derived_from_a_refused_one_is_refused_too():
    derived = type("Mine", (diffusers.schedulers.RePaintScheduler,), {})
    with pytest.raises(ValueError, match="`scheduler` is a Mine, which fills holes"):
        bridge_for(derived())


@pytest.mark.parametrize("name", [name for name, verdict in SCHEDULERS.items() if isinstance(verdict, Driven)])
def test_sensible_steps_are_two_numbers(name):
    fewest, most = map(int, SCHEDULERS[name].steps.split("-"))
    assert 2 <= fewest < most <= 1000
