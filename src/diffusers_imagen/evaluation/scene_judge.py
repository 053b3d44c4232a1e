# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""The scene judge: a small network that finds the things in a picture, and names its background and drawing style.

Here is the network alone. What its outputs mean as things is in `seen_scene.py`; how it learns is the suite's affair
(`examples/emoji/train_scene_judge.py`).
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

STRIDE = 8


@dataclass(frozen=True)
class JudgeOutput:
    """Hold what the judge says of a batch of pictures, as logits.

    Attributes:
        presence: Whether a thing has its center in a cell (B, H, W).
        box: Center x and y inside the cell, width and height as parts of the picture, before the sigmoid (B, H, W, 4).
        noun: Which noun the cell's thing is (B, H, W, nouns).
        color: Which color it has (B, H, W, colors).
        worn: Whether it wears each of the things that can be worn (B, H, W, worn).
        held: Whether another thing holds it (B, H, W).
        background: The picture's background (B, backgrounds).
        style: The picture's drawing style (B, styles).
        features: The picture's features (B, D).
    """

    presence: Tensor
    box: Tensor
    noun: Tensor
    color: Tensor
    worn: Tensor
    held: Tensor
    background: Tensor
    style: Tensor
    features: Tensor


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convolution = _convolution(channels, channels, stride=1)

    def forward(self, hidden: Tensor) -> Tensor:
        result: Tensor = hidden + self.convolution(hidden)
        return result


def _convolution(channels_in: int, channels_out: int, stride: int, kernel: int = 3) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, kernel, stride=stride, padding=(kernel - 1) // 2, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(inplace=True),
    )


class SceneJudge(ModelMixin, ConfigMixin):
    """Find the things in a picture: one prediction for each cell of 8 by 8 pixels.

    Args:
        nouns: Names of the things it knows.
        colors: Names of the colors.
        worn: Names of the things that can be worn.
        backgrounds: Names of the backgrounds.
        styles: Names of the drawing styles.
        wearers: The nouns that can wear things; empty for all. What others seem to wear is not looked at.
        sample_size: Width and height in pixels of the pictures it looks at, a multiple of 8.
        channels: Channels at a half, a quarter and an eighth of the size, and of the features.
        num_blocks: Residual blocks at an eighth of the size.
        presence_threshold: Least probability at which a thing counts as seen.

    Raises:
        ValueError: If `sample_size` is no multiple of 8.
    """

    @register_to_config
    def __init__(
        self,
        nouns: tuple[str, ...],
        colors: tuple[str, ...],
        worn: tuple[str, ...],
        backgrounds: tuple[str, ...],
        styles: tuple[str, ...],
        wearers: tuple[str, ...] = (),
        sample_size: int = 64,
        channels: tuple[int, int, int, int] = (48, 96, 160, 256),
        num_blocks: int = 4,
        presence_threshold: float = 0.5,
    ) -> None:
        super().__init__()
        if sample_size < STRIDE or sample_size % STRIDE:
            raise ValueError(f"`sample_size` is {sample_size}; give a multiple of {STRIDE}.")
        half, quarter, eighth, features = channels
        self.body = nn.Sequential(
            _convolution(3, half, stride=2, kernel=4),
            _convolution(half, quarter, stride=2),
            _Residual(quarter),
            _convolution(quarter, eighth, stride=2),
            *(_Residual(eighth) for _ in range(num_blocks)),
            _convolution(eighth, features, stride=1),
        )
        self._cell_sizes = [1, 4, len(nouns), len(colors), len(worn), 1]
        self._picture_sizes = [len(backgrounds), len(styles)]
        self.cells = nn.Linear(features, sum(self._cell_sizes))
        self.picture = nn.Linear(features, sum(self._picture_sizes))

    def forward(self, pictures: Tensor) -> JudgeOutput:
        """Look at pictures (B, 3, sample_size, sample_size) in [-1, 1]."""
        hidden = self.body(pictures).permute(0, 2, 3, 1)  # (B, H, W, D)
        features = hidden.mean(dim=(1, 2))
        presence, box, noun, color, worn, held = self.cells(hidden).split(self._cell_sizes, dim=-1)
        background, style = self.picture(features).split(self._picture_sizes, dim=-1)
        return JudgeOutput(
            presence.squeeze(-1), box, noun, color, worn, held.squeeze(-1), background, style, features.float()
        )

    def to_input(self, pictures: Tensor) -> Tensor:
        """Turn uint8 pictures (B, 3, H, W) of any size into what the judge looks at, antialiased."""
        size = (self.config.sample_size, self.config.sample_size)
        signed = pictures.to(device=self.device, dtype=torch.float32) / 127.5 - 1
        if signed.shape[-2:] != size:
            signed = F.interpolate(signed, size, mode="bicubic", antialias=True)
        return signed.clamp(-1, 1).to(self.dtype)
