import math

import pytest
import torch
from diffusers import DDIMScheduler

from diffusers_imagen.diffusion.noise import add_noise
from diffusers_imagen.diffusion.prediction import PREDICTION_TYPES, from_x_0, target, to_x_0

SPACES = {
    "variance preserving": (math.cos(0.7), math.sin(0.7)),
    "variance preserving, almost clean": (math.cos(1e-3), math.sin(1e-3)),
    "variance exploding": (1.0, 14.6),
    "flow": (0.3, 0.7),
    "half and half": (torch.tensor([0.9, 0.2]), torch.tensor([0.1, 1.5])),
}
every_space = pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
every_type = pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)


def images(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@every_type
@every_space
def test_x_0_survives_the_way_there_and_back(space, prediction_type):
    x_0, x_t = images(2, 3, 4, 4), images(2, 3, 4, 4, seed=1)
    prediction = from_x_0(x_0, x_t, *space, prediction_type)
    torch.testing.assert_close(to_x_0(prediction, x_t, *space, prediction_type), x_0, rtol=0, atol=1e-9)


@every_type
@every_space
def test_target_is_the_prediction_that_gives_x_0(space, prediction_type):
    x_0, eps = images(2, 3, 4, 4), images(2, 3, 4, 4, seed=1)
    x_t = add_noise(x_0, eps, *space)
    aim = target(x_0, eps, *space, prediction_type)
    torch.testing.assert_close(to_x_0(aim, x_t, *space, prediction_type), x_0, rtol=0, atol=1e-6)
    torch.testing.assert_close(from_x_0(x_0, x_t, *space, prediction_type), aim, rtol=0, atol=1e-6)


def test_targets_are_the_closed_forms():
    x_0, eps = images(1, 3, 2, 2), images(1, 3, 2, 2, seed=1)
    alpha, sigma = math.cos(0.7), math.sin(0.7)
    torch.testing.assert_close(target(x_0, eps, alpha, sigma, "v_prediction"), alpha * eps - sigma * x_0)
    torch.testing.assert_close(target(x_0, eps, alpha, sigma, "flow_prediction"), eps - x_0)
    assert target(x_0, eps, alpha, sigma, "epsilon") is eps
    assert target(x_0, eps, alpha, sigma, "sample") is x_0


def test_v_does_not_depend_on_the_scale_of_the_space():
    # The same level of noise in a variance-preserving and in a variance-exploding space.
    x_0, x_ve, sigma = images(1, 3, 2, 2), images(1, 3, 2, 2, seed=1), 3.0
    norm = math.hypot(1.0, sigma)
    in_vp = from_x_0(x_0, x_ve / norm, 1 / norm, sigma / norm, "v_prediction")
    torch.testing.assert_close(from_x_0(x_0, x_ve, 1.0, sigma, "v_prediction"), in_vp)


@pytest.mark.parametrize("prediction_type", ["epsilon", "sample", "v_prediction"])
def test_x_0_agrees_with_diffusers(prediction_type):
    scheduler = DDIMScheduler(prediction_type=prediction_type, clip_sample=False)
    scheduler.set_timesteps(10)
    prediction, x_t = images(2, 3, 4, 4), images(2, 3, 4, 4, seed=1)
    for t in scheduler.timesteps:
        theirs = scheduler.step(prediction, t, x_t).pred_original_sample
        alpha_squared = float(scheduler.alphas_cumprod[t])
        alpha, sigma = math.sqrt(alpha_squared), math.sqrt(1 - alpha_squared)
        ours = to_x_0(prediction, x_t, alpha, sigma, prediction_type)
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@every_type
def test_half_precision_is_computed_in_float32(prediction_type):
    x_0, x_t = images(2, 3, 4, 4).bfloat16(), images(2, 3, 4, 4, seed=1).bfloat16()
    level = torch.tensor([0.9, 0.2], dtype=torch.float64), torch.tensor([0.1, 1.5], dtype=torch.float64)
    prediction = from_x_0(x_0, x_t, *level, prediction_type)
    assert prediction.dtype == torch.float32
    exact = from_x_0(x_0.double(), x_t.double(), *level, prediction_type)
    assert exact.dtype == torch.float64
    torch.testing.assert_close(prediction.double(), exact, rtol=1e-6, atol=1e-5)
    assert to_x_0(prediction.bfloat16(), x_t, *level, prediction_type).dtype == torch.float32
    assert target(x_0, x_t, *level, prediction_type).dtype == torch.float32


@pytest.mark.parametrize("convert", [to_x_0, from_x_0, target])
def test_an_unknown_type_is_refused(convert):
    with pytest.raises(ValueError, match="`prediction_type` is 'noise'; choose one of epsilon, sample"):
        convert(torch.zeros(1, 3, 2, 2), torch.zeros(1, 3, 2, 2), 0.5, 0.5, "noise")
