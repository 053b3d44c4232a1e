# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Convert between what a network predicts and the clean image x_0, in any space x_t = alpha * x_0 + sigma * eps.

Nothing here asks for alpha^2 + sigma^2 = 1, so the same formulas serve variance-preserving, variance-exploding and
flow-matching spaces. Noise levels are in `noise.py`. Called by the sampling loop, the schedulers and the objective.
"""

import torch
from torch import Tensor

from diffusers_imagen.diffusion.noise import PREDICTION_TYPES, check_prediction_type, per_sample

__all__ = ["PREDICTION_TYPES", "from_x_0", "target", "to_x_0"]


def to_x_0(
    prediction: Tensor, x_t: Tensor, alpha: float | Tensor, sigma: float | Tensor, prediction_type: str
) -> Tensor:
    """Read the clean image out of a network's prediction.

    "v_prediction" is the v of the sample scaled to unit variance, x_t / sqrt(alpha^2 + sigma^2) (arXiv:2202.00512,
    appendix D); "flow_prediction" is eps - x_0 (arXiv:2210.02747).

    Args:
        prediction: What the network gave, (B, C, H, W).
        x_t: Noisy images (B, C, H, W) = alpha * x_0 + sigma * eps.
        alpha: Scale of the clean images, one number or (B,); above 0 for "epsilon".
        sigma: Scale of the noise, one number or (B,).
        prediction_type: One of `PREDICTION_TYPES`.

    Returns:
        x_0 (B, C, H, W), float32 at least.

    Raises:
        ValueError: If `prediction_type` is unknown.
    """
    check_prediction_type(prediction_type)
    prediction, x_t, alpha, sigma = _in_one_precision(prediction, x_t, alpha, sigma)
    if prediction_type == "sample":
        return prediction
    if prediction_type == "epsilon":
        return (x_t - sigma * prediction) / alpha
    if prediction_type == "flow_prediction":
        return (x_t - sigma * prediction) / (alpha + sigma)
    norm = _norm(alpha, sigma)
    return alpha / norm**2 * x_t - sigma / norm * prediction


def from_x_0(x_0: Tensor, x_t: Tensor, alpha: float | Tensor, sigma: float | Tensor, prediction_type: str) -> Tensor:
    """Write a clean image as the prediction that a network of this type would have given, the inverse of `to_x_0`.

    Args:
        x_0: Clean images (B, C, H, W).
        x_t: Noisy images (B, C, H, W) = alpha * x_0 + sigma * eps.
        alpha: Scale of the clean images, one number or (B,).
        sigma: Scale of the noise, one number or (B,); above 0 except for "sample".
        prediction_type: One of `PREDICTION_TYPES`.

    Returns:
        The prediction (B, C, H, W), float32 at least.

    Raises:
        ValueError: If `prediction_type` is unknown.
    """
    check_prediction_type(prediction_type)
    x_0, x_t, alpha, sigma = _in_one_precision(x_0, x_t, alpha, sigma)
    if prediction_type == "sample":
        return x_0
    if prediction_type == "epsilon":
        return (x_t - alpha * x_0) / sigma
    if prediction_type == "flow_prediction":
        return (x_t - (alpha + sigma) * x_0) / sigma
    norm = _norm(alpha, sigma)
    return (alpha / norm**2 * x_t - x_0) * (norm / sigma)


def target(x_0: Tensor, eps: Tensor, alpha: float | Tensor, sigma: float | Tensor, prediction_type: str) -> Tensor:
    """Give what a network of this type shall predict for a clean image and its noise.

    Args:
        x_0: Clean images (B, C, H, W).
        eps: The noise that was added (B, C, H, W).
        alpha: Scale of the clean images, one number or (B,).
        sigma: Scale of the noise, one number or (B,).
        prediction_type: One of `PREDICTION_TYPES`.

    Returns:
        The target (B, C, H, W), float32 at least.

    Raises:
        ValueError: If `prediction_type` is unknown.
    """
    check_prediction_type(prediction_type)
    x_0, eps, alpha, sigma = _in_one_precision(x_0, eps, alpha, sigma)
    if prediction_type == "sample":
        return x_0
    if prediction_type == "epsilon":
        return eps
    if prediction_type == "flow_prediction":
        return eps - x_0
    return (alpha * eps - sigma * x_0) / _norm(alpha, sigma)


def _norm(alpha: float | Tensor, sigma: float | Tensor) -> float | Tensor:
    return (alpha * alpha + sigma * sigma) ** 0.5


def _in_one_precision(
    image: Tensor, other: Tensor, alpha: float | Tensor, sigma: float | Tensor
) -> tuple[Tensor, Tensor, float | Tensor, float | Tensor]:
    dtype = torch.promote_types(torch.promote_types(image.dtype, other.dtype), torch.float32)
    if isinstance(alpha, Tensor):
        alpha = per_sample(alpha.to(dtype), image)
    if isinstance(sigma, Tensor):
        sigma = per_sample(sigma.to(dtype), image)
    return image.to(dtype), other.to(dtype), alpha, sigma
