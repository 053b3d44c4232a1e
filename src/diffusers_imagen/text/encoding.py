# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Encode prompts with any Hugging Face text model into hidden states and a mask.

T5-like encoders, encoder-decoders, BERT-like models, CLIP's text model and decoder language models all go through
`encode_text`. Called by the pipelines for each prompt and by `cache.py` for training captions.
"""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from diffusers_imagen.text.captions import Captions, check_characters, prepared_captions
from diffusers_imagen.text.templates import split_template
from diffusers_imagen.text.tokens import TemplateTokens, TokenRow, tokenize


@dataclass(frozen=True)
class TextSettings:
    """Say how prompts become embeddings; saved with a pipeline, since its U-Nets depend on it.

    Args:
        layers: Hidden layers to take, concatenated on the last axis; 0 is the token embeddings, negative numbers count
            from the last layer.
        prefix: Put before every prompt, as some encoders were trained with, such as "query: ".
        max_length: Tokens kept of a prompt, special tokens and prefix included, at least 1.
        padding: "longest" pads to the longest prompt of the call, "max_length" always to `max_length`.
        null_empty: Give an empty prompt a mask without a single token, so that a U-Net uses its learned null text.
        masked: Mask the padding. Without, the encoder's states of the padding are text as well, as DeepFloyd IF has it.
        captions: What is done to a prompt first, "as_is" for nothing; see `captions.py`.
        template: Text around prefix and prompt that holds "{prompt}" once, for language models that follow
            instructions; `templates.chat_template` makes it. It holds all special tokens itself. None for nothing.
        template_tokens: Which of the template's own tokens U-Nets see, and `max_length` counts: "none", those "after"
            the prompt, which have read it in a decoder, or "all".

    Raises:
        ValueError: If a value is outside what is said above.
    """

    layers: tuple[int, ...] = (-1,)
    prefix: str = ""
    max_length: int = 128
    padding: Literal["longest", "max_length"] = "longest"
    null_empty: bool = True
    masked: bool = True
    captions: Captions = "as_is"
    template: str | None = None
    template_tokens: TemplateTokens = "none"

    def __post_init__(self) -> None:
        """Take lists, as JSON gives them, for `layers`, and check the rest."""
        object.__setattr__(self, "layers", tuple(self.layers))
        if not self.layers or not all(isinstance(layer, int) for layer in self.layers):
            raise ValueError(f"`layers` is {self.layers!r}; give at least one layer number, such as (-1,).")
        if self.max_length < 1:
            raise ValueError(f"`max_length` is {self.max_length}; give the number of tokens to keep, at least 1.")
        if self.padding not in ("longest", "max_length"):
            raise ValueError(f"`padding` is {self.padding!r}; choose 'longest' or 'max_length'.")
        if self.captions not in get_args(Captions):
            raise ValueError(f"`captions` is {self.captions!r}; choose one of {', '.join(get_args(Captions))}.")
        if self.null_empty and not self.masked:
            raise ValueError("`null_empty` is True, but without a mask (`masked`) there is no null text; give False.")
        if self.template_tokens not in get_args(TemplateTokens):
            raise ValueError(f"`template_tokens` is {self.template_tokens!r}; choose 'none', 'after' or 'all'.")
        if self.template is not None:
            split_template(self.template)
            if not self.masked:
                raise ValueError(
                    "`template` is given without a mask (`masked`), so its tokens cannot be cut; give None."
                )

    def saved(self) -> dict[str, Any]:
        """Give what a pipeline saves as its `text`, in JSON's types; what is not named is the default."""
        always = {"layers": list(self.layers), "prefix": self.prefix, "max_length": self.max_length}
        default = TextSettings()
        others = {item.name: getattr(self, item.name) for item in fields(self) if item.name not in always}
        return always | {name: value for name, value in others.items() if value != getattr(default, name)}


@dataclass(frozen=True)
class TextEmbeddings:
    """Hold the text of a batch: hidden states (B, L, K * D) of K layers, 0 where padded, and mask (B, L), bool."""

    hidden_states: Tensor
    mask: Tensor


@torch.no_grad()
def encode_text(
    prompts: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    text_encoder: PreTrainedModel,
    settings: TextSettings,
) -> TextEmbeddings:
    """Encode prompts into masked hidden states.

    Tokens are always padded on the right and padding is masked (unless the settings say otherwise), so neither the
    other prompts of a batch nor the amount of padding changes an embedding. The tokenizer and the encoder are not
    modified.

    Args:
        prompts: B prompts; what exceeds `settings.max_length` tokens is cut off with a warning that quotes it.
        tokenizer: The encoder's tokenizer; it needs no padding token.
        text_encoder: Any text model of transformers, in evaluation mode; of an encoder-decoder the encoder is used.
        settings: Layers, prefix, length and padding.

    Returns:
        Hidden states in the encoder's precision on its device, and the mask.

    Raises:
        ValueError: If `prompts` is empty or holds something else than strings, or the encoder does not have the layers
            or positions that `settings` asks for.
    """
    check_text_settings(settings, text_encoder)
    rows = token_rows(prompts, tokenizer, settings)
    unseen = max(len(row.ids) - (row.stop - row.start) for row in rows)
    _check_positions(settings.max_length, text_encoder, unseen)
    if settings.padding == "max_length":
        width, read = settings.max_length, settings.max_length + unseen
    else:
        width, read = max(1, *(row.stop - row.start for row in rows)), max(1, *(len(row.ids) for row in rows))
    input_ids, read_mask = _pad(rows, read, _padding_id(tokenizer), text_encoder.device)
    states = _states(text_encoder, input_ids, read_mask, settings.layers)
    # An offloaded encoder answers on another device than its weights lie on.
    states, mask = _seen(states, rows, width)
    if not settings.masked:
        return TextEmbeddings(states, torch.ones_like(mask))
    if settings.null_empty:
        mask = mask & torch.tensor([bool(prompt.strip()) for prompt in prompts], device=mask.device)[:, None]
    # Filled, not multiplied: attention gives NaN in a row that has no token at all.
    return TextEmbeddings(states.masked_fill(~mask[..., None], 0), mask)


def token_rows(prompts: Sequence[str], tokenizer: PreTrainedTokenizerBase, settings: TextSettings) -> list[TokenRow]:
    """Check prompts and turn them into the tokens that the encoder reads, with a warning of what is cut off.

    Args:
        prompts: B prompts.
        tokenizer: The encoder's tokenizer.
        settings: Captions, prefix, template and length.

    Raises:
        ValueError: As `encode_text`.
    """
    _check_prompts(prompts)
    return tokenize(
        prepared_captions(prompts, settings.captions),
        tokenizer,
        settings.max_length,
        settings.prefix,
        settings.template,
        settings.template_tokens,
    )


def _states(text_encoder: PreTrainedModel, input_ids: Tensor, mask: Tensor, layers: tuple[int, ...]) -> Tensor:
    """Run the encoder and put the states of the layers side by side."""
    encoder = text_encoder.get_encoder() if text_encoder.config.is_encoder_decoder else text_encoder
    # A language model's words are not asked for, and those of every token would be the largest thing in memory.
    words = {"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(encoder.forward).parameters else {}
    output = encoder(
        input_ids=input_ids, attention_mask=mask.long(), output_hidden_states=True, return_dict=True, **words
    )
    return torch.cat([output.hidden_states[layer] for layer in layers], dim=-1)


def check_text_encoder(text_encoder: PreTrainedModel) -> None:
    """Refuse a model that does not run on a text alone.

    Raises:
        ValueError: naming its class.
    """
    reads = inspect.signature(text_encoder.forward).parameters
    # Language models that may also see pictures do without them; models of pairs do not.
    if "pixel_values" in reads and ("input_ids" not in reads or hasattr(text_encoder, "get_text_features")):
        raise ValueError(
            f"`text_encoder` is a {type(text_encoder).__name__}, which does not run on a text alone; give a text model, "
            "of CLIP's kind its text half (such as CLIPTextModel)."
        )


def check_text_settings(settings: TextSettings, text_encoder: PreTrainedModel) -> None:
    """Refuse settings that an encoder cannot follow.

    Args:
        settings: What is asked for.
        text_encoder: The model that shall do it.

    Raises:
        ValueError: If it is no text model, a layer does not exist or `max_length` exceeds the encoder's positions.
    """
    check_text_encoder(text_encoder)
    count = text_encoder.config.get_text_config().num_hidden_layers
    missing = [layer for layer in settings.layers if not -count - 1 <= layer <= count]
    if missing:
        raise ValueError(
            f"`layers` asks for {missing}, but `text_encoder` has the layers 0 (token embeddings) to {count}; "
            f"give numbers from {-count - 1} to {count}."
        )
    _check_positions(settings.max_length, text_encoder)


def _check_positions(max_length: int, text_encoder: PreTrainedModel, unseen: int = 0) -> None:
    """Refuse more tokens than the encoder has positions for, `unseen` ones of a template among them."""
    limit = _position_limit(text_encoder)
    if limit is not None and max_length + unseen > limit:
        beside = f", and {unseen} more are the template's" if unseen else ""
        raise ValueError(
            f"`max_length` is {max_length}{beside}, but `text_encoder` has positions for {limit} tokens; "
            f"give {limit - unseen} or less."
        )


def _position_limit(text_encoder: PreTrainedModel) -> int | None:
    """Give the longest text that the encoder has positions for, or None for relative positions."""
    limit: int | None = getattr(text_encoder.config.get_text_config(), "max_position_embeddings", None)
    # RoBERTa and its kin count positions from after the padding token's number.
    positions = getattr(getattr(text_encoder, "embeddings", None), "position_embeddings", None)
    offset = getattr(positions, "padding_idx", None)
    return limit if limit is None or offset is None else limit - offset - 1


def _check_prompts(prompts: Sequence[str]) -> None:
    if isinstance(prompts, str) or not prompts:
        raise ValueError(f"`prompts` is {prompts!r}; give a list of at least one string.")
    for prompt in prompts:
        if not isinstance(prompt, str):
            raise ValueError(f"`prompts` holds {prompt!r} of type {type(prompt).__name__}; give strings only.")
        check_characters("prompts", prompt)


def _pad(rows: Sequence[TokenRow], width: int, padding_id: int, device: torch.device) -> tuple[Tensor, Tensor]:
    input_ids = torch.full((len(rows), width), padding_id)
    mask = torch.zeros(len(rows), width, dtype=torch.bool)
    for i, row in enumerate(rows):
        input_ids[i, : len(row.ids)] = torch.tensor(row.ids, dtype=torch.long)
        mask[i, : len(row.ids)] = True
    return input_ids.to(device), mask.to(device)


def _seen(states: Tensor, rows: Sequence[TokenRow], width: int) -> tuple[Tensor, Tensor]:
    """Return the states (B, width, D) of the tokens that U-Nets see, and their mask."""
    starts, stops = (torch.tensor([getattr(row, name) for row in rows])[:, None] for name in ("start", "stop"))
    places = starts + torch.arange(width)
    mask = places < stops
    places = places.clamp(max=states.shape[1] - 1)
    return states.take_along_dim(places[..., None].to(states.device), dim=1), mask.to(states.device)


def _padding_id(tokenizer: PreTrainedTokenizerBase) -> int:
    # Padding is masked, so any token will do for decoders, which often have none for it.
    for token_id in (tokenizer.pad_token_id, tokenizer.eos_token_id):
        if token_id is not None:
            return int(token_id)
    return 0
