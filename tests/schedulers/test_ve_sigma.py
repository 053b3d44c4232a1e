import pytest
import torch
from diffusers import (
    DDPMScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    KDPM2AncestralDiscreteScheduler,
    LMSDiscreteScheduler,
)
from diffusers.schedulers import scheduling_euler_discrete

from diffusers_imagen.schedulers.bridge import bridge_for


def images(seed=0):
    return torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.mark.parametrize("prediction_type", ["epsilon", "sample", "original_sample", "v_prediction"])
def test_the_scheduler_reads_x_0_back(prediction_type):
    scheduler = EulerDiscreteScheduler(prediction_type=prediction_type)
    bridge = bridge_for(scheduler)
    t = bridge.set_timesteps(10, "cpu")[0]
    sample = images(1) * bridge.init_noise_sigma
    output = bridge.model_output(images(), sample, t)
    scheduler.scale_model_input(sample, t)
    theirs = scheduler.step(output, t, sample).pred_original_sample
    torch.testing.assert_close(theirs, images(), rtol=0, atol=1e-4)


def test_it_never_warns_about_unscaled_input(monkeypatch):
    warnings = []
    monkeypatch.setattr(scheduling_euler_discrete.logger, "warning", warnings.append)
    bridge, sample = bridge_for(EulerDiscreteScheduler()), images(1)
    for t in bridge.set_timesteps(3, "cpu"):
        sample = bridge.step(images(), t, sample)
    assert warnings == []


def test_clipping_carried_over_from_ddpm_is_not_mistaken_for_its_own():
    assert not bridge_for(EulerDiscreteScheduler.from_config(DDPMScheduler(clip_sample_range=0.5).config)).clips_x_0


def test_flow_prediction_is_refused():
    with pytest.raises(ValueError, match=r"is 'flow_prediction', which its .* one of sample, epsilon, v_prediction"):
        bridge_for(EulerDiscreteScheduler(prediction_type="flow_prediction"))


@pytest.mark.parametrize("sigmas", [[20.0, 5.0, 1.0], [20.0, 5.0, 1.0, 0.0]])
def test_own_sigmas_end_at_the_clean_picture_with_or_without_their_zero(sigmas):
    bridge = bridge_for(EulerDiscreteScheduler())
    timesteps = bridge.set_timesteps(None, "cpu", sigmas=sigmas)
    assert len(timesteps) == 3
    sample = images(1) * bridge.init_noise_sigma
    for t in timesteps:
        sample = bridge.step(images(), t, sample)
    torch.testing.assert_close(sample, images(), rtol=0, atol=1e-5)


def test_errors_of_the_last_predictions_are_not_multiplied_by_lms():
    scheduler = LMSDiscreteScheduler(beta_schedule="squaredcos_cap_v2", use_exponential_sigmas=True)
    bridge, generator = bridge_for(scheduler), torch.Generator().manual_seed(2)
    timesteps = bridge.set_timesteps(250, "cpu")
    sample = images(1) * bridge.init_noise_sigma
    for t in timesteps:
        predicted = images() + 0.01 * torch.randn(images().shape, generator=generator)
        sample = bridge.step(predicted, t, sample)
    torch.testing.assert_close(sample, predicted, rtol=0, atol=1e-4)


@pytest.mark.parametrize("scheduler_class", [HeunDiscreteScheduler, KDPM2AncestralDiscreteScheduler])
def test_what_a_model_learns_during_a_long_step_is_not_multiplied_by_its_length(scheduler_class):
    scheduler = scheduler_class(beta_schedule="squaredcos_cap_v2", timestep_spacing="trailing")
    bridge = bridge_for(scheduler)
    timesteps = bridge.set_timesteps(12, "cpu")
    sample = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(2)) * bridge.init_noise_sigma
    rounds = 0.0
    for t in timesteps[:2]:
        # At pure noise the model tells the mean, 0; one evaluation later it sees the picture.
        sample = bridge.step(images() * rounds, t, sample, generator=torch.Generator().manual_seed(3))
        rounds = 1.0
    _, sigma = bridge.noise_level(timesteps[2])
    spread = (sample / sigma).std()
    assert 0.9 < spread < 1.1
