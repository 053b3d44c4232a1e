# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""The text around a prompt, with which language models that follow instructions are asked.

A template is a plain text that holds "{prompt}" once, so it can be saved with a cascade, and drawing needs no Jinja.
`tokens.py` puts prompts into it; `chat_template` makes one of the template that comes with a tokenizer.
"""

from transformers import PreTrainedTokenizerBase

PLACE = "{prompt}"


def split_template(template: str) -> tuple[str, str]:
    """Return what stands before and after the prompt.

    Args:
        template: Text that holds "{prompt}" once.

    Raises:
        ValueError: If it does not.
    """
    if not isinstance(template, str) or template.count(PLACE) != 1:
        raise ValueError(
            f"`template` is {template!r}; give a text that holds {PLACE!r} once, where the prompt goes, such as what "
            "`chat_template` makes of a tokenizer's own."
        )
    before, _, after = template.partition(PLACE)
    return before, after


def chat_template(
    tokenizer: PreTrainedTokenizerBase, system: str | None = None, generation_prompt: bool = False
) -> str:
    """Make the saved setting `template` of the chat template of a tokenizer.

    Args:
        tokenizer: One with a chat template, as those of language models that follow instructions have.
        system: What the model is told before the prompt, such as "Describe the picture:"; None for nothing.
        generation_prompt: Whether the beginning of an answer follows the prompt.

    Returns:
        A conversation of the system's text and the prompt, with "{prompt}" in its place.

    Raises:
        ValueError: If the tokenizer has no chat template, or one that takes no system text.
    """
    if not tokenizer.chat_template:
        raise ValueError(
            f"`tokenizer` ({type(tokenizer).__name__}) has no chat template; write the text around {PLACE!r} yourself, "
            "as `template`."
        )
    # Imported here: torch brings it, and nothing else needs it.
    from jinja2 import TemplateError

    messages = [] if system is None else [{"role": "system", "content": system}]
    messages.append({"role": "user", "content": PLACE})
    try:
        template = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=generation_prompt)
    except TemplateError as error:
        raise ValueError(
            f"`system` is {system!r}, and the chat template of `tokenizer` refuses it: {error}; write the text around "
            f"{PLACE!r} yourself, as `template`."
        ) from error
    split_template(template)
    return str(template)
