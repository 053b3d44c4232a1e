"""Prompts that were encoded before come from the disk."""

import os
import threading

import pytest
import torch
from safetensors.torch import load_file

from diffusers_imagen.text.encoding import TextSettings, encode_text
from diffusers_imagen.text.prompt_cache import PromptCache

SETTINGS = TextSettings(max_length=24, layers=(1, -1))
PROMPTS = ["a red cat", "猫", "", "a red cat"]


@pytest.fixture
def asked():
    """Give a list of the prompts that had to be encoded."""
    return []


@pytest.fixture
def get(text_models, tmp_path, asked):
    """Give a function that asks the cache."""

    def embeddings(prompts, model="qwen2", settings=SETTINGS, **options):
        tokenizer, encoder = text_models(model)

        def encode(missing):
            asked.extend(missing)
            return encode_text(missing, tokenizer, encoder, settings)

        return PromptCache(tmp_path, **options).embeddings(prompts, tokenizer, encoder, settings, encode)

    return embeddings


def entries(folder):
    return sorted(folder.glob("prompts-*/*.safetensors"))


def same(one, other):
    return torch.equal(one.hidden_states, other.hidden_states) and torch.equal(one.mask, other.mask)


@pytest.mark.parametrize("padding", ["longest", "max_length"])
def test_what_was_encoded_before_is_the_same_to_the_bit_without_the_encoder(get, text_models, asked, padding):
    settings = TextSettings(max_length=24, layers=(1, -1), padding=padding)
    direct = encode_text(PROMPTS, *text_models("qwen2"), settings)
    first = get(PROMPTS, settings=settings)
    assert asked == PROMPTS[:3]
    again = get(PROMPTS, settings=settings)
    assert asked == PROMPTS[:3]
    assert same(first, again)
    assert torch.equal(first.mask, direct.mask)
    torch.testing.assert_close(first.hidden_states, direct.hidden_states, rtol=0, atol=1e-5)


def test_only_what_is_missing_is_encoded(get, asked):
    get(["a red cat"])
    get(["a dog", "a red cat", "a hat"])
    assert asked == ["a red cat", "a dog", "a hat"]


def test_half_precision_stays_as_it_is(get, text_models, tmp_path):
    _, encoder = text_models("bert")
    encoder.to(torch.float16)
    try:
        first = get(["a red cat"], "bert")
    finally:
        encoder.to(torch.float32)
    assert first.hidden_states.dtype == torch.float16
    assert load_file(entries(tmp_path)[0])["tokens"].dtype == torch.float16


def test_encoders_settings_and_weights_are_kept_apart(get, text_models, asked):
    _, encoder = text_models("llama")
    get(["a"], "llama")
    get(["a"], "bert")
    get(["a"], "llama", TextSettings(max_length=24, layers=(1, -1), prefix="the "))
    weight = encoder.get_input_embeddings().weight
    before = weight.detach().clone()
    with torch.no_grad():
        weight += 1
    try:
        get(["a"], "llama")
    finally:
        with torch.no_grad():
            weight.copy_(before)
    assert asked == ["a"] * 4
    get(["a"], "llama")
    assert asked == ["a"] * 4


def test_states_of_unmasked_padding_are_kept_where_it_does_not_depend_on_company(get, text_models, asked):
    fixed = TextSettings(max_length=9, padding="max_length", null_empty=False, masked=False)
    first = get(["a cat", "a"], "t5", fixed)
    assert first.hidden_states.shape == (2, 9, 16)
    assert first.mask.all()
    assert same(get(["a cat", "a"], "t5", fixed), first)
    assert asked == ["a cat", "a"]
    loose = TextSettings(max_length=9, null_empty=False, masked=False)
    for _ in range(2):
        get(["a cat"], "t5", loose)
    assert asked == ["a cat", "a", "a cat", "a cat"]


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty"])
def test_a_damaged_entry_is_made_anew(get, tmp_path, asked, damage, caplog):
    first = get(["a red cat"])
    [path] = entries(tmp_path)
    content = bytearray(path.read_bytes())
    content[-1 if damage == "flipped" else 0] ^= 255 if damage == "flipped" else 0
    flipped = bytes(content)
    path.write_bytes({"cut": flipped[: len(flipped) // 2], "flipped": flipped, "empty": b""}[damage])
    assert same(get(["a red cat"]), first)
    assert asked == ["a red cat"] * 2
    assert "Its prompt is encoded again." in caplog.text
    assert same(get(["a red cat"]), first)
    assert asked == ["a red cat"] * 2


def test_the_oldest_entries_make_room(get, tmp_path, asked):
    get(["a"])
    size = entries(tmp_path)[0].stat().st_size
    get(["b"])
    for path, age in zip(entries(tmp_path), (200, 100), strict=True):
        os.utime(path, (1e9 - age, 1e9 - age))
    old = entries(tmp_path)[0]
    get(["c"], max_bytes=int(2.5 * size))
    assert len(entries(tmp_path)) == 2
    assert not old.exists()
    # What is asked for is young again.
    other = next(path for path in entries(tmp_path) if path.stat().st_mtime < 2e9 - 5e8)
    asked.clear()
    get(["a", "b"], max_bytes=10 * size)
    assert len(asked) == 1
    assert other.stat().st_mtime > 1.5e9


def test_files_of_others_are_left_alone(get, tmp_path):
    (tmp_path / "0123456789abcdef").mkdir()
    own = tmp_path / "0123456789abcdef" / "captions.safetensors"
    own.write_bytes(b"x" * 1000)
    get(["a"], max_bytes=1)
    PromptCache(tmp_path).clear()
    assert own.exists()
    assert not list(tmp_path.glob("prompts-*/*"))


def test_a_cut_prompt_is_told_of_again(get, caplog):
    for _ in range(2):
        caplog.clear()
        get(["a red cat " * 20])
        assert caplog.text.count("this part was cut off") == 1


def test_many_at_once_leave_whole_entries(get, tmp_path):
    expected = get(["a red cat", "猫"])
    PromptCache(tmp_path).clear()
    found, errors = [], []

    def ask():
        try:
            for _ in range(5):
                found.append(get(["a red cat", "猫"]))
                PromptCache(tmp_path).clear()
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert len(found) == 20
    for one in found:
        assert torch.equal(one.mask, expected.mask)
        # Which prompts were encoded together changes the last bits.
        torch.testing.assert_close(one.hidden_states, expected.hidden_states, rtol=0, atol=1e-5)
    assert not list(tmp_path.glob("prompts-*/*"))


def test_half_written_files_are_left_to_their_writers_and_removed_after_a_crash(get, tmp_path):
    get(["a"])
    fresh, old = (entries(tmp_path)[0].with_name(f"{name}.tmp") for name in ("fresh", "old"))
    for path in (fresh, old):
        path.write_bytes(b"x")
    os.utime(old, (1e9, 1e9))
    PromptCache(tmp_path).clear()
    assert [path.name for path in tmp_path.glob("prompts-*/*")] == ["fresh.tmp"]


def test_a_folder_that_cannot_be_written_costs_only_the_cache(get, tmp_path, caplog):
    first = get(["a"])
    folder = entries(tmp_path)[0].parent
    PromptCache(tmp_path).clear()
    folder.rmdir()
    folder.write_text("in the way")
    assert same(get(["a"]), first)
    assert f"The prompt cache {tmp_path} cannot be written" in caplog.text


def test_impossible_folders_and_sizes_are_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"`folder` is .*file', which is a file"):
        PromptCache(tmp_path / "file")
    with pytest.raises(ValueError, match="`max_bytes` is 0; give"):
        PromptCache(tmp_path, 0)


def test_an_encoder_without_weights_is_refused(get, text_models, tmp_path):
    tokenizer, encoder = text_models("bert")
    with torch.device("meta"):
        empty = type(encoder)(encoder.config)
    with pytest.raises(ValueError, match="`text_encoder` has no weights at the moment"):
        PromptCache(tmp_path).embeddings(["a"], tokenizer, empty, SETTINGS, lambda _: None)
