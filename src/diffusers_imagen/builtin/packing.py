# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Weights at four or eight bits each, and back. Used to ship the built-in cascade, never at run time.

A packed state dict holds, for a tensor `name`, one of

- `name` itself, in its own dtype;
- `name.q8` (int8, the tensor's shape) and `name.scale` (float32, one value for each index of dimension 0):
  weight = q8 * scale;
- `name.q4` (uint8, (rows, columns / 2)) and `name.scale` (float16, (rows, columns / 32)): each run of 16 bytes is a
  block of 32 columns, low nibbles first; weight = (nibble - 8) * scale. It is the Q4_0 format of ggml.
"""

import torch
from torch import Tensor

Q4_BLOCK_BYTES = 16


def unpack_tensors(packed: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the plain float32 state dict of a packed one.

    Raises:
        ValueError: a packed tensor without its scale.
    """
    state: dict[str, Tensor] = {}
    for key, value in packed.items():
        name, _, kind = key.rpartition(".")
        if kind == "scale" and (f"{name}.q4" in packed or f"{name}.q8" in packed):
            continue
        if kind in ("q4", "q8"):
            if f"{name}.scale" not in packed:
                raise ValueError(f"`packed` holds {key!r} without {name + '.scale'!r}; the file is incomplete.")
            unpack = _unpack_q4 if kind == "q4" else _unpack_q8
            state[name] = unpack(value, packed[f"{name}.scale"])
        else:
            state[key] = value.float() if value.is_floating_point() else value
    return state


def pack_q8(state: dict[str, Tensor], smallest: int = 4096) -> dict[str, Tensor]:
    """Return `state` with matrices and kernels of at least `smallest` values in int8, all else in float16.

    Each index of dimension 0 (an output channel) has its own scale, so the error of a weight is at most 1/254 of
    its channel's largest.
    """
    packed: dict[str, Tensor] = {}
    for name, value in state.items():
        if not value.is_floating_point():
            packed[name] = value.contiguous()
        elif value.ndim < 2 or value.numel() < smallest:
            packed[name] = value.half().contiguous()
        else:
            rows = value.float().flatten(1)
            scale = rows.abs().amax(dim=1).clamp(min=torch.finfo(torch.float32).tiny) / 127
            packed[f"{name}.q8"] = (rows / scale[:, None]).round().to(torch.int8).view(value.shape)
            packed[f"{name}.scale"] = scale
    return packed


def _unpack_q8(values: Tensor, scale: Tensor) -> Tensor:
    return (values.flatten(1).float() * scale.float()[:, None]).view(values.shape)


def _unpack_q4(values: Tensor, scale: Tensor) -> Tensor:
    blocks = values.view(values.shape[0], -1, Q4_BLOCK_BYTES)
    nibbles = torch.cat([blocks & 15, blocks >> 4], dim=-1).float() - 8  # (rows, columns / 32, 32)
    return (nibbles * scale.float()[..., None]).flatten(1)
