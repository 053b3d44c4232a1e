# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""What every tensor of a stranger's checkpoint must be before it counts as a weight.

Files are read in `archive.py` and `deepfloyd_files.py`; what the tensors are for is known to the converters.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from diffusers_imagen.conversion.weight_files import DTYPES


def check_kinds(weights: Mapping[str, Any], place: str) -> None:
    """Refuse what cannot be a network's weights, without reading a value.

    Args:
        weights: by name.
        place: where they are, for the message.

    Raises:
        ValueError: naming one that is no tensor, not floating-point, not strided, without values, or whose shape says
            more than its storage holds.
    """
    for name, value in weights.items():
        if not isinstance(value, Tensor):
            raise ValueError(
                f"{place} holds {name!r}, a {type(value).__name__} and no tensor; give the weights alone."
            )
        if value.dtype not in DTYPES or value.layout != torch.strided or value.is_meta:
            kind = "without values" if value.is_meta else f"as {value.dtype}, {value.layout}"
            raise ValueError(
                f"{place} holds {name!r} {kind}; U-Nets have plain floating-point weights. Save it as such."
            )
        if value.untyped_storage().nbytes() < value.numel() * value.element_size():
            raise ValueError(
                f"{place} holds {name!r} of shape {tuple(value.shape)}, but only {value.untyped_storage().nbytes()} "
                "bytes for it; the file is damaged or made to fill the memory."
            )


def check_finite(name: str, weight: Tensor, place: str) -> None:
    """Refuse a weight that holds what is no number.

    Args:
        name: its name.
        weight: of a kind that `check_kinds` lets pass.
        place: where it is, for the message.

    Raises:
        ValueError: if it holds NaN or infinity.
    """
    # Unlike isfinite(), this makes no copies; a NaN anywhere is in both.
    if weight.numel() and not all(bound.isfinite() for bound in weight.detach().aminmax()):
        raise ValueError(f"{place} holds {name!r} with NaN or infinity in it; take an earlier checkpoint.")


def check_weights(weights: Mapping[str, Any], place: str) -> None:
    """Refuse weights that `check_kinds` or `check_finite` refuses."""
    check_kinds(weights, place)
    for name, weight in weights.items():
        check_finite(name, weight, place)
