"""imagen-pytorch's schedules, against their closed forms in double precision and DDPM's own products."""

import math

import pytest
import torch

from diffusers_imagen.diffusion.augmentation import noise_low_res
from diffusers_imagen.diffusion.imagen_pytorch_schedules import (
    discrete_log_snrs,
    level_of_log_snr,
    log_snr_at,
    low_res_level,
    step_at,
)
from diffusers_imagen.diffusion.noise import NoiseSchedule


@pytest.mark.parametrize("t", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_continuous_schedules_are_their_closed_forms(t):
    cosine = math.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2
    assert log_snr_at("cosine", t) == pytest.approx(math.log(cosine / (1 - cosine)), rel=1e-9)
    signal = math.exp(-(1e-4 + 10 * t * t))
    assert log_snr_at("linear", t) == pytest.approx(math.log(signal / (1 - signal)), rel=1e-9)


def test_the_noisy_ends_are_those_of_float32():
    assert log_snr_at("cosine", 1.0) == pytest.approx(-33.89, abs=0.01)
    assert log_snr_at("linear", 1.0) == pytest.approx(-10.0001, abs=1e-3)


@pytest.mark.parametrize("kind", ["cosine", "linear"])
def test_our_own_schedule_between_the_same_ends_is_the_same(kind):
    ours = NoiseSchedule(kind, log_snr_at(kind, 1.0), log_snr_at(kind, 0.0))
    times = torch.linspace(0, 0.95, 20, dtype=torch.float64)
    expected = torch.tensor([log_snr_at(kind, float(t)) for t in times], dtype=torch.float64)
    torch.testing.assert_close(ours.log_snr(times), expected, rtol=1e-6, atol=1e-6)


def test_a_level_adds_the_noise_that_it_stands_for():
    level = low_res_level("linear", 0.2)
    signal = math.exp(-(1e-4 + 10 * 0.2**2))
    ones = torch.ones(1, 1, 1, 1, dtype=torch.float64)
    at = torch.tensor([level], dtype=torch.float64)
    assert float(noise_low_res(ones, at, 0 * ones)) == pytest.approx(math.sqrt(signal), rel=1e-9)
    assert float(noise_low_res(0 * ones, at, ones)) == pytest.approx(math.sqrt(1 - signal), rel=1e-9)
    assert level_of_log_snr(0.0) == pytest.approx(0.5)


def test_discrete_schedules_are_products_of_their_betas():
    signal, expected = 1.0, []
    for step in range(50):
        signal *= 1 - 20 * (1e-4 + step / 49 * (0.02 - 1e-4))
        expected.append(math.log(signal / (1 - signal)))
    assert discrete_log_snrs("linear", 50).tolist() == pytest.approx(expected, rel=1e-9)
    cosine = discrete_log_snrs("cosine", 50)
    assert float(cosine[9]) == pytest.approx(log_snr_at("cosine", 10 / 50), abs=2e-3)
    assert bool((cosine.diff() < 0).all())


@pytest.mark.parametrize("kind", ["cosine", "linear"])
def test_a_level_of_the_table_is_its_whole_step_in_spite_of_float32(kind):
    table = discrete_log_snrs(kind, 1000)
    assert step_at(table.float(), kind, 1000).tolist() == list(range(1000))
    between = step_at((table[3:4] + table[4:5]) / 2, kind, 1000)
    assert between.item() == pytest.approx(3.5)
    assert step_at(torch.tensor([99.0, -99.0]), kind, 1000).tolist() == [0, 999]
