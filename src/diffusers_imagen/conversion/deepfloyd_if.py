# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""DeepFloyd IF's original U-Nets to Diffusers' layout and back: state dict to state dict, every key accounted for.

The original files' `config.yml` says what the U-Net is like, `convert` renames and reshapes its weights, `restore`
undoes that. Files are read and written by `deepfloyd_files.py`. Legend: H heads, n of query, key and value stored
together, C channels of a head, W input width.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

# Everything that the original U-Nets' constructors take, which is what a `config.yml` may hold.
_NEEDED = (
    "in_channels",
    "model_channels",
    "out_channels",
    "num_res_blocks",
    "attention_resolutions",
    "channel_mult",
    "encoder_dim",
    "att_pool_heads",
    "encoder_channels",
    "image_size",
    "num_head_channels",
)
# What Diffusers' layout knows in one way only, and the original's default.
_FIXED = {
    "resblock_updown": (True, False),
    "use_scale_shift_norm": (True, False),
    "num_classes": (None, None),
    "dims": (2, 2),
}
_FREE = (
    "activation",
    "disable_self_attentions",
    "dropout",
    "efficient_activation",
    "scale_skip_connection",
    "interpolate_mode",
    # Without a meaning for the weights or for the picture: precision is the file's own.
    "conv_resample",
    "num_heads",
    "num_heads_upsample",
    "precision",
)
_ACTIVATIONS = {"gelu": "gelu", "gelu_jit": "gelu", "silu": "silu"}
_SKIP_SCALE = 1 / 0.7071

_RESNET = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
_ATTENTION = {"norm": "group_norm", "norm_encoder": "norm_cross"}
_OUTSIDE = {
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "aug_proj.0": "class_embedding.linear_1",
    "aug_proj.2": "class_embedding.linear_2",
    "input_blocks.0.0": "conv_in",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
    "encoder_proj": "encoder_hid_proj",
    "encoder_pooling.0": "add_embedding.norm1",
    "encoder_pooling.1.q_proj": "add_embedding.pool.q_proj",
    "encoder_pooling.1.k_proj": "add_embedding.pool.k_proj",
    "encoder_pooling.1.v_proj": "add_embedding.pool.v_proj",
    "encoder_pooling.2": "add_embedding.proj",
    "encoder_pooling.3": "add_embedding.norm2",
}


@dataclass(frozen=True)
class Move:
    """A tensor of the original and what it becomes.

    Args:
        source: its original name.
        targets: names in Diffusers' layout: one, or of attention's query, key and value those that it holds.
        kind: "same"; "linear" for a convolution of width 1 that becomes a linear layer; "heads" for one that moreover
            holds all targets side by side in every head.
    """

    source: str
    targets: tuple[str, ...]
    kind: Literal["same", "linear", "heads"] = "same"


def unet_config(params: Mapping[str, Any], sample_size: int | None = None) -> dict[str, Any]:
    """Return the arguments of `UNet2DConditionModel` for an original U-Net.

    Args:
        params: what the original's `config.yml` has under `params`.
        sample_size: side of the pictures; `None` for what `params` says.

    Raises:
        ValueError: a setting that is missing, unknown, or has no counterpart.
    """
    _check_params(params)
    multipliers = _numbers(params["channel_mult"])
    channels = tuple(params["model_channels"] * multiplier for multiplier in multipliers)
    at = {params["image_size"] // resolution for resolution in _numbers(params["attention_resolutions"])}
    attends = [2**level in at for level in range(len(channels))]
    layers = params["num_res_blocks"]
    config: dict[str, Any] = {
        "sample_size": params["image_size"] if sample_size is None else sample_size,
        "in_channels": params["in_channels"],
        "out_channels": params["out_channels"],
        "block_out_channels": channels,
        "layers_per_block": layers if isinstance(layers, int) else tuple(layers),
        "down_block_types": tuple(_block("Down", attention) for attention in attends),
        "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
        "up_block_types": tuple(_block("Up", attention) for attention in reversed(attends)),
        "act_fn": _ACTIVATIONS[params.get("activation", "gelu")],
        "dropout": params.get("dropout", 0),
        "attention_head_dim": params["num_head_channels"],
        "cross_attention_dim": params["encoder_channels"],
        "cross_attention_norm": "group_norm",
        "only_cross_attention": _attends_text_only(params),
        "encoder_hid_dim": None if params["encoder_dim"] == params["encoder_channels"] else params["encoder_dim"],
        "addition_embed_type": "text",
        "addition_embed_type_num_heads": params["att_pool_heads"],
        "resnet_time_scale_shift": "scale_shift",
        "time_embedding_dim": params["model_channels"] * max(multipliers),
    }
    if enlarges(params):
        config["class_embed_type"] = "timestep"
    if params.get("efficient_activation"):
        config |= {"resnet_skip_time_act": True, "time_embedding_act_fn": config["act_fn"]}
    if params.get("scale_skip_connection"):
        config |= {"resnet_out_scale_factor": _SKIP_SCALE, "mid_block_scale_factor": _SKIP_SCALE}
    return config


def enlarges(params: Mapping[str, Any]) -> bool:
    """Say whether an original U-Net takes a smaller picture beside the noisy one."""
    return bool(params["in_channels"] == 6)


def expected_shapes(config: Mapping[str, Any]) -> dict[str, torch.Size]:
    """Return the shapes of the weights by name that `UNet2DConditionModel` has with these arguments."""
    with torch.device("meta"):
        model = UNet2DConditionModel(**config)
    return {name: weight.shape for name, weight in model.state_dict().items()}


def moves(config: Mapping[str, Any], expected: Mapping[str, torch.Size]) -> list[Move]:
    """Return where every tensor of an original U-Net goes.

    Args:
        config: as `unet_config` returns it.
        expected: as `expected_shapes` returns it.
    """
    found = [
        Move(f"{source}.{part}", (f"{target}.{part}",))
        for source, target in _OUTSIDE.items()
        for part in ("weight", "bias")
    ]
    found.append(Move("encoder_pooling.1.positional_embedding", ("add_embedding.pool.positional_embedding",)))
    found += [move for source, target in _blocks(config) for move in _block_moves(source, target, expected)]
    return [move for move in found if move.targets[0] in expected]


def convert(state_dict: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return an original U-Net's weights in Diffusers' layout; those that are only renamed are not copied.

    Args:
        state_dict: the original's weights.
        config: as `unet_config` returns it.

    Raises:
        ValueError: a weight that is missing, left over or of another shape.
    """
    expected = expected_shapes(config)
    plan = moves(config, expected)
    check_keys(state_dict, [move.source for move in plan], "the checkpoint")
    converted: dict[str, Tensor] = {}
    for move in plan:
        converted |= moved(move, state_dict[move.source], config["attention_head_dim"])
    check_keys(converted, list(expected), "what the checkpoint becomes")
    wrong = [name for name, shape in expected.items() if converted[name].shape != shape]
    if wrong:
        name = wrong[0]
        raise ValueError(
            f"{len(wrong)} weights have another shape than `config.yml` says, first {name!r}: "
            f"{tuple(converted[name].shape)} for {tuple(expected[name])}; give the file and the config of one model."
        )
    return converted


def restore(state_dict: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return weights in Diffusers' layout as the original has them, the inverse of `convert`.

    Args:
        state_dict: weights of a `UNet2DConditionModel`.
        config: its arguments, as `unet_config` returns them.

    Raises:
        ValueError: a weight that is missing or left over.
    """
    expected = expected_shapes(config)
    check_keys(state_dict, list(expected), "the U-Net")
    head = config["attention_head_dim"]
    original = {}
    for move in moves(config, expected):
        parts = [state_dict[target] for target in move.targets]
        if move.kind == "heads":
            stacked = torch.stack([part.unflatten(0, (-1, head)) for part in parts], dim=1).flatten(0, 2)
        else:
            stacked = parts[0]
        is_convolution = move.kind != "same" and stacked.ndim == 2
        original[move.source] = stacked[..., None] if is_convolution else stacked
    return original


def moved(move: Move, tensor: Tensor, head_dim: int) -> dict[str, Tensor]:
    """Return what a tensor of the original becomes.

    Args:
        move: where it goes.
        tensor: the original's.
        head_dim: C.

    Raises:
        ValueError: a shape that cannot be divided so.
    """
    if move.kind == "same":
        return {move.targets[0]: tensor}
    shape = tuple(tensor.shape)
    tensor = tensor.squeeze(-1) if tensor.ndim == 3 else tensor
    if move.kind == "linear":
        return {move.targets[0]: tensor}
    count = len(move.targets)
    if tensor.shape[0] % (count * head_dim):
        raise ValueError(
            f"{move.source!r} is {shape}, which are no {count} parts in heads of {head_dim}; give the "
            "file and the config of one model."
        )
    by_head = tensor.unflatten(0, (-1, count, head_dim))  # (H, n, C, W)
    return {target: by_head[:, place].flatten(0, 1) for place, target in enumerate(move.targets)}


def check_keys(found: Mapping[str, Any], wanted: list[str], place: str) -> None:
    """Refuse missing and left-over names.

    Args:
        found: what is there, by name.
        wanted: what must be there, and nothing else.
        place: where, for the message.

    Raises:
        ValueError: naming them.
    """
    for names, what in (
        (sorted(set(wanted) - set(found)), "lacks {} weights that `config.yml` asks for"),
        (sorted(set(found) - set(wanted)), "has {} weights that `config.yml` does not ask for"),
    ):
        if names:
            listed = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
            raise ValueError(
                f"{place} {what.format(len(names))}: {listed}; give the file and the config of one model."
            )


def _blocks(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the names of residual and attention blocks, the original's and Diffusers'."""
    attends = ["CrossAttn" in kind for kind in config["down_block_types"]]
    layers = config["layers_per_block"]
    depths = [layers] * len(attends) if isinstance(layers, int) else list(layers)
    last, number = len(depths) - 1, 1
    for level, depth in enumerate(depths):
        for layer in range(depth):
            yield f"input_blocks.{number}.0", f"down_blocks.{level}.resnets.{layer}"
            yield f"input_blocks.{number}.1", f"down_blocks.{level}.attentions.{layer}"
            number += 1
        if level != last:
            yield f"input_blocks.{number}.0", f"down_blocks.{level}.downsamplers.0"
            number += 1
    yield "middle_block.0", "mid_block.resnets.0"
    yield "middle_block.1", "mid_block.attentions.0"
    yield "middle_block.2", "mid_block.resnets.1"
    number = 0
    for level in reversed(range(len(depths))):
        for layer in range(depths[level] + 1):
            yield f"output_blocks.{number}.0", f"up_blocks.{last - level}.resnets.{layer}"
            yield f"output_blocks.{number}.1", f"up_blocks.{last - level}.attentions.{layer}"
            if level and layer == depths[level]:
                yield f"output_blocks.{number}.{1 + attends[level]}", f"up_blocks.{last - level}.upsamplers.0"
            number += 1


def _block_moves(source: str, target: str, expected: Mapping[str, torch.Size]) -> Iterator[Move]:
    names = _ATTENTION if ".attentions." in target else _RESNET
    for part in ("weight", "bias"):
        for old, new in names.items():
            yield Move(f"{source}.{old}.{part}", (f"{target}.{new}.{part}",))
        if names is _ATTENTION:
            of_image = tuple(f"{target}.{name}.{part}" for name in ("to_q", "to_k", "to_v"))
            of_text = tuple(f"{target}.{name}.{part}" for name in ("add_k_proj", "add_v_proj"))
            # Without self-attention there is a query only.
            if of_image[0] in expected:
                yield Move(f"{source}.qkv.{part}", tuple(name for name in of_image if name in expected), "heads")
            yield Move(f"{source}.encoder_kv.{part}", of_text, "heads")
            yield Move(f"{source}.proj_out.{part}", (f"{target}.to_out.0.{part}",), "linear")


def _attends_text_only(params: Mapping[str, Any]) -> bool:
    disabled = params.get("disable_self_attentions")
    if isinstance(disabled, bool | int | None) or not disabled:
        return bool(disabled)
    if set(_numbers(disabled)) != set(_numbers(params["attention_resolutions"])):
        raise ValueError(
            f"`disable_self_attentions` of config.yml is {disabled!r}; Diffusers' layout of IF has no self-attention at "
            "some levels only."
        )
    return True


def _block(way: str, attends: bool) -> str:
    if attends:
        return f"SimpleCrossAttn{way}Block2D"
    return "ResnetDownsampleBlock2D" if way == "Down" else "ResnetUpsampleBlock2D"


def _numbers(value: Any) -> list[int]:
    return [int(part) for part in value.split(",")] if isinstance(value, str) else [int(part) for part in value]


def _check_params(params: Mapping[str, Any]) -> None:
    missing = [name for name in _NEEDED if name not in params]
    if missing:
        raise ValueError(f"`params` of config.yml lacks {missing}; give the config.yml that came with the weights.")
    unknown = sorted(set(params) - {*_NEEDED, *_FIXED, *_FREE})
    if unknown:
        raise ValueError(
            f"`params` of config.yml has {unknown}, which no U-Net of DeepFloyd IF takes; leave them out."
        )
    for name, (only, default) in _FIXED.items():
        if params.get(name, default) != only:
            raise ValueError(
                f"`{name}` of config.yml is {params.get(name, default)!r}, which Diffusers' layout of IF has no "
                f"counterpart for; only {only!r} can be converted."
            )
    if params["num_head_channels"] < 1:
        raise ValueError(
            f"`num_head_channels` of config.yml is {params['num_head_channels']}; only heads of one width can be converted."
        )
    if params.get("activation", "gelu") not in _ACTIVATIONS:
        raise ValueError(
            f"`activation` of config.yml is {params['activation']!r}; there is {', '.join(_ACTIVATIONS)}."
        )
