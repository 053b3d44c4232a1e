# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Read a U-Net's configuration out of its weights. What they cannot tell is in `imagen_pytorch_options.py`.

Weights have the names of imagen-pytorch 2.x here, whatever release they come from. Called by `imagen_pytorch.py`.
"""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from diffusers_imagen.conversion.imagen_pytorch_layouts import Layout

State = Mapping[str, Tensor]
# Where no layer tells, nothing depends on it.
_NO_ATTENTION = (8, 64)


def undecided(state: State, layout: Layout, channels: int | None) -> list[str]:
    """Return the options of a U-Net that its weights leave open, by imagen-pytorch's names.

    Args:
        state: its weights.
        layout: what they were before.
        channels: colour channels, where they are known to differ from the prediction's.
    """
    names = ["scale_skip_connection"] if layout.release != "minimagen" else []
    if any(_level_types(state, "{}.1.cross_attn.to_q.weight")) and layout.release != "minimagen":
        names.append("use_linear_cross_attn")
    if layout.group_norm and layout.release != "minimagen":
        names.append("resnet_groups")
    if "mid_block1.cross_attn.q_scale" not in state and layout.release not in ("1.0", "minimagen"):
        names.append("cosine_sim_attn")
    if _extra_inputs(state, channels) >= (channels or _outputs(state)):
        names.append("self_cond")
    if _level_heads(state) is None and _inner_widths(state):
        names.append("attn_heads")
    return names


def infer_config(state: State, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of the configuration that says what the layers are.

    Args:
        state: a U-Net's weights with 2.x's names.
        options: what `undecided` names, and `channels` where it was given.

    Raises:
        ValueError: shapes that contradict one another.
    """
    T = _shape(state, "null_text_hidden", 2)[1]
    _, places, D = _shape(state, "null_text_embed", 3)
    channels = options.get("channels") or _outputs(state)
    is_enlargement = "to_lowres_time_hiddens.1.weight" in state
    base = T // (8 if is_enlargement else 4)
    widths = _level_widths(state)
    self_condition = bool(options.get("self_cond"))
    spare = _extra_inputs(state, channels) - channels * self_condition
    if spare < 0:
        raise ValueError(
            f"the first convolution of the U-Net has {-spare} input channels too few for `channels`, {channels}, and "
            f"`self_cond`, {str(self_condition).lower()}; change them."
        )
    kernels, init_channels = _first_convolution(state)
    heads, head_dim = _heads(state, options)
    cross_heads, cross_head_dim = _cross_heads(state)
    layer_types = _attention_types(state)
    config = {
        "in_channels": channels,
        "out_channels": _outputs(state),
        "low_res_channels": channels if is_enlargement else 0,
        "self_condition": self_condition,
        "condition_image_channels": spare,
        "base_channels": base,
        "init_channels": init_channels,
        "init_kernel_sizes": kernels,
        "init_cross_embed": "init_conv.weight" not in state,
        "stem_block": "init_resnet_block.block1.project.weight" in state,
        "block_out_channels": widths,
        "layers_per_block": tuple(_count(state, rf"downs\.{i}\.2\.(\d+)\.") for i in range(len(widths))),
        "attention_types": layer_types,
        "transformer_layers_per_block": tuple(
            max(1, _count(state, rf"downs\.{i}\.3\.layers\.(\d+)\.")) for i in range(len(widths))
        ),
        "cross_attention_types": _cross_attention_types(state, options, len(widths)),
        "mid_transformer_layers": _count(state, r"mid_attn\.layers\.(\d+)\."),
        "mid_feed_forward": "mid_attn.layers.0.1.1.weight" in state or "mid_attn.layers.0.0.to_q.weight" not in state,
        "attention_heads": heads,
        "attention_head_dim": head_dim,
        "cross_attention_heads": cross_heads,
        "cross_attention_head_dim": cross_head_dim,
        "similarity": _similarity(state, options),
        "attend_to_text": any(".to_context." in name for name in state) or set(layer_types) == {"none"},
        "feed_forward_mult": _feed_forward_mult(state),
        "norm_num_groups": _groups(state, options, len(widths)),
        "memory_efficient": "downs.0.0.1.weight" in state,
        "downsample_type": _downsample_type(state),
        "pixel_shuffle_upsample": not any(re.match(r"ups\.\d+\.3\.1\.", name) for name in state),
        "scale_skips": bool(options.get("scale_skip_connection", True)),
        "global_context": any(re.match(r"downs\.\d+\.2\.\d+\.gca|init_resnet_block\.gca", name) for name in state),
        "combine_up_maps": any(name.startswith("upsample_combiner.") for name in state),
        "final_block": "final_res_block.block1.project.weight" in state,
        "final_global_context": "final_res_block.gca.to_k.weight" in state,
        "final_kernel_size": _shape(state, "final_conv.weight", 4)[-1],
        "cross_attention_dim": D,
        "num_time_tokens": _shape(state, "to_time_tokens.0.weight", 2)[0] // D,
        "time_frequencies": _frequencies(state, "to_time_hiddens.0.weights"),
        "low_res_time_frequencies": _frequencies(state, "to_lowres_time_hiddens.0.weights"),
        "encoder_hid_dim": _shape(state, "text_to_cond.weight", 2)[1] if "text_to_cond.weight" in state else 1,
        "text_conditioned": "text_to_cond.weight" in state,
        "text_max_length": places,
        "text_latents": _shape(state, "attn_pool.latents", 2)[0] if "attn_pool.latents" in state else 0,
    }
    return config | _last_inputs(state, config)


def _frequencies(state: State, name: str) -> int | None:
    return 2 * _shape(state, name, 1)[0] if name in state else None


def _shape(state: State, name: str, axes: int) -> tuple[int, ...]:
    """Return the shape of a weight that says what the U-Net is like; all of them are looked up here.

    Raises:
        ValueError: a weight that is missing or has other axes, naming it.
    """
    if name not in state:
        raise ValueError(
            f"the U-Net lacks `{name}`, which it must have; the file is not whole, or of another program."
        )
    shape = tuple(state[name].shape)
    if len(shape) != axes or 0 in shape:
        raise ValueError(f"`{name}` of the U-Net has shape {shape}; {axes} axes were expected, and none of length 0.")
    return shape


def _outputs(state: State) -> int:
    return _shape(state, "final_conv.weight", 4)[0]


def _count(state: State, pattern: str) -> int:
    return len({match[1] for name in state if (match := re.match(pattern, name))})


def _level_types(state: State, template: str) -> list[bool]:
    levels = _count(state, r"downs\.(\d+)\.")
    return [template.format(f"downs.{level}") in state for level in range(levels)]


def _level_widths(state: State) -> tuple[int, ...]:
    widths = []
    for level in range(_count(state, r"downs\.(\d+)\.")):
        places = [f"downs.{level}.{place}.weight" for place in ("0.1", "4.1", "4.fns.0")]
        found = [_shape(state, place, 4)[0] for place in places if place in state]
        if not found:
            raise ValueError(f"level {level} of the U-Net has no convolution that leads to it or on from it.")
        widths.append(found[0])
    if not widths:
        raise ValueError("the U-Net has no `downs`.")
    return tuple(widths)


def _first_convolution(state: State) -> tuple[tuple[int, ...], int]:
    shapes = _first_shapes(state)
    return tuple(shape[-1] for shape in shapes), sum(shape[0] for shape in shapes)


def _first_shapes(state: State) -> list[tuple[int, ...]]:
    if "init_conv.weight" in state:
        return [_shape(state, "init_conv.weight", 4)]
    count = max(1, _count(state, r"init_conv\.convs\.(\d+)\."))
    return [_shape(state, f"init_conv.convs.{number}.weight", 4) for number in range(count)]


def _extra_inputs(state: State, channels: int | None) -> int:
    """Return how many channels go into the U-Net beside its picture and the smaller one."""
    channels = channels or _outputs(state)
    is_enlargement = "to_lowres_time_hiddens.1.weight" in state
    return _first_shapes(state)[0][1] - channels * (2 if is_enlargement else 1)


def _attention_types(state: State) -> tuple[str, ...]:
    full = _level_types(state, "{}.3.layers.0.0.to_q.weight")
    linear = _level_types(state, "{}.3.layers.0.0.to_q.1.weight")
    return tuple(
        "self" if is_full else "linear" if is_linear else "none"
        for is_full, is_linear in zip(full, linear, strict=True)
    )


def _cross_attention_types(state: State, options: Mapping[str, Any], levels: int) -> tuple[str, ...]:
    wanted, plain = options.get("use_linear_cross_attn", False), options.get("layer_cross_attns")
    linear = _by_level(wanted, levels)
    if plain is not None and _downsample_type(state) == "strided":
        linear = tuple(bool(wanted) and not is_plain for is_plain in _by_level(plain, levels))
    present = _level_types(state, "{}.1.cross_attn.to_q.weight")
    return tuple(
        ("linear" if is_linear else "softmax") if is_present else "none"
        for is_present, is_linear in zip(present, linear, strict=True)
    )


def _by_level(value: Any, levels: int) -> tuple[Any, ...]:
    values = tuple(value) if isinstance(value, list | tuple) else (value,) * levels
    if len(values) != levels:
        raise ValueError(f"{values!r} has {len(values)} values, but the U-Net has {levels} levels; give one each.")
    return values


def _level_heads(state: State) -> tuple[int, int] | None:
    """Return (heads, head width) of the transformers, which their learned null token gives away."""
    for prefix in _prefixes(state, r"(downs\.\d+\.3\.layers\.0\.0|mid_attn\.layers\.0\.0)\.null_kv"):
        head_dim = _shape(state, f"{prefix}.null_kv", 2)[1]
        return _shape(state, f"{prefix}.to_q.weight", 2)[0] // head_dim, head_dim
    # The text resampler's heads are the transformers'.
    if "attn_pool.layers.0.0.q_scale" in state:
        head_dim = _shape(state, "attn_pool.layers.0.0.q_scale", 1)[0]
        return _shape(state, "attn_pool.layers.0.0.to_q.weight", 2)[0] // head_dim, head_dim
    return None


def _inner_widths(state: State) -> list[int]:
    """Return the width of all heads together where it is all that the weights tell."""
    axes = {"attn_pool.layers.0.0.to_q.weight": 2} if "attn_pool.layers.0.0.to_q.weight" in state else {}
    axes |= {name: 4 for name in state if re.match(r"downs\.\d+\.3\.layers\.0\.0\.to_q\.1\.weight", name)}
    return [_shape(state, name, count)[0] for name, count in axes.items()]


def _heads(state: State, options: Mapping[str, Any]) -> tuple[int, int]:
    found = _level_heads(state)
    if found is not None:
        return found
    inner = _inner_widths(state)
    if not inner:
        return _NO_ATTENTION
    heads = options["attn_heads"]
    if inner[0] % heads:
        raise ValueError(f"`attn_heads` is {heads}, which does not divide the attention's width, {inner[0]}.")
    return heads, inner[0] // heads


def _cross_heads(state: State) -> tuple[int, int]:
    for prefix in _prefixes(state, r"(downs\.\d+\.1\.cross_attn)\.null_kv"):
        head_dim = _shape(state, f"{prefix}.null_kv", 2)[1]
        return _shape(state, f"{prefix}.to_q.weight", 2)[0] // head_dim, head_dim
    return _NO_ATTENTION


def _prefixes(state: State, pattern: str) -> list[str]:
    return [match[1] for name in state if (match := re.match(pattern, name))]


def _similarity(state: State, options: Mapping[str, Any]) -> str:
    if "mid_block1.cross_attn.q_scale" in state:
        return "rms"
    return "cosine" if options.get("cosine_sim_attn") else "dot"


def _groups(state: State, options: Mapping[str, Any], levels: int) -> tuple[int, ...] | None:
    if "mid_block1.block1.norm.gamma" in state or "mid_block1.block1.norm.g" in state:
        return None
    return tuple(int(groups) for groups in _by_level(options.get("resnet_groups", 8), levels))


def _downsample_type(state: State) -> str:
    for name in state:
        if re.fullmatch(r"downs\.\d+\.[04]\.1\.weight", name):
            return "strided" if _shape(state, name, 4)[-1] == 4 else "unshuffle"
    return "unshuffle"


def _feed_forward_mult(state: State) -> float:
    """Return a factor, of few digits where there is one, that gives all hidden widths, which are rounded down."""
    # In the middle it is 2, whatever was asked for.
    pattern = r"((?:downs|ups)\.\d+\.\d+\.layers\.0\.1\.1)\.weight"
    names = [f"{prefix}.weight" for prefix in _prefixes(state, pattern)]
    # After linear attention it is a convolution of one pixel.
    pairs = [_shape(state, name, 4 if state[name].ndim == 4 else 2)[:2] for name in names]
    if not pairs:
        return 2.0
    low, high = max(inner / dim for inner, dim in pairs), min((inner + 1) / dim for inner, dim in pairs)
    middle = (low + high) / 2
    for mult in (*(round(middle, digits) for digits in range(7)), low, middle):
        if all(int(dim * mult) == inner for inner, dim in pairs):
            return float(mult)
    raise ValueError(f"the feed-forwards' widths {pairs} have no common factor.")


def _last_inputs(state: State, config: Mapping[str, Any]) -> dict[str, bool]:
    """Tell what joins before the last block and the last convolution from their numbers of input channels."""
    base, last = config["base_channels"], _shape(state, "final_conv.weight", 4)[1]
    joined = base * (1 + len(config["block_out_channels"]) * config["combine_up_maps"])
    if config["final_block"]:
        rest = _shape(state, "final_res_block.block1.project.weight", 4)[1] - joined
        skip, low_res = rest == base, last - base == config["low_res_channels"] > 0
    else:
        skip = last - joined >= base
        low_res = last - joined - base * skip == config["low_res_channels"] > 0
    return {"init_to_final_skip": skip, "final_low_res": low_res}
