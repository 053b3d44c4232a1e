"""Every class that the catalogue says is driven, on models whose answer is closed-form mathematics."""

import inspect
import math

import diffusers.schedulers
import pytest
import torch

from diffusers_imagen.diffusion.thresholding import dynamic_threshold
from diffusers_imagen.schedulers.bridge import bridge_for
from diffusers_imagen.schedulers.catalogue import SCHEDULERS, Driven

DRIVEN = [name for name, verdict in SCHEDULERS.items() if isinstance(verdict, Driven)]
every_class = pytest.mark.parametrize("name", DRIVEN)

# Largest distance from a known x_0 after 50 steps, where it is more than 1e-5, and why.
LEAST_NOISE = 3e-2  # they end at the least noise of training, sigma 0.0064 or 0.01
DISTANCES = {
    "DDPMWuerstchenScheduler": LEAST_NOISE,
    "DEISMultistepScheduler": LEAST_NOISE,
    "PNDMScheduler": LEAST_NOISE,
    "SASolverScheduler": LEAST_NOISE,
    "TCDScheduler": LEAST_NOISE,
    "UnCLIPScheduler": 1e-3,  # it divides 1 - alphas_cumprod[0] by itself in float32
}

# RMS error of deterministic samplers against the exact path of normal data, 50 steps, in units of their spread: what
# an independent prototype measured, rounded up in the third digit.
ERRORS = {
    "CogVideoXDDIMScheduler": 0.083,
    "DDIMParallelScheduler": 0.083,
    "DDIMScheduler": 0.083,
    "DEISMultistepScheduler": 0.024,
    "DPMSolverMultistepScheduler": 0.029,
    "DPMSolverSinglestepScheduler": 0.063,
    "EDMDPMSolverMultistepScheduler": 0.007,
    "EDMEulerScheduler": 0.070,
    "EulerDiscreteScheduler": 0.085,
    "FlowMapEulerDiscreteScheduler": 0.065,
    "FlowMatchEulerDiscreteScheduler": 0.065,
    "FlowMatchHeunDiscreteScheduler": 0.019,
    "HeunDiscreteScheduler": 0.016,
    "IPNDMScheduler": 0.008,
    "KDPM2DiscreteScheduler": 0.019,
    "LMSDiscreteScheduler": 0.002,
    "MiniMaxH3Scheduler": 0.064,
    "PNDMScheduler": 0.003,
    "UniPCMultistepScheduler": 0.031,
}
# These draw all noise anew at every step and so lose spread on a model that was not distilled, whatever the steps.
DISTILLATION_SAMPLERS = {
    "CMStochasticIterativeScheduler": 0.66,
    "FlowMatchLCMScheduler": 0.65,
    "LCMScheduler": 0.64,
    "SCMScheduler": 0.66,
}
MEAN, SPREAD = 0.2, 0.15
LOG_SNR_RANGE = (-19.8, 10.1)  # of the 1000-step cosine schedule


def normal_data(sample, alpha, sigma):
    """Give the best x_0 for data that are normal, by a model that knows the noise levels of its training only."""
    norm = math.hypot(alpha, sigma)
    log_snr = 2 * math.log(alpha / sigma) if alpha > 0 else -math.inf
    log_snr = min(max(log_snr, LOG_SNR_RANGE[0]), LOG_SNR_RANGE[1])
    alpha, variance = math.sqrt(1 / (1 + math.exp(-log_snr))), 1 / (1 + math.exp(log_snr))
    x_t = sample.double() / norm
    x_0 = MEAN + alpha * SPREAD**2 / (alpha**2 * SPREAD**2 + variance) * (x_t - alpha * MEAN)
    return x_0.float()


def draw(scheduler, denoise, steps=50, shape=(2, 3, 8, 8), seed=0, change=None):
    """Walk all steps, and give the first sample, its noise level and the result."""
    bridge = bridge_for(scheduler)
    generator = torch.Generator().manual_seed(seed)
    timesteps = bridge.set_timesteps(steps, "cpu")
    first = sample = torch.randn(shape, generator=generator) * bridge.init_noise_sigma
    first_level = bridge.noise_level(timesteps[0])
    for index, t in enumerate(timesteps):
        sample = bridge.step(denoise(sample, *bridge.noise_level(t)), t, sample, generator=generator)
        if change is not None:
            sample = change(index, sample)
    return first, first_level, sample


def pictures(seed=1, size=1.0):
    return size * (torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(seed)) * 2 - 1)


@every_class
def test_a_model_that_knows_saturated_data_ends_at_them_exactly_thresholded(make_scheduler, name):
    data = pictures(size=3.0)
    *_, result = draw(make_scheduler(name), lambda *_: dynamic_threshold(data))
    assert float(dynamic_threshold(data).abs().max()) == 1.0
    torch.testing.assert_close(result, dynamic_threshold(data), rtol=0, atol=DISTANCES.get(name, 1e-5))


@pytest.mark.parametrize("name", ERRORS)
def test_a_deterministic_sampler_follows_the_exact_path(make_scheduler, name):
    first, (alpha, sigma), result = draw(make_scheduler(name), normal_data, shape=(4, 3, 32, 32))
    exact = MEAN + SPREAD * (first - alpha * MEAN) / math.hypot(alpha * SPREAD, sigma)
    assert float((result - exact).square().mean().sqrt()) / SPREAD <= ERRORS[name]


@pytest.mark.parametrize("name", [name for name in DRIVEN if name not in ERRORS])
def test_a_stochastic_sampler_gives_the_spread_of_the_data(make_scheduler, name):
    *_, result = draw(make_scheduler(name), normal_data, shape=(2, 3, 32, 32))
    expected, tolerance = (DISTILLATION_SAMPLERS[name], 0.03) if name in DISTILLATION_SAMPLERS else (1.0, 0.2)
    assert float(result.mean()) == pytest.approx(MEAN, abs=0.02)
    assert float(result.std()) / SPREAD == pytest.approx(expected, abs=tolerance)


@every_class
def test_the_generator_decides_the_picture(make_scheduler, name):
    scheduler = make_scheduler(name)
    *_, one = draw(scheduler, normal_data, steps=5)
    torch.rand(3)
    *_, again = draw(scheduler, normal_data, steps=5)
    *_, other = draw(scheduler, normal_data, steps=5, seed=1)
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


@every_class
def test_generators_of_their_own_make_pictures_independent_of_the_batch(make_scheduler, name):
    def drawn(noise, seeds):
        bridge = bridge_for(make_scheduler(name))
        generators, sample = [torch.Generator().manual_seed(seed) for seed in seeds], noise
        for t in bridge.set_timesteps(5, "cpu"):
            sample = bridge.step(normal_data(sample, *bridge.noise_level(t)), t, sample, generator=generators)
        return sample

    noise = pictures()
    torch.testing.assert_close(drawn(noise, [3, 4])[1:], drawn(noise[1:], [4]), rtol=1e-5, atol=1e-6)


@every_class
def test_config_and_betas_stay_as_they_are(make_scheduler, name):
    scheduler = make_scheduler(name)
    config, betas = dict(scheduler.config), getattr(scheduler, "betas", torch.zeros(0)).clone()
    draw(scheduler, normal_data, steps=4)
    if name == "DPMSolverSinglestepScheduler":
        config["lower_order_final"] = True  # its own set_timesteps switches this on
    assert dict(scheduler.config) == config
    if name != "IPNDMScheduler":  # whose betas are its steps
        assert torch.equal(getattr(scheduler, "betas", torch.zeros(0)), betas)


def takes_betas(name):
    parameters = inspect.signature(getattr(diffusers.schedulers, name).__init__).parameters
    return "beta_schedule" in parameters and name != "UnCLIPScheduler"  # which refuses all but cosine betas


@pytest.mark.parametrize("name", [name for name in DRIVEN if takes_betas(name)])
def test_betas_that_the_model_was_not_trained_with_do_little_harm(make_scheduler, name):
    # These end at a log-SNR of -6 to -10 instead of -20, so the first sample misses the data's mean.
    scheduler = make_scheduler(name, beta_schedule="linear")
    first, (alpha, sigma), result = draw(scheduler, normal_data, steps=40, shape=(2, 3, 32, 32))
    assert float(result.mean()) == pytest.approx(MEAN, abs=0.04)
    if name in ERRORS:
        exact = MEAN + SPREAD * (first - alpha * MEAN) / math.hypot(alpha * SPREAD, sigma)
        assert float((result - exact).square().mean().sqrt()) / SPREAD < 0.3
    else:
        assert 0.5 < float(result.std()) / SPREAD < 1.4


# These mix the eps of several steps, so a change of the sample shows to its full extent only later.
MIXES_EPS = {"DEISMultistepScheduler", "IPNDMScheduler", "LMSDiscreteScheduler", "PNDMScheduler"}


@pytest.mark.parametrize("name", ERRORS)
def test_a_sample_that_a_callback_changed_is_what_the_scheduler_goes_on_from(make_scheduler, name):
    # With a known x_0 the path keeps its noise: a change must stay in it, scaled as the noise is.
    x_0 = pictures()
    bridge = bridge_for(make_scheduler(name))
    timesteps = bridge.set_timesteps(30, "cpu")
    sample = pictures(seed=2) * bridge.init_noise_sigma
    changed_at = 20 * getattr(
        bridge.scheduler, "order", 1
    )  # not between the two evaluations that some take for a step
    for t in timesteps[:changed_at]:
        sample = bridge.step(x_0, t, sample)
    alpha, sigma = bridge.noise_level(timesteps[changed_at])
    sample = sample + sigma  # one more of noise, everywhere
    expected = (sample - alpha * x_0) / sigma
    for t in timesteps[changed_at : changed_at + 2]:
        sample = bridge.step(x_0, t, sample)
    alpha, sigma = bridge.noise_level(timesteps[changed_at + 2])
    noise = (sample - alpha * x_0) / sigma
    torch.testing.assert_close(noise, expected, rtol=0, atol=1.5 if name in MIXES_EPS else 2e-3)
    assert float((noise - expected + 1).abs().min()) > 0.05


@every_class
def test_few_steps_make_numbers_and_the_right_ones(make_scheduler, name):
    x_0 = pictures()
    for steps in (4, 7, 13):
        *_, result = draw(make_scheduler(name), lambda *_: x_0, steps=steps)
        assert make_scheduler(name).timesteps.isfinite().all()
        # TCD, Wuerstchen and those that end at the least noise leave some, and IPNDM mixes eps.
        assert float((result - x_0).abs().max()) < 0.05


def custom_steps():
    for name in DRIVEN:
        parameters = inspect.signature(getattr(diffusers.schedulers, name).set_timesteps).parameters
        if "timesteps" in parameters:
            steps = {"SCMScheduler": [1.5, 1.0, 0.4], "DDPMWuerstchenScheduler": [1.0, 0.6, 0.2]}.get(
                name, [900, 500, 100]
            )
            if name == "CMStochasticIterativeScheduler":
                steps = [400, 200, 50]
            yield name, {"timesteps": steps}
        if "sigmas" in parameters and name not in ("EDMEulerScheduler", "UniPCMultistepScheduler"):
            yield name, {"sigmas": [40.0, 3.0, 0.2] if name == "EulerDiscreteScheduler" else [1.0, 0.6, 0.2]}


@pytest.mark.parametrize(("name", "custom"), list(custom_steps()))
def test_custom_timesteps_and_sigmas_end_at_x_0(make_scheduler, name, custom):
    bridge, x_0 = bridge_for(make_scheduler(name)), pictures()
    timesteps = bridge.set_timesteps(None, "cpu", **custom)
    assert len(timesteps) == 5 if name == "HeunDiscreteScheduler" else 3
    if "sigmas" in custom:
        assert bridge.noise_level(timesteps[0])[1] == pytest.approx(custom["sigmas"][0], rel=1e-6)
    sample = pictures(seed=2) * bridge.init_noise_sigma
    for t in timesteps:
        sample = bridge.step(x_0, t, sample)
    torch.testing.assert_close(sample, x_0, rtol=0, atol=DISTANCES.get(name, 1e-4))


def test_unipc_takes_custom_sigmas_in_the_flow_space(make_scheduler):
    bridge, x_0 = bridge_for(make_scheduler("UniPCMultistepScheduler", use_flow_sigmas=True)), pictures()
    sample = pictures(seed=2)
    for t in bridge.set_timesteps(None, "cpu", sigmas=[0.95, 0.6, 0.2]):
        sample = bridge.step(x_0, t, sample)
    torch.testing.assert_close(sample, x_0, rtol=0, atol=1e-5)
