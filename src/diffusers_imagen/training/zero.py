# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Train with DeepSpeed's ZeRO, stages 1 and 2: the optimizer and (2) the gradients are spread over the processes.

DeepSpeed is used as it is and not through Accelerate, which ignores it on CPUs, and elsewhere makes bfloat16 weights where
other strategies have autocast. What is kept between steps is collected into whole tensors, so checkpoints do not know of it.
Called by `strategy.py`.
"""

import importlib
import logging
import os
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from diffusers_imagen.training.config import TrainConfig
from diffusers_imagen.training.optimizer_state import OptimizerState, Weights

# Gradients that are exchanged at once, for which there is a buffer; DeepSpeed's own default takes 2 GB.
BUCKET = 2**26
_ALIGNED = 2**10
# Its progress reports are those of the training loop.
_NEVER = 2**62


def start_zero(
    unet: nn.Module, optimizer: torch.optim.Optimizer, config: TrainConfig, stage: int, device: torch.device
) -> "ZeroUpdates":
    """Give a U-Net's weights and their optimizer to DeepSpeed; all processes are known to each other already.

    Args:
        unet: On its device, in float32; its weights become views of flat tensors, changed in place.
        optimizer: Over its trained weights; it computes each number by itself.
        config: Of the run.
        stage: Of ZeRO, 1 or 2.
        device: Where the processes train.
    """
    # On a machine with GPUs it would else take these.
    if device.type == "cpu":
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    deepspeed = importlib.import_module("deepspeed")
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    trained = sum(weight.numel() for weight in unet.parameters() if weight.requires_grad)
    # It wants a multiple of small numbers.
    bucket = min(BUCKET, -(-trained // _ALIGNED) * _ALIGNED)
    settings = {
        "train_micro_batch_size_per_gpu": config.batch_size,
        "gradient_accumulation_steps": config.gradient_accumulation_steps,
        "gradient_clipping": config.optimizer.max_grad_norm,
        "zero_allow_untested_optimizer": True,
        "zero_optimization": {"stage": stage, "reduce_bucket_size": bucket, "allgather_bucket_size": bucket},
        "steps_per_print": _NEVER,
    }
    engine, zero, _, _ = deepspeed.initialize(
        model=unet, optimizer=optimizer, config=settings, dist_init_required=False
    )
    return ZeroUpdates(engine, zero)


class ZeroUpdates:
    """Updates by DeepSpeed's engine.

    Args:
        engine: Of DeepSpeed.
        zero: Its optimizer.
    """

    def __init__(self, engine: Any, zero: Any) -> None:
        self.unet: nn.Module = engine
        self.state: OptimizerState = ZeroOptimizerState(zero)
        self._engine = engine
        self._zero = zero

    def set_learning_rate(self, rate: float) -> None:
        """Set the learning rate of the next update."""
        for group in self._zero.param_groups:
            group["lr"] = rate

    def forward_pass(self, is_last: bool) -> AbstractContextManager[Any]:
        """Tell DeepSpeed which pass of a step comes."""
        self._engine.set_gradient_accumulation_boundary(is_last)
        return nullcontext()

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a loss."""
        self._engine.backward(loss)

    def update(self) -> Tensor:
        """Update the weights, unless gradients are not finite; give the gradients' norm, infinite then."""
        self._engine.step()
        return torch.as_tensor(self._engine.get_global_grad_norm(), dtype=torch.float32, device=self._engine.device)


class ZeroOptimizerState:
    """The state of an optimizer whose weights are parts of flat tensors, one for each process.

    Args:
        zero: DeepSpeed's optimizer around it.
    """

    def __init__(self, zero: Any) -> None:
        self._zero = zero
        self._access = importlib.import_module("deepspeed.utils")

    @property
    def name(self) -> str:
        """The optimizer's class."""
        return type(self._zero.optimizer).__name__

    def collect(self, weights: Weights) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Put all processes' parts together; each must call this."""
        tensors: dict[str, Tensor] = {}
        values: dict[str, Any] = {}
        for flat, state in self._parts():
            for kind, value in state.items():
                for name, weight in weights.items():
                    key = f"{kind}:{name}"
                    if not isinstance(value, Tensor):
                        values[key] = value
                    elif value.shape == flat.shape:
                        tensors[key] = self._access.safe_get_full_optimizer_state(weight, kind)
                    else:
                        tensors[key] = value.clone()
        return tensors, values

    def restore(self, weights: Weights, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """Take this process's parts of the weights and of whole tensors, and the other values."""
        self._zero.refresh_fp32_params()
        if not tensors and not values:
            return
        spread = {key.partition(":")[0] for key, value in tensors.items() if _belongs(value, weights, key)}
        shared = {key.partition(":")[0]: value for key, value in {**tensors, **values}.items()}
        for flat in self._zero.single_partition_of_fp32_groups:
            self._zero.optimizer.state[flat] = {
                kind: torch.zeros_like(flat, requires_grad=False) if kind in spread else _copied(value)
                for kind, value in shared.items()
            }
        # There is no public way to make DeepSpeed look for what it did not see computed.
        self._zero._lazy_init_hp_params_optimizer_state()
        for key, value in tensors.items():
            kind, _, name = key.partition(":")
            if kind in spread:
                self._access.safe_set_full_optimizer_state(weights[name], value.to(weights[name].device), kind)

    def _parts(self) -> list[tuple[Tensor, dict[str, Any]]]:
        """Give this process's flat parts of the weights, with what is kept for each."""
        state = self._zero.optimizer.state
        return [(flat, state.get(flat, {})) for flat in self._zero.single_partition_of_fp32_groups]


def _belongs(value: Tensor, weights: Weights, key: str) -> bool:
    """Tell whether a tensor has a number for each of its weight's."""
    return value.ndim > 0 and value.shape == weights[key.partition(":")[2]].shape


def _copied(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value
