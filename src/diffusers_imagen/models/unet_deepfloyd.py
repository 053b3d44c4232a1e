# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""DeepFloyd IF's U-Net as it is, with what Diffusers' newer models can do: attention backends, compilation, text masks.

The weights are those of `UNet2DConditionModel`, under the same names. Legend: B batch, C channels, H W height and
width of a level, L text tokens, D text width.
"""

import functools
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.attention_dispatch import dispatch_attention_fn
from diffusers.models.attention_processor import Attention
from diffusers.models.embeddings import TextTimeEmbedding
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel, UNet2DConditionOutput
from torch import Tensor, nn

from diffusers_imagen.models.adapter_model import AdapterModel
from diffusers_imagen.models.repeated_blocks import RepeatedBlocksModel
from diffusers_imagen.models.spared_memory import SparingModel

# Diffusers looks for the base class of a component in the namespace of its module.
__all__ = ["DeepFloydUNet2DConditionModel", "ModelMixin"]

_TEXT_MASK = "text_mask"


class DeepFloydAttnProcessor:
    """Attend from image tokens to text and image tokens as DeepFloyd IF does, behind Diffusers' attention dispatch."""

    # Read and set by Diffusers' `set_attention_backend` and context parallelism.
    _attention_backend: Any = None
    _parallel_config: Any = None

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: Tensor | None = None,
    ) -> Tensor:
        """Return (B, C, H, W) for an image (B, C, H, W), a text (B, L, D) and its mask as a bias (B, 1, L)."""
        residual = hidden_states
        batch, pixels = len(hidden_states), hidden_states.shape[2:].numel()
        mask = None if attention_mask is None else attention_mask[:, 0] >= 0
        text = _normed_text(attn, encoder_hidden_states, mask)
        tokens = attn.group_norm(hidden_states.flatten(2)).transpose(1, 2)
        keys, values = [attn.add_k_proj(text)], [attn.add_v_proj(text)]
        if not attn.only_cross_attention:
            keys.append(attn.to_k(tokens))
            values.append(attn.to_v(tokens))
            mask = None if mask is None else torch.cat([mask, mask.new_ones(batch, pixels)], dim=1)
        attended = dispatch_attention_fn(
            attn.to_q(tokens).unflatten(-1, (attn.heads, -1)),
            torch.cat(keys, dim=1).unflatten(-1, (attn.heads, -1)),
            torch.cat(values, dim=1).unflatten(-1, (attn.heads, -1)),
            attn_mask=None if mask is None else mask[:, None, None, :],
            backend=self._attention_backend,
            parallel_config=self._parallel_config,
        )
        output = attn.to_out[1](attn.to_out[0](attended.flatten(2)))
        return output.transpose(1, 2).reshape(residual.shape) + residual


class DeepFloydUNet2DConditionModel(SparingModel, RepeatedBlocksModel, AdapterModel, UNet2DConditionModel):
    """Predict the noise, and how much of it to draw anew, as DeepFloyd IF's U-Nets do.

    The arguments are those of `UNet2DConditionModel`, and so are the weights: either class loads what the other saved,
    and without a mask both give the same. A mask, which IF itself never uses, hides the padding of texts from
    attention, from the text's normalisation and from its pooling; IF's pictures depend on padding to 77 tokens.
    """

    _supports_gradient_checkpointing = True
    _repeated_blocks = ["ResnetBlock2D", "Attention"]  # noqa: RUF012 (the host reads class attributes)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        with_text = {name for name, layer in self.named_modules() if getattr(layer, "added_kv_proj_dim", None)}
        processors = self.attn_processors
        if not with_text or {name.removesuffix(".processor") for name in processors} != with_text:
            raise ValueError(
                f"`down_block_types` is {self.config.down_block_types} and `mid_block_type` "
                f"{self.config.mid_block_type!r}, which is no U-Net of DeepFloyd IF; its attention is in "
                "SimpleCrossAttn blocks. Load other U-Nets as UNet2DConditionModel."
            )
        self.set_attn_processor({name: DeepFloydAttnProcessor() for name in processors})

    # What is saved and loaded is read from the constructor's signature.
    functools.update_wrapper(__init__, UNet2DConditionModel.__init__)

    @classmethod
    def sharing(cls, unet: UNet2DConditionModel) -> "DeepFloydUNet2DConditionModel":
        """Make a U-Net of this class around the weights of another one, without a copy: both keep them.

        Args:
            unet: a U-Net with DeepFloyd IF's layout, its weights in memory.

        Raises:
            ValueError: another layout, or weights that are offloaded or wrapped by adapters.
        """
        shared: DeepFloydUNet2DConditionModel = _sharing(cls, unet)
        return shared

    def as_plain(self) -> UNet2DConditionModel:
        """Return a `UNet2DConditionModel` around this U-Net's weights, for programs that know no other.

        Raises:
            ValueError: as `sharing`.
        """
        return _sharing(UNet2DConditionModel, self)

    @property
    def size_multiple(self) -> int:
        """What height and width must be multiples of."""
        return 2**self.num_upsamplers

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor | float | int,
        encoder_hidden_states: Tensor,
        class_labels: Tensor | None = None,
        timestep_cond: Tensor | None = None,
        attention_mask: Tensor | None = None,
        cross_attention_kwargs: dict[str, Any] | None = None,
        added_cond_kwargs: dict[str, Tensor] | None = None,
        down_block_additional_residuals: tuple[Tensor] | None = None,
        mid_block_additional_residual: Tensor | None = None,
        down_intrablock_additional_residuals: tuple[Tensor] | None = None,
        encoder_attention_mask: Tensor | None = None,
        return_dict: bool = True,
    ) -> UNet2DConditionOutput | tuple[Tensor]:
        """Predict noise and variance for images at a timestep.

        The arguments are those of `UNet2DConditionModel.forward`; the ones that matter here:

        Args:
            sample: (B, C, H, W) noisy images; for an enlargement followed by the smaller pictures on the channel axis.
            timestep: number or (B,), in [0, 1000).
            encoder_hidden_states: (B, L, D) text states.
            class_labels: (B,), for enlargements, the timestep that says how noisy the smaller pictures are.
            timestep_cond: see there, as for what follows.
            attention_mask: likewise.
            cross_attention_kwargs: likewise.
            added_cond_kwargs: likewise.
            down_block_additional_residuals: likewise.
            mid_block_additional_residual: likewise.
            down_intrablock_additional_residuals: likewise.
            encoder_attention_mask: (B, L) bool, True where a token is real; `None` for IF's own way, without a mask.
            return_dict: whether to return an output object or a tuple.
        """
        if encoder_attention_mask is not None:
            encoder_attention_mask = encoder_attention_mask.bool().clone()
            encoder_attention_mask[:, 0] = True  # attention needs something to look at in an empty text
            added_cond_kwargs = {**(added_cond_kwargs or {}), _TEXT_MASK: encoder_attention_mask}
        return super().forward(
            sample,
            timestep,
            encoder_hidden_states,
            class_labels=class_labels,
            timestep_cond=timestep_cond,
            attention_mask=attention_mask,
            cross_attention_kwargs=cross_attention_kwargs,
            added_cond_kwargs=added_cond_kwargs,
            down_block_additional_residuals=down_block_additional_residuals,
            mid_block_additional_residual=mid_block_additional_residual,
            down_intrablock_additional_residuals=down_intrablock_additional_residuals,
            encoder_attention_mask=encoder_attention_mask,
            return_dict=return_dict,
        )

    def get_aug_embed(
        self, emb: Tensor, encoder_hidden_states: Tensor, added_cond_kwargs: dict[str, Tensor] | None
    ) -> Tensor | None:
        """Pool the text as the parent does, under a mask where there is one."""
        mask = (added_cond_kwargs or {}).get(_TEXT_MASK)
        if mask is None or self.config.addition_embed_type != "text":
            return super().get_aug_embed(emb, encoder_hidden_states, added_cond_kwargs)
        return _pooled_text(self.add_embedding, encoder_hidden_states, mask)


def _normed_text(attn: Attention, text: Tensor, mask: Tensor | None) -> Tensor:
    """Normalise the text, a group norm over the real tokens only: the host's takes all of them together."""
    norm = attn.norm_cross
    if norm is None:
        return text
    if mask is None or not isinstance(norm, nn.GroupNorm):
        return attn.norm_encoder_hidden_states(text)
    grouped = text.unflatten(-1, (norm.num_groups, -1))
    real = mask[:, :, None, None]
    count = real.sum(1, keepdim=True) * grouped.shape[-1]
    centred = (grouped - (grouped * real).sum((1, 3), keepdim=True) / count) * real
    variance = centred.square().sum((1, 3), keepdim=True) / count
    return (centred * torch.rsqrt(variance + norm.eps)).flatten(2) * norm.weight + norm.bias


def _pooled_text(embedding: TextTimeEmbedding, text: Tensor, mask: Tensor) -> Tensor:
    """Do what `TextTimeEmbedding` does, with the real tokens only."""
    pool = embedding.pool
    tokens = embedding.norm1(text)
    real = mask[..., None]
    mean = (tokens * real).sum(1, keepdim=True) / real.sum(1, keepdim=True)
    first = mean + pool.positional_embedding.to(tokens.dtype)
    tokens = torch.cat([first, tokens], dim=1)
    query, key, value = (
        projection(states).unflatten(-1, (pool.num_heads, -1)).transpose(1, 2)
        for projection, states in ((pool.q_proj, first), (pool.k_proj, tokens), (pool.v_proj, tokens))
    )
    visible = torch.cat([mask.new_ones(len(mask), 1), mask], dim=1)[:, None, None]
    pooled = F.scaled_dot_product_attention(query, key, value, attn_mask=visible)
    return embedding.norm2(embedding.proj(pooled.transpose(1, 2).flatten(1)))


def _sharing(target: type[UNet2DConditionModel], unet: UNet2DConditionModel) -> Any:
    if any(weight.is_meta for weight in unet.parameters()):
        raise ValueError("`unet` has weights that are offloaded; remove its hooks first (`remove_all_hooks()`).")
    if getattr(unet, "peft_config", None):
        raise ValueError("`unet` has adapters attached; merge them or take them off (`unload_lora()`) first.")
    with torch.device("meta"):
        model = target.from_config(unet.config)
    trained = {name: weight.requires_grad for name, weight in unet.named_parameters()}
    model.load_state_dict(unet.state_dict(keep_vars=True), strict=True, assign=True)
    for name, weight in model.named_parameters():
        weight.requires_grad_(trained[name])
    return model.train(unet.training)
