# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""The names of weights: imagen-pytorch 2.x to ours and back. Older releases' names are in `imagen_pytorch_layouts.py`.

A rule is a pair of templates, where {n} stands for a number. All rules are applied in turn, so each says something
about one part of a name. Called by `imagen_pytorch.py`.
"""

import re
from collections.abc import Iterable

# Each with the part of a name that it is about: "^" the beginning, "$" the end.
_RULES = (
    ("^to_time_hiddens.0.weights$", "^noise_embedding.sinusoids.frequencies$"),
    ("^to_time_hiddens.1.", "^noise_embedding.hidden."),
    ("^to_time_cond.0.", "^noise_embedding.to_vector."),
    ("^to_time_tokens.0.", "^noise_embedding.to_tokens."),
    ("^to_lowres_time_hiddens.0.weights$", "^low_res_noise_embedding.sinusoids.frequencies$"),
    ("^to_lowres_time_hiddens.1.", "^low_res_noise_embedding.hidden."),
    ("^to_lowres_time_cond.0.", "^low_res_noise_embedding.to_vector."),
    ("^to_lowres_time_tokens.0.", "^low_res_noise_embedding.to_tokens."),
    ("^null_text_embed$", "^null_text_tokens$"),
    ("^null_text_hidden$", "^null_text_vector$"),
    ("^norm_cond.", "^norm_tokens."),
    ("^text_to_cond.", "^text_proj."),
    ("^to_text_non_attn_cond.0.", "^text_vector.norm."),
    ("^to_text_non_attn_cond.1.", "^text_vector.proj_in."),
    ("^to_text_non_attn_cond.3.", "^text_vector.proj_out."),
    ("^attn_pool.", "^text_resampler."),
    ("^text_resampler.pos_emb.", "^text_resampler.positions."),
    ("^text_resampler.to_latents_from_mean_pooled_seq.0.g$", "^text_resampler.mean_norm.gain$"),
    ("^text_resampler.to_latents_from_mean_pooled_seq.1.", "^text_resampler.mean_to_latents."),
    ("^init_conv.", "^conv_in."),
    ("^init_resnet_block.", "^init_block."),
    ("^downs.{n}.0.1.", "^down_levels.{n}.downsample_first.conv."),
    ("^downs.{n}.1.", "^down_levels.{n}.attending_block."),
    ("^downs.{n}.2.", "^down_levels.{n}.blocks."),
    ("^downs.{n}.3.", "^down_levels.{n}.transformer."),
    ("^downs.{n}.4.1.", "^down_levels.{n}.downsample_last.conv."),
    ("^downs.{n}.4.fns.0.", "^down_levels.{n}.downsample_last.conv3."),
    ("^downs.{n}.4.fns.1.", "^down_levels.{n}.downsample_last.conv1."),
    ("^mid_attn.", "^mid_transformer."),
    ("^ups.{n}.0.", "^up_levels.{n}.attending_block."),
    ("^ups.{n}.1.", "^up_levels.{n}.blocks."),
    ("^ups.{n}.2.", "^up_levels.{n}.transformer."),
    ("^ups.{n}.3.net.0.", "^up_levels.{n}.upsample.expand."),
    ("^ups.{n}.3.1.", "^up_levels.{n}.upsample.conv."),
    ("^upsample_combiner.fmap_convs.{n}.", "^map_combiner.blocks.{n}."),
    ("^map_combiner.blocks.{n}.project.", "^map_combiner.blocks.{n}.conv."),
    ("^final_res_block.", "^last_block."),
    ("^final_conv.", "^conv_out."),
    # Within residual blocks.
    (".time_mlp.1.", ".film."),
    (".norm.gamma$", ".norm.scale$"),
    (".block1.project.", ".block1.conv."),
    (".block2.project.", ".block2.conv."),
    (".cross_attn.", ".cross_attention."),
    (".gca.to_k.", ".global_context.to_weight."),
    (".gca.net.0.", ".global_context.conv_in."),
    (".gca.net.2.", ".global_context.conv_out."),
    (".res_conv.", ".skip."),
    # Within transformers and the text resampler.
    (".layers.{n}.0.", ".layers.{n}.attention."),
    (".layers.{n}.1.0.g$", ".layers.{n}.feed_forward.norm_in.gain$"),
    (".layers.{n}.1.1.weight$", ".layers.{n}.feed_forward.proj_in.weight$"),
    (".layers.{n}.1.3.g$", ".layers.{n}.feed_forward.norm_hidden.gain$"),
    (".layers.{n}.1.4.weight$", ".layers.{n}.feed_forward.proj_out.weight$"),
    # Within attention.
    (".norm.g$", ".norm.gain$"),
    (".q_scale$", ".similarities.q_scale$"),
    (".k_scale$", ".similarities.k_scale$"),
    (".to_context.0.", ".context_norm."),
    (".to_context.1.", ".context_to_kv."),
    (".to_out.0.weight$", ".to_out.weight$"),
    (".to_out.1.g$", ".norm_out.gain$"),
    (".to_out.1.weight$", ".norm_out.weight$"),
    (".to_out.1.bias$", ".norm_out.bias$"),
    (".to_q.1.weight$", ".to_q.pointwise.weight$"),
    (".to_q.2.weight$", ".to_q.depthwise.weight$"),
    (".to_k.1.weight$", ".to_k.pointwise.weight$"),
    (".to_k.2.weight$", ".to_k.depthwise.weight$"),
    (".to_v.1.weight$", ".to_v.pointwise.weight$"),
    (".to_v.2.weight$", ".to_v.depthwise.weight$"),
)


def _pattern(template: str) -> re.Pattern[str]:
    anchored = re.escape(template.strip("^$")).replace(r"\{n\}", r"(\d+)")
    return re.compile("^" * template.startswith("^") + anchored + "$" * template.endswith("$"))


def _replacement(template: str) -> str:
    return template.strip("^$").replace("{n}", r"\g<1>")


_TO_OURS = [(_pattern(theirs), _replacement(ours)) for theirs, ours in _RULES]
_TO_THEIRS = [(_pattern(ours), _replacement(theirs)) for theirs, ours in reversed(_RULES)]


def our_name(name: str) -> str:
    """Return this package's name of a weight of imagen-pytorch 2.x."""
    for pattern, replacement in _TO_OURS:
        name = pattern.sub(replacement, name, count=1)
    return name


def their_name(name: str) -> str:
    """Return imagen-pytorch 2.x's name of a weight of this package."""
    for pattern, replacement in _TO_THEIRS:
        name = pattern.sub(replacement, name, count=1)
    return name


def check_names(names: Iterable[str]) -> None:
    """Refuse names that do not survive the way there and back.

    Raises:
        ValueError: naming some of them.
    """
    wrong = [name for name in names if their_name(our_name(name)) != name]
    if wrong:
        raise ValueError(f"the state dict holds names that no U-Net of imagen-pytorch has: {', '.join(wrong[:5])}.")
