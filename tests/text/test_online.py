import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from diffusers_imagen.text.cache import TextEmbeddingCache
from diffusers_imagen.text.encoding import TextSettings
from diffusers_imagen.text.online import OnlineTextEncoder


def test_encoding_online_gives_what_the_cache_gives(t5: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    settings = TextSettings(layers=(1, 2), prefix="query: ", max_length=12)
    asked = ["a cat", None, "the red dog", ""]
    cache = TextEmbeddingCache.build([text for text in asked if text], tokenizer, t5, settings)
    online = OnlineTextEncoder(tokenizer, t5, settings)

    for length in (None, 12):
        expected, found = cache.batch(asked, length), online.batch(asked, length)
        assert torch.equal(found.mask, expected.mask)
        assert found.hidden_states.dtype == torch.bfloat16
        # Other captions in the batch change the last bits before they are rounded to bfloat16.
        torch.testing.assert_close(found.hidden_states, expected.hidden_states, rtol=2**-7, atol=1e-6)
    assert online.longest == 12


def test_batch_of_dropped_captions_has_the_encoders_width(
    t5: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    batch = OnlineTextEncoder(tokenizer, t5, TextSettings(layers=(0, 1))).batch([None, ""])

    assert batch.hidden_states.shape == (2, 1, 32)
    assert not batch.mask.any()


def test_encoder_in_training_mode_is_refused(t5: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(ValueError, match="training mode"):
        OnlineTextEncoder(tokenizer, t5.train(), TextSettings())
