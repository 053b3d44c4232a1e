# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
import math

import numpy as np
import pytest

from diffusers_imagen.diffusion.time_density import time_at


@pytest.mark.parametrize("quantile", [0.0, 0.25, 1.0])
def test_uniform_times_are_their_own_quantiles(quantile: float) -> None:
    assert time_at(quantile, "uniform", mean=3.0) == quantile


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (1.5, 2.0), (-2.0, 0.5)])
def test_logit_normal_times_are_those_of_drawn_normals(mean: float, std: float) -> None:
    normals = np.random.default_rng(0).standard_normal(200_000)
    drawn = 1 / (1 + np.exp(-(mean + std * normals)))
    quantiles = np.linspace(0.05, 0.95, 19)
    times = [time_at(q, "logit_normal", mean, std) for q in quantiles]
    np.testing.assert_allclose(times, np.quantile(drawn, quantiles), atol=5e-3)


def test_logit_normal_times_rise_and_stay_within_the_ends() -> None:
    quantiles = [0.0, 1e-300, 1e-9, 0.5, 1 - 1e-9, 1.0]
    for mean, std in ((0.0, 1.0), (40.0, 30.0), (-40.0, 30.0)):
        times = [time_at(q, "logit_normal", mean, std) for q in quantiles]
        assert times == sorted(times)
        assert times[0] == 0
        assert times[-1] == 1
        assert all(map(math.isfinite, times))


@pytest.mark.parametrize(
    ("quantile", "density", "std", "named"),
    [(1.5, "uniform", 1.0, "quantile"), (0.5, "beta", 1.0, "density"), (0.5, "logit_normal", 0.0, "std")],
)
def test_what_is_no_density_is_refused(quantile: float, density: str, std: float, named: str) -> None:
    with pytest.raises(ValueError, match=f"`{named}`"):
        time_at(quantile, density, std=std)
