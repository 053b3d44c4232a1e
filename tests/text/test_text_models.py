"""Real tokenizers and text models of every family, with any text that a person may type or paste."""

import logging

import pytest
import torch
import transformers

from diffusers_imagen.text.encoding import TextSettings, encode_text

FAMILIES = ["t5", "mt5", "umt5", "byt5", "bert", "clip", "llama", "qwen2"]
TEXTS = {
    "english": "a red cat",
    "chinese": "一只戴帽子的猫，背景是蓝色的",
    "arabic": "قطة حمراء تحت الطاولة",
    "emoji": "🐱🎩 👩‍👩‍👧 🏳️‍🌈",
    "newlines": "a cat\r\nunder\n\n\tthe table\u2028",
    "nul": "a\x00cat\x00",
    "long": "a red cat under the table 猫 " * 300,
}


@pytest.fixture(params=FAMILIES)
def family(request, text_models):
    return text_models(request.param)


def test_any_text_is_encoded(family):
    encoded = encode_text([*TEXTS.values(), "", " \n\t"], *family, TextSettings(max_length=32))
    assert encoded.hidden_states.shape == (9, 32, 16)
    assert encoded.hidden_states.isfinite().all()
    assert encoded.mask[:7].sum(1).min() >= 1
    assert encoded.mask[6].all()
    assert not encoded.mask[7:].any()
    assert not encoded.hidden_states[~encoded.mask].any()


def test_different_texts_have_different_embeddings(text_models):
    # Of the bytes of a text nothing is lost, whatever the language.
    for name in ("byt5", "llama", "qwen2"):
        texts = ["猫", "狗", "قطة", "🐱", "🐶"]
        encoded = encode_text(texts, *text_models(name), TextSettings(max_length=32))
        for first in range(len(texts)):
            for second in range(first):
                assert (encoded.hidden_states[first] - encoded.hidden_states[second]).abs().max() > 1e-3


@pytest.mark.parametrize("side", ["left", "right"])
def test_neither_the_side_of_the_padding_nor_its_amount_reaches_an_embedding(family, side):
    tokenizer, encoder = family
    before, tokenizer.padding_side = tokenizer.padding_side, side
    try:
        alone, padded = (
            encode_text(
                ["a red cat"], tokenizer, encoder, TextSettings(max_length=48, padding=padding, layers=(1, -1))
            )
            for padding in ("longest", "max_length")
        )
        company = encode_text(
            ["a red cat", TEXTS["arabic"]], tokenizer, encoder, TextSettings(max_length=48, layers=(1, -1))
        )
    finally:
        tokenizer.padding_side = before
    ids = torch.tensor([tokenizer("a red cat")["input_ids"]])
    with torch.no_grad():
        states = encoder(input_ids=ids, output_hidden_states=True).hidden_states
    expected = torch.cat([states[1], states[-1]], dim=-1)[0]
    for encoded in (alone, padded, company):
        assert encoded.mask[0].tolist() == [True] * len(expected) + [False] * (encoded.mask.shape[1] - len(expected))
        torch.testing.assert_close(encoded.hidden_states[0, : len(expected)], expected, rtol=0, atol=1e-5)


def test_ten_thousand_bytes_are_cut_with_one_warning_that_says_what_was_cut(family, caplog):
    tokenizer, encoder = family
    text = "a red cat " * 1000
    with caplog.at_level(logging.WARNING, logger="diffusers_imagen"):
        encoded = encode_text([text], tokenizer, encoder, TextSettings(max_length=32))
    assert encoded.mask.sum() == 32
    [record] = [record for record in caplog.records if record.name.startswith("diffusers_imagen")]
    message = record.getMessage()
    count = len(tokenizer(text)["input_ids"])
    assert message.startswith(f"The prompt has {count} tokens and only 32 are used; this part was cut off: '")
    assert "red cat a red cat" in message
    assert len(message) < 250


def test_many_long_prompts_give_one_warning(text_models, caplog):
    with caplog.at_level(logging.WARNING, logger="diffusers_imagen"):
        encode_text(["a cat", "a red cat", "the red cat"], *text_models("bert"), TextSettings(max_length=4))
    assert [record.getMessage() for record in caplog.records if "cut off" in record.getMessage()] == [
        "The prompt has 5 tokens and only 4 are used; this part was cut off: 'cat'; so it is with 1 more of 3 prompts"
    ]


def test_a_tokenizer_that_cuts_the_beginning_has_the_beginning_quoted(text_models, caplog):
    tokenizer, encoder = text_models("bert")
    tokenizer.truncation_side = "left"
    try:
        with caplog.at_level(logging.WARNING, logger="diffusers_imagen"):
            encode_text(["red a cat"], tokenizer, encoder, TextSettings(max_length=4))
    finally:
        tokenizer.truncation_side = "right"
    assert "this part was cut off: 'red'" in caplog.text


def test_text_of_which_the_encoder_knows_nothing_counts_as_empty_with_a_warning(text_models, caplog):
    settings = TextSettings(max_length=8, template="{prompt}")
    with caplog.at_level(logging.WARNING, logger="diffusers_imagen"):
        encoded = encode_text(["\x00\x00"], *text_models("bert"), settings)
    assert not encoded.mask.any()
    assert r"'\x00\x00' has no token that the text encoder knows; it counts as empty." in caplog.text


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("\ud83d cat", r"`prompts` holds '\\ud83d', half a character; give text in valid Unicode"),
        (b"a cat", "`prompts` holds b'a cat' of type bytes; give strings only"),
        (None, "`prompts` holds None of type NoneType"),
        (["a cat"], "`prompts` holds .* of type list"),
    ],
)
def test_what_is_no_text_is_refused(family, prompt, message):
    with pytest.raises(ValueError, match=message):
        encode_text(["a cat", prompt], *family, TextSettings(max_length=32))


def test_a_causal_language_model_does_not_compute_words(text_models):
    tokenizer, encoder = text_models("llama")
    rows = []
    handle = encoder.lm_head.register_forward_pre_hook(lambda _, args: rows.append(args[0].shape[1]))
    try:
        encode_text(["a red cat"], tokenizer, encoder, TextSettings(max_length=32))
    finally:
        handle.remove()
    assert rows == [1]


@pytest.mark.parametrize("name", ["CLIPModel", "ViTModel"])
def test_a_model_that_does_not_run_on_a_text_alone_is_refused(text_models, name):
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    if name == "CLIPModel":
        config = transformers.CLIPConfig(
            text_config=small | {"vocab_size": 400}, vision_config=small, projection_dim=8
        )
    else:
        config = transformers.ViTConfig(**small, image_size=8, patch_size=4)
    model = getattr(transformers, name)(config).eval()
    with pytest.raises(ValueError, match=rf"`text_encoder` is a {name}, which does not run on a text alone.*CLIPText"):
        encode_text(["a cat"], text_models("clip")[0], model, TextSettings(max_length=8))
