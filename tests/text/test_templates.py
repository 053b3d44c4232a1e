"""Prompts within the template of a language model that follows instructions."""

import logging

import pytest
import torch

from diffusers_imagen.text.cache import TextEmbeddingCache
from diffusers_imagen.text.encoding import TextSettings, encode_text
from diffusers_imagen.text.templates import chat_template
from diffusers_imagen.text.tokens import tokenize

BEFORE = "<|im_start|>system\nDescribe:<|im_end|>\n<|im_start|>user\n"
AFTER = "<|im_end|>\n<|im_start|>assistant\n"
TEMPLATE = BEFORE + "{prompt}" + AFTER


@pytest.fixture
def qwen(text_models):
    return text_models("qwen2")


def by_hand(model, text):
    tokenizer, encoder = model
    with torch.no_grad():
        ids = torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]])
        return encoder(input_ids=ids, output_hidden_states=True).hidden_states[-1][0]


def test_a_tokenizers_chat_template_becomes_a_setting(qwen):
    assert chat_template(qwen[0], "Describe:", generation_prompt=True) == TEMPLATE
    assert chat_template(qwen[0]) == "<|im_start|>user\n{prompt}<|im_end|>\n"


def test_a_tokenizer_without_a_chat_template_is_refused(text_models):
    with pytest.raises(ValueError, match=r"`tokenizer` .* has no chat template; write the text around '{prompt}'"):
        chat_template(text_models("bert")[0])


def test_a_chat_template_that_takes_no_system_text_is_refused(qwen):
    tokenizer, _ = qwen
    before = tokenizer.chat_template
    tokenizer.chat_template = "{{ raise_exception('System role not supported') }}"
    try:
        with pytest.raises(ValueError, match=r"`system` is 'Describe:', and .* System role not supported"):
            chat_template(tokenizer, "Describe:")
    finally:
        tokenizer.chat_template = before


@pytest.mark.parametrize("template_tokens", ["none", "after", "all"])
def test_the_u_nets_see_the_prompt_as_the_model_read_it_within_the_template(qwen, template_tokens):
    tokenizer, _ = qwen
    start = len(tokenizer(BEFORE, add_special_tokens=False)["input_ids"])
    length = len(tokenizer("a blue cat", add_special_tokens=False)["input_ids"])
    seen = {"none": slice(start, start + length), "after": slice(start, None), "all": slice(None)}[template_tokens]
    expected = by_hand(qwen, BEFORE + "a blue cat" + AFTER)[seen]

    settings = TextSettings(max_length=60, template=TEMPLATE, template_tokens=template_tokens)
    encoded = encode_text(["a blue cat", "", "the dog with a blue hat"], *qwen, settings)
    assert encoded.mask.sum(1)[:2].tolist() == [len(expected), 0]
    torch.testing.assert_close(encoded.hidden_states[0, : len(expected)], expected, rtol=0, atol=1e-5)
    assert not encoded.hidden_states[~encoded.mask].any()
    # The template is read, and what stands before a prompt changes it.
    bare = by_hand(qwen, "a blue cat")
    assert template_tokens != "none" or (bare - expected).abs().max() > 1e-2


def test_padding_does_not_reach_a_prompt_within_a_template(qwen):
    alone, padded = (
        encode_text(["a cat"], *qwen, TextSettings(max_length=12, template=TEMPLATE, padding=padding))
        for padding in ("longest", "max_length")
    )
    assert padded.hidden_states.shape[1] == padded.mask.shape[1] == 12
    count = int(alone.mask.sum())
    assert padded.mask.sum() == count
    torch.testing.assert_close(padded.hidden_states[:, :count], alone.hidden_states, rtol=0, atol=1e-5)


def test_the_prefix_is_the_prompts_and_the_prompt_may_hold_anything(qwen):
    settings = TextSettings(max_length=40, template=TEMPLATE, prefix="a ")
    encoded = encode_text(["{prompt} {}"], *qwen, settings)
    tokenizer, _ = qwen
    expected = by_hand(qwen, BEFORE + "a {prompt} {}" + AFTER)
    start = len(tokenizer(BEFORE, add_special_tokens=False)["input_ids"])
    count = int(encoded.mask.sum())
    torch.testing.assert_close(encoded.hidden_states[0], expected[start : start + count], rtol=0, atol=1e-5)
    assert tokenizer.decode(tokenizer(BEFORE + "a {prompt} {}" + AFTER)["input_ids"][start : start + count]) == (
        "a {prompt} {}"
    )


@pytest.mark.parametrize("template_tokens", ["none", "after", "all"])
def test_of_a_long_prompt_the_end_is_cut_and_the_template_stays(qwen, caplog, template_tokens):
    tokenizer, _ = qwen
    around = [len(tokenizer(part, add_special_tokens=False)["input_ids"]) for part in (BEFORE, AFTER)]
    own = {"none": 0, "after": around[1], "all": sum(around)}[template_tokens]
    with caplog.at_level(logging.WARNING, logger="diffusers_imagen"):
        [row] = tokenize(["a cat\na hat"], tokenizer, own + 2, "", TEMPLATE, template_tokens)
    kept = tokenizer("a cat\na hat", add_special_tokens=False)["input_ids"][:2]
    whole = tokenizer(BEFORE)["input_ids"] + kept + tokenizer(AFTER)["input_ids"]
    assert row.ids == whole
    assert row.stop - row.start == own + 2
    lost = "a cat\na hat".removeprefix(tokenizer.decode(kept))
    assert f"only 2 are used; this part was cut off: {lost!r}" in caplog.text


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"template": "a picture"}, "`template` is 'a picture'; give a text that holds '{prompt}' once"),
        ({"template": "{prompt}{prompt}"}, "holds '{prompt}' once"),
        ({"template": 3}, "`template` is 3; give a text"),
        ({"template_tokens": "before"}, "`template_tokens` is 'before'; choose 'none', 'after' or 'all'"),
        ({"template": TEMPLATE, "masked": False, "null_empty": False}, "`template` is given without a mask"),
    ],
)
def test_impossible_templates_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        TextSettings(**settings)


def test_a_template_that_leaves_no_room_is_refused(qwen):
    settings = TextSettings(max_length=6, template=TEMPLATE, template_tokens="all")
    with pytest.raises(ValueError, match=r"`max_length` is 6, but [0-9]+ tokens of the template are kept; give more"):
        encode_text(["a cat"], *qwen, settings)


def test_a_template_beyond_the_encoders_positions_is_refused(qwen):
    with pytest.raises(
        ValueError, match=r"`max_length` is 126, and [0-9]+ more are the template's, but .* positions for"
    ):
        encode_text(["a cat"], *qwen, TextSettings(max_length=126, template="the dog " * 5 + "{prompt}"))


def test_a_tokenizer_that_cannot_tell_its_tokens_places_is_refused(text_models):
    with pytest.raises(ValueError, match="ByT5Tokenizer does not tell which tokens are the prompt's"):
        encode_text(["a cat"], *text_models("byt5"), TextSettings(template="a photo of {prompt}"))


def test_training_captions_are_cached_as_they_are_drawn_and_apart_from_other_templates(qwen, tmp_path):
    settings = TextSettings(max_length=20, template=TEMPLATE, template_tokens="after", layers=(1, -1))
    cache = TextEmbeddingCache.build(["a cat", "a hat"], *qwen, settings, tmp_path)
    found, drawn = cache.batch(["a hat"]), encode_text(["a hat"], *qwen, settings)
    assert torch.equal(found.mask, drawn.mask)
    torch.testing.assert_close(found.hidden_states.float(), drawn.hidden_states, rtol=2**-8, atol=1e-5)
    for other in (TextSettings(max_length=20, layers=(1, -1)), TextSettings(max_length=20, template=TEMPLATE)):
        TextEmbeddingCache.build(["a cat"], *qwen, other, tmp_path)
    assert len(list(tmp_path.iterdir())) == 3


def test_what_is_saved_makes_the_same_settings():
    for settings in (
        TextSettings(layers=(0, 2), prefix="query: ", max_length=9),
        TextSettings(template=TEMPLATE, template_tokens="after", padding="max_length", null_empty=False),
    ):
        assert TextSettings(**settings.saved()) == settings
    assert TextSettings(max_length=9).saved() == {"layers": [-1], "prefix": "", "max_length": 9}
