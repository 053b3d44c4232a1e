# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Distances between two sets of pictures, given as features (N, D): closed forms in float64.

Where features come from is `features.py`'s; any extractor will do, so a distance means something only beside its name.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


def _check(first: Tensor, second: Tensor, least: int) -> tuple[Tensor, Tensor]:
    for name, features in (("first", first), ("second", second)):
        if features.ndim != 2 or len(features) < least:
            raise ValueError(
                f"`{name}` has shape {tuple(features.shape)}; give features (N, D) of N >= {least} pictures."
            )
        if not features.isfinite().all():
            raise ValueError(f"`{name}` holds values that are not finite; look at the feature extractor.")
    if first.shape[1] != second.shape[1]:
        raise ValueError(
            f"`first` and `second` have {first.shape[1]} and {second.shape[1]} features; use one extractor for both."
        )
    return first.double(), second.double()


def frechet_distance(first: Tensor, second: Tensor) -> float:
    """Compute the Frechet distance of the normal distributions fitted to two sets (Heusel et al. 2017, FID).

    It is biased upwards for small sets: two samples of one distribution are far apart unless N is many times D.

    Args:
        first: Features (N, D), N >= 2.
        second: Features (M, D), M >= 2.

    Returns:
        |mean difference|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)), at least 0.
    """
    a, b = _check(first, second, least=2)
    mean_distance = (a.mean(0) - b.mean(0)).square().sum()
    a, b = (a - a.mean(0)) / (len(a) - 1) ** 0.5, (b - b.mean(0)) / (len(b) - 1) ** 0.5
    # With C1 = A'A and C2 = B'B, tr (C1 C2)^(1/2) is the sum of the singular values of A B'. No root of a nearly
    # singular matrix is taken, so it also holds where N < D. The smaller of two equal forms is decomposed.
    if max(len(a), len(b)) > a.shape[1]:
        a, b = torch.linalg.qr(a).R, torch.linalg.qr(b).R
    cross = torch.linalg.svdvals(a @ b.mT).sum()
    return max(0.0, (mean_distance + a.square().sum() + b.square().sum() - 2 * cross).item())


def kernel_distance(first: Tensor, second: Tensor) -> float:
    """Compute the squared maximum mean discrepancy under the cubic kernel, unbiased (Binkowski et al. 2018, KID).

    Args:
        first: Features (N, D), N >= 2.
        second: Features (M, D), M >= 2.

    Returns:
        The distance, which may lie below 0 by chance where the sets do not differ.
    """
    a, b = _check(first, second, least=2)
    width = a.shape[1]
    return _unbiased_mmd(*((x @ y.mT / width + 1) ** 3 for x, y in ((a, a), (b, b), (a, b))))


def cmmd(first: Tensor, second: Tensor, bandwidth: float = 10.0) -> float:
    """Compute 1000 times the squared maximum mean discrepancy under a Gaussian kernel (Jayasumana et al. 2024, CMMD).

    The name is the paper's, which takes CLIP's features; they are scaled to length 1 here, whatever they are.

    Args:
        first: Features (N, D), N >= 2.
        second: Features (M, D), M >= 2.
        bandwidth: Standard deviation of the kernel.

    Returns:
        The unbiased distance, which may lie below 0 by chance. The paper's own code leaves the diagonal in.
    """
    a, b = (torch.nn.functional.normalize(x, dim=1) for x in _check(first, second, least=2))
    squares = ((2 - 2 * x @ y.mT) for x, y in ((a, a), (b, b), (a, b)))
    return 1000 * _unbiased_mmd(*(torch.exp(-square / (2 * bandwidth**2)) for square in squares))


def _unbiased_mmd(among_first: Tensor, among_second: Tensor, between: Tensor) -> float:
    within = sum(
        (kernel.sum() - kernel.trace()) / (len(kernel) * (len(kernel) - 1)) for kernel in (among_first, among_second)
    )
    return float(within - 2 * between.mean())


@dataclass(frozen=True)
class PrecisionRecall:
    """Hold the share of generated pictures near real ones (precision) and of real near generated ones (recall)."""

    precision: float
    recall: float


def precision_recall(generated: Tensor, real: Tensor, neighbors: int = 3) -> PrecisionRecall:
    """Compute improved precision and recall (Kynkaanniemi et al. 2019, eq. 1 to 3).

    A point lies in a set's manifold if it is no farther from one of its points than that one's k-th neighbor.

    Args:
        generated: Features (N, D).
        real: Features (M, D).
        neighbors: k; both sets need more points.
    """
    a, b = _check(generated, real, least=neighbors + 1)
    distance = torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")
    radius_a, radius_b = (_neighbor_radius(x, neighbors) for x in (a, b))
    return PrecisionRecall(
        precision=(distance <= radius_b[None, :]).any(1).double().mean().item(),
        recall=(distance <= radius_a[:, None]).any(0).double().mean().item(),
    )


def _neighbor_radius(points: Tensor, neighbors: int) -> Tensor:
    distance = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")
    # The nearest point is the point itself.
    return distance.kthvalue(neighbors + 1, dim=1).values
