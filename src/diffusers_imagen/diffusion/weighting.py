# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Weight the training loss by noise level, for any prediction type.

The loss itself is in the training objective, the only caller.
"""

import math
from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from diffusers_imagen.diffusion.noise import check_prediction_type

WeightKind = Literal["uniform", "min_snr", "sigmoid"]


def loss_weight(
    log_snr: Tensor, prediction_type: str, kind: WeightKind, gamma: float = 5.0, bias: float = 0.0
) -> Tensor:
    """Give the weight of the mean squared error in the model's own prediction space.

    "uniform" is 1 whatever is predicted. The two others are defined on x_0 and carried over by (d x_0/d prediction)^2:
    "min_snr" is min(snr, gamma) (arXiv:2303.09556), "sigmoid" is snr * sigmoid(bias - log_snr) (arXiv:2303.00848;
    arXiv:2410.19324, equation 6), which is sigmoid(bias - log_snr) on eps.

    Args:
        log_snr: Noise level of each sample (B,).
        prediction_type: One of `PREDICTION_TYPES`, in the variance-preserving space.
        kind: "uniform", "min_snr" or "sigmoid".
        gamma: The limit of "min_snr", above 0.
        bias: The log_snr at which "sigmoid" has fallen to one half.

    Returns:
        Weights (B,).

    Raises:
        ValueError: If `prediction_type` or `kind` is unknown, or `gamma` is not above 0.
    """
    check_prediction_type(prediction_type)
    if kind == "uniform":
        return log_snr.new_ones(log_snr.shape)
    if kind == "min_snr":
        if not gamma > 0:
            raise ValueError(f"`gamma` is {gamma}; give a number above 0, such as 5.")
        log_weight = log_snr.clamp(max=math.log(gamma))
    elif kind == "sigmoid":
        log_weight = log_snr + F.logsigmoid(bias - log_snr)
    else:
        raise ValueError(f"`kind` is {kind!r}; choose one of uniform, min_snr, sigmoid.")
    return (log_weight + _log_squared_slope(log_snr, prediction_type)).exp()


def _log_squared_slope(log_snr: Tensor, prediction_type: str) -> Tensor:
    """Give ln (d x_0/d prediction)^2 at a fixed x_t."""
    if prediction_type == "epsilon":
        return -log_snr
    if prediction_type == "v_prediction":
        return F.logsigmoid(-log_snr)
    if prediction_type == "flow_prediction":
        # sigma / (alpha + sigma) = 1 / (1 + exp(log_snr / 2)).
        return 2 * F.logsigmoid(-log_snr / 2)
    return log_snr.new_zeros(log_snr.shape)
