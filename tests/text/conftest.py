"""Tiny real text models and tokenizers, made in memory."""

from collections.abc import Callable

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertModel,
    CLIPTextConfig,
    CLIPTextModel,
    LlamaConfig,
    LlamaModel,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2Model,
    T5Config,
    T5EncoderModel,
    T5ForConditionalGeneration,
)

WORDS = [
    "<pad>",
    "</s>",
    "<unk>",
    "<s>",
    "query:",
    "a",
    "cat",
    "red",
    "dog",
    "under",
    "the",
    "table",
    "一",
    "只",
    "猫",
]
SIZE = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "vocab_size": len(WORDS),
    "max_position_embeddings": 24,
}
T5_SIZE = {"vocab_size": len(WORDS), "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2}


def make_tokenizer(ends: bool = True, pads: bool = True) -> PreTrainedTokenizerFast:
    """Make a word tokenizer, with or without an end token and a padding token."""
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if ends:
        tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    special = (
        {"unk_token": "<unk>"} | ({"eos_token": "</s>"} if ends else {}) | ({"pad_token": "<pad>"} if pads else {})
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, padding_side="left", **special)


def make_encoder(name: str) -> PreTrainedModel:
    """Make a random text model of width 16 with 2 layers."""
    torch.manual_seed(0)
    makers: dict[str, Callable[[], PreTrainedModel]] = {
        "t5": lambda: T5EncoderModel(T5Config(**T5_SIZE)),
        "t5_whole": lambda: T5ForConditionalGeneration(T5Config(**T5_SIZE)),
        "bert": lambda: BertModel(BertConfig(**SIZE)),
        "clip": lambda: CLIPTextModel(CLIPTextConfig(**SIZE, bos_token_id=3, eos_token_id=1, pad_token_id=0)),
        "llama": lambda: LlamaModel(LlamaConfig(**SIZE)),
        "qwen2": lambda: Qwen2Model(Qwen2Config(**SIZE, num_key_value_heads=2)),
    }
    return makers[name]().eval()


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerFast:
    return make_tokenizer()


@pytest.fixture(params=["t5", "t5_whole", "bert", "clip", "llama", "qwen2"])
def encoder(request: pytest.FixtureRequest) -> PreTrainedModel:
    return make_encoder(request.param)


@pytest.fixture
def t5() -> PreTrainedModel:
    return make_encoder("t5")


@pytest.fixture
def llama() -> PreTrainedModel:
    return make_encoder("llama")


@pytest.fixture
def bert() -> PreTrainedModel:
    return make_encoder("bert")


@pytest.fixture
def bare_tokenizer() -> PreTrainedTokenizerFast:
    """Give a tokenizer without any special token, as some decoders have it."""
    return make_tokenizer(ends=False, pads=False)
