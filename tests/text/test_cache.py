import logging
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from diffusers_imagen.text.cache import TextEmbeddingCache
from diffusers_imagen.text.encoding import TextSettings, encode_text

CAPTIONS = ["a cat", "the red dog under the table", "一 只 猫", "a cat", ""]


def test_cache_gives_what_the_encoder_gives_in_bfloat16(
    t5: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    settings = TextSettings(layers=(1, 2), prefix="query: ")
    cache = TextEmbeddingCache.build(CAPTIONS, tokenizer, t5, settings, batch_size=2)
    asked = ["一 只 猫", "a cat"]

    cached = cache.batch(asked)
    direct = encode_text(asked, tokenizer, t5, settings)
    assert torch.equal(cached.mask, direct.mask)
    assert cached.hidden_states.dtype == torch.bfloat16
    torch.testing.assert_close(cached.hidden_states.float(), direct.hidden_states, rtol=2**-8, atol=1e-6)


def test_dropped_captions_have_no_token(t5: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    cache = TextEmbeddingCache.build(CAPTIONS, tokenizer, t5, TextSettings())

    batch = cache.batch([None, "a cat", ""])
    assert batch.mask.any(1).tolist() == [False, True, False]
    assert not batch.hidden_states[[0, 2]].any()
    assert cache.batch([None]).hidden_states.shape == (1, 1, 16)


def test_batches_are_padded_to_a_given_length(t5: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    cache = TextEmbeddingCache.build(CAPTIONS, tokenizer, t5, TextSettings())

    assert cache.longest == 7
    assert cache.batch(["a cat"]).mask.shape == (1, 3)
    assert cache.batch(["a cat"], cache.longest).mask.sum().item() == 3
    assert cache.batch(["a cat"], cache.longest).hidden_states.shape == (1, 7, 16)
    with pytest.raises(ValueError, match="`length` is 2, but a caption has 3"):
        cache.batch(["a cat"], 2)


def test_unknown_caption_is_refused(t5: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    cache = TextEmbeddingCache.build(CAPTIONS, tokenizer, t5, TextSettings())

    with pytest.raises(ValueError, match="`captions` holds 'a horse'"):
        cache.batch(["a horse"])


def test_cache_without_captions_still_knows_its_width(t5: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    cache = TextEmbeddingCache.build([""], tokenizer, t5, TextSettings(layers=(0, 1)))

    assert cache.batch([None, ""]).hidden_states.shape == (2, 1, 32)


def test_encoder_in_training_mode_is_refused(t5: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(ValueError, match="training mode"):
        TextEmbeddingCache.build(CAPTIONS, tokenizer, t5.train(), TextSettings())


def test_second_build_reads_the_file_without_encoding(
    t5: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    path = tmp_path / "run" / "text.safetensors"
    first = TextEmbeddingCache.build(CAPTIONS, tokenizer, t5, TextSettings(), path)
    encoded = []
    t5.register_forward_pre_hook(lambda *_: encoded.append(1))
    second = TextEmbeddingCache.build(CAPTIONS[::-1], tokenizer, t5, TextSettings(padding="max_length"), path)

    assert not encoded
    assert [file.name for file in path.parent.iterdir()] == ["text.safetensors"]
    for caption in CAPTIONS[:3]:
        assert torch.equal(first.batch([caption]).hidden_states, second.batch([caption]).hidden_states)


@pytest.mark.parametrize("change", ["encoder", "settings", "captions"])
def test_file_is_made_again_when_something_changed(
    t5: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    change: str,
) -> None:
    path = tmp_path / "text.safetensors"
    before = TextEmbeddingCache.build(CAPTIONS, tokenizer, t5, TextSettings(), path).batch(["a cat"])
    captions, settings = CAPTIONS, TextSettings()
    if change == "encoder":
        with torch.no_grad():
            t5.shared.weight[6] += 1
    elif change == "settings":
        settings = TextSettings(prefix="query: ")
    else:
        captions = [*CAPTIONS, "the cat"]
    with caplog.at_level(logging.WARNING):
        after = TextEmbeddingCache.build(captions, tokenizer, t5, settings, path)

    assert f"with other {change}" in caplog.text
    same = torch.equal(after.batch(["a cat"]).hidden_states, before.hidden_states)
    assert same == (change == "captions")
    # The file now fits the new call.
    caplog.clear()
    TextEmbeddingCache.build(captions, tokenizer, t5, settings, path)
    assert not caplog.records


def test_damaged_file_is_made_again(
    t5: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "text.safetensors"
    TextEmbeddingCache.build(CAPTIONS, tokenizer, t5, TextSettings(), path)
    path.write_bytes(path.read_bytes()[:100])
    cache = TextEmbeddingCache.build(CAPTIONS, tokenizer, t5, TextSettings(), path)

    assert "cannot be read" in caplog.text
    assert cache.batch(["a cat"]).mask.all()
