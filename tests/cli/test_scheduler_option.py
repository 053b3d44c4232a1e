import diffusers
import pytest
from diffusers.utils import dummy_torch_and_scipy_objects, dummy_torch_and_torchsde_objects

from diffusers_imagen.cli.scheduler_option import make_scheduler, parse_schedulers
from diffusers_imagen.schedulers.bridge import bridge_for
from diffusers_imagen.schedulers.catalogue import SCHEDULERS, Driven

DRIVEN = [name for name, verdict in SCHEDULERS.items() if isinstance(verdict, Driven)]
# As the built-in cascade has it.
PRESENT = diffusers.DPMSolverMultistepScheduler(
    beta_schedule="squaredcos_cap_v2", use_exponential_sigmas=True, prediction_type="sample"
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, {}),
        ("DDIMScheduler", {"base": ("DDIMScheduler", {})}),
        ("sr_2 = DDIMScheduler", {"sr_2": ("DDIMScheduler", {})}),
        (
            "base=AScheduler:shift=3.5:use_karras_sigmas=true:spacing=trailing:sigma_max=null, sr_1=BScheduler",
            {
                "base": (
                    "AScheduler",
                    {"shift": 3.5, "use_karras_sigmas": True, "spacing": "trailing", "sigma_max": None},
                ),
                "sr_1": ("BScheduler", {}),
            },
        ),
    ],
)
def test_classes_and_options_are_read(text, expected):
    assert parse_schedulers(text) == expected


@pytest.mark.parametrize("text", ["", "base=", "A,B", "A:", "A:x", "A:=3", "A,,sr_1=B", "base=A,base=B"])
def test_what_is_no_class_with_options_is_refused(text):
    with pytest.raises(ValueError, match=f"`--scheduler` is '{text}'; give a class name or stage=class pairs"):
        parse_schedulers(text)


@pytest.mark.parametrize("name", DRIVEN)
def test_every_driven_class_can_be_made_in_place_of_the_built_in_ones(name):
    scheduler = make_scheduler(name, {}, PRESENT)
    assert type(scheduler).__name__ == name
    assert bridge_for(scheduler).family == SCHEDULERS[name].family
    if "beta_schedule" in scheduler.config:
        assert scheduler.config.beta_schedule == "squaredcos_cap_v2"


def test_options_win_over_the_settings_of_the_one_before():
    scheduler = make_scheduler(
        "UniPCMultistepScheduler", {"use_exponential_sigmas": False, "use_karras_sigmas": True}, PRESENT
    )
    assert (scheduler.config.use_exponential_sigmas, scheduler.config.use_karras_sigmas) == (False, True)
    assert scheduler.config.beta_schedule == "squaredcos_cap_v2"


@pytest.mark.parametrize(
    ("dummies", "name", "package"),
    [
        (dummy_torch_and_scipy_objects, "LMSDiscreteScheduler", "scipy"),
        (dummy_torch_and_torchsde_objects, "DPMSolverSDEScheduler", "torchsde"),
        (dummy_torch_and_torchsde_objects, "CosineDPMSolverMultistepScheduler", "torchsde"),
    ],
)
def test_a_class_without_its_package_is_told_as_such(monkeypatch, dummies, name, package):
    # What Diffusers itself puts in the place of the class then.
    monkeypatch.setattr(diffusers.schedulers, name, getattr(dummies, name))
    with pytest.raises(ValueError, match=rf"is '{name}', which needs {package}: pip install 'diffusers-imagen\[sched"):
        make_scheduler(name, {}, PRESENT)


@pytest.mark.parametrize("name", ["KarrasDiffusionSchedulers", "SchedulerMixin", "DDIM", "UNet2DModel"])
def test_a_name_that_is_no_scheduler_is_refused(name):
    with pytest.raises(ValueError, match=f"is '{name}', which is no scheduler of Diffusers; give a class name"):
        make_scheduler(name, {}, PRESENT)


def test_whole_numbers_are_wanted_only_where_the_class_says_so():
    made = make_scheduler("CosineDPMSolverMultistepScheduler", {"sigma_max": 80.5}, PRESENT)
    assert made.config.sigma_max == 80.5
    with pytest.raises(ValueError, match=r"gives DDIMScheduler 10.5 as 'num_train_timesteps'; give a whole number"):
        make_scheduler("DDIMScheduler", {"num_train_timesteps": 10.5}, PRESENT)
