# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Hold what training changes, the weights, their average and the optimizer, and turn it into a checkpoint and back.

How checkpoints reach the disk is in `checkpoint.py`. Called by the training loop.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from diffusers_imagen.models.unet_efficient import EfficientUNet2DConditionModel
from diffusers_imagen.models.unet_imagen import ImagenUNet2DConditionModel
from diffusers_imagen.training.checkpoint import Checkpoint
from diffusers_imagen.training.config import ModelConfig, OptimizerConfig, TrainConfig
from diffusers_imagen.training.ema import ExponentialAverage

UNet = ImagenUNet2DConditionModel | EfficientUNet2DConditionModel

_UNET_CLASSES = {"base": ImagenUNet2DConditionModel, "super_resolution": EfficientUNet2DConditionModel}


@dataclass
class TrainingState:
    """Hold the U-Net, its average, the optimizer and the counters of a run.

    Args:
        unet: The U-Net itself, not wrapped.
        ema: Its average.
        optimizer: AdamW over all parameters of the U-Net, in one group and in their order.
        scaler: The gradient scaler of fp16; None otherwise.
        step: Optimizer steps made, skipped ones too.
        skipped: Steps skipped because a gradient was not finite.
    """

    unet: UNet
    ema: ExponentialAverage[UNet]
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler | None = None
    step: int = 0
    skipped: int = 0

    @property
    def updates(self) -> int:
        """Updates of the weights made."""
        return self.step - self.skipped

    def to_checkpoint(self, facts: dict[str, Any]) -> Checkpoint:
        """Describe the state for saving.

        Args:
            facts: What else a resumed run should know, as JSON values.
        """
        record = {"skipped": self.skipped, "scaler": self.scaler.state_dict() if self.scaler else None, **facts}
        tensors = {
            "unet": self.unet.state_dict(),
            "ema": self.ema.model.state_dict(),
            "optimizer": self._moments(),
        }
        return Checkpoint(self.step, tensors, record)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Take the state of a checkpoint over.

        Raises:
            RuntimeError: If it belongs to another U-Net.
        """
        self.unet.load_state_dict(dict(checkpoint.tensors["unet"]))
        self.ema.model.load_state_dict(dict(checkpoint.tensors["ema"]))
        self._restore_moments(checkpoint.tensors["optimizer"])
        if self.scaler is not None and checkpoint.record["scaler"]:
            self.scaler.load_state_dict(checkpoint.record["scaler"])
        self.step, self.skipped = checkpoint.step, int(checkpoint.record["skipped"])

    def _moments(self) -> dict[str, Tensor]:
        """Name the optimizer's tensors `<kind>:<parameter>`."""
        return {
            f"{kind}:{name}": tensor
            for name, parameter in self.unet.named_parameters()
            for kind, tensor in self.optimizer.state.get(parameter, {}).items()
        }

    def _restore_moments(self, tensors: Mapping[str, Tensor]) -> None:
        parameters = dict(self.unet.named_parameters())
        places = {name: place for place, name in enumerate(parameters)}
        state: dict[int, dict[str, Tensor]] = {}
        for key, tensor in tensors.items():
            kind, _, name = key.partition(":")
            # The fused kernel walks through memory without a look at strides, so a moment must lie as its weight does.
            is_moment = tensor.shape == parameters[name].shape
            copy = torch.empty_like(parameters[name], requires_grad=False) if is_moment else torch.empty_like(tensor)
            state.setdefault(places[name], {})[kind] = copy.copy_(tensor)
        self.optimizer.load_state_dict({"state": state, "param_groups": self.optimizer.state_dict()["param_groups"]})


def make_unet(config: ModelConfig) -> UNet:
    """Make the U-Net of a run, new or from a folder, in float32 and training mode.

    Args:
        config: Which one.

    Raises:
        ValueError: If `config.config` has an argument that the U-Net does not know or refuses.
    """
    unet_class = _UNET_CLASSES[config.model_class]
    if config.pretrained is not None:
        unet = unet_class.from_pretrained(config.pretrained, torch_dtype=torch.float32)
    else:
        try:
            unet = unet_class(**config.config)
        except TypeError as error:
            raise ValueError(f"`model.config` is refused by {unet_class.__name__}: {error}.") from error
    if config.gradient_checkpointing:
        unet.enable_gradient_checkpointing()
    return unet.train()


def check_unet(unet: UNet, config: TrainConfig, text_width: int) -> None:
    """Refuse a U-Net that could not take the run's batches, before minutes are spent on making them.

    Args:
        unet: The U-Net.
        config: Of the run.
        text_width: Width of the text embeddings.

    Raises:
        ValueError: If its low resolution, sizes, text length or text width are not those of the run.
    """
    own = unet.config
    if (own.low_res_channels > 0) != (config.model.model_class == "super_resolution"):
        raise ValueError(
            f"`low_res_channels` of the U-Net is {own.low_res_channels}, but `model.model_class` is "
            f"{config.model.model_class!r}; give 0 for a base stage and 3 for an enlargement."
        )
    if config.data.crop_side % unet.size_multiple:
        raise ValueError(
            f"`data.crop` is {config.data.crop_side}, but the U-Net takes multiples of {unet.size_multiple}."
        )
    if config.text.max_length > own.text_max_length:
        raise ValueError(
            f"`text.max_length` is {config.text.max_length}, but `text_max_length` of the U-Net is "
            f"{own.text_max_length}; lower the one or raise the other."
        )
    if text_width != own.num_text_layers * own.encoder_hid_dim:
        raise ValueError(
            f"The text embeddings have width {text_width}, but the U-Net takes {own.num_text_layers} layers of width "
            f"{own.encoder_hid_dim}; set its `num_text_layers` to the number of `text.layers` and `encoder_hid_dim` "
            "to the encoder's width."
        )


def make_optimizer(unet: UNet, config: OptimizerConfig) -> torch.optim.AdamW:
    """Make AdamW over all parameters of a U-Net, fused where PyTorch can."""
    parameters = list(unet.parameters())
    fused = parameters[0].device.type in ("cpu", "cuda")
    return torch.optim.AdamW(
        parameters,
        lr=config.lr,
        betas=config.betas,
        eps=config.eps,
        weight_decay=config.weight_decay,
        fused=fused,
    )


def learning_rate(config: OptimizerConfig, step: int, max_steps: int) -> float:
    """Give the learning rate of a step.

    Args:
        config: The warm-up and the schedule after it.
        step: Number of the step, from 0.
        max_steps: Steps of the whole run.

    Returns:
        The learning rate, above 0 within the run.
    """
    if step < config.warmup_steps:
        return config.lr * (step + 1) / (config.warmup_steps + 1)
    if config.schedule == "constant":
        return config.lr
    progress = (step - config.warmup_steps) / max(1, max_steps - config.warmup_steps)
    return config.lr * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
