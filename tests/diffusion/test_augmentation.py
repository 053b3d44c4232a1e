import pytest
import torch

from diffusers_imagen.diffusion.augmentation import noise_low_res
from diffusers_imagen.diffusion.noise import NoiseSchedule, alpha_sigma


@pytest.fixture
def low_res_and_noise():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(3, 3, 8, 8, generator=generator), torch.randn(3, 3, 8, 8, generator=generator)


def test_level_zero_leaves_the_image_and_level_one_only_noise(low_res_and_noise):
    low_res, noise = low_res_and_noise
    noised = noise_low_res(low_res, torch.tensor([0.0, 1.0, 0.5]), noise)
    assert torch.equal(noised[0], low_res[0])
    torch.testing.assert_close(noised[1], noise[1], rtol=0, atol=1e-6)
    torch.testing.assert_close(noised[2], (low_res[2] + noise[2]) / 2**0.5)


def test_level_is_the_time_of_the_cosine_schedule(low_res_and_noise):
    low_res, noise = low_res_and_noise
    level = torch.tensor([0.1, 0.4, 0.9])
    alpha, sigma = alpha_sigma(NoiseSchedule("cosine", -40.0, 40.0).log_snr(level))
    expected = alpha.reshape(3, 1, 1, 1) * low_res + sigma.reshape(3, 1, 1, 1) * noise
    torch.testing.assert_close(noise_low_res(low_res, level, noise), expected, rtol=0, atol=1e-5)


def test_type_of_the_image_stays(low_res_and_noise):
    low_res, noise = low_res_and_noise
    assert noise_low_res(low_res.bfloat16(), torch.full((3,), 0.2), noise).dtype == torch.bfloat16
