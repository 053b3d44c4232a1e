# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""A U-Net that is made worse in some of its blocks, for guidance that moves away from what it then predicts.

Diffusers' own hooks know transformer blocks only. Called by the pipelines.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusers_imagen.models.attention import ImagenAttention, ImagenAttentionBlock, TextKeys
from diffusers_imagen.models.blocks import ImagenBlock
from diffusers_imagen.models.stage_model import ImagenStageModel, Prediction
from diffusers_imagen.models.unet import ImagenUNet

Places = Sequence[tuple[str, Sequence[int]]]
_NO_SELF_ATTENTION = "perturbed: the others have no self-attention, or do not exist"
Hook = Callable[[Any, tuple[Any, ...], Tensor], Tensor]


class WorsenedModel(ImagenStageModel):
    """Asks one of this package's U-Nets as if some of its modules gave other outputs.

    Args:
        unet: it is left as it is between calls.
        modules: within it.
        hook: gets a module, its inputs and its output, and returns the other output.
    """

    def __init__(self, unet: ImagenUNet, modules: Sequence[nn.Module], hook: Hook) -> None:
        super().__init__(unet)
        self._modules = modules
        self._hook = hook

    def predict(
        self,
        x_t: Tensor,
        log_snr: Tensor,
        text: Tensor,
        text_mask: Tensor,
        low_res: Tensor | None = None,
        noise_level: Tensor | None = None,
    ) -> Prediction:
        """See `StageModel.predict`."""
        with ExitStack() as stack:
            for module in self._modules:
                stack.callback(module.register_forward_hook(self._hook).remove)
            return super().predict(x_t, log_snr, text, text_mask, low_res, noise_level)


def without_blocks(unet: ImagenUNet, places: Places) -> WorsenedModel:
    """Return a U-Net of which some blocks hand on what they get.

    Args:
        unet: one of this package's.
        places: names of lists of blocks within it, such as "mid_blocks" or "down_levels.0", and which of each list's.

    Raises:
        ValueError: a list that the U-Net does not have, or a block in it that does not exist or changes the width.
    """
    reason = "skipped: the others change the width, or do not exist"
    blocks = _chosen(unet, places, lambda block: isinstance(block.resnet.skip, nn.Identity), reason)
    return WorsenedModel(unet, blocks, _hand_on)


def without_self_attention(unet: ImagenUNet, places: Places) -> WorsenedModel:
    """Return a U-Net in some of whose blocks each place of the picture attends to itself and the text alone.

    This is the identity in place of the self-attention map (arXiv:2403.17377, section 4), where picture and text share
    one softmax.

    Args:
        unet: one of this package's.
        places: as for `without_blocks`.

    Raises:
        ValueError: a list that the U-Net does not have, or a block in it that does not exist or has no self-attention.
    """
    blocks = _chosen(unet, places, _attends_to_image, _NO_SELF_ATTENTION)
    return WorsenedModel(unet, [block.attention.attn for block in blocks], _attend_to_itself)


def with_blurred_queries(unet: ImagenUNet, places: Places, blur_sigma: float) -> WorsenedModel:
    """Return a U-Net in some of whose blocks the queries of the attention are blurred (arXiv:2408.00760, section 3.3).

    Args:
        unet: one of this package's.
        places: as for `without_blocks`.
        blur_sigma: of the Gaussian, in places of the block's map, above 0; infinite for the mean of all.

    Raises:
        ValueError: as `without_self_attention`.
    """
    blocks = _chosen(unet, places, _attends_to_image, _NO_SELF_ATTENTION)
    return WorsenedModel(unet, [block.attention for block in blocks], partial(_blur_queries, sigma=blur_sigma))


def _chosen(unet: ImagenUNet, places: Places, is_fit: Callable[[Any], bool], reason: str) -> list[Any]:
    there = {path: stack for path, stack in unet.named_modules() if _is_stack(stack)}
    chosen = []
    for name, indices in places:
        if name not in there:
            raise ValueError(
                f"`fqn` is {name!r}, but the U-Net's lists of blocks are {', '.join(there)}; name one of them."
            )
        blocks = list(there[name].children())
        fit = [index for index, block in enumerate(blocks) if is_fit(block)]
        if not indices or not set(indices) <= set(fit):
            raise ValueError(
                f"`indices` is {list(indices)}, but of {name!r} {fit or 'none'} can be {reason}; choose others."
            )
        chosen += [blocks[index] for index in indices]
    return chosen


def _is_stack(module: nn.Module) -> bool:
    return isinstance(module, nn.ModuleList) and len(module) > 0 and all(isinstance(m, ImagenBlock) for m in module)


def _attends_to_image(block: Any) -> bool:
    return block.attention is not None and block.attention.attn.to_k is not None


def _hand_on(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
    h: Tensor = args[0]
    return h


def _attend_to_itself(attn: ImagenAttention, args: tuple[Any, ...], output: Tensor) -> Tensor:
    tokens, text, text_mask = args[:3]
    memo: TextKeys = args[3] if len(args) > 3 and args[3] else [(attn.add_k_proj(text), attn.add_v_proj(text))]

    def heads(values: Tensor) -> Tensor:
        return values.unflatten(-1, (attn.heads, -1)).transpose(1, 2)  # (B, heads, N or L, D)

    assert attn.to_k is not None
    assert attn.to_v is not None
    query, key, value = (heads(layer(tokens)) for layer in (attn.to_q, attn.to_k, attn.to_v))
    text_key, text_value = (heads(values) for values in memo[0])
    to_text = (query @ text_key.transpose(-1, -2)).masked_fill(~text_mask[:, None, None, :], -torch.inf)
    scores = torch.cat([(query * key).sum(-1, keepdim=True), to_text], dim=-1)
    weights = (scores * query.shape[-1] ** -0.5).softmax(-1)
    attended = weights[..., :1] * value + weights[..., 1:] @ text_value
    return attn.to_out[0](attended.transpose(1, 2).flatten(2))


def _blur_queries(block: ImagenAttentionBlock, args: tuple[Any, ...], output: Tensor, sigma: float) -> Tensor:
    size = args[0].shape[-2:]
    handle = block.attn.to_q.register_forward_hook(lambda module, inputs, query: _blurred(query, size, sigma))
    try:
        return block.forward(*args)
    finally:
        handle.remove()


def _blurred(query: Tensor, size: torch.Size, sigma: float) -> Tensor:
    """Blur (B, H * W, C) over the map of height and width `size`, mirrored at its edges."""
    if math.isinf(sigma):
        return query.mean(1, keepdim=True).expand_as(query)
    maps = query.transpose(1, 2).unflatten(2, size)
    for axis, side in ((2, size[0]), (3, size[1])):
        radius = min(math.ceil(3 * sigma), side - 1)
        kernel = torch.exp(-0.5 * (torch.arange(-radius, radius + 1, device=maps.device) / sigma) ** 2)
        kernel = (kernel / kernel.sum()).to(maps.dtype)
        padding = (0, 0, radius, radius) if axis == 2 else (radius, radius, 0, 0)
        windows = F.pad(maps, padding, mode="reflect").unfold(axis, 2 * radius + 1, 1)
        maps = windows @ kernel
    return maps.flatten(2).transpose(1, 2)
