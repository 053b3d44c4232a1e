# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""What every side's U-Net is given: the same noisy pictures, times, texts and smaller pictures."""

from dataclasses import dataclass, replace

import torch
from scale import TEXT_TOKENS, TEXT_WIDTH
from torch import Tensor


@dataclass(frozen=True)
class Inputs:
    """Inputs of a forward pass of B pictures.

    Args:
        x: (B, 3, H, W), noisy pictures.
        timestep: (B,) in [0, 1000].
        text: (B, L, D) text states.
        text_mask: (B, L) bool, all True: no side is spared a token.
        low_res: (B, 3, H, W), smaller pictures resized to H x W; `None` for the base.
        noise_level: (B,) in [0, 1], their noise; `None` for the base.
    """

    x: Tensor
    timestep: Tensor
    text: Tensor
    text_mask: Tensor
    low_res: Tensor | None
    noise_level: Tensor | None

    def to(self, dtype: torch.dtype) -> "Inputs":
        """Return the same with pictures and text in another precision."""
        low_res = None if self.low_res is None else self.low_res.to(dtype)
        return replace(self, x=self.x.to(dtype), text=self.text.to(dtype), low_res=low_res)


def make_inputs(stage: str, pixels: int, batch: int = 1, tokens: int = TEXT_TOKENS) -> Inputs:
    """Draw the inputs of a stage, the same at every call."""
    generator = torch.Generator().manual_seed(0)
    enlarges = stage != "base"
    return Inputs(
        x=torch.randn(batch, 3, pixels, pixels, generator=generator),
        timestep=torch.full((batch,), 500),
        text=torch.randn(batch, tokens, TEXT_WIDTH, generator=generator),
        text_mask=torch.ones(batch, tokens, dtype=torch.bool),
        low_res=torch.randn(batch, 3, pixels, pixels, generator=generator).clamp(-1, 1) if enlarges else None,
        noise_level=torch.full((batch,), 0.25) if enlarges else None,
    )
