import copy

import pytest
import torch
from diffusers import (
    CMStochasticIterativeScheduler,
    DDIMScheduler,
    DDPMScheduler,
    DEISMultistepScheduler,
    DPMSolverMultistepScheduler,
    EDMDPMSolverMultistepScheduler,
    EDMEulerScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    HeunDiscreteScheduler,
    KDPM2DiscreteScheduler,
    LCMScheduler,
    MiniMaxH3Scheduler,
    PNDMScheduler,
    SASolverScheduler,
    SCMScheduler,
    UnCLIPScheduler,
    UniPCMultistepScheduler,
)

from diffusers_imagen.schedulers.bridge import bridge_for

CLASSES = [
    DDPMScheduler,
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
]
every_class = pytest.mark.parametrize("scheduler_class", CLASSES)


def images(seed=0):
    return torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def state(scheduler):
    return {
        name: value.tolist() if isinstance(value, torch.Tensor) else value for name, value in vars(scheduler).items()
    }


@every_class
def test_building_a_bridge_does_not_touch_the_scheduler(scheduler_class):
    scheduler = scheduler_class()
    before = copy.deepcopy(state(scheduler))
    bridge_for(scheduler)
    assert state(scheduler) == before


@every_class
def test_sampling_leaves_config_and_noise_schedule_as_they_are(scheduler_class):
    scheduler = scheduler_class()
    config, betas = copy.deepcopy(dict(scheduler.config)), getattr(scheduler, "betas", torch.zeros(0)).clone()
    bridge = bridge_for(scheduler)
    for t in bridge.set_timesteps(3, "cpu"):
        bridge.step(images(), t, images(1))
    assert dict(scheduler.config) == config
    assert torch.equal(getattr(scheduler, "betas", torch.zeros(0)), betas)


@every_class
def test_a_second_run_starts_afresh(scheduler_class):
    bridge = bridge_for(scheduler_class())

    def run():
        sample = images(1)
        for t in bridge.set_timesteps(4, "cpu"):
            sample = bridge.step(images(), t, sample, generator=torch.Generator().manual_seed(0))
        return sample

    assert torch.equal(run(), run())


@every_class
def test_timesteps_are_the_schedulers_own(scheduler_class):
    scheduler = scheduler_class()
    timesteps = bridge_for(scheduler).set_timesteps(5, "cpu")
    assert torch.equal(timesteps, scheduler.timesteps)
    assert len(timesteps) == 5


@every_class
def test_the_model_output_is_float32_at_least(scheduler_class):
    bridge = bridge_for(scheduler_class())
    t = bridge.set_timesteps(5, "cpu")[0]
    assert bridge.model_output(images().bfloat16(), images(1).bfloat16(), t).dtype == torch.float32
    assert bridge.model_output(images().double(), images(1).double(), t).dtype == torch.float64


@pytest.mark.parametrize(
    ("scheduler", "custom"),
    [
        (DDPMScheduler(), {"timesteps": [900, 500, 100]}),
        (DPMSolverMultistepScheduler(), {"timesteps": [900, 500, 100]}),
        (EulerDiscreteScheduler(), {"timesteps": [900, 500, 100]}),
        (EulerDiscreteScheduler(), {"sigmas": [80.0, 3.0, 0.1, 0.0]}),
        (FlowMatchEulerDiscreteScheduler(), {"sigmas": [1.0, 0.7, 0.1]}),
    ],
)
def test_custom_steps_end_at_x_0(scheduler, custom):
    bridge, sample = bridge_for(scheduler), images(1)
    timesteps = bridge.set_timesteps(None, "cpu", **custom)
    assert len(timesteps) == 3
    for t in timesteps:
        sample = bridge.step(images(), t, sample)
    torch.testing.assert_close(sample, images(), rtol=0, atol=1e-4)


@every_class
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0,), "`num_inference_steps` is 0; give 1 or more"),
        ((-3,), "`num_inference_steps` is -3; give 1 or more"),
        ((None, []), "`timesteps` is empty; give at least one"),
        ((None, None, []), "`sigmas` is empty; give at least one"),
        ((None,), "Give exactly one of .* not none of them"),
        ((5, [900, 100]), "Give exactly one of .* not `num_inference_steps` and `timesteps`"),
        ((5, None, [10.0, 0.0]), "Give exactly one of .* not `num_inference_steps` and `sigmas`"),
        ((None, [900, 100], [10.0, 0.0]), "Give exactly one of .* not `timesteps` and `sigmas`"),
    ],
)
def test_anything_but_one_request_is_refused(scheduler_class, arguments, message):
    num_inference_steps, *custom = arguments
    with pytest.raises(ValueError, match=message):
        bridge_for(scheduler_class()).set_timesteps(num_inference_steps, "cpu", *custom)


@pytest.mark.parametrize(
    ("scheduler_class", "custom"),
    [
        (DDIMScheduler, {"timesteps": [900, 100]}),
        (DDIMScheduler, {"sigmas": [10.0, 0.0]}),
        (DDPMScheduler, {"sigmas": [10.0, 0.0]}),
        (DPMSolverMultistepScheduler, {"sigmas": [10.0, 0.0]}),
    ],
)
def test_custom_steps_are_refused_where_the_scheduler_takes_none(scheduler_class, custom):
    message = f"`{next(iter(custom))}` cannot be set for {scheduler_class.__name__}; give `num_inference_steps`"
    with pytest.raises(ValueError, match=message):
        bridge_for(scheduler_class()).set_timesteps(None, "cpu", **custom)


@pytest.mark.parametrize(
    ("scheduler", "steps"),
    [
        (DPMSolverMultistepScheduler(beta_schedule="squaredcos_cap_v2"), 1000),
        (DPMSolverMultistepScheduler(timestep_spacing="leading"), 1000),
        (EulerDiscreteScheduler(timestep_spacing="leading"), 1001),
        (EulerDiscreteScheduler(timestep_spacing="trailing"), 1500),
    ],
)
def test_more_steps_than_noise_levels_are_refused(scheduler, steps):
    message = f"noise levels that do not fall from step to step out of `num_inference_steps` {steps}; give fewer"
    with pytest.raises(ValueError, match=message):
        bridge_for(scheduler).set_timesteps(steps, "cpu")


def test_custom_steps_that_rise_are_refused():
    with pytest.raises(ValueError, match=r"do not fall from step to step out of the custom steps; .* falling order"):
        bridge_for(EulerDiscreteScheduler()).set_timesteps(None, "cpu", timesteps=[100, 900])


@pytest.mark.parametrize("scheduler_class", [DDPMScheduler, DDIMScheduler, EulerDiscreteScheduler])
def test_a_single_step_at_the_clean_end_is_refused(scheduler_class):
    with pytest.raises(ValueError, match='for an almost clean image; make it with timestep_spacing="trailing"'):
        bridge_for(scheduler_class(timestep_spacing="leading")).set_timesteps(1, "cpu")


@every_class
def test_a_single_step_reaches_x_0(scheduler_class):
    settings = {} if scheduler_class is FlowMatchEulerDiscreteScheduler else {"timestep_spacing": "trailing"}
    bridge = bridge_for(scheduler_class(**settings))
    (t,) = bridge.set_timesteps(1, "cpu")
    sample = bridge.step(images(), t, images(1) * bridge.init_noise_sigma)
    torch.testing.assert_close(sample, images(), rtol=0, atol=1e-4)


def test_generators_reach_the_noise_one_by_one():
    def two_steps(x_0, sample, generator):
        bridge = bridge_for(DDPMScheduler())
        for t in bridge.set_timesteps(10, "cpu")[:2]:
            sample = bridge.step(x_0, t, sample, generator=generator)
        return sample

    generators = [torch.Generator().manual_seed(seed) for seed in range(4)]
    together = two_steps(images(), images(1), generators)
    alone = two_steps(images()[2:3], images(1)[2:3], torch.Generator().manual_seed(2))
    assert torch.equal(together[2:3], alone)


def test_a_scheduler_without_generator_is_not_given_one():
    class WithoutGenerator(EulerDiscreteScheduler):
        def step(self, model_output, timestep, sample):
            return super().step(model_output, timestep, sample)

    bridge = bridge_for(WithoutGenerator())
    (t, *_) = bridge.set_timesteps(2, "cpu")
    assert bridge.step(images(), t, images(1), generator=torch.Generator()).shape == (4, 3, 8, 8)


@pytest.mark.parametrize("scheduler_class", CLASSES[:-1])
def test_an_unknown_prediction_type_is_refused(scheduler_class):
    message = f"`prediction_type` of {scheduler_class.__name__} is 'velocity', which its .* one of sample, epsilon"
    with pytest.raises(ValueError, match=message):
        bridge_for(scheduler_class(prediction_type="velocity"))


@pytest.mark.parametrize(
    ("scheduler", "settings"),
    [
        (EulerAncestralDiscreteScheduler(prediction_type="sample"), {"prediction_type": "v_prediction"}),
        (KDPM2DiscreteScheduler(prediction_type="sample"), {"prediction_type": "v_prediction"}),
        (PNDMScheduler(prediction_type="sample"), {"prediction_type": "epsilon"}),
        (PNDMScheduler(timestep_spacing="trailing"), {"timestep_spacing": "leading"}),
        (HeunDiscreteScheduler(prediction_type="original_sample"), {"prediction_type": "sample"}),
        (EDMEulerScheduler(prediction_type="sample"), {"prediction_type": "epsilon"}),
        (SCMScheduler(prediction_type="epsilon"), {"prediction_type": "trigflow"}),
        (UnCLIPScheduler(variance_type="fixed_small"), {"variance_type": "fixed_small_log"}),
        (DPMSolverMultistepScheduler(variance_type="learned_range"), {"variance_type": None}),
        (UniPCMultistepScheduler(use_flow_sigmas=True), {"prediction_type": "sample"}),
    ],
)
def test_a_setting_that_step_does_not_know_is_replaced_in_a_copy(scheduler, settings):
    before = dict(scheduler.config)
    bridge = bridge_for(scheduler)
    assert bridge.scheduler is not scheduler
    assert dict(bridge.scheduler.config) == {**before, **settings}
    sample = images(1) * bridge.init_noise_sigma
    for t in bridge.set_timesteps(20, "cpu"):
        sample = bridge.step(images(), t, sample)
    assert (sample - images()).abs().max() < 0.06
    assert dict(scheduler.config) == before


@every_class
def test_a_scheduler_whose_settings_are_known_is_driven_itself(scheduler_class):
    scheduler = scheduler_class()
    assert bridge_for(scheduler).scheduler is scheduler


@pytest.mark.parametrize(
    ("scheduler", "steps", "message"),
    [
        (PNDMScheduler(), 3, "cannot lay out `num_inference_steps` 3: .* 4 steps or more; .* skip_prk_steps=True"),
        (UnCLIPScheduler(), 1, "cannot lay out `num_inference_steps` 1: it needs 2 steps or more"),
        (LCMScheduler(), 51, "cannot lay out `num_inference_steps` 51: .*original_steps"),
        (UniPCMultistepScheduler(use_dynamic_shifting=True), 5, "cannot lay out .* `mu` must be passed"),
        (CMStochasticIterativeScheduler(), 41, "cannot lay out `num_inference_steps` 41: .* cannot be larger"),
        (MiniMaxH3Scheduler(), 1, "cannot lay out `num_inference_steps` 1: .* >= 2"),
    ],
)
def test_what_the_scheduler_cannot_lay_out_is_told_with_its_own_reason(scheduler, steps, message):
    with pytest.raises(ValueError, match=message):
        bridge_for(scheduler).set_timesteps(steps, "cpu")


@pytest.mark.parametrize(
    ("scheduler", "settings"),
    [
        (EulerDiscreteScheduler, {"final_sigmas_type": "sigma_min"}),
        (DPMSolverMultistepScheduler, {"final_sigmas_type": "sigma_min", "use_karras_sigmas": True}),
        (DPMSolverMultistepScheduler, {"final_sigmas_type": "sigma_min", "use_lu_lambdas": True, "solver_order": 3}),
        (DEISMultistepScheduler, {"use_karras_sigmas": True}),
        (DEISMultistepScheduler, {"use_flow_sigmas": True}),
        (SASolverScheduler, {"use_flow_sigmas": True}),
        (EDMDPMSolverMultistepScheduler, {"final_sigmas_type": "sigma_min"}),
    ],
)
def test_a_last_step_of_length_zero_gives_the_prediction_itself(scheduler, settings):
    bridge = bridge_for(scheduler(**settings))
    sample = images(1) * bridge.init_noise_sigma
    for t in bridge.set_timesteps(10, "cpu"):
        sample = bridge.step(images(), t, sample)
    assert torch.equal(sample, images())


@pytest.mark.parametrize(
    ("scheduler", "message"),
    [
        (DDIMScheduler(trained_betas=[0.01] * 10), "`trained_betas` of DDIMScheduler holds 10 numbers for 1000"),
        (EulerDiscreteScheduler(trained_betas=[0.01] * 10), "`trained_betas` of EulerDiscreteScheduler holds 10"),
        (DDIMScheduler(beta_start=-0.01), "betas of DDIMScheduler are not all between 0 and 1"),
        (DPMSolverMultistepScheduler(beta_end=1.5), "betas of DPMSolverMultistepScheduler are not all between"),
        (DDPMScheduler(trained_betas=[0.1, float("nan")], num_train_timesteps=2), "betas of DDPMScheduler are not"),
        (EulerDiscreteScheduler(num_train_timesteps=0), "`num_train_timesteps` of .* is 0; make it with 1"),
    ],
)
def test_a_noise_schedule_that_is_none_is_refused(scheduler, message):
    with pytest.raises(ValueError, match=message):
        bridge_for(scheduler)


@pytest.mark.parametrize(
    ("sigmas", "wrong"),
    [
        ([10.0, 0.0, 0.0], "0.0"),
        ([0.0], "0.0"),
        ([10.0, -1.0], "-1.0"),
        ([float("inf"), 1.0], "inf"),
        ([1e30, 1.0], "1e.30"),
        ([10.0, float("nan")], "nan"),
    ],
)
def test_sigmas_that_are_no_noise_are_refused(sigmas, wrong):
    with pytest.raises(ValueError, match=f"`sigmas` holds {wrong}; give numbers above 0"):
        bridge_for(EulerDiscreteScheduler()).set_timesteps(None, "cpu", sigmas=sigmas)
