"""Prompts as DeepFloyd IF reads them: cleaned or lower-cased, and with the padding as text."""

import pytest
import torch

from diffusers_imagen.text.captions import prepared_captions
from diffusers_imagen.text.encoding import TextSettings, encode_text

IF = {"null_empty": False, "masked": False, "padding": "max_length", "max_length": 8}


def test_prompts_are_left_as_they_are_or_lower_cased():
    prompts = ["  A Cat with a HAT "]
    assert prepared_captions(prompts, "as_is") is prompts
    # With beautifulsoup4 and ftfy there, cleaning does more; of this prompt it leaves the same.
    assert prepared_captions(prompts, "deepfloyd_if") == ["a cat with a hat"]


def test_without_a_mask_the_padding_is_text(cascade_parts):
    tokenizer, encoder = cascade_parts["tokenizer"], cascade_parts["text_encoder"]
    found = encode_text(["A Cat", ""], tokenizer, encoder, TextSettings(**IF, captions="deepfloyd_if"))
    ids = tokenizer(["a cat", ""], padding="max_length", max_length=8, return_tensors="pt")
    with torch.no_grad():
        expected = encoder(ids.input_ids, attention_mask=ids.attention_mask)[0]
    assert torch.equal(found.hidden_states, expected)
    assert found.mask.all()
    assert found.mask.shape == (2, 8)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"captions": "upper"}, "`captions` is 'upper'"),
        ({"masked": False}, "`null_empty` is True, but without a mask"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        TextSettings(**settings)
