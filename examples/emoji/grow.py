# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Double the resolution of a trained base: patches become twice as large, everything inside stays.

The new U-Net first averages every 2 x 2 pixels and paints every 2 x 2 pixels alike, so that it starts as the old one
seen through a magnifying glass, and learns the detail from there.

python examples/emoji/grow.py runs/base_32/unet runs/base_64_init
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor

from diffusers_imagen import ImagenUNet2DConditionModel


def widen(weight: Tensor, patch_size: int) -> Tensor:
    """Repeat what belongs to each pixel of a patch for the 2 x 2 pixels that it becomes.

    Args:
        weight: (C * patch_size^2, ...), ordered as `pixel_unshuffle` orders channels.
        patch_size: pixels.

    Returns:
        (C * (2 * patch_size)^2, ...).
    """
    rest = weight.shape[1:]
    pixels = weight.view(-1, patch_size, patch_size, *rest)
    return pixels.repeat_interleave(2, dim=1).repeat_interleave(2, dim=2).reshape(-1, *rest)


@torch.no_grad()
def grown(unet: ImagenUNet2DConditionModel) -> ImagenUNet2DConditionModel:
    """Return a base of twice the resolution that draws what `unet` draws, in larger pixels."""
    config = dict(unet.config) | {"sample_size": 2 * unet.config.sample_size, "patch_size": 2 * unet.config.patch_size}
    larger = ImagenUNet2DConditionModel.from_config(config)
    state = unet.state_dict()
    patch_size = unet.config.patch_size
    state["conv_in.weight"] = widen(state["conv_in.weight"].transpose(0, 1), patch_size).transpose(0, 1) / 4
    for name in ("conv_out.weight", "conv_out.bias"):
        state[name] = widen(state[name], patch_size)
    larger.load_state_dict(state)
    return larger


def main() -> None:
    """Read a base, write the larger one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("unet", help="folder of a trained base")
    parser.add_argument("out", help="folder to write")
    arguments = parser.parse_args()
    grown(ImagenUNet2DConditionModel.from_pretrained(arguments.unet)).save_pretrained(arguments.out)


if __name__ == "__main__":
    main()
