# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""How the weights of older releases of imagen-pytorch, and of MinImagen, are named and shaped differently from 2.x.

Only names and shapes: what the networks compute is the U-Net's configuration. Called by `imagen_pytorch.py`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

State = dict[str, Tensor]


@dataclass(frozen=True)
class Layout:
    """The names and shapes of one range of releases.

    Args:
        release: the first of them.
        group_norm: whether residual blocks have group norms.
        wrapped: whether attention lies in a wrapper and feed-forwards are convolutions.
        strided: whether maps are halved by a plain convolution.
        channel_axes: axes of the gain of a norm over channels.
        gamma: whether other gains are called so and have a constant bias beside them.
        flat_layers: whether a transformer is a single layer (MinImagen).
    """

    release: str
    group_norm: bool = True
    wrapped: bool = False
    strided: bool = False
    channel_axes: int = 3
    gamma: bool = False
    flat_layers: bool = False


_ALL = (
    Layout("2.0", group_norm=False),
    Layout("1.22"),
    Layout("1.16"),
    Layout("1.11", wrapped=True),
    Layout("1.10", wrapped=True, strided=True),
    Layout("1.2", wrapped=True, strided=True, channel_axes=4),
    Layout("1.0", wrapped=True, strided=True, channel_axes=4, gamma=True),
    Layout("minimagen", wrapped=True, strided=True, channel_axes=4, gamma=True, flat_layers=True),
)
LAYOUTS: Mapping[str, Layout] = {layout.release: layout for layout in _ALL}

_BLOCK_NORM = re.compile(r"(\.block[12]|^upsample_combiner\.fmap_convs\.\d+)\.norm\.(weight|bias)$")
_GROUP_NORM = re.compile(r"(\.block[12]|^upsample_combiner\.fmap_convs\.\d+)\.groupnorm\.(weight|bias)$")
_TRANSFORMER = re.compile(r"^(downs\.\d+\.3|ups\.\d+\.2)\.")
_LAYER_ATTENTION = re.compile(r"^((?:downs\.\d+\.3|ups\.\d+\.2)\.layers\.\d+)\.0\.(?!fn\.)")
_WRAPPED_ATTENTION = re.compile(r"^((?:downs\.\d+\.3|ups\.\d+\.2)\.layers\.\d+)\.0\.fn\.")
_FEED_FORWARD = re.compile(r"^(?:downs\.\d+\.3|ups\.\d+\.2)\.layers\.\d+\.1\.")


def detect_layout(state: Mapping[str, Tensor]) -> Layout:
    """Tell from a U-Net's names and shapes which releases it can be of.

    Where several would do, for want of the parts in which they differ, the latest is returned.

    Args:
        state: one U-Net's weights, with imagen-pytorch's names.

    Raises:
        ValueError: what is no U-Net of imagen-pytorch's, or one for videos.
    """
    middle = "mid_block1.block1."
    if any("temporal" in name or "time_rel_pos" in name for name in state):
        raise ValueError("the U-Net is one for videos (`Unet3D`), which this package has no counterpart of.")
    if any(re.match(r"downs\.\d+\.[04]\.convs\.", name) for name in state):
        raise ValueError(
            "the U-Net is shrunk by several convolutions side by side (`cross_embed_downsample`), which no release of "
            "imagen-pytorch could make."
        )
    if middle + "norm.gamma" in state:
        return LAYOUTS["2.0"]
    if middle + "groupnorm.weight" not in state:
        raise ValueError("the state dict holds no `mid_block1`, as every U-Net of imagen-pytorch does.")
    if "mid_block1.cross_attn.fn.to_q.weight" not in state:
        return LAYOUTS["1.22" if "mid_block1.cross_attn.q_scale" in state else "1.16"]
    if any(re.search(r"\.attn\.fn\.", name) and _TRANSFORMER.match(name) for name in state):
        return LAYOUTS["minimagen"]
    if "mid_block1.cross_attn.fn.norm.gamma" in state:
        return LAYOUTS["1.0"]
    if any(name.endswith(".g") and tensor.ndim == 4 for name, tensor in state.items()):
        return LAYOUTS["1.2"]
    is_strided = any(re.fullmatch(r"downs\.\d+\.[04]\.weight", name) for name in state)
    return LAYOUTS["1.10" if is_strided else "1.11"]


def to_latest(state: Mapping[str, Tensor], layout: Layout) -> State:
    """Return weights with the names and shapes of 2.x; the tensors are views of those given.

    Raises:
        ValueError: a constant that is not what it always is, or names and shapes that are not this layout's.
    """
    linear = _linear_transformers(state)
    latest: State = {}
    for name, tensor in state.items():
        if layout.gamma and name.endswith(".beta") and name[: -len("beta")] + "gamma" in state:
            if tensor.any():
                raise ValueError(f"`{name}` is not zero, though nothing ever changes it; the file is damaged.")
            continue
        new = _latest_name(name, layout)
        latest[new] = _latest_shape(new, tensor, layout, new.split(".layers.")[0] in linear)
    back = from_latest(latest, layout)
    wrong = sorted(set(state) ^ set(back)) or [name for name in state if state[name].shape != back[name].shape]
    if wrong:
        raise ValueError(
            f"{len(wrong)} weights do not fit the layout of release {layout.release}: {', '.join(wrong[:5])}."
        )
    return latest


def from_latest(state: Mapping[str, Tensor], layout: Layout) -> State:
    """Return weights of 2.x's names and shapes with those of a layout, the inverse of `to_latest`."""
    linear = _linear_transformers(state)
    older: State = {}
    for name, tensor in state.items():
        is_linear = name.split(".layers.")[0] in linear
        old_tensor = _older_shape(name, tensor, layout, is_linear)
        old = _older_name(name, layout, is_linear)
        if layout.gamma and old.endswith(".g") and old_tensor.ndim == 1:
            stem = old[: -len("g")]
            older[stem + "gamma"], older[stem + "beta"] = old_tensor, torch.zeros_like(old_tensor)
        else:
            older[old] = old_tensor
    return older


def _linear_transformers(state: Mapping[str, Tensor]) -> set[str]:
    return {name.split(".layers.")[0] for name in state if name.endswith(".to_q.1.weight")}


def _latest_name(name: str, layout: Layout) -> str:
    if layout.flat_layers and _TRANSFORMER.match(name):
        name = name.replace(".attn.fn.", ".layers.0.0.").replace(".ff.", ".layers.0.1.")
    if layout.wrapped:
        name = name.replace(".cross_attn.fn.", ".cross_attn.").replace("mid_attn.fn.fn.", "mid_attn.layers.0.0.")
        name = _WRAPPED_ATTENTION.sub(r"\1.0.", name)
    if layout.strided:
        name = re.sub(r"^(downs\.\d+\.[04])\.(weight|bias)$", r"\1.1.\2", name)
    if layout.gamma and name.endswith(".gamma"):
        name = name[: -len("gamma")] + "g"
    return _GROUP_NORM.sub(r"\1.norm.\2", name)


def _older_name(name: str, layout: Layout, is_linear: bool) -> str:
    if layout.flat_layers and _TRANSFORMER.match(name):
        name = name.replace(".layers.0.0.", ".attn.fn.").replace(".layers.0.1.", ".ff.")
    if layout.wrapped:
        name = name.replace(".cross_attn.", ".cross_attn.fn.").replace("mid_attn.layers.0.0.", "mid_attn.fn.fn.")
        if not is_linear:
            name = _LAYER_ATTENTION.sub(r"\1.0.fn.", name)
    if layout.strided:
        name = re.sub(r"^(downs\.\d+\.[04])\.1\.(weight|bias)$", r"\1.\2", name)
    return _BLOCK_NORM.sub(r"\1.groupnorm.\2", name) if layout.group_norm else name


def _latest_shape(name: str, tensor: Tensor, layout: Layout, is_linear: bool) -> Tensor:
    """Take away the axes of length 1 that older releases' convolutions and gains have."""
    if not _TRANSFORMER.match(name):
        return tensor
    if is_linear:
        return tensor[0] if name.endswith(".g") and tensor.ndim == 4 == layout.channel_axes else tensor
    if layout.wrapped and _FEED_FORWARD.match(name) and tensor.ndim > 2:
        return tensor.flatten() if name.endswith(".g") else tensor.flatten(1)
    return tensor


def _older_shape(name: str, tensor: Tensor, layout: Layout, is_linear: bool) -> Tensor:
    """Put the axes of length 1 back."""
    if not _TRANSFORMER.match(name):
        return tensor
    is_gain = name.endswith(".g")
    if is_linear:
        return tensor[None] if is_gain and layout.channel_axes == 4 else tensor
    if layout.wrapped and _FEED_FORWARD.match(name):
        tensor = tensor[..., None, None]
        return tensor[None] if is_gain and layout.channel_axes == 4 else tensor
    return tensor
