import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from diffusers_imagen.schedulers.bridge import bridge_for


def images(seed=0):
    return torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_the_model_output_is_the_velocity_from_x_0_to_eps():
    bridge = bridge_for(FlowMatchEulerDiscreteScheduler(shift=3.0))
    x_0, eps = images().double(), images(1).double()
    t = bridge.set_timesteps(10, "cpu")[0]
    alpha, sigma = bridge.noise_level(t)
    assert (alpha, sigma) == (0.0, 1.0)
    torch.testing.assert_close(bridge.model_output(x_0, eps, t), eps - x_0)


def test_noise_level_follows_the_steps_of_each_run():
    bridge = bridge_for(FlowMatchEulerDiscreteScheduler())
    for steps in (2, 4):
        sigmas = []
        for t in bridge.set_timesteps(steps, "cpu"):
            sigmas.append(bridge.noise_level(t)[1])
            bridge.step(images(), t, images(1))
        torch.testing.assert_close(torch.tensor(sigmas), torch.linspace(1, 0.001, steps))


def test_noise_level_is_known_before_the_bridge_laid_out_steps():
    scheduler = FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(4)
    sigmas = [bridge_for(scheduler).noise_level(t)[1] for t in scheduler.timesteps]
    torch.testing.assert_close(torch.tensor(sigmas), scheduler.sigmas[:-1])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"use_dynamic_shifting": True}, "has use_dynamic_shifting, .* make it with use_dynamic_shifting=False"),
        ({"invert_sigmas": True}, "has invert_sigmas, which counts noise backwards; make it with invert_sigmas=False"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        bridge_for(FlowMatchEulerDiscreteScheduler(**settings))
