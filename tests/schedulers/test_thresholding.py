"""Thresholding outside a scheduler against the scheduler's own, where it has one that works."""

import pytest
import torch
from diffusers import DDPMScheduler

from diffusers_imagen.diffusion.prediction import from_x_0
from diffusers_imagen.diffusion.thresholding import dynamic_threshold
from diffusers_imagen.schedulers.bridge import bridge_for

COSINE = DDPMScheduler(beta_schedule="squaredcos_cap_v2").alphas_cumprod.double()
NATIVE = {"thresholding": True, "dynamic_thresholding_ratio": 0.995, "sample_max_value": 100.0}
OFF = {"thresholding": False}
NOISE_PREDICTING = {"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min"}
CASES = [
    ("DDPMScheduler", {}),
    ("DDPMParallelScheduler", {}),
    ("LCMScheduler", {}),
    ("DPMSolverMultistepScheduler", {}),
    ("DPMSolverMultistepScheduler", {"solver_order": 3}),
    ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
    ("DPMSolverMultistepScheduler", NOISE_PREDICTING),
    ("DPMSolverSinglestepScheduler", {}),
    ("DEISMultistepScheduler", {}),
    ("UniPCMultistepScheduler", {}),
    ("SASolverScheduler", {}),
    ("EDMDPMSolverMultistepScheduler", {}),
]


def best_x_0(sample, alpha, sigma):
    """Give the best x_0 for normal data of mean 0.8 and spread 0.6, which thresholding changes at every step."""
    mean, spread = 0.8, 0.6
    return mean + alpha * spread**2 / (alpha**2 * spread**2 + sigma**2) * (sample - alpha * mean)


def start(scheduler):
    generator = torch.Generator().manual_seed(0)
    scheduler.set_timesteps(25)
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(0)
    return torch.randn(2, 3, 16, 16, generator=generator) * float(scheduler.init_noise_sigma), generator


def as_diffusers_does(scheduler):
    """Run the loop of Diffusers' own pipelines: scale, predict, step; a VP model sees the scaled sample."""
    sample, generator = start(scheduler)
    takes_generator = "generator" in type(scheduler).step.__code__.co_varnames
    for index, t in enumerate(scheduler.timesteps):
        if hasattr(scheduler, "precondition_outputs"):
            scheduler.scale_model_input(sample, t)
            sigma, data = float(scheduler.sigmas[index]), scheduler.config.sigma_data
            x_0 = best_x_0(sample, 1.0, sigma)
            skip, out = data**2 / (sigma**2 + data**2), sigma * data / (sigma**2 + data**2) ** 0.5
            output = (x_0 - skip * sample) / out
        else:
            alpha, sigma = float(COSINE[int(t)].sqrt()), float((1 - COSINE[int(t)]).sqrt())
            output = from_x_0(best_x_0(sample, alpha, sigma), sample, alpha, sigma, scheduler.config.prediction_type)
        extra = {"generator": generator} if takes_generator else {}
        sample = scheduler.step(output, t, sample, **extra).prev_sample
    return sample


def as_the_cascade_does(scheduler):
    bridge = bridge_for(scheduler)
    sample, generator = start(bridge.scheduler)
    for t in bridge.set_timesteps(25, "cpu"):
        x_0 = dynamic_threshold(best_x_0(sample, *bridge.noise_level(t)))
        sample = bridge.step(x_0, t, sample, generator=generator)
    return sample


@pytest.mark.filterwarnings("ignore:.*dpmsolver.*:FutureWarning")
@pytest.mark.parametrize(("name", "settings"), CASES)
def test_it_equals_the_schedulers_own(make_scheduler, name, settings):
    if "EDM" not in name:
        settings = settings | {"prediction_type": "v_prediction"}
    native = as_diffusers_does(make_scheduler(name, **settings, **NATIVE))
    ours = as_the_cascade_does(make_scheduler(name, **settings, **OFF))
    without = as_diffusers_does(make_scheduler(name, **settings, **OFF))
    torch.testing.assert_close(ours, native, rtol=0, atol=1e-5)
    assert (without - native).abs().max() > 0.05
