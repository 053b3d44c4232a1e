# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Average a model's trained weights over training steps. Called by the training loop, whose exports are this average."""

import copy
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from diffusers_imagen.training.sharding import own_part

Model = TypeVar("Model", bound=nn.Module)


class ExponentialAverage(Generic[Model]):
    """Keep an exponential moving average of a model as a model of its own, in evaluation mode.

    Weights that are not trained, as a LoRA's base has them, are the model's own: they take no memory a second time.

    Args:
        model: The model, copied as it stands, before it is wrapped for training.
        decay: Share of the old average that is kept in each update, in [0, 1).
    """

    def __init__(self, model: Model, decay: float) -> None:
        frozen = {id(weight): weight for weight in model.parameters() if not weight.requires_grad}
        self.model: Model = copy.deepcopy(model, frozen).eval().requires_grad_(False)
        self._decay = decay

    def decay_at(self, updates: int) -> float:
        """Give the decay after a number of updates: small at first, so that the average forgets the initial weights."""
        return min(self._decay, (1 + updates) / (10 + updates))

    @torch.no_grad()
    def update(self, model: Model, updates: int) -> None:
        """Take the model's present weights into the average.

        Args:
            model: The model in training; buffers are copied, trained parameters averaged. If it is spread over
                processes, so is the average, and each process averages its own part.
            updates: How many updates were made before.
        """
        pairs = zip(self.model.parameters(), model.parameters(), strict=True)
        trained: list[tuple[Tensor, Tensor]] = [
            (own_part(average), own_part(weight.detach())) for average, weight in pairs if weight.requires_grad
        ]
        averages, weights = [average for average, _ in trained], [weight for _, weight in trained]
        torch._foreach_lerp_(averages, weights, 1 - self.decay_at(updates))
        for average, value in zip(self.model.buffers(), model.buffers(), strict=True):
            average.copy_(value)
