import itertools
import math

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DEISMultistepScheduler,
    DPMSolverMultistepScheduler,
    DPMSolverSinglestepScheduler,
    EDMDPMSolverMultistepScheduler,
    EDMEulerScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    FlowMapEulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    FlowMatchLCMScheduler,
    HeunDiscreteScheduler,
    KDPM2DiscreteScheduler,
    LCMScheduler,
    LMSDiscreteScheduler,
    LTXEulerAncestralRFScheduler,
    MiniMaxH3Scheduler,
    SASolverScheduler,
    TCDScheduler,
    UniPCMultistepScheduler,
)

from diffusers_imagen.schedulers import bridge
from diffusers_imagen.schedulers.bridge import bridge_for

COSINE = {"beta_schedule": "squaredcos_cap_v2"}
LINEAR = {}
TRAILING = {"timestep_spacing": "trailing"}
ZERO_SNR = TRAILING | {"rescale_betas_zero_snr": True}
SPACINGS = [{"timestep_spacing": spacing} for spacing in ("linspace", "leading", "trailing")]
SIGMAS = KARRAS, EXPONENTIAL, BETA = [{f"use_{name}_sigmas": True} for name in ("karras", "exponential", "beta")]
LU = {"use_lu_lambdas": True}
FLOW_SIGMAS = {"use_flow_sigmas": True}
SIGMA_MIN = {"final_sigmas_type": "sigma_min"}
TYPES = ("epsilon", "sample", "v_prediction")


def cases(scheduler_class, prediction_types, *choices):
    """Give a scheduler's class and settings for each combination."""
    for prediction_type, *settings in itertools.product(prediction_types, *choices):
        merged = {key: value for setting in settings for key, value in setting.items()}
        name = "-".join([scheduler_class.__name__, prediction_type, *(f"{k}={v}" for k, v in merged.items())])
        if prediction_type:
            merged["prediction_type"] = prediction_type
        yield pytest.param(scheduler_class, merged, id=name)


DETERMINISTIC = [
    *cases(DDIMScheduler, TYPES, [COSINE, LINEAR], SPACINGS[1:]),
    *cases(DDIMScheduler, TYPES[1:], [COSINE, LINEAR], [ZERO_SNR]),
    *cases(DPMSolverMultistepScheduler, TYPES, [COSINE, LINEAR], [*SPACINGS, KARRAS, EXPONENTIAL, LU, FLOW_SIGMAS]),
    *cases(DPMSolverMultistepScheduler, TYPES, [COSINE], [{"solver_order": 3}, {"solver_type": "heun"}]),
    *cases(DPMSolverMultistepScheduler, TYPES, [ZERO_SNR]),
    *cases(DPMSolverMultistepScheduler, ["flow_prediction"], [FLOW_SIGMAS], [{}, {"flow_shift": 3.0}]),
    *cases(EulerDiscreteScheduler, [*TYPES, "original_sample"], [COSINE, LINEAR], [*SPACINGS, KARRAS, EXPONENTIAL]),
    *cases(EulerDiscreteScheduler, TYPES, [ZERO_SNR]),
    *cases(EulerDiscreteScheduler, ["v_prediction"], [{"timestep_type": "continuous"}]),
    *cases(FlowMatchEulerDiscreteScheduler, [""], [{}, {"shift": 3.0}, {"shift_terminal": 0.1}, *SIGMAS]),
    *cases(DPMSolverSinglestepScheduler, TYPES, [COSINE, LINEAR], [{}, KARRAS, EXPONENTIAL, FLOW_SIGMAS]),
    *cases(DPMSolverSinglestepScheduler, ["flow_prediction"], [FLOW_SIGMAS]),
    *cases(UniPCMultistepScheduler, TYPES, [COSINE, LINEAR], [*SPACINGS, KARRAS, EXPONENTIAL, FLOW_SIGMAS]),
    *cases(UniPCMultistepScheduler, ["flow_prediction"], [FLOW_SIGMAS]),
    *cases(UniPCMultistepScheduler, TYPES[1:], [ZERO_SNR]),
    *cases(DEISMultistepScheduler, TYPES, [COSINE, LINEAR], [KARRAS, EXPONENTIAL, FLOW_SIGMAS]),
    *cases(DEISMultistepScheduler, ["flow_prediction"], [FLOW_SIGMAS]),
    *cases(HeunDiscreteScheduler, TYPES, [COSINE, LINEAR], [*SPACINGS, KARRAS, EXPONENTIAL]),
    *cases(LMSDiscreteScheduler, TYPES, [COSINE], [TRAILING, KARRAS, EXPONENTIAL]),
    *cases(KDPM2DiscreteScheduler, TYPES[::2], [COSINE], [TRAILING, KARRAS]),
    *cases(EDMEulerScheduler, TYPES[::2], [{}, {"sigma_schedule": "exponential"}]),
    *cases(EDMDPMSolverMultistepScheduler, TYPES[::2], [{}, {"sigma_schedule": "exponential"}, {"solver_order": 3}]),
    *cases(FlowMatchHeunDiscreteScheduler, [""], [{}, {"shift": 3.0}]),
    *cases(FlowMapEulerDiscreteScheduler, [""], [{}, {"shift": 3.0}]),
    *cases(LTXEulerAncestralRFScheduler, [""], [{"eta": 0.0}]),
    *cases(MiniMaxH3Scheduler, [""], [{}, {"shift": 1.0}]),
]
# With cosine betas this spacing leaps from sigma 1000 to 0.1, where the rounding of the sample shows as noise.
DETERMINISTIC += [
    case
    for scheduler_class in (
        DPMSolverMultistepScheduler,
        DPMSolverSinglestepScheduler,
        UniPCMultistepScheduler,
        DEISMultistepScheduler,
        EulerDiscreteScheduler,
        HeunDiscreteScheduler,
        LMSDiscreteScheduler,
    )
    for case in cases(scheduler_class, TYPES, [LINEAR], [BETA])
]
STOCHASTIC = [
    *cases(DDPMScheduler, TYPES, [COSINE, LINEAR], SPACINGS),
    *cases(DDPMScheduler, TYPES[1:], [ZERO_SNR]),
    *cases(DDPMScheduler, ["sample"], [{"variance_type": kind} for kind in ("fixed_small_log", "fixed_large")]),
    *cases(DPMSolverMultistepScheduler, TYPES, [{"algorithm_type": "sde-dpmsolver++"}], [COSINE, KARRAS]),
    *cases(FlowMatchEulerDiscreteScheduler, [""], [{"stochastic_sampling": True}]),
    *cases(DPMSolverSinglestepScheduler, TYPES, [{"algorithm_type": "sde-dpmsolver++"}], [COSINE, KARRAS]),
    *cases(EulerAncestralDiscreteScheduler, TYPES[::2], [COSINE, LINEAR], [*SPACINGS, ZERO_SNR]),
    *cases(SASolverScheduler, TYPES, [COSINE, LINEAR], [*SIGMAS, FLOW_SIGMAS]),
    *cases(EDMDPMSolverMultistepScheduler, TYPES[::2], [{"algorithm_type": "sde-dpmsolver++"}]),
    *cases(LCMScheduler, TYPES, [COSINE, LINEAR], [{}]),
    *cases(LCMScheduler, TYPES[1:], [ZERO_SNR]),
    *cases(FlowMatchLCMScheduler, [""], [{}, {"shift": 3.0}, *SIGMAS]),
    *cases(LTXEulerAncestralRFScheduler, [""], [{}]),
]
# DDIM's step reaches back by 1000 // 20 indices whatever the spacing, and "linspace" steps by 999 / 19.
LOOSE = [*cases(DDIMScheduler, TYPES, [COSINE, LINEAR], SPACINGS[:1])]
LEFT_NOISY = [
    *cases(DDIMScheduler, TYPES, [COSINE, LINEAR], [{"set_alpha_to_one": False}]),
    *cases(DPMSolverMultistepScheduler, TYPES, [COSINE, LINEAR], [SIGMA_MIN], [{}, KARRAS]),
    *cases(DPMSolverMultistepScheduler, TYPES, [{"algorithm_type": "dpmsolver"}], [SIGMA_MIN], [{}, LU]),
    *cases(DPMSolverMultistepScheduler, TYPES[:2], [{"algorithm_type": "dpmsolver"}], [SIGMA_MIN], [FLOW_SIGMAS]),
    *cases(EulerDiscreteScheduler, TYPES, [COSINE, LINEAR], [SIGMA_MIN], [{}, KARRAS]),
    *cases(UniPCMultistepScheduler, TYPES, [SIGMA_MIN], [{}, {"predict_x0": False}]),
    *cases(DEISMultistepScheduler, TYPES, [COSINE, LINEAR], SPACINGS),
    *cases(SASolverScheduler, TYPES, [LINEAR]),
    *cases(TCDScheduler, TYPES, [COSINE, {"beta_start": 1e-4}]),
    *cases(EulerDiscreteScheduler, TYPES, [COSINE, LINEAR], [{"interpolation_type": "log_linear"}]),
]


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def clean_images():
    return torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1


def walk(bridge, denoise, sample, steps=20, seed=2):
    """Sample, and give the sample and its noise level before each step, and at last the result."""
    generator = torch.Generator().manual_seed(seed)
    levels = []
    for t in bridge.set_timesteps(steps, "cpu"):
        alpha, sigma = bridge.noise_level(t)
        if not levels:
            sample = sample * bridge.init_noise_sigma
        levels.append((sample, alpha, sigma))
        sample = bridge.step(denoise(sample, alpha, sigma), t, sample, generator=generator)
    return levels, sample


@pytest.mark.parametrize(("scheduler_class", "settings"), [*DETERMINISTIC, *STOCHASTIC, *LOOSE])
def test_knowing_x_0_ends_at_x_0(scheduler_class, settings):
    x_0 = clean_images()
    _, result = walk(bridge_for(scheduler_class(**settings)), lambda *_: x_0, noise(4, 3, 8, 8))
    torch.testing.assert_close(result, x_0, rtol=0, atol=1e-3)


@pytest.mark.filterwarnings("ignore:.*dpmsolver.*:FutureWarning")
@pytest.mark.parametrize(("scheduler_class", "settings"), LEFT_NOISY)
def test_knowing_x_0_ends_at_x_0_but_for_the_noise_of_the_first_index(scheduler_class, settings):
    # These end at the least noise of training, not at none: sigma is 0.01 with linear, 0.0064 with cosine betas.
    x_0 = clean_images()
    _, result = walk(bridge_for(scheduler_class(**settings)), lambda *_: x_0, noise(4, 3, 8, 8))
    assert (result - x_0).square().mean().sqrt() < 1.2e-2


@pytest.mark.parametrize(("scheduler_class", "settings"), DETERMINISTIC)
def test_noise_stays_the_same_along_the_way(scheduler_class, settings):
    # With a fixed x_0 the exact path keeps eps; a noise level that is not the scheduler's own would change it.
    x_0 = clean_images()
    levels, _ = walk(bridge_for(scheduler_class(**settings)), lambda *_: x_0, noise(4, 3, 8, 8))
    expected = (levels[0][0] - levels[0][1] * x_0) / levels[0][2]
    for sample, alpha, sigma in levels[1:]:
        torch.testing.assert_close((sample - alpha * x_0) / sigma, expected, rtol=0, atol=2e-3)


@pytest.mark.parametrize(("scheduler_class", "settings"), [*DETERMINISTIC, *STOCHASTIC])
def test_sampling_starts_at_the_scale_of_the_first_noise_level(scheduler_class, settings):
    bridge = bridge_for(scheduler_class(**settings))
    alpha, sigma = bridge.noise_level(bridge.set_timesteps(20, "cpu")[0])
    assert bridge.init_noise_sigma == pytest.approx(math.hypot(alpha, sigma), rel=2e-3)


@pytest.mark.parametrize(
    "scheduler",
    [
        DDPMScheduler(),
        DDPMScheduler(beta_schedule="squaredcos_cap_v2", timestep_spacing="trailing"),
        DDIMScheduler(rescale_betas_zero_snr=True, timestep_spacing="linspace", prediction_type="sample"),
        DPMSolverMultistepScheduler(beta_schedule="squaredcos_cap_v2"),
        DPMSolverMultistepScheduler(use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=3.0),
        EulerDiscreteScheduler(timestep_spacing="trailing"),
        EulerDiscreteScheduler(use_exponential_sigmas=True),
        FlowMatchEulerDiscreteScheduler(shift=3.0),
    ],
    ids=lambda scheduler: type(scheduler).__name__,
)
def test_noise_level_agrees_with_the_noise_that_diffusers_adds(scheduler):
    x_0, eps = clean_images().double(), noise(4, 3, 8, 8).double()
    bridge, sample = bridge_for(scheduler), noise(4, 3, 8, 8)
    # A second scheduler, which finds its place by the value of t instead of by counting steps.
    reference = type(scheduler).from_config(scheduler.config)
    reference.set_timesteps(25)
    add_noise = getattr(reference, "add_noise", None) or reference.scale_noise
    for t in bridge.set_timesteps(25, "cpu"):
        alpha, sigma = bridge.noise_level(t)
        theirs = add_noise(x_0, noise=eps, **{_timestep_argument(add_noise): t.expand(4)})
        torch.testing.assert_close(alpha * x_0 + sigma * eps, theirs, rtol=1e-6, atol=1e-6)
        sample = bridge.step(x_0.float(), t, sample)


def _timestep_argument(add_noise):
    return "timestep" if add_noise.__name__ == "scale_noise" else "timesteps"


@pytest.mark.parametrize(
    ("scheduler", "steps"),
    [
        (DDIMScheduler(beta_schedule="squaredcos_cap_v2", timestep_spacing="trailing", clip_sample=False), 250),
        (EulerDiscreteScheduler(beta_schedule="squaredcos_cap_v2"), 250),
        (EulerDiscreteScheduler(), 250),
        (FlowMatchEulerDiscreteScheduler(), 250),
        (FlowMatchEulerDiscreteScheduler(shift=3.0), 250),
        (DPMSolverMultistepScheduler(beta_schedule="squaredcos_cap_v2", use_exponential_sigmas=True), 50),
        (DPMSolverMultistepScheduler(use_flow_sigmas=True, prediction_type="v_prediction"), 50),
    ],
    ids=lambda value: type(value).__name__,
)
def test_gaussian_data_follow_the_exact_path(scheduler, steps):
    mean, spread = 0.2, 0.3

    def denoise(sample, alpha, sigma):
        return mean + alpha * spread**2 / (alpha**2 * spread**2 + sigma**2) * (sample - alpha * mean)

    levels, result = walk(bridge_for(scheduler), denoise, noise(4, 3, 16, 16), steps)
    start, alpha, sigma = levels[0]
    exact = mean + spread * (start - alpha * mean) / math.hypot(alpha * spread, sigma)
    assert (result - exact).square().mean().sqrt() < 0.02 * spread


def test_ddpm_gives_gaussian_data_their_mean_and_spread():
    mean, spread = 0.2, 0.3

    def denoise(sample, alpha, sigma):
        return mean + alpha * spread**2 / (alpha**2 * spread**2 + sigma**2) * (sample - alpha * mean)

    scheduler = DDPMScheduler(beta_schedule="squaredcos_cap_v2", clip_sample=False)
    _, result = walk(bridge_for(scheduler), denoise, noise(16, 3, 32, 32), 250)
    assert float(result.mean()) == pytest.approx(mean, abs=0.01)
    assert float(result.std()) == pytest.approx(spread, rel=0.05)


def test_a_derived_class_is_driven_as_its_base():
    for scheduler_class in (DDIMScheduler, DDPMScheduler, UniPCMultistepScheduler, EDMEulerScheduler):
        derived = type("Mine", (scheduler_class,), {})
        assert type(bridge_for(derived())) is type(bridge_for(scheduler_class()))


def test_a_class_that_nobody_knows_is_driven_by_what_it_has_and_told_so(monkeypatch):
    # A copy of Euler that inherits nothing from it, as a new release of Diffusers might bring one.
    unknown = type("NewScheduler", EulerDiscreteScheduler.__bases__, dict(vars(EulerDiscreteScheduler)))
    warnings = []
    monkeypatch.setattr(bridge.logger, "warning", warnings.append)
    x_0 = clean_images()
    _, result = walk(bridge_for(unknown(use_karras_sigmas=True)), lambda *_: x_0, noise(4, 3, 8, 8))
    torch.testing.assert_close(result, x_0, rtol=0, atol=1e-4)
    assert warnings == ["NewScheduler is driven as its attributes suggest (sigma), which nobody tested."]


def test_a_class_without_a_known_protocol_is_refused_with_a_remedy():
    with pytest.raises(ValueError, match=r"`scheduler` is a object, and in which space .* for instance DPMSolverMul"):
        bridge_for(object())


def test_a_class_in_place_of_an_object_is_told():
    with pytest.raises(ValueError, match=r"is the class DDIMScheduler; give an object of it, DDIMScheduler\(\)"):
        bridge_for(DDIMScheduler)
