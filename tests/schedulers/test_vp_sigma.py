import pytest
import torch
from diffusers import (
    DDPMScheduler,
    DEISMultistepScheduler,
    DPMSolverMultistepScheduler,
    DPMSolverSinglestepScheduler,
    SASolverScheduler,
    UniPCMultistepScheduler,
)

from diffusers_imagen.schedulers.bridge import bridge_for

FLOW = {"use_flow_sigmas": True}
NOISE_PREDICTING = {"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min"}


def images(seed=0):
    return torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.mark.parametrize("settings", [{}, FLOW])
@pytest.mark.parametrize("prediction_type", ["epsilon", "sample", "v_prediction"])
def test_their_own_conversion_reads_x_0_back(prediction_type, settings):
    scheduler = DPMSolverMultistepScheduler(prediction_type=prediction_type, **settings)
    bridge, sample = bridge_for(scheduler), images(1)
    for t in bridge.set_timesteps(10, "cpu"):
        if scheduler.step_index is not None:
            output = bridge.model_output(images(), sample, t)
            theirs = scheduler.convert_model_output(output, sample=sample)
            torch.testing.assert_close(theirs, images(), rtol=0, atol=1e-4)
        sample = bridge.step(images(), t, sample)


@pytest.mark.parametrize("algorithm_type", ["dpmsolver++", "sde-dpmsolver++"])
def test_their_own_thresholding_changes_nothing_within_the_range(algorithm_type):
    def run(**settings):
        bridge, sample = bridge_for(DPMSolverMultistepScheduler(algorithm_type=algorithm_type, **settings)), images(1)
        generator = torch.Generator().manual_seed(0)
        for t in bridge.set_timesteps(10, "cpu"):
            sample = bridge.step(images(), t, sample, generator=generator)
        return bridge.clips_x_0, sample

    clips, thresholded = run(thresholding=True)
    clips_not, plain = run()
    assert (clips, clips_not) == (True, False)
    torch.testing.assert_close(thresholded, plain, rtol=0, atol=1e-5)


def test_settings_carried_over_from_ddpm_are_not_mistaken_for_its_own():
    ddpm = DDPMScheduler(clip_sample=True, clip_sample_range=0.5, variance_type="learned_range")
    bridge = bridge_for(DPMSolverMultistepScheduler.from_config(ddpm.config))
    assert not bridge.clips_x_0
    assert not bridge.needs_variance
    sample = images(1)
    for t in bridge.set_timesteps(10, "cpu"):
        sample = bridge.step(images(), t, sample, variance=images(2))
    torch.testing.assert_close(sample, images(), rtol=0, atol=1e-4)


@pytest.mark.filterwarnings("ignore:.*dpmsolver.*:FutureWarning")
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prediction_type": "flow_prediction"}, "walks in the variance-preserving space; .*use_flow_sigmas=True"),
        (FLOW | {"use_karras_sigmas": True}, "has use_flow_sigmas and use_karras_sigmas, .* one of the two"),
        (FLOW | {"use_lu_lambdas": True}, "has use_flow_sigmas and use_lu_lambdas"),
        (
            {"algorithm_type": "sde-dpmsolver", "final_sigmas_type": "sigma_min"},
            'diverges at large noise; take "sde-dpmsolver\\+\\+"',
        ),
        (
            FLOW | NOISE_PREDICTING | {"prediction_type": "flow_prediction"},
            'its flow_prediction is not made for use_flow_sigmas; make it with prediction_type="sample"',
        ),
        (FLOW | NOISE_PREDICTING | {"prediction_type": "v_prediction"}, "its v_prediction is not made for"),
        ({"thresholding": True, "sample_max_value": 0.5}, "`sample_max_value` of .* is 0.5, narrower than images"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        bridge_for(DPMSolverMultistepScheduler(**settings))


def test_custom_timesteps_are_refused_in_the_flow_space():
    bridge = bridge_for(DPMSolverMultistepScheduler(**FLOW))
    with pytest.raises(
        ValueError, match="`timesteps` cannot be set for DPMSolverMultistepScheduler with use_flow_sig"
    ):
        bridge.set_timesteps(None, "cpu", timesteps=[900, 100])


@pytest.mark.parametrize(
    "scheduler_class",
    [DEISMultistepScheduler, DPMSolverSinglestepScheduler, SASolverScheduler, UniPCMultistepScheduler],
)
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prediction_type": "flow_prediction"}, "walks in the variance-preserving space; .*use_flow_sigmas=True"),
        (FLOW | {"use_exponential_sigmas": True}, "has use_flow_sigmas and use_exponential_sigmas"),
        ({"thresholding": True, "sample_max_value": 0.5}, "`sample_max_value` of .* is 0.5, narrower than images"),
    ],
)
def test_the_kin_refuse_what_cannot_work(scheduler_class, settings, message):
    with pytest.raises(ValueError, match=message):
        bridge_for(scheduler_class(**settings))


@pytest.mark.filterwarnings("ignore:.*dpmsolver.*:FutureWarning")
@pytest.mark.parametrize(
    ("scheduler", "message"),
    [
        (UniPCMultistepScheduler(solver_p=DDPMScheduler()), "has another scheduler as solver_p"),
        (
            UniPCMultistepScheduler(predict_x0=False, prediction_type="v_prediction", **FLOW),
            "integrates eps, and its v",
        ),
        (
            SASolverScheduler(algorithm_type="noise_prediction", thresholding=True),
            "cannot threshold while it integrates",
        ),
        (DPMSolverSinglestepScheduler(thresholding=True, **NOISE_PREDICTING), "cannot threshold while it integrates"),
        (DPMSolverMultistepScheduler(use_dynamic_shifting=True, **FLOW), "has use_dynamic_shifting, .*flow_shift=3.0"),
    ],
)
def test_what_one_of_them_cannot_do_is_refused(scheduler, message):
    with pytest.raises(ValueError, match=message):
        bridge_for(scheduler)


def test_unipc_turns_karras_sigmas_into_flow_sigmas():
    bridge = bridge_for(UniPCMultistepScheduler(use_karras_sigmas=True, **FLOW))
    timesteps = bridge.set_timesteps(10, "cpu")
    alpha, sigma = bridge.noise_level(timesteps[0])
    assert alpha + sigma == 1
    assert 0.9 < sigma < 1


def test_a_learned_variance_of_the_one_before_costs_no_channels():
    scheduler = DPMSolverMultistepScheduler(variance_type="learned_range", prediction_type="epsilon")
    bridge = bridge_for(scheduler)
    x_0, sample = images().repeat(1, 2, 1, 1), images(1).repeat(1, 2, 1, 1)
    for t in bridge.set_timesteps(5, "cpu"):
        sample = bridge.step(x_0, t, sample)
    torch.testing.assert_close(sample, x_0, rtol=0, atol=1e-4)


def test_the_stochastic_adams_solver_integrates_eps_too():
    # Not in 20 steps, where its own formula is unstable.
    bridge, sample = bridge_for(SASolverScheduler(algorithm_type="noise_prediction")), images(1)
    generator = torch.Generator().manual_seed(0)
    for t in bridge.set_timesteps(50, "cpu"):
        sample = bridge.step(images(), t, sample, generator=generator)
    assert (sample - images()).square().mean().sqrt() < 1.2e-2


@pytest.mark.parametrize("tau", [0, 1])
def test_a_change_of_the_sample_passes_the_corrector_of_the_stochastic_adams_solver(tau):
    def run(change):
        bridge, sample = bridge_for(SASolverScheduler(tau_func=lambda t: tau)), images(1)
        generator = torch.Generator().manual_seed(0)
        timesteps, levels = bridge.set_timesteps(20, "cpu"), []
        for index, t in enumerate(timesteps[:10]):
            levels.append(bridge.noise_level(t))
            sample = bridge.step(images(), t, sample + (change if index == 9 else 0), generator=generator)
        return sample, levels[-1], bridge.noise_level(timesteps[10])

    changed, (alpha, sigma), (next_alpha, next_sigma) = run(1.0)
    unchanged, *_ = run(0.0)
    # What its predictor keeps of the sample (SA-Solver, arXiv:2309.05019): noise takes a further exp(-tau^2 h).
    kept = next_sigma / sigma * (alpha / sigma / (next_alpha / next_sigma)) ** (tau**2)
    torch.testing.assert_close(changed - unchanged, torch.full_like(changed, kept), rtol=0, atol=1e-4)


@pytest.mark.parametrize("steps", [1, 3, 12])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"predict_x0": False},
        {"solver_type": "bh1"},
        {"solver_type": "bh1", "solver_order": 1},
        {"lower_order_final": False},
        {"lower_order_final": False, "solver_order": 3, "use_karras_sigmas": True},
    ],
)
def test_unipc_ends_at_x_0_with_all_of_its_settings(settings, steps):
    bridge, sample, x_0 = bridge_for(UniPCMultistepScheduler(**settings)), images(1), images(2).clamp(-1, 1)
    for timestep in bridge.set_timesteps(steps, "cpu"):
        sample = bridge.step(x_0, timestep, sample)
    torch.testing.assert_close(sample, x_0, rtol=0, atol=1e-5)


@pytest.mark.parametrize("steps", [1, 12, 24])
def test_sa_solver_on_eps_is_refused_where_it_draws_noise(steps):
    bridge = bridge_for(SASolverScheduler(algorithm_type="noise_prediction"))
    with pytest.raises(ValueError, match='"noise_prediction" draws noise in fewer than 25 steps; take as many, or'):
        bridge.set_timesteps(steps, "cpu")
    assert len(bridge.set_timesteps(25, "cpu")) == 25


@pytest.mark.parametrize(
    "scheduler_class", [DPMSolverSinglestepScheduler, DPMSolverMultistepScheduler, UniPCMultistepScheduler]
)
def test_eps_is_not_read_where_float32_keeps_nothing_of_x_0_in_it(scheduler_class):
    scheduler = scheduler_class(num_train_timesteps=4000)
    bridge, x_0 = bridge_for(scheduler), images(2).clamp(-1, 1)
    (timestep,) = bridge.set_timesteps(1, "cpu")
    torch.testing.assert_close(bridge.step(x_0, timestep, images(1)), x_0, rtol=0, atol=1e-4)
    assert scheduler.config.prediction_type == "epsilon"
