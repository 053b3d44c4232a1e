# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""The U-Nets that are compared: imagen-pytorch's options, alone and together, small enough for a test.

Every option that changes the module tree is here. `cross_embed_downsample` is not: no release can be made with it.
"""

from typing import Any

from import_peer import TEXT_WIDTH

PLACES = 12
_SMALL: dict[str, Any] = {
    "dim": 16,
    "text_embed_dim": TEXT_WIDTH,
    "dim_mults": (1, 2),
    "attn_heads": 2,
    "attn_dim_head": 16,
    "max_text_len": PLACES,
    "attn_pool_num_latents": 4,
}
_ALONE: dict[str, dict[str, Any]] = {
    "plain": {},
    "three levels": {"dim_mults": (1, 2, 3)},
    "own width of conditions": {"cond_dim": 40},
    "blocks by level": {"num_resnet_blocks": (1, 3)},
    "no blocks": {"num_resnet_blocks": 0},
    "self-attention by level": {"layer_attns": (False, True)},
    "no self-attention": {"layer_attns": False},
    "depth by level": {"layer_attns_depth": (1, 2)},
    "deep middle": {"layer_mid_attns_depth": 2},
    "no attention in the middle": {"attend_at_middle": False},
    "cross-attention by level": {"layer_cross_attns": (False, True)},
    "no cross-attention": {"layer_cross_attns": False},
    "linear attention": {"layer_attns": (False, True), "use_linear_attn": (True, False)},
    "linear attention only": {"layer_attns": False, "use_linear_attn": True},
    "linear cross-attention": {"layer_cross_attns": False, "use_linear_cross_attn": True},
    "linear cross-attention by level": {"layer_cross_attns": True, "use_linear_cross_attn": (True, False)},
    "memory efficient": {"memory_efficient": True},
    "one first convolution": {"init_cross_embed": False},
    "first kernels": {"init_cross_embed_kernel_sizes": (3, 5)},
    "own first width": {"init_dim": 24},
    "no resampler": {"attn_pool_text": False},
    "no text": {"cond_on_text": False},
    "no text, no resampler": {"cond_on_text": False, "attn_pool_text": False},
    "no global context": {"use_global_context_attn": False},
    "repeated upsampling": {"pixel_shuffle_upsample": False},
    "no final block": {"final_resnet_block": False},
    "final kernel": {"final_conv_kernel_size": 1},
    "first to final": {"init_conv_to_final_conv_residual": True},
    "maps combined": {"combine_upsample_fmaps": True},
    "skips unscaled": {"scale_skip_connection": False},
    "heads": {"attn_heads": 4, "attn_dim_head": 8},
    "feed-forward": {"ff_mult": 1.5},
    "feed-forward by thirds": {"ff_mult": 4 / 3, "dim_mults": (1, 2, 4, 8)},
    "frequencies": {"learned_sinu_pos_emb_dim": 8},
    "time tokens": {"num_time_tokens": 3},
    "one channel": {"channels": 1},
    "self-conditioned": {"self_cond": True},
    "conditioning picture": {"cond_images_channels": 3},
    "groups": {"resnet_groups": (4, 8)},
    "cosine attention": {"cosine_sim_attn": True},
    "enlargement": {"lowres_cond": True},
}
_TOGETHER: dict[str, dict[str, Any]] = {
    "paper's base": {
        "dim_mults": (1, 2, 3, 4),
        "layer_attns": (False, True, True, True),
        "layer_cross_attns": (False, True, True, True),
    },
    "paper's enlargement": {
        "lowres_cond": True,
        "dim_mults": (1, 2, 4),
        "num_resnet_blocks": (1, 2, 2),
        "layer_attns": (False, False, True),
        "layer_cross_attns": (False, False, True),
        "memory_efficient": True,
    },
    "enlargement with all joined": {
        "lowres_cond": True,
        "memory_efficient": True,
        "combine_upsample_fmaps": True,
        "init_conv_to_final_conv_residual": True,
        "self_cond": True,
        "cond_images_channels": 2,
    },
    "enlargement without a final block": {"lowres_cond": True, "final_resnet_block": False},
    "all joined without a final block": {
        "final_resnet_block": False,
        "combine_upsample_fmaps": True,
        "init_conv_to_final_conv_residual": True,
    },
}
CONFIGURATIONS: dict[str, dict[str, Any]] = {name: _SMALL | changed for name, changed in (_ALONE | _TOGETHER).items()}
