# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""This package's U-Nets as they are measured: "paper", the paper's block order, and "fast", the layout for speed.

Both have as many parameters as the peers': about 40M for the base, 38M for 64 -> 256 and 26M for 256 -> 1024.
"""

from typing import Any

from inputs import Inputs
from torch import Tensor, nn

from diffusers_imagen import EfficientUNet2DConditionModel, ImagenUNet2DConditionModel

_SAME = {
    "conditioning_dim": 256,
    "cross_attention_dim": 256,
    "encoder_hid_dim": 768,
    "text_max_length": 256,
    "norm_num_groups": 8,
}
_QUICK = {"conditioning_dim": 64, "cross_attention_dim": 64, "attention_head_dim": 32, "norm_num_groups": 8}
_CROSS_AT_LAST = ("none", "none", "none", "cross")

UNETS: dict[str, dict[str, dict[str, dict[str, Any]]]] = {
    "full": {
        "paper": {
            "base": {
                "patch_size": 1,
                "block_out_channels": (64, 128, 256, 256),
                "layers_per_block": (3, 3, 3, 3),
                "attention_types": ("none", "self", "self", "self"),
            },
            "sr": {
                "stem_channels": 32,
                "block_out_channels": (32, 64, 192, 320),
                "layers_per_block": (2, 4, 6, 6),
                "feed_forward_mult": 0,
            },
            "large": {
                "stem_channels": 32,
                "block_out_channels": (32, 64, 128, 256),
                "layers_per_block": (2, 4, 6, 7),
                "attention_types": _CROSS_AT_LAST,
                "feed_forward_mult": 0,
            },
        },
        "fast": {
            "base": {
                "patch_size": 4,
                "block_out_channels": (128, 432),
                "layers_per_block": (1, 2),
                "attention_types": ("none", "self"),
                "attention_head_dim": 72,
            },
            "sr": {
                "patch_size": 2,
                "stem_channels": 32,
                "block_out_channels": (32, 64, 192, 448),
                "layers_per_block": (1, 1, 2, 4),
                "attention_types": _CROSS_AT_LAST,
                "feed_forward_mult": 0,
            },
            "large": {
                "patch_size": 4,
                "stem_channels": 32,
                "block_out_channels": (64, 128, 192, 320),
                "layers_per_block": (1, 2, 3, 4),
                "attention_types": _CROSS_AT_LAST,
                "feed_forward_mult": 0,
            },
        },
    },
    "quick": {
        "paper": {
            "base": {
                "patch_size": 1,
                "block_out_channels": (16, 32),
                "layers_per_block": (1, 1),
                "attention_types": ("none", "self"),
                **_QUICK,
            },
            "sr": {
                "block_out_channels": (16, 32),
                "layers_per_block": (1, 1),
                "attention_types": ("none", "self"),
                **_QUICK,
            },
            "large": {
                "block_out_channels": (16, 32),
                "layers_per_block": (1, 1),
                "attention_types": ("none", "cross"),
                **_QUICK,
            },
        },
        "fast": {
            stage: {
                "patch_size": 2,
                "block_out_channels": (16, 32),
                "layers_per_block": (1, 1),
                "attention_types": ("none", "cross"),
                **_QUICK,
            }
            for stage in ("base", "sr", "large")
        },
    },
}


class OurUNet(nn.Module):
    """A U-Net of this package, called as all sides are."""

    def __init__(self, unet: ImagenUNet2DConditionModel | EfficientUNet2DConditionModel) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, inputs: Inputs) -> Tensor:
        """Return the prediction, (B, C, H, W)."""
        return self.unet(
            inputs.x,
            inputs.timestep,
            inputs.text,
            encoder_attention_mask=inputs.text_mask,
            low_res=inputs.low_res,
            noise_level=inputs.noise_level,
            return_dict=False,
        )[0]


def build(side: str, stage: str, scale: str, pixels: int) -> OurUNet:
    """Make a U-Net in float32: `side` is "paper" or "fast", `stage` "base", "sr" or "large"."""
    unet_class = ImagenUNet2DConditionModel if stage == "base" else EfficientUNet2DConditionModel
    return OurUNet(unet_class(sample_size=pixels, **{**_SAME, **UNETS[scale][side][stage]}))
