from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from diffusers_imagen.text.encoding import TextSettings, encode_text
from diffusers_imagen.text.loading import load_text_encoder


def test_saved_encoder_comes_back_frozen_as_its_own_class(
    encoder: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    encoder.save_pretrained(tmp_path / "text_encoder")
    loaded_tokenizer, loaded = load_text_encoder(tmp_path)

    assert type(loaded) is type(encoder)
    assert not loaded.training
    assert not any(weight.requires_grad for weight in loaded.parameters())
    settings = TextSettings(max_length=8)
    expected = encode_text(["a red cat"], tokenizer, encoder, settings)
    actual = encode_text(["a red cat"], loaded_tokenizer, loaded, settings)
    assert torch.equal(actual.hidden_states, expected.hidden_states)


def test_folder_without_an_encoder_is_refused(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    with pytest.raises(ValueError, match="no subfolder 'text_encoder'"):
        load_text_encoder(tmp_path)
