import logging

import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast, RobertaConfig, RobertaModel

from diffusers_imagen.text.encoding import TextEmbeddings, TextSettings, encode_text

PROMPTS = ["a cat", "the red dog under the table", "一 只 猫"]


def test_hidden_states_are_those_of_the_model_run_by_hand(
    encoder: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    encoded = encode_text(["a cat"], tokenizer, encoder, TextSettings(max_length=8))

    model = encoder.get_encoder() if encoder.config.is_encoder_decoder else encoder
    with torch.no_grad():
        expected = model(input_ids=torch.tensor([[5, 6, 1]]), output_hidden_states=True).hidden_states[-1]
    torch.testing.assert_close(encoded.hidden_states, expected, rtol=0, atol=1e-6)
    assert encoded.mask.tolist() == [[True, True, True]]


def test_padding_never_changes_an_embedding(encoder: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    alone = encode_text(["a cat"], tokenizer, encoder, TextSettings(max_length=20))
    padded = encode_text(["a cat"], tokenizer, encoder, TextSettings(max_length=20, padding="max_length"))
    in_company = encode_text(PROMPTS, tokenizer, encoder, TextSettings(max_length=20))

    assert padded.hidden_states.shape == (1, 20, 16)
    for other in (padded, in_company):
        torch.testing.assert_close(other.hidden_states[0, :3], alone.hidden_states[0], rtol=0, atol=1e-6)
        assert other.mask[0].tolist() == [True] * 3 + [False] * (other.mask.shape[1] - 3)


def test_padding_states_are_exactly_zero(encoder: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    encoded = encode_text(PROMPTS, tokenizer, encoder, TextSettings(max_length=20))

    assert not encoded.hidden_states[~encoded.mask].any()
    assert encoded.hidden_states[encoded.mask].abs().sum(-1).min() > 0


def test_batch_order_does_not_change_an_embedding(
    encoder: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    forward = encode_text(PROMPTS, tokenizer, encoder, TextSettings(max_length=20))
    backward = encode_text(PROMPTS[::-1], tokenizer, encoder, TextSettings(max_length=20))

    torch.testing.assert_close(backward.hidden_states.flip(0), forward.hidden_states, rtol=0, atol=1e-6)
    assert torch.equal(backward.mask.flip(0), forward.mask)


def test_several_layers_stand_side_by_side_in_the_given_order(
    encoder: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    both = encode_text(["a cat"], tokenizer, encoder, TextSettings(layers=(0, -1), max_length=8))

    for place, layer in enumerate((0, 2)):
        one = encode_text(["a cat"], tokenizer, encoder, TextSettings(layers=(layer,), max_length=8))
        assert torch.equal(both.hidden_states[..., 16 * place : 16 * (place + 1)], one.hidden_states)


def test_prefix_is_encoded_like_text_before_the_prompt(
    t5: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    prefixed = encode_text(["a cat"], tokenizer, t5, TextSettings(prefix="query: "))
    written = encode_text(["query: a cat"], tokenizer, t5, TextSettings())

    assert torch.equal(prefixed.hidden_states, written.hidden_states)


def test_empty_prompt_has_no_token_when_null_empty(t5: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    settings = TextSettings(prefix="query: ")
    encoded = encode_text(["", "a cat"], tokenizer, t5, settings)

    assert encoded.mask.any(1).tolist() == [False, True]
    assert not encoded.hidden_states[0].any()


def test_empty_prompt_is_encoded_when_not_null_empty(t5: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    encoded = encode_text([""], tokenizer, t5, TextSettings(null_empty=False))

    assert encoded.mask.tolist() == [[True]]
    assert encoded.hidden_states.any()


def test_decoder_whose_tokenizer_has_no_special_tokens_takes_batches_and_empty_prompts(
    llama: PreTrainedModel, bare_tokenizer: PreTrainedTokenizerFast
) -> None:
    encoded = encode_text(["", *PROMPTS], bare_tokenizer, llama, TextSettings(max_length=8, null_empty=False))

    assert encoded.mask.sum(1).tolist() == [0, 2, 6, 3]
    assert encoded.hidden_states.isfinite().all()
    assert bare_tokenizer.pad_token is None


def test_tokenizer_is_left_as_it_was(t5: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    before = tokenizer.backend_tokenizer.to_str()
    encode_text(PROMPTS, tokenizer, t5, TextSettings(max_length=3))

    assert tokenizer.padding_side == "left"
    assert tokenizer(["a cat", "a"], padding=False)["input_ids"] == [[5, 6, 1], [5, 1]]
    assert tokenizer.backend_tokenizer.to_str() == before


def test_long_prompt_is_cut_with_a_warning_that_quotes_the_rest(
    t5: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        cut = encode_text(["a red cat under the table"], tokenizer, t5, TextSettings(max_length=4))
    kept = encode_text(["a red cat"], tokenizer, t5, TextSettings(max_length=4))

    assert torch.equal(cut.hidden_states, kept.hidden_states)
    assert [record.getMessage() for record in caplog.records] == [
        "The prompt has 7 tokens and only 4 are used; this part was cut off: 'under the table'"
    ]


def test_prompt_that_just_fits_gives_no_warning(
    t5: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, caplog: pytest.LogCaptureFixture
) -> None:
    encode_text(["a red cat"], tokenizer, t5, TextSettings(max_length=4))

    assert not caplog.records


def test_result_has_the_precision_of_the_encoder(t5: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    encoded = encode_text(PROMPTS, tokenizer, t5.to(torch.bfloat16), TextSettings())

    assert isinstance(encoded, TextEmbeddings)
    assert encoded.hidden_states.dtype == torch.bfloat16
    assert not encoded.hidden_states.requires_grad


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ([], "`prompts` is"),
        ("a cat", "`prompts` is 'a cat'; give a list"),
        (["a cat", None], "`prompts` holds None"),
        ([3], "`prompts` holds 3 of type int"),
    ],
)
def test_prompts_that_are_not_strings_are_refused(
    t5: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, prompts: list[str], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        encode_text(prompts, tokenizer, t5, TextSettings())


@pytest.mark.parametrize("layer", [3, -4])
def test_layer_that_the_encoder_lacks_is_refused(
    t5: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, layer: int
) -> None:
    with pytest.raises(ValueError, match=rf"`layers` asks for \[{layer}\].*from -3 to 2"):
        encode_text(["a cat"], tokenizer, t5, TextSettings(layers=(0, layer)))


def test_more_tokens_than_positions_are_refused(bert: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    encode_text(["a cat"], tokenizer, bert, TextSettings(max_length=24, padding="max_length"))
    with pytest.raises(ValueError, match=r"`max_length` is 25.*positions for 24"):
        encode_text(["a cat"], tokenizer, bert, TextSettings(max_length=25))


def test_roberta_offset_of_positions_is_taken_into_account(tokenizer: PreTrainedTokenizerFast) -> None:
    config = RobertaConfig(
        vocab_size=15,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=10,
        pad_token_id=1,
    )
    roberta = RobertaModel(config).eval()
    with pytest.raises(ValueError, match="positions for 8 tokens"):
        encode_text(["a cat"], tokenizer, roberta, TextSettings(max_length=9))
    encode_text(["a cat a cat a cat a cat"], tokenizer, roberta, TextSettings(max_length=8))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layers": ()}, "`layers`"),
        ({"layers": (1.5,)}, "`layers`"),
        ({"max_length": 0}, "`max_length` is 0"),
        ({"padding": "left"}, "`padding` is 'left'"),
    ],
)
def test_impossible_settings_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TextSettings(**arguments)


def test_settings_take_the_lists_that_json_gives() -> None:
    assert TextSettings(layers=[4, -1]) == TextSettings(layers=(4, -1))
