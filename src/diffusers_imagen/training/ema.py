# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Average a model's weights over training steps. Called by the training loop, whose exports are this average."""

import copy
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

Model = TypeVar("Model", bound=nn.Module)


class ExponentialAverage(Generic[Model]):
    """Keep an exponential moving average of a model as a model of its own, in evaluation mode.

    Args:
        model: The model, copied as it stands, before it is wrapped for training.
        decay: Share of the old average that is kept in each update, in [0, 1).
    """

    def __init__(self, model: Model, decay: float) -> None:
        self.model: Model = copy.deepcopy(model).eval().requires_grad_(False)
        self._decay = decay

    def decay_at(self, updates: int) -> float:
        """Give the decay after a number of updates: small at first, so that the average forgets the initial weights."""
        return min(self._decay, (1 + updates) / (10 + updates))

    @torch.no_grad()
    def update(self, model: Model, updates: int) -> None:
        """Take the model's present weights into the average.

        Args:
            model: The model in training; buffers are copied, parameters averaged.
            updates: How many updates were made before.
        """
        averages: list[Tensor] = list(self.model.parameters())
        weights = [weight.detach() for weight in model.parameters()]
        torch._foreach_lerp_(averages, weights, 1 - self.decay_at(updates))
        for average, value in zip(self.model.buffers(), model.buffers(), strict=True):
            average.copy_(value)
