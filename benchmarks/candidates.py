# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Every side's U-Nets in every precision and layout that they run in, ready to be called."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

import ours
import peer_if
import peer_imagen_pytorch
import torch
from flops import count_gflop
from inputs import Inputs, make_inputs
from results import OURS, PEERS, Measurement
from scale import Scale
from torch import Tensor, nn


@dataclass(frozen=True)
class Variant:
    """A way of running a U-Net.

    Args:
        name: what it is called in tables.
        half: whether the weights are bfloat16.
        autocast: whether float32 weights are used under bfloat16 autocast.
        channels_last: whether the weights lie channels last.
        packed: whether our convolutions' weights are packed for inference.
    """

    name: str
    half: bool = False
    autocast: bool = False
    channels_last: bool = False
    packed: bool = False

    @property
    def precision(self) -> str:
        """Which of the machine's limits it could reach."""
        return "bf16" if self.half or self.autocast else "fp32"

    @property
    def dtype(self) -> torch.dtype:
        """Of weights and inputs."""
        return torch.bfloat16 if self.half else torch.float32


_FP32 = (Variant("fp32"), Variant("fp32 channels_last", channels_last=True))
_AUTOCAST = (
    Variant("bf16 autocast", autocast=True),
    Variant("bf16 autocast channels_last", autocast=True, channels_last=True),
)
_BF16 = (Variant("bf16", half=True), Variant("bf16 channels_last", half=True, channels_last=True))
PLAIN = Variant("bf16 channels_last", half=True, channels_last=True)
PACKED = Variant("bf16 channels_last packed", half=True, channels_last=True, packed=True)
VARIANTS: dict[str, tuple[Variant, ...]] = {
    "paper": (PLAIN, PACKED),
    "fast": (PLAIN, PACKED),
    "IF": (*_FP32, *_BF16, *_AUTOCAST),
    # Its bf16 weights fail: the time embedding stays in float32.
    "imagen-pytorch": (*_FP32, *_AUTOCAST),
}


def build(side: str, stage: str, scale: Scale) -> nn.Module:
    """Make a side's U-Net for a stage in float32, the same at every call, with no layer at zero."""
    torch.manual_seed(0)
    pixels = scale.pixels(stage)
    if side == "IF":
        unet: nn.Module = peer_if.build(stage, scale.name, pixels)
    elif side == "imagen-pytorch":
        unet = peer_imagen_pytorch.build(stage, scale.name)
    else:
        unet = ours.build(side, stage, scale.name, pixels)
    fill_zero_weights(unet)
    return unet.eval()


def fill_zero_weights(module: nn.Module) -> None:
    """Give layers that start at zero random weights, so that every side computes with ordinary numbers."""
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim > 1 and not parameter.any():
                parameter.normal_(std=parameter[0].numel() ** -0.5)


def apply(variant: Variant, unet: nn.Module) -> None:
    """Bring a side's U-Net into a variant, in place."""
    layout = torch.channels_last if variant.channels_last else torch.preserve_format
    unet.to(variant.dtype).to(memory_format=layout)
    if variant.packed:
        unet.unet.pack_weights()


@dataclass(frozen=True)
class Candidate:
    """A U-Net that is ready to be timed: `candidate()` is one forward pass."""

    side: str
    variant: Variant
    unet: nn.Module
    inputs: Inputs
    parameters: int
    gflop: float

    @property
    def name(self) -> str:
        """Side and variant."""
        return f"{self.side} / {self.variant.name}"

    def __call__(self) -> Tensor:
        """Make one forward pass and return the prediction."""
        autocast = contextlib.nullcontext()
        if self.variant.autocast:
            autocast = torch.autocast("cpu", torch.bfloat16)
        with torch.inference_mode(), autocast:
            return self.unet(self.inputs)

    def measurement(self, values: list[float]) -> Measurement:
        """Return the values with everything that is known about the candidate."""
        return Measurement(
            self.side, self.variant.name, self.variant.precision, values, self.parameters, round(self.gflop, 3)
        )


def candidate(
    side: str, variant: Variant, stage: str, scale: Scale, batch: int = 1, pixels: int | None = None
) -> Candidate:
    """Make a candidate; `pixels` replaces the stage's own."""
    unet = build(side, stage, scale)
    inputs = make_inputs(stage, pixels or scale.pixels(stage), batch)
    parameters = sum(parameter.numel() for parameter in unet.parameters())
    gflop = count_gflop(lambda: unet(inputs))
    apply(variant, unet)
    return Candidate(side, variant, unet, inputs.to(variant.dtype), parameters, gflop)


def candidates(stage: str, scale: Scale, batch: int, sides: Sequence[str] = (*OURS, *PEERS)) -> list[Candidate]:
    """Make all sides' candidates for a stage; each has run once and given ordinary numbers."""
    made = [candidate(side, variant, stage, scale, batch) for side in sides for variant in VARIANTS[side]]
    for one in made:
        check_numbers(one.name, one())
    return made


def check_numbers(name: str, output: Tensor) -> None:
    """Refuse an output that is not finite, all zero, or so small that arithmetic with it is slow.

    Raises:
        ValueError: naming the candidate.
    """
    size = output.float().abs()
    tiny = ((size > 0) & (size < torch.finfo(torch.float32).tiny)).float().mean().item()
    if not bool(size.isfinite().all()) or not bool(size.any()) or tiny > 0.001:
        raise ValueError(f"`{name}` gives numbers that would distort its time: {tiny:.1%} of them subnormal.")
