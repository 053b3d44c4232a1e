# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""The convolutional parts of imagen-pytorch's U-Net. Attention is beside this file; called by the U-Net and its levels.

Legend: B batch, C channels, H W height and width of a level, N = H * W, T width of the conditioning vector, S tokens of
text and time, D their width.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusers_imagen.models.unet_imagen_pytorch_attention import CrossAttention


class ChannelRMSNorm(nn.Module):
    """Divide every pixel by the root mean square of its channels, then scale each channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C, H, W) for `x` of the same shape."""
        return F.normalize(x, dim=1) * (self.scale * math.sqrt(len(self.scale)))


def block_norm(channels: int, num_groups: int | None) -> nn.Module:
    """Return the norm of a residual block: of groups up to imagen-pytorch 1.26, over channels since 2.0."""
    return ChannelRMSNorm(channels) if num_groups is None else nn.GroupNorm(num_groups, channels)


class ConvBlock(nn.Module):
    """Norm, optional FiLM, SiLU, 3x3 convolution."""

    def __init__(self, in_channels: int, out_channels: int, num_groups: int | None) -> None:
        super().__init__()
        self.norm = block_norm(in_channels, num_groups)
        self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=1)

    def forward(self, x: Tensor, scale_shift: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Return (B, C_out, H, W) for `x` (B, C_in, H, W); scale and shift are (B, C_in, 1, 1)."""
        h = self.norm(x)
        if scale_shift is not None:
            scale, shift = scale_shift
            h = torch.addcmul(shift, h, scale + 1)
        # In place where nothing is to be differentiated: a fresh buffer costs more than the activation itself.
        return self.conv(F.silu(h, inplace=not torch.is_grad_enabled()))


class GlobalContext(nn.Module):
    """Gate channels by what one attention over the whole map has seen (GCNet, arXiv:1904.11492)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(3, channels // 2)
        self.to_weight = nn.Conv2d(channels, 1, 1)
        self.conv_in = nn.Conv2d(channels, hidden, 1)
        self.conv_out = nn.Conv2d(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return factors (B, C, 1, 1) in (0, 1) for `x` (B, C, H, W)."""
        weight = self.to_weight(x).flatten(1).softmax(dim=-1)
        seen = torch.bmm(x.flatten(2), weight[..., None])[..., None]
        return self.conv_out(F.silu(self.conv_in(seen))).sigmoid()


class ResBlock(nn.Module):
    """Two convolution blocks with FiLM before the second, optional cross-attention between and a gate behind them.

    Args:
        in_channels: C_in.
        out_channels: C_out.
        conditioning_dim: T.
        num_groups: of the norms; `None` for norms over channels.
        cross_attention: attends from the map to text and time, or `None`.
        global_context: whether the result is gated.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        conditioning_dim: int,
        num_groups: int | None,
        cross_attention: CrossAttention | None = None,
        global_context: bool = False,
    ) -> None:
        super().__init__()
        self.film = nn.Linear(conditioning_dim, 2 * out_channels)
        self.block1 = ConvBlock(in_channels, out_channels, num_groups)
        self.cross_attention = cross_attention
        self.block2 = ConvBlock(out_channels, out_channels, num_groups)
        self.global_context = GlobalContext(out_channels) if global_context else None
        self.skip = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else nn.Identity()

    def forward(self, x: Tensor, conditioning: Tensor, tokens: Tensor | None = None) -> Tensor:
        """Return (B, C_out, H, W) for `x` (B, C_in, H, W), activated `conditioning` (B, T), `tokens` (B, S, D)."""
        scale, shift = self.film(conditioning)[..., None, None].chunk(2, dim=1)
        h = self.block1(x)
        if self.cross_attention is not None:
            B, C, H, W = h.shape
            pixels = h.flatten(2).transpose(1, 2)
            pixels = self.cross_attention(pixels, tokens) + pixels
            h = pixels.transpose(1, 2).reshape(B, C, H, W)
        h = self.block2(h, (scale, shift))
        if self.global_context is not None:
            h = h * self.global_context(h)
        return h + self.skip(x)


class CrossEmbed(nn.Module):
    """Convolutions of several sizes side by side, half of the channels for the smallest (CrossFormer)."""

    def __init__(self, in_channels: int, out_channels: int, kernel_sizes: Sequence[int]) -> None:
        super().__init__()
        sizes = sorted(kernel_sizes)
        widths = [out_channels // 2**i for i in range(1, len(sizes))]
        widths.append(out_channels - sum(widths))
        self.convs = nn.ModuleList(
            [nn.Conv2d(in_channels, width, k, padding=k // 2) for width, k in zip(widths, sizes, strict=True)]
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C_out, H, W) for `x` (B, C_in, H, W)."""
        return torch.cat([conv(x) for conv in self.convs], dim=1)


class UnshuffleDownsample(nn.Module):
    """Halve height and width: 2 x 2 pixels become channels, then a 1x1 convolution (arXiv:2208.03641)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4 * in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C_out, H / 2, W / 2) for `x` (B, C_in, H, W)."""
        return self.conv(F.pixel_unshuffle(x, 2))


class StridedDownsample(nn.Module):
    """Halve height and width by a strided 4x4 convolution, as imagen-pytorch up to 1.10 and MinImagen do."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 4, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C_out, H / 2, W / 2) for `x` (B, C_in, H, W)."""
        return self.conv(x)


class WidenConv(nn.Module):
    """Bring the deepest level to its width without shrinking: a 3x3 and a 1x1 convolution, summed."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv3 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C_out, H, W) for `x` (B, C_in, H, W)."""
        return self.conv3(x) + self.conv1(x)


class NearestUpsample(nn.Module):
    """Double height and width by nearest repetition, then a 3x3 convolution."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C_out, 2H, 2W) for `x` (B, C_in, H, W)."""
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class ShuffleUpsample(nn.Module):
    """Double height and width: a 1x1 convolution and SiLU, whose channels become 2 x 2 pixels."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.expand = nn.Conv2d(in_channels, 4 * out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C_out, 2H, 2W) for `x` (B, C_in, H, W)."""
        return F.pixel_shuffle(F.silu(self.expand(x)), 2)


class MapCombiner(nn.Module):
    """Put the maps of all up levels beside the last one, each through a convolution block (arXiv:2203.13131)."""

    def __init__(self, in_channels: Sequence[int], out_channels: int, num_groups: int | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([ConvBlock(channels, out_channels, num_groups) for channels in in_channels])

    def forward(self, x: Tensor, maps: Sequence[Tensor]) -> Tensor:
        """Return (B, C + levels * C_out, H, W) for `x` (B, C, H, W) and one map for each level, of any size."""
        resized = [F.interpolate(map_, x.shape[-2:], mode="nearest") for map_ in maps]
        return torch.cat([x, *(block(map_) for block, map_ in zip(self.blocks, resized, strict=True))], dim=1)
