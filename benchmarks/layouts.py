# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""The layouts that `layout.py` compares: equal parameters, the same text path, different places for the work."""

from typing import Any

_TEXT = {
    "attention_head_dim": 32,
    "feed_forward_mult": 2,
    "conditioning_dim": 256,
    "encoder_hid_dim": 384,
    "num_text_layers": 2,
    "text_max_length": 64,
    "prediction_type": "sample",
    # Below 16 channels a group, CPU group norm is an order slower on small maps.
    "norm_num_groups": 4,
}
_BASE = {**_TEXT, "sample_size": 64, "cross_attention_dim": 192, "text_adapter_layers": 2}
_SUPER_RESOLUTION = {**_TEXT, "sample_size": 128, "low_res_channels": 3, "cross_attention_dim": 128}

LAYOUTS: dict[str, dict[str, dict[str, Any]]] = {
    # 64 px. The paper's base is ADM: blocks before the downsampling, from full resolution on.
    "base": {
        "paper": {
            **_BASE,
            "patch_size": 1,
            "block_out_channels": [48, 96, 128, 160],
            "layers_per_block": [2, 2, 2, 1],
            "attention_types": ["none", "none", "self", "self"],
            "block_order": "before_downsample",
        },
        "patch_2_before": {
            **_BASE,
            "patch_size": 2,
            "block_out_channels": [64, 128, 160],
            "layers_per_block": [1, 2, 2],
            "attention_types": ["none", "self", "self"],
            "block_order": "before_downsample",
        },
        "patch_2_after": {
            **_BASE,
            "patch_size": 2,
            "stem_channels": 64,
            "block_out_channels": [128, 192],
            "layers_per_block": [3, 4],
            "attention_types": ["self", "self"],
            "block_order": "after_downsample",
        },
        "patch_4_before": {
            **_BASE,
            "patch_size": 4,
            "block_out_channels": [96, 192],
            "layers_per_block": [1, 2],
            "attention_types": ["none", "self"],
            "block_order": "before_downsample",
        },
    },
    # 32 -> 128 px on crops of 64. The paper's enlargements have the blocks after the downsampling.
    "super_resolution": {
        "paper": {
            **_SUPER_RESOLUTION,
            "patch_size": 1,
            "stem_channels": 32,
            "block_out_channels": [32, 64, 96, 128],
            "layers_per_block": [1, 2, 2, 2],
            "attention_types": ["none", "none", "none", "cross"],
        },
        "patch_2": {
            **_SUPER_RESOLUTION,
            "patch_size": 2,
            "stem_channels": 32,
            "block_out_channels": [64, 96, 128],
            "layers_per_block": [2, 2, 2],
            "attention_types": ["none", "none", "cross"],
        },
        # As thin for its parameters as the enlargement that `ours.py` calls fast.
        "thin": {
            **_SUPER_RESOLUTION,
            "patch_size": 2,
            "stem_channels": 32,
            "block_out_channels": [32, 64, 96, 128],
            "layers_per_block": [1, 1, 2, 2],
            "attention_types": ["none", "none", "none", "cross"],
        },
        "patch_4": {
            **_SUPER_RESOLUTION,
            "patch_size": 4,
            "stem_channels": 64,
            "block_out_channels": [96, 128],
            "layers_per_block": [2, 3],
            "attention_types": ["none", "cross"],
        },
    },
}
