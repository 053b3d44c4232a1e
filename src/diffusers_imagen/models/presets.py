# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Configurations of the paper's U-Nets (arXiv:2205.11487, appendix F): `ImagenUNet2DConditionModel(**PRESETS[...])`.

The paper gives channels, blocks and attention levels; the width of the conditioning vector and of the text tokens
inside the U-Net it leaves open, and they are chosen here so that the sizes meet the paper's. The 400M enlargement
cannot be met: appendix F.3 has the same four blocks as F.2's 600M model, and the 3x3 convolutions of their residual
blocks alone, on the way down and up, have 391M weights. It is made about as small as the open widths sensibly allow and
comes to 437M, 9 % above.
"""

from typing import Any

T5_XXL_WIDTH = 4096

PRESETS: dict[str, dict[str, Any]] = {
    "imagen-2b-64": {
        "sample_size": 64,
        "patch_size": 1,
        "norm_num_groups": 32,
        "block_out_channels": (512, 1024, 1536, 2048),
        "layers_per_block": (3, 3, 3, 3),
        "attention_types": ("none", "self", "self", "self"),
        "block_order": "before_downsample",
        "attention_head_dim": 64,
        "conditioning_dim": 2048,
        "encoder_hid_dim": T5_XXL_WIDTH,
        "cross_attention_dim": 1024,
    },
    "imagen-600m-256": {
        "sample_size": 256,
        "block_out_channels": (128, 256, 512, 1024),
        "layers_per_block": (2, 4, 8, 8),
        "attention_types": ("none", "none", "none", "self"),
        "block_order": "after_downsample",
        "attention_head_dim": 128,
        "conditioning_dim": 2048,
        "encoder_hid_dim": T5_XXL_WIDTH,
        "cross_attention_dim": 2048,
    },
    "imagen-400m-1024": {
        "sample_size": 1024,
        "block_out_channels": (128, 256, 512, 1024),
        "layers_per_block": (2, 4, 8, 8),
        "attention_types": ("none", "none", "none", "cross"),
        "block_order": "after_downsample",
        "attention_head_dim": 128,
        "conditioning_dim": 256,
        "encoder_hid_dim": T5_XXL_WIDTH,
        "cross_attention_dim": 512,
        "noise_schedule": "linear",
        "log_snr_max": 9.2,
        "log_snr_min": -10.0,
    },
}
"""Name to constructor arguments: the base, and the enlargements, of `EfficientUNet2DConditionModel`."""
