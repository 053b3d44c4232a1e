"""A table of timesteps as a noise schedule: exact at them, continuous between them."""

import pytest
import torch
from diffusers import DDPMScheduler

from diffusers_imagen.diffusion.noise_table import NoiseTable

SQUARES = DDPMScheduler(beta_schedule="squaredcos_cap_v2").alphas_cumprod


def test_every_timestep_comes_back_whole_through_float32():
    squares = SQUARES.double()
    log_snr = (squares.log() - (1 - squares).log()).float()
    assert torch.equal(NoiseTable(SQUARES).timestep(log_snr), torch.arange(1000.0))


def test_at_timesteps_alpha_and_sigma_are_the_schedulers_to_the_bit():
    table = NoiseTable(SQUARES)
    log_snr = table.log_snr(torch.arange(1000) / 999)
    alpha, sigma = table.alpha_sigma(log_snr)
    assert torch.equal(alpha, SQUARES**0.5)
    assert torch.equal(sigma, (1 - SQUARES) ** 0.5)


def test_between_timesteps_it_is_linear_in_log_snr_and_variance_is_kept():
    table = NoiseTable(SQUARES)
    ends = table.log_snr(torch.tensor([500 / 999, 501 / 999]))
    middle = ends.mean(dim=0, keepdim=True)
    assert float(table.timestep(middle)) == pytest.approx(500.5, abs=1e-3)
    assert float(table.log_snr(torch.tensor([500.5 / 999]))) == pytest.approx(float(middle), abs=1e-5)
    alpha, sigma = table.alpha_sigma(middle)
    assert float(alpha**2 + sigma**2) == pytest.approx(1, abs=1e-6)
    assert float(2 * (alpha / sigma).log()) == pytest.approx(float(middle), abs=1e-5)


def test_levels_beyond_the_table_are_its_ends():
    table = NoiseTable(SQUARES)
    beyond = torch.tensor([-float("inf"), -100.0, 100.0, float("inf")])
    assert table.timestep(beyond).tolist() == [999, 999, 0, 0]
    assert table.clamp(beyond).tolist() == pytest.approx(
        [table.log_snr_min, table.log_snr_min, table.log_snr_max, table.log_snr_max]
    )
    assert table.t(beyond).tolist() == [1, 1, 0, 0]


@pytest.mark.parametrize("squares", [[0.9, 0.5, 0.0], [1.0, 0.5], [0.5, 0.6], [0.5]])
def test_what_is_no_table_of_falling_levels_is_refused(squares):
    with pytest.raises(ValueError, match="`alphas_cumprod` must fall from below 1 to above 0"):
        NoiseTable(torch.tensor(squares))
