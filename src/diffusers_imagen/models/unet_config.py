# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Checks of a U-Net's configuration, made before any layer is. Called by the shared U-Net."""

from typing import Any

FORMAT_VERSION = 1
BLOCK_ORDERS = ("before_downsample", "after_downsample")
ATTENTION_TYPES = ("none", "cross", "self")


def check_unet_config(config: Any) -> None:
    """Refuse a configuration that no U-Net can be made from.

    Raises:
        ValueError: naming the argument, its value and what is allowed.
    """
    if config.format_version > FORMAT_VERSION:
        raise ValueError(
            f"`format_version` is {config.format_version}, but this release reads up to {FORMAT_VERSION}; "
            "upgrade diffusers-imagen."
        )
    if config.block_order not in BLOCK_ORDERS:
        raise ValueError(f"`block_order` is {config.block_order!r}, but must be one of {BLOCK_ORDERS}.")
    num_levels = len(config.block_out_channels)
    for name in ("layers_per_block", "attention_types"):
        value = getattr(config, name)
        if len(value) != num_levels:
            raise ValueError(
                f"`{name}` is {tuple(value)}, but `block_out_channels` has {num_levels} levels; give one value a level."
            )
    for kind in config.attention_types:
        if kind not in ATTENTION_TYPES:
            raise ValueError(f"`attention_types` holds {kind!r}, but only {ATTENTION_TYPES} are known.")
    if min(config.layers_per_block) < 1:
        raise ValueError(f"`layers_per_block` is {tuple(config.layers_per_block)}; a level needs one block at least.")
    _check_divisibility(config)


def _check_divisibility(config: Any) -> None:
    stem = [] if config.stem_channels is None else [config.stem_channels]
    for width in [*config.block_out_channels, *stem]:
        if width % config.norm_num_groups:
            raise ValueError(
                f"`block_out_channels` or `stem_channels` holds {width}, which `norm_num_groups`="
                f"{config.norm_num_groups} does not divide."
            )
    for width, kind in zip(config.block_out_channels, config.attention_types, strict=True):
        if kind != "none" and width % config.attention_head_dim:
            raise ValueError(
                f"`block_out_channels` holds {width} at a level with attention, which `attention_head_dim`="
                f"{config.attention_head_dim} does not divide."
            )
    if config.cross_attention_dim % max(1, config.cross_attention_dim // 64):
        raise ValueError(f"`cross_attention_dim` is {config.cross_attention_dim}; above 64 use a multiple of 64.")
    if config.sample_size % (config.patch_size * 2 ** _num_halvings(config)):
        raise ValueError(
            f"`sample_size` is {config.sample_size}, which cannot be cut into patches of {config.patch_size} and "
            f"halved {_num_halvings(config)} times."
        )


def _num_halvings(config: Any) -> int:
    levels = len(config.block_out_channels)
    return levels if config.block_order == "after_downsample" else levels - 1
