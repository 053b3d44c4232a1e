import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from diffusers_imagen.text.cache import TextEmbeddingCache
from diffusers_imagen.text.cache_files import caption_hash
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


@pytest.fixture
def encoded(t5: PreTrainedModel) -> list[int]:
    """Give a list that grows by the number of texts whenever the encoder works."""
    sizes: list[int] = []
    t5.register_forward_pre_hook(lambda _, args, kwargs: sizes.append(len(kwargs["input_ids"])), with_kwargs=True)
    return sizes


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*/*.safetensors"))


def assert_same_embeddings(one: TextEmbeddingCache, other: TextEmbeddingCache, captions: list[str]) -> None:
    for caption in captions:
        assert torch.equal(one.batch([caption]).hidden_states, other.batch([caption]).hidden_states)


def test_second_build_reads_the_files_without_encoding(
    t5: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, tmp_path: Path, encoded: list[int]
) -> None:
    folder = tmp_path / "run" / "text"
    first = TextEmbeddingCache.build(CAPTIONS, tokenizer, t5, TextSettings(), folder, captions_per_file=2)
    written = files(folder)
    encoded.clear()
    second = TextEmbeddingCache.build(CAPTIONS[::-1], tokenizer, t5, TextSettings(padding="max_length"), folder)

    assert encoded == [1]  # one text, to learn the width
    assert len(written) == 2
    assert files(folder) == written
    assert not list(folder.glob("*/*.tmp"))
    assert_same_embeddings(first, second, CAPTIONS[:3])


@pytest.mark.parametrize("change", ["encoder", "settings"])
def test_each_encoder_and_each_settings_have_their_own_embeddings(
    t5: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, tmp_path: Path, encoded: list[int], change: str
) -> None:
    before = TextEmbeddingCache.build(CAPTIONS, tokenizer, t5, TextSettings(), tmp_path)
    settings = TextSettings()
    if change == "encoder":
        with torch.no_grad():
            t5.shared.weight[6] += 1
    else:
        settings = TextSettings(prefix="query: ")
    after = TextEmbeddingCache.build(CAPTIONS, tokenizer, t5, settings, tmp_path)

    assert not torch.equal(after.batch(["a cat"]).hidden_states, before.batch(["a cat"]).hidden_states)
    assert len({file.parent for file in files(tmp_path)}) == 2
    # Both are kept.
    encoded.clear()
    again = TextEmbeddingCache.build(CAPTIONS, tokenizer, t5, settings, tmp_path)
    assert encoded == [1]
    assert_same_embeddings(again, after, CAPTIONS[:3])


def test_only_new_captions_are_encoded(
    t5: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, tmp_path: Path, encoded: list[int]
) -> None:
    before = TextEmbeddingCache.build(CAPTIONS, tokenizer, t5, TextSettings(), tmp_path)
    encoded.clear()
    after = TextEmbeddingCache.build([*CAPTIONS, "the cat"], tokenizer, t5, TextSettings(), tmp_path)

    assert encoded == [1, 1]
    assert_same_embeddings(before, after, CAPTIONS[:3])
    assert after.batch(["the cat"]).mask.all()


def test_build_that_was_broken_off_goes_on_and_ends_in_the_same_bits(
    t5: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, tmp_path: Path, encoded: list[int]
) -> None:
    captions = [" ".join(["cat", "dog", "the", "red"][: 1 + i % 4] + ["a"] * (i // 4)) for i in range(20)]
    build = partial(TextEmbeddingCache.build, captions, tokenizer, t5, TextSettings(), batch_size=3)
    whole = build(tmp_path / "a", captions_per_file=6)
    calls = []

    def interrupt(*_: object) -> None:
        calls.append(1)
        if len(calls) == 7:  # in the third file
            raise KeyboardInterrupt

    hook = t5.register_forward_pre_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path / "b", captions_per_file=6)
    hook.remove()
    assert len(files(tmp_path / "b")) == 2
    encoded.clear()
    parts = build(tmp_path / "b", captions_per_file=6)

    assert sum(encoded) == 1 + 20 - 12
    for one, other in zip(files(tmp_path / "a"), files(tmp_path / "b"), strict=True):
        assert one.name == other.name
        tensors = load_file(other)
        assert all(torch.equal(tensor, tensors[name]) for name, tensor in load_file(one).items())
    assert_same_embeddings(whole, parts, captions)


def test_captions_of_a_source_that_is_complete_are_not_collected_again(
    t5: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    collected = []

    def collect() -> Iterator[str]:
        collected.append(1)
        yield from CAPTIONS

    for source, times in (("one", 1), ("one", 1), ("two", 2), ("one", 2)):
        cache = TextEmbeddingCache.build(collect(), tokenizer, t5, TextSettings(), tmp_path, source=source)
        assert len(collected) == times
        assert cache.batch(["a cat"]).mask.all()
    files(tmp_path)[0].unlink()
    cache = TextEmbeddingCache.build(collect(), tokenizer, t5, TextSettings(), tmp_path, source="one")
    assert len(collected) == 3
    assert cache.batch(["a cat"]).mask.all()


@pytest.mark.parametrize("place", [100, -5, "table"])
def test_damaged_file_is_made_again(
    t5: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    place: int | str,
) -> None:
    expected = TextEmbeddingCache.build(CAPTIONS, tokenizer, t5, TextSettings(), tmp_path, source="x")
    rows = expected.batch(CAPTIONS[:3]).hidden_states.clone()
    (file,) = files(tmp_path)
    content = bytearray(file.read_bytes())
    if isinstance(place, int):
        del content[place:]
    else:
        content[content.index(caption_hash("a cat").to_bytes(8, "little", signed=True))] ^= 1
    file.write_bytes(content)
    cache = TextEmbeddingCache.build(CAPTIONS, tokenizer, t5, TextSettings(), tmp_path, source="x")

    assert "Its captions are encoded again." in caplog.text
    assert torch.equal(cache.batch(CAPTIONS[:3]).hidden_states, rows)


def test_flipped_bit_in_an_embedding_is_refused_with_the_files_name(
    t5: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    states = TextEmbeddingCache.build(CAPTIONS, tokenizer, t5, TextSettings(), tmp_path).batch(["a cat"]).hidden_states
    (file,) = files(tmp_path)
    content = bytearray(file.read_bytes())
    content[content.index(states[0].view(torch.uint8).numpy().tobytes())] ^= 1
    file.write_bytes(content)
    cache = TextEmbeddingCache.build(CAPTIONS, tokenizer, t5, TextSettings(), tmp_path)

    with pytest.raises(ValueError, match=rf"{file.name} is damaged; delete it"):
        cache.batch(["a cat"])
    file.unlink()
    again = TextEmbeddingCache.build(CAPTIONS, tokenizer, t5, TextSettings(), tmp_path).batch(["a cat"]).hidden_states
    assert torch.equal(again, states)


def test_file_says_what_it_was_made_with(
    t5: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    TextEmbeddingCache.build(CAPTIONS, tokenizer, t5, TextSettings(prefix="query: "), tmp_path)

    metadata = safe_open(files(tmp_path)[0], "pt").metadata()
    assert metadata["encoder"].startswith("T5EncoderModel ")
    assert json.loads(metadata["settings"])["prefix"] == "query: "


def test_file_in_place_of_a_folder_is_refused(
    t5: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    (tmp_path / "old.safetensors").write_bytes(b"")

    with pytest.raises(ValueError, match="which is a file; give a folder"):
        TextEmbeddingCache.build(CAPTIONS, tokenizer, t5, TextSettings(), tmp_path / "old.safetensors")


def test_caches_from_before_there_were_templates_are_found(
    t5: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    TextEmbeddingCache.build(["a cat"], tokenizer, t5, TextSettings(), tmp_path)

    with safe_open(files(tmp_path)[0], framework="pt") as file:
        assert json.loads(file.metadata()["settings"]) == {
            "layers": [-1],
            "prefix": "",
            "max_length": 128,
            "padding": None,
            "null_empty": True,
            "masked": True,
            "captions": "as_is",
        }


def test_half_a_character_is_refused(t5: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(ValueError, match="`captions` holds '\\\\ud800', half a character"):
        TextEmbeddingCache.build(["\ud800"], tokenizer, t5, TextSettings())
