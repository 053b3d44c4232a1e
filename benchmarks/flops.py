# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Floating-point operations of one forward pass: convolutions, matrix products and attention, nothing else."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count


def count_gflop(function: Callable[[], object]) -> float:
    """Return the billions of operations of `function`, which is followed through without being computed."""
    attention_on_cpu = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flop}
    with (
        torch.no_grad(),
        FakeTensorMode(allow_non_fake_inputs=True),
        FlopCounterMode(display=False, custom_mapping=attention_on_cpu) as counter,
    ):
        function()
    return counter.get_total_flops() / 1e9


def _attention_flop(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    """Count the two products of attention from the shapes (B, heads, tokens, width): torch knows only CUDA's names."""
    return sdpa_flop_count(_shape(query), _shape(key), _shape(value))


def _shape(value: Any) -> tuple[int, ...]:
    return tuple(value.shape) if isinstance(value, Tensor) else tuple(value)
