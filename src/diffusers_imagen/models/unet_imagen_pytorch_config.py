# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Checks of the configuration and of the inputs of imagen-pytorch's U-Net. Called by the U-Net before anything else."""

from typing import Any

from torch import Tensor

from diffusers_imagen.diffusion.noise import check_prediction_type

FORMAT_VERSION = 1
_CHOICES = {
    "similarity": ("rms", "cosine", "dot"),
    "downsample_type": ("unshuffle", "strided"),
    "noise_condition": ("log_snr", "step"),
    "noise_schedule": ("cosine", "linear"),
    "low_res_noise_schedule": ("cosine", "linear"),
}
_LEVEL_CHOICES = {
    "attention_types": ("none", "self", "linear"),
    "cross_attention_types": ("none", "softmax", "linear"),
}
_PER_LEVEL = (
    "layers_per_block",
    "attention_types",
    "transformer_layers_per_block",
    "cross_attention_types",
    "norm_num_groups",
)


def check_config(config: Any) -> None:
    """Refuse a configuration that no U-Net can be made from.

    Raises:
        ValueError: naming the argument, its value and what is allowed.
    """
    if config.format_version > FORMAT_VERSION:
        raise ValueError(
            f"`format_version` is {config.format_version}, but this release reads up to {FORMAT_VERSION}; "
            "upgrade diffusers-imagen."
        )
    check_prediction_type(config.prediction_type)
    for name, allowed in _CHOICES.items():
        if config[name] not in allowed:
            raise ValueError(f"`{name}` is {config[name]!r}; choose one of {', '.join(allowed)}.")
    levels = len(config.block_out_channels)
    for name in _PER_LEVEL:
        if config[name] is not None and len(config[name]) != levels:
            raise ValueError(
                f"`{name}` is {tuple(config[name])}, but `block_out_channels` has {levels} levels; give one value a "
                "level."
            )
    for name, allowed in _LEVEL_CHOICES.items():
        for kind in config[name]:
            if kind not in allowed:
                raise ValueError(f"`{name}` holds {kind!r}; choose among {', '.join(allowed)}.")
    if config.low_res_channels not in (0, config.in_channels):
        raise ValueError(
            f"`low_res_channels` is {config.low_res_channels}; give 0 or as many as `in_channels`, {config.in_channels}."
        )
    _check_noise(config)


def _check_noise(config: Any) -> None:
    if config.sigma_data is not None and config.prediction_type != "sample":
        raise ValueError(
            f"`prediction_type` is {config.prediction_type!r}, but with `sigma_data` the clean picture is predicted; "
            'give "sample".'
        )
    if config.noise_condition == "step" and (config.num_train_timesteps is None or config.sigma_data is not None):
        raise ValueError('`noise_condition` "step" needs `num_train_timesteps` and no `sigma_data`.')


def check_inputs(
    unet: Any,
    sample: Tensor,
    low_res: Tensor | None,
    low_res_timestep: Tensor | float | None,
    self_condition: Tensor | None,
    condition_image: Tensor | None,
) -> None:
    """Refuse inputs of `forward` that do not fit the U-Net, the arguments being those of `forward`.

    Raises:
        ValueError: naming the argument.
    """
    multiple, config = unet.size_multiple, unet.config
    if sample.shape[-2] % multiple or sample.shape[-1] % multiple:
        raise ValueError(
            f"`sample` is {sample.shape[-2]} x {sample.shape[-1]} pixels, but this U-Net takes multiples of "
            f"{multiple}; resize or pad it."
        )
    takes_low_res = config.low_res_channels > 0
    for name, value, taken in (
        ("low_res", low_res, takes_low_res),
        ("low_res_timestep", low_res_timestep, takes_low_res),
        ("condition_image", condition_image, config.condition_image_channels > 0),
    ):
        if (value is not None) != taken:
            raise ValueError(
                f"`{name}` is {'missing' if taken else 'given'}, but this U-Net {'needs' if taken else 'takes no'} one."
            )
    if self_condition is not None and not config.self_condition:
        raise ValueError("`self_condition` is given, but this U-Net was trained without.")
