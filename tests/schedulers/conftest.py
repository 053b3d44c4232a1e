"""For tests over every scheduler: each class with the settings that suit a cosine model."""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import diffusers.schedulers
import pytest
from diffusers.utils import logging

logging.set_verbosity_error()

SUITABLE: Mapping[str, dict[str, Any]] = {
    "CMStochasticIterativeScheduler": {"num_train_timesteps": 500},
    "CogVideoXDDIMScheduler": {"snr_shift_scale": 1.0},
    "CogVideoXDPMScheduler": {"snr_shift_scale": 1.0, "timestep_spacing": "trailing"},
    "CosineDPMSolverMultistepScheduler": {"sigma_min": 0.006, "sigma_max": 80.0},
    "LCMScheduler": {"original_inference_steps": 500},
    "MiniMaxH3Scheduler": {"shift": 1.0},
    "ScoreSdeVeScheduler": {"num_train_timesteps": 1000},
    "TCDScheduler": {"original_inference_steps": 500},
}


@pytest.fixture(scope="session")
def make_scheduler() -> Callable[..., Any]:
    """Give a function that makes a scheduler by the name of its class, cosine betas unless told otherwise.

    The same one for the same settings, since some take long to make and every run starts afresh.
    """

    @functools.cache
    def make(name: str, **settings: Any) -> Any:
        scheduler_class = getattr(diffusers.schedulers, name)
        known = inspect.signature(scheduler_class.__init__).parameters
        usual = {"beta_schedule": "squaredcos_cap_v2", "clip_sample": False, "clip_denoised": False}
        usual = {key: value for key, value in usual.items() if key in known} | SUITABLE.get(name, {})
        return scheduler_class(**usual | settings)

    return make
