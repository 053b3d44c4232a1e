# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""The convolutional parts of the U-Net: residual block, resampling, and the block that levels repeat.

Legend: B batch, C channels, H W height and width of a level, T width of the conditioning vector.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusers_imagen.models.attention import ImagenAttentionBlock, TextKeys
from diffusers_imagen.models.initialisation import zeroed


class ImagenResBlock(nn.Module):
    """GroupNorm, SiLU, convolution, twice, with FiLM from the conditioning vector before the second activation.

    ADM's block (arXiv:2105.05233) with scale-shift norm. The second convolution starts at zero, so that a
    new block is its skip path alone.
    """

    def __init__(
        self, in_channels: int, out_channels: int, conditioning_dim: int, num_groups: int, dropout: float
    ) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(num_groups, in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.film = nn.Linear(conditioning_dim, 2 * out_channels)
        self.norm2 = nn.GroupNorm(num_groups, out_channels)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = zeroed(nn.Conv2d(out_channels, out_channels, 3, padding=1))
        self.skip = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else nn.Identity()

    def forward(self, x: Tensor, conditioning: Tensor) -> Tensor:
        """Return (B, C_out, H, W) for `x` (B, C_in, H, W) and the activated `conditioning` (B, T)."""
        # In place where nothing is to be differentiated: a fresh buffer costs more than the activation itself.
        inplace = not torch.is_grad_enabled()
        h = self.conv1(F.silu(self.norm1(x), inplace=inplace))
        scale, shift = self.film(conditioning)[..., None, None].chunk(2, dim=1)
        h = torch.addcmul(shift, self.norm2(h), 1 + scale)
        h = self.conv2(self.dropout(F.silu(h, inplace=inplace)))
        return self.skip(x) + h


class Downsample(nn.Conv2d):
    """Halve height and width by a strided 3x3 convolution."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 3, stride=2, padding=1)


class Upsample(nn.Module):
    """Double height and width by nearest repetition, then a 3x3 convolution."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C_out, 2H, 2W) for `x` (B, C_in, H, W)."""
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class ImagenBlock(nn.Module):
    """A residual block, then its attention block if it has one: the unit that U-Net levels repeat."""

    def __init__(self, resnet: ImagenResBlock, attention: ImagenAttentionBlock | None) -> None:
        super().__init__()
        self.resnet = resnet
        self.attention = attention

    def forward(
        self, x: Tensor, conditioning: Tensor, text: Tensor, text_mask: Tensor, memo: TextKeys | None = None
    ) -> Tensor:
        """Return (B, C_out, H, W) for `x` (B, C_in, H, W); the rest as the parts take it."""
        x = self.resnet(x, conditioning)
        return x if self.attention is None else self.attention(x, text, text_mask, memo)
