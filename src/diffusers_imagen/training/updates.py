# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Turn the losses of a step's forward passes into one update of the weights. Called by the training loop and the dry run.

Here for one process, DDP and FSDP2, through Accelerate; for DeepSpeed in `zero.py`.
"""

from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from torch import Tensor, nn

from diffusers_imagen.training.optimizer_state import OptimizerState, OwnOptimizerState
from diffusers_imagen.training.sharding import whole


class Updates(Protocol):
    """One optimizer step after another, of several forward passes each."""

    unet: nn.Module
    """What is called in a forward pass."""
    state: OptimizerState
    """What is kept between steps."""

    def set_learning_rate(self, rate: float) -> None:
        """Set the learning rate of the next update."""
        ...

    def forward_pass(self, is_last: bool) -> AbstractContextManager[Any]:
        """Surround a forward pass and its `backward`; the last one of a step lets processes exchange gradients."""
        ...

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a forward pass's loss, over all passes of a step their mean."""
        ...

    def update(self) -> Tensor:
        """Update the weights with clipped gradients, unless these are not finite, and forget the gradients.

        Returns:
            Their norm before clipping, of no dimension, averaged over all processes and so the same in all.
        """
        ...


class AccelerateUpdates:
    """Updates by an optimizer over the weights themselves.

    Args:
        accelerator: Of the run.
        unet: As Accelerate wrapped it.
        trained: The U-Net within.
        optimizer: As Accelerate wrapped it.
        max_grad_norm: Longest gradient.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        unet: nn.Module,
        trained: nn.Module,
        optimizer: AcceleratedOptimizer,
        max_grad_norm: float,
    ) -> None:
        self.unet = unet
        self.state: OptimizerState = OwnOptimizerState(optimizer.optimizer)
        self._accelerator = accelerator
        self._weights = list(trained.parameters())
        self._optimizer = optimizer
        self._max_grad_norm = max_grad_norm

    def set_learning_rate(self, rate: float) -> None:
        """Set the learning rate of the next update."""
        for group in self._optimizer.param_groups:
            group["lr"] = rate

    def forward_pass(self, is_last: bool) -> AbstractContextManager[Any]:
        """Surround a forward pass; Accelerate counts them itself."""
        return self._accelerator.accumulate(self.unet)

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a loss."""
        self._accelerator.backward(loss)

    def update(self) -> Tensor:
        """Update the weights, unless gradients are not finite; give the gradients' norm."""
        norm = whole(self._accelerator.clip_grad_norm_(self._weights, self._max_grad_norm))
        # The scaler of fp16 has to see what is not finite, and makes no update of it.
        if bool(torch.isfinite(norm)) or self._accelerator.scaler is not None:
            self._optimizer.step()
        self._optimizer.zero_grad()
        return norm
