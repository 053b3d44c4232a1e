import pytest
import torch
from diffusers import CMStochasticIterativeScheduler

from diffusers_imagen.schedulers.bridge import bridge_for


@pytest.mark.parametrize("place", [0, 20, 36, 39])
def test_the_scheduler_reads_x_0_back_at_any_noise(place):
    scheduler = CMStochasticIterativeScheduler(num_train_timesteps=41)
    bridge = bridge_for(scheduler)
    timesteps = bridge.set_timesteps(41, "cpu")
    scheduler.set_begin_index(place)
    _, sigma = bridge.noise_level(timesteps[place])
    x_0 = torch.linspace(-1, 1, 192).view(1, 3, 8, 8)
    sample = x_0 + sigma * torch.randn(x_0.shape, generator=torch.Generator().manual_seed(0))
    output = bridge.model_output(x_0, sample, timesteps[place])
    c_skip, c_out = scheduler.get_scalings_for_boundary_condition(scheduler.sigmas[place])
    torch.testing.assert_close(c_out * output + c_skip * sample, x_0, rtol=0, atol=1e-5)


def test_its_own_clipping_is_noticed():
    assert bridge_for(CMStochasticIterativeScheduler()).clips_x_0
    assert not bridge_for(CMStochasticIterativeScheduler(clip_denoised=False)).clips_x_0
