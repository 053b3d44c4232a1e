# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Turn prompts into tokens: prefix and template, what is cut off, and which tokens the U-Nets see.

Nothing is padded here. Called by `encoding.py`.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, Literal

from transformers import PreTrainedTokenizerBase

from diffusers_imagen.text.templates import split_template

_logger = logging.getLogger(__name__)

TemplateTokens = Literal["none", "after", "all"]
_OPTIONS = {"padding": False, "return_attention_mask": False, "return_token_type_ids": False, "verbose": False}


@dataclass(frozen=True)
class TokenRow:
    """Hold the tokens of a prompt.

    Args:
        ids: All that the encoder reads.
        start: The first of them that the U-Nets see.
        stop: The end of those.
    """

    ids: list[int]
    start: int
    stop: int


@dataclass(frozen=True)
class _Cut:
    """What a prompt lost."""

    tokens: int
    kept: int
    text: str


def tokenize(
    prompts: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    prefix: str = "",
    template: str | None = None,
    template_tokens: TemplateTokens = "none",
) -> list[TokenRow]:
    """Tokenize prompts, cutting what is too long and saying so in one warning.

    Args:
        prompts: As they were given.
        tokenizer: The encoder's; it is not modified.
        max_length: Tokens that the U-Nets see, at most.
        prefix: Put before every prompt.
        template: Put around prefix and prompt; the tokenizer then adds no special tokens of its own.
        template_tokens: Those of the template that the U-Nets see: "none", those "after" the prompt, or "all".

    Returns:
        The tokens of each prompt.

    Raises:
        ValueError: If the template is none, leaves no room for a prompt, or the tokenizer cannot tell which tokens are
            the prompt's.
    """
    texts = [prefix + prompt for prompt in prompts]
    if template is None:
        rows, cuts = _plain(texts, tokenizer, max_length)
    else:
        rows, cuts = _templated(texts, tokenizer, max_length, template, template_tokens)
    if cuts:
        _logger.warning(
            "The prompt has %d tokens and only %d are used; this part was cut off: %r%s",
            cuts[0].tokens,
            cuts[0].kept,
            _beginning(cuts[0].text),
            f"; so it is with {len(cuts) - 1} more of {len(prompts)} prompts" if len(cuts) > 1 else "",
        )
    for prompt, row in zip(prompts, rows, strict=True):
        if row.start == row.stop and prompt.strip():
            _logger.warning("%r has no token that the text encoder knows; it counts as empty.", _beginning(prompt))
    return rows


def _plain(texts: list[str], tokenizer: PreTrainedTokenizerBase, max_length: int) -> tuple[list[TokenRow], list[_Cut]]:
    """Tokenize with the tokenizer's own special tokens, which stay when the text between them is cut."""
    ids: list[list[int]] = tokenizer(texts, truncation=True, max_length=max_length, **_OPTIONS)["input_ids"]
    cuts = []
    for text, row in zip(texts, ids, strict=True):
        if len(row) < max_length:
            continue
        full = tokenizer(text, return_offsets_mapping=tokenizer.is_fast, **_OPTIONS)
        if len(full["input_ids"]) > len(row):
            cuts.append(_Cut(len(full["input_ids"]), len(row), _lost(text, row, full, tokenizer)))
    return [TokenRow(row, 0, len(row)) for row in ids], cuts


def _lost(text: str, row: list[int], full: Any, tokenizer: PreTrainedTokenizerBase) -> str:
    """Return what a shortened row lacks of the text."""
    # It holds the special tokens of a whole text; what both begin with, or end in, is what was read.
    from_left = tokenizer.truncation_side == "left"
    step = -1 if from_left else 1
    pairs = zip(row[::step], full["input_ids"][::step], strict=False)
    kept = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    lost = slice(0, len(full["input_ids"]) - kept) if from_left else slice(kept, None)
    if not tokenizer.is_fast:
        return str(tokenizer.decode(full["input_ids"][lost], skip_special_tokens=True))
    places = [(start, stop) for start, stop in full["offset_mapping"][lost] if stop > start]
    return text[places[0][0] : places[-1][1]].strip() if places else ""


def _templated(
    texts: list[str],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    template: str,
    template_tokens: TemplateTokens,
) -> tuple[list[TokenRow], list[_Cut]]:
    """Tokenize texts within a template, of which nothing is cut."""
    before, after = split_template(template)
    if not tokenizer.is_fast:
        raise ValueError(
            f"`template` is {template!r}, but {type(tokenizer).__name__} does not tell which tokens are the prompt's; "
            "give the fast tokenizer (AutoTokenizer), or no template."
        )
    # The template writes out its special tokens itself.
    whole = [before + text + after for text in texts]
    encoded = tokenizer(whole, add_special_tokens=False, return_offsets_mapping=True, **_OPTIONS)
    rows, cuts = [], []
    for text, ids, places in zip(texts, encoded["input_ids"], encoded["offset_mapping"], strict=True):
        # A token that holds a character of the prompt is the prompt's, even where it holds one of the template too.
        begin = sum(1 for _, stop in places if stop <= len(before))
        end = max(begin, sum(1 for start, _ in places if start < len(before) + len(text)))
        own = {"none": 0, "after": len(ids) - end, "all": len(ids) - (end - begin)}[template_tokens]
        room = max_length - own
        if room < 1:
            raise ValueError(
                f"`max_length` is {max_length}, but {own} tokens of the template are kept; give more than {own}."
            )
        if end - begin > room:
            cuts.append(_Cut(end - begin, room, text[max(0, places[begin + room][0] - len(before)) :]))
            ids = ids[: begin + room] + ids[end:]
            end = begin + room
        start = 0 if template_tokens == "all" else begin
        rows.append(TokenRow(ids, start, end if template_tokens == "none" else len(ids)))
    return rows, cuts


def _beginning(text: str, length: int = 80) -> str:
    return text if len(text) <= length else f"{text[:length]}... ({len(text)} characters)"
