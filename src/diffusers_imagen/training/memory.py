# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Estimate the memory that training a stage takes, without training it, and measure what a process really took.

The estimate counts what is known by name: weights, gradients, the optimizer's moments and the averages, and the tensors
that a forward pass keeps for the backward pass. These are counted in a pass without memory, on the meta device, so
that a machine can tell what a larger one needs. Called by the dry run.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn

from diffusers_imagen.models.blocks import ImagenBlock
from diffusers_imagen.models.repeated_blocks import repeated_blocks
from diffusers_imagen.models.stage_model import stage_shape
from diffusers_imagen.models.unet_deepfloyd import DeepFloydUNet2DConditionModel
from diffusers_imagen.training.config import TrainConfig
from diffusers_imagen.training.optimizers import optimizer_class
from diffusers_imagen.training.state import UNet
from diffusers_imagen.training.zero import BUCKET

_FLOAT = 4
# Of what a pass in float32 keeps: half of most tensors, but norms, residuals and copied weights too. Measured.
_AUTOCAST_SHARE = 0.75


@dataclass(frozen=True)
class MemoryEstimate:
    """Hold bytes by what they are for."""

    weights: int
    gradients: int
    optimizer: int
    averages: int
    activations: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.gradients + self.optimizer + self.averages + self.activations


def estimate_memory(
    unet: UNet, config: TrainConfig, text_length: int, processes: int = 1, strategy: str = "ddp"
) -> MemoryEstimate:
    """Estimate what training takes in each process, beside the program itself and the pictures.

    Args:
        unet: The U-Net on the meta device.
        config: Of the run.
        text_length: Tokens of a caption.
        processes: Number of processes, of which several keep another copy of the gradients to exchange.
        strategy: How they share: "ddp", each has all; "fsdp", everything is shared out among them; "deepspeed", gradients
            and moments are.
    """
    if strategy == "fsdp":
        return _estimate_spread(unet, config, text_length, processes)
    if strategy == "deepspeed":
        return _estimate_zero(unet, config, text_length, processes)
    count = sum(parameter.numel() for parameter in _trained(unet))
    averages = 3 if config.ema.post_hoc else 1
    return MemoryEstimate(
        weights=_FLOAT * sum(parameter.numel() for parameter in unet.parameters()),
        gradients=_FLOAT * count * (1 if processes == 1 else 2),
        optimizer=_moments(unet, config.optimizer.name),
        averages=averages * _FLOAT * count,
        activations=_activations(unet, config, text_length),
    )


def _estimate_spread(unet: UNet, config: TrainConfig, text_length: int, processes: int) -> MemoryEstimate:
    """Estimate a process's part, with what is whole at a time: what is in no block, and one block."""
    everything = sum(parameter.numel() for parameter in unet.parameters())
    trained = sum(parameter.numel() for parameter in _trained(unet))
    blocks = [sum(parameter.numel() for parameter in block.parameters()) for block in repeated_blocks(unet)]
    whole = everything - sum(blocks) + max(blocks, default=0)
    averages = 3 if config.ema.post_hoc else 1
    return MemoryEstimate(
        weights=_FLOAT * (everything // processes + whole),
        gradients=_FLOAT * (trained // processes + min(whole, trained)),
        optimizer=_moments(unet, config.optimizer.name) // processes,
        averages=averages * _FLOAT * (everything // processes),
        activations=_activations(unet, config, text_length),
    )


def _estimate_zero(unet: UNet, config: TrainConfig, text_length: int, processes: int) -> MemoryEstimate:
    """Estimate a process's part with ZeRO: another copy of the weights is shared out, to be updated."""
    everything = sum(parameter.numel() for parameter in unet.parameters())
    trained = sum(parameter.numel() for parameter in _trained(unet))
    averages = 3 if config.ema.post_hoc else 1
    return MemoryEstimate(
        weights=_FLOAT * (everything + trained // processes),
        gradients=_FLOAT * (trained // processes + min(BUCKET, trained)),
        optimizer=_moments(unet, config.optimizer.name) // processes,
        averages=averages * _FLOAT * trained,
        activations=_activations(unet, config, text_length),
    )


def _moments(unet: UNet, name: str) -> int:
    """Count the optimizer's tensors by the state that it makes for a small matrix; 8-bit ones are told by their name."""
    count = sum(parameter.numel() for parameter in _trained(unet))
    if name.endswith("8bit"):
        return 2 * count
    if name == "Adafactor":
        return _FLOAT * sum(_factored(parameter) for parameter in _trained(unet))
    weight = nn.Parameter(torch.zeros(8, 8))
    weight.grad = torch.zeros(8, 8)
    optimizer = optimizer_class(name)([weight], lr=1e-3)
    optimizer.step()
    per_weight = sum(v.numel() for v in optimizer.state[weight].values() if isinstance(v, Tensor)) // weight.numel()
    return _FLOAT * per_weight * count


def _trained(unet: UNet) -> list[nn.Parameter]:
    return [parameter for parameter in unet.parameters() if parameter.requires_grad]


def _factored(parameter: Tensor) -> int:
    """Count Adafactor's second moments: a row and a column of each matrix."""
    if parameter.ndim < 2:
        return parameter.numel()
    rows, columns = parameter.shape[-2:]
    return parameter.numel() // columns + parameter.numel() // rows


def _activations(unet: UNet, config: TrainConfig, text_length: int) -> int:
    """Count what a forward pass of one batch keeps; with checkpointing a block's inputs and one block at a time."""
    counter = _SavedBytes(unet)
    side, batch = config.data.crop_side, config.pass_size
    shape = stage_shape(unet)
    with torch.device("meta"), counter, torch.enable_grad():
        picture = torch.empty(batch, shape.channels, side, side)
        text = torch.empty(batch, text_length, shape.text_width)
        if isinstance(unet, DeepFloydUNet2DConditionModel):
            sample = torch.cat([picture, picture], dim=1) if shape.enlarges else picture
            labels = torch.empty(batch) if shape.enlarges else None
            output = unet(sample, torch.empty(batch), text, class_labels=labels, return_dict=False)[0]
        else:
            output = unet(
                picture,
                torch.empty(batch),
                text,
                encoder_attention_mask=torch.ones(batch, text_length, dtype=torch.bool),
                low_res=picture if shape.enlarges else None,
                noise_level=torch.empty(batch) if shape.enlarges else None,
                return_dict=False,
            )[0]
        output.square().mean()
    kept = counter.total
    if config.model.gradient_checkpointing:
        kept = counter.total - sum(counter.blocks) + sum(counter.inputs) + max(counter.blocks)
    return int(kept * (1 if config.precision == "no" else _AUTOCAST_SHARE))


class _SavedBytes:
    """Count the memory that autograd keeps while this context is open, in all and for each block."""

    def __init__(self, unet: UNet) -> None:
        self.total = 0
        self.blocks: list[int] = []
        self.inputs: list[int] = []
        self._unet = unet
        self._weights = {parameter.untyped_storage()._cdata for parameter in unet.parameters()}
        # Held, so that no storage is freed and its address taken by another one.
        self._seen: dict[int, Tensor] = {}

    def __enter__(self) -> "_SavedBytes":
        self._hooks: AbstractContextManager[Any] = torch.autograd.graph.saved_tensors_hooks(self._pack, lambda t: t)
        self._hooks.__enter__()
        self._handles = []
        for module in self._unet.modules():
            if isinstance(module, ImagenBlock | ResnetBlock2D):
                self._handles += [
                    module.register_forward_pre_hook(self._before),
                    module.register_forward_hook(self._after),
                ]
        return self

    def __exit__(self, *error: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._hooks.__exit__(None, None, None)

    def _before(self, block: nn.Module, inputs: tuple[Any, ...]) -> None:
        self.inputs.append(inputs[0].numel() * inputs[0].element_size())
        self.blocks.append(-self.total)

    def _after(self, block: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        self.blocks[-1] += self.total

    def _pack(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        address = storage._cdata
        if address not in self._weights and address not in self._seen:
            self._seen[address] = tensor
            self.total += storage.nbytes()
        return tensor


def peak_memory(device: torch.device, work: Callable[[], None]) -> int | None:
    """Measure the most memory that some work took on top of what was there before it.

    Args:
        device: Where it works: a GPU's own count of its memory, or on Linux the process's.
        work: The work.

    Returns:
        Bytes, or None where nothing tells.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        return torch.cuda.max_memory_allocated(device) - before
    try:
        Path("/proc/self/clear_refs").write_text("5")
        before = _status("VmRSS")
    except OSError:
        work()
        return None
    work()
    return _status("VmHWM") - before


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))
