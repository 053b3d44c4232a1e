import itertools
import math

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from torch import Tensor

from diffusers_imagen.evaluation.distances import cmmd, frechet_distance, kernel_distance, precision_recall


def features(seed: int, count: int, width: int, shift: float = 0.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(width, width, generator=torch.Generator().manual_seed(99), dtype=torch.float64)
    return torch.randn(count, width, generator=generator, dtype=torch.float64) @ mixing + shift


def frechet_by_roots(a: Tensor, b: Tensor) -> float:
    mean = a.mean(0) - b.mean(0)
    first, second = np.cov(a.numpy(), rowvar=False), np.cov(b.numpy(), rowvar=False)
    return float(mean @ mean) + np.trace(first + second - 2 * np.real(sqrtm(first @ second)))


@pytest.mark.parametrize(("count", "other"), [(200, 150), (30, 9), (6, 7)])
def test_the_frechet_distance_is_that_of_matrix_roots(count: int, other: int) -> None:
    # With 8 features, the last case has covariances of incomplete rank.
    a, b = features(0, count, 8), features(1, other, 8, shift=0.5)
    assert frechet_distance(a, b) == pytest.approx(frechet_by_roots(a, b), rel=1e-6)


def test_the_frechet_distance_of_shifted_sets_is_the_squared_shift() -> None:
    a = features(0, 50, 4)
    assert frechet_distance(a, a + 3) == pytest.approx(4 * 9)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)


def naive_mmd(a: Tensor, b: Tensor, kernel) -> float:
    within = [
        sum(kernel(x[i], x[j]) for i, j in itertools.permutations(range(len(x)), 2)) / (len(x) * (len(x) - 1))
        for x in (a, b)
    ]
    between = sum(kernel(x, y) for x in a for y in b) / (len(a) * len(b))
    return sum(within) - 2 * between


def test_the_kernel_distance_is_the_naive_sum() -> None:
    a, b = features(0, 7, 3), features(1, 5, 3, shift=1)
    expected = naive_mmd(a, b, lambda x, y: (float(x @ y) / 3 + 1) ** 3)
    assert kernel_distance(a, b) == pytest.approx(expected, rel=1e-9)


def test_cmmd_is_the_naive_sum_over_features_of_length_one() -> None:
    a, b = features(0, 7, 3), features(1, 5, 3, shift=1)
    units = [x / x.norm(dim=1, keepdim=True) for x in (a, b)]
    expected = 1000 * naive_mmd(*units, lambda x, y: math.exp(-float((x - y).square().sum()) / (2 * 0.5**2)))
    assert cmmd(a, b, bandwidth=0.5) == pytest.approx(expected, rel=1e-9)


def test_kernel_distances_of_one_distribution_scatter_around_zero() -> None:
    found = [kernel_distance(features(seed, 40, 3), features(seed + 100, 40, 3)) for seed in range(40)]
    assert min(found) < 0 < max(found)
    assert abs(np.mean(found)) < 2 * np.std(found) / math.sqrt(40)


def naive_covered(points: Tensor, manifold: Tensor, neighbors: int) -> float:
    def radius(place: int) -> float:
        return sorted(float((manifold[place] - other).norm()) for other in manifold)[neighbors]

    radii = [radius(place) for place in range(len(manifold))]
    inside = [any((p - m).norm() <= r for m, r in zip(manifold, radii, strict=True)) for p in points]
    return sum(inside) / len(inside)


def test_precision_and_recall_are_the_naive_counts() -> None:
    generated, real = features(0, 12, 3), features(1, 15, 3, shift=1.5)
    found = precision_recall(generated, real, neighbors=2)
    assert found.precision == pytest.approx(naive_covered(generated, real, 2))
    assert found.recall == pytest.approx(naive_covered(real, generated, 2))
    assert 0 < found.precision < 1


def test_one_repeated_good_picture_is_precise_but_recalls_little() -> None:
    real = features(0, 20, 3)
    found = precision_recall(real[:1].repeat(10, 1), real)
    assert found.precision == 1
    assert found.recall == pytest.approx(1 / 20)


def test_features_that_cannot_be_compared_are_refused() -> None:
    a = features(0, 5, 3)
    with pytest.raises(ValueError, match=r"`first` and `second` have 3 and 2 features"):
        frechet_distance(a, features(0, 5, 2))
    with pytest.raises(ValueError, match=r"`second` has shape \(1, 3\)"):
        kernel_distance(a, a[:1])
    with pytest.raises(ValueError, match="`first` holds values that are not finite"):
        cmmd(a * math.nan, a)
    with pytest.raises(ValueError, match="N >= 4"):
        precision_recall(a[:3], a)
