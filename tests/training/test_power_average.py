"""Averages against the sums that define them, in float64."""

import numpy as np
import pytest
import torch
from torch import nn

from diffusers_imagen.training.power_average import (
    LARGEST_SIGMA_REL,
    PowerAverage,
    Profile,
    combination_error,
    combine_profiles,
    gamma_of,
    profile_shares,
)


def shares_by_definition(gamma: float, count: int) -> np.ndarray:
    """Unroll the recursion average <- beta average + (1 - beta) weights, beta = (1 - 1/i)^(gamma + 1)."""
    shares = np.zeros(count)
    for i in range(1, count + 1):
        beta = (1 - 1 / i) ** (gamma + 1)
        shares *= beta
        shares[i - 1] = 1 - beta
    return shares


def noisy_path(count: int) -> np.ndarray:
    """Give weights that drift and jitter, as those of a training do, (count, 5)."""
    steps = np.random.default_rng(0).normal(size=(count, 5))
    return np.cumsum(steps, axis=0) * 0.05 + np.random.default_rng(1).normal(size=(count, 5))


@pytest.mark.parametrize(("gamma", "sigma_rel"), [(6.94, 0.10), (16.97, 0.05), (0.0, LARGEST_SIGMA_REL)])
def test_width_gives_the_exponent(gamma: float, sigma_rel: float) -> None:
    assert gamma_of(sigma_rel) == pytest.approx(gamma, abs=5e-3)


def test_exponent_gives_the_width_of_the_continuous_profile() -> None:
    # Standard deviation of tau^gamma on [0, 1], by its definition.
    for width in (0.02, 0.05, 0.13, 0.25):
        k = gamma_of(width) + 1
        mean, square = k / (k + 1), k / (k + 2)
        assert (square - mean**2) ** 0.5 == pytest.approx(width, rel=1e-9)


@pytest.mark.parametrize("sigma_rel", [0.0, 0.3, -0.1, float("nan")])
def test_width_that_no_profile_has_is_refused(sigma_rel: float) -> None:
    with pytest.raises(ValueError, match="`sigma_rel` is"):
        gamma_of(sigma_rel)


@pytest.mark.parametrize("sigma_rel", [0.05, 0.1, 0.25])
def test_shares_are_those_of_the_recursion(sigma_rel: float) -> None:
    shares = profile_shares(Profile(sigma_rel, 300))
    assert np.allclose(shares, shares_by_definition(gamma_of(sigma_rel), 300), rtol=0, atol=1e-14)
    assert shares.sum() == pytest.approx(1, abs=1e-13)


@pytest.mark.parametrize("sigma_rel", [0.05, 0.1])
def test_running_average_is_the_weighted_sum_of_all_weights(sigma_rel: float) -> None:
    model = nn.Linear(5, 1, bias=False).double()
    average = PowerAverage(model, sigma_rel)
    path = noisy_path(200)
    for updates, weights in enumerate(path):
        with torch.no_grad():
            model.weight.copy_(torch.from_numpy(weights)[None])
        average.update(model, updates)

    expected = shares_by_definition(gamma_of(sigma_rel), 200) @ path
    assert np.allclose(average.model.weight.numpy()[0], expected, rtol=0, atol=1e-12)
    assert not average.model.training
    assert not average.model.weight.requires_grad


def snapshots_of(path: np.ndarray, every: int) -> tuple[list[Profile], np.ndarray]:
    profiles = [Profile(width, updates) for updates in range(every, len(path) + 1, every) for width in (0.05, 0.1)]
    weights = [profile_shares(profile) @ path[: profile.updates] for profile in profiles]
    return profiles, np.stack(weights)


@pytest.mark.parametrize(
    ("sigma_rel", "bound"), [(0.05, 1e-6), (0.1, 1e-6), (0.06, 2e-3), (0.08, 2e-3), (0.15, 5e-3), (0.2, 2e-2)]
)
def test_profile_made_afterwards_is_the_average_by_brute_force(sigma_rel: float, bound: float) -> None:
    path = noisy_path(2000)
    profiles, weights = snapshots_of(path, every=100)
    target = Profile(sigma_rel, 2000)
    factors = combine_profiles(profiles, target)
    expected = shares_by_definition(gamma_of(sigma_rel), 2000) @ path

    error = np.linalg.norm(factors @ weights - expected) / np.linalg.norm(expected)
    assert error < bound
    # The promised error is that of the shares themselves, which the combination has to each update.
    shares = np.zeros(2000)
    for factor, profile in zip(factors, profiles, strict=True):
        shares[: profile.updates] += factor * profile_shares(profile)
    wanted = profile_shares(target)
    by_hand = np.linalg.norm(shares - wanted) / np.linalg.norm(wanted)
    assert combination_error(profiles, factors, target) == pytest.approx(by_hand, rel=1e-2, abs=1e-6)


def test_average_of_an_earlier_moment_can_be_made_too() -> None:
    path = noisy_path(1000)
    profiles, weights = snapshots_of(path, every=50)
    factors = combine_profiles(profiles, Profile(0.12, 620))
    expected = profile_shares(Profile(0.12, 620)) @ path[:620]

    assert np.linalg.norm(factors @ weights - expected) < 0.03 * np.linalg.norm(expected)


def test_average_beyond_the_snapshots_is_refused() -> None:
    with pytest.raises(ValueError, match="over 101 updates, but the snapshots reach 100"):
        combine_profiles([Profile(0.05, 100)], Profile(0.1, 101))
    with pytest.raises(ValueError, match="the snapshots reach 0"):
        combine_profiles([], Profile(0.1, 1))
