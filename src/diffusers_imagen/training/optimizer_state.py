# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Turn what an optimizer keeps between steps into named tensors and back. Called by the training state."""

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from diffusers_imagen.training.sharding import spread_like

Weights = Mapping[str, nn.Parameter]


class OptimizerState(Protocol):
    """Give and take what an optimizer keeps, named `<kind>:<weight>`, as tensors of the weights' shapes."""

    @property
    def name(self) -> str:
        """The optimizer's class."""
        ...

    def collect(self, weights: Weights) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Give the tensors and the other values; all processes that share them must call this."""
        ...

    def restore(self, weights: Weights, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """Take them over, after the weights themselves have been loaded."""
        ...


class OwnOptimizerState:
    """The state of an optimizer of PyTorch over the weights themselves, which FSDP may have spread.

    Args:
        optimizer: Over all trained weights, in one group and in their order.
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer

    @property
    def name(self) -> str:
        """The optimizer's class."""
        return type(self.optimizer).__name__

    def collect(self, weights: Weights) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Give the tensors, spread ones as they are, and the other values."""
        tensors: dict[str, Tensor] = {}
        values: dict[str, Any] = {}
        for name, weight in weights.items():
            for kind, value in self.optimizer.state.get(weight, {}).items():
                (tensors if isinstance(value, Tensor) else values)[f"{kind}:{name}"] = value
        return tensors, values

    def restore(self, weights: Weights, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """Take whole tensors and the other values over."""
        places = {name: place for place, name in enumerate(weights)}
        state: dict[int, dict[str, Any]] = {}
        for key, value in {**tensors, **values}.items():
            kind, _, name = key.partition(":")
            own = _laid_out_like(weights[name], value) if isinstance(value, Tensor) else value
            state.setdefault(places[name], {})[kind] = own
        self.optimizer.load_state_dict({"state": state, "param_groups": self.optimizer.state_dict()["param_groups"]})


def _laid_out_like(weight: Tensor, value: Tensor) -> Tensor:
    # The fused kernel walks through memory without a look at strides, so a moment must lie as its weight does.
    if value.shape != weight.shape:
        return value.clone()
    if isinstance(weight, DTensor):
        return spread_like(weight, value)
    return torch.empty_like(weight, dtype=value.dtype, requires_grad=False).copy_(value)
