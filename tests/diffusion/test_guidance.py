import pytest
import torch
from diffusers.guiders import ClassifierFreeGuidance
from diffusers.guiders.guider_utils import rescale_noise_cfg

from diffusers_imagen.diffusion.guidance import guide, in_interval
from diffusers_imagen.diffusion.prediction import from_x_0, to_x_0


@pytest.fixture
def pair():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 3, 8, 8, generator=generator), torch.randn(2, 3, 8, 8, generator=generator)


def test_scale_one_gives_the_conditional_and_zero_the_unconditional(pair):
    cond, uncond = pair
    assert torch.equal(guide(cond, uncond, 1.0), cond)
    assert torch.equal(guide(cond, uncond, 0.0), uncond)


def test_equal_predictions_stay(pair):
    cond, _ = pair
    assert torch.equal(guide(cond, cond, 7.5), cond)


def test_guidance_is_the_formula_of_the_paper(pair):
    cond, uncond = pair
    torch.testing.assert_close(guide(cond, uncond, 5.0), uncond + 5.0 * (cond - uncond), rtol=1e-5, atol=1e-5)


def test_scales_differ_per_image(pair):
    cond, uncond = pair
    guided = guide(cond, uncond, torch.tensor([1.0, 5.0], dtype=torch.float64))
    assert guided.dtype == torch.float32
    assert torch.equal(guided[0], cond[0])
    torch.testing.assert_close(guided[1], guide(cond, uncond, 5.0)[1])
    torch.testing.assert_close(guide(cond, uncond, torch.tensor(5.0)), guide(cond, uncond, 5.0))


def test_guidance_on_x_0_is_guidance_on_v(pair):
    cond, uncond = pair
    x_t = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    level = 0.6, 0.8
    v_cond, v_uncond = (from_x_0(x_0, x_t, *level, "v_prediction") for x_0 in pair)
    on_v = to_x_0(v_uncond + 5 * (v_cond - v_uncond), x_t, *level, "v_prediction")
    torch.testing.assert_close(guide(cond, uncond, 5.0), on_v, rtol=0, atol=1e-4)


def test_rescale_agrees_with_diffusers(pair):
    cond, uncond = pair
    theirs = rescale_noise_cfg(guide(cond, uncond, 5.0), cond, 0.7)
    torch.testing.assert_close(guide(cond, uncond, 5.0, rescale=0.7), theirs, rtol=1e-5, atol=1e-5)


def test_full_rescale_gives_each_image_the_spread_of_the_conditional(pair):
    cond, uncond = pair
    guided = guide(cond, uncond, 5.0, rescale=1.0)
    torch.testing.assert_close(guided.std((1, 2, 3)), cond.std((1, 2, 3)), rtol=1e-5, atol=0)


@pytest.mark.parametrize("interval", [(0.0, 1.0), (0.0, 0.5), (0.2, 0.9), (0.33, 0.34), (0.5, 0.5)])
def test_interval_agrees_with_the_guiders_of_diffusers(interval):
    guider = ClassifierFreeGuidance(guidance_scale=5.0, start=interval[0], stop=interval[1])
    for num_steps in (1, 7, 20):
        for step_index in range(num_steps):
            guider.set_state(step=step_index, num_inference_steps=num_steps, timestep=torch.tensor(1))
            assert in_interval(step_index, num_steps, interval) == (guider.num_conditions == 2)
