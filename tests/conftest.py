"""For all tests: no network, one thread, and a tiny real cascade of 8, 16 and 32 pixels."""

import functools
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import diffusers
import pytest
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast, T5Config, T5EncoderModel

from diffusers_imagen.models.unet_efficient import EfficientUNet2DConditionModel
from diffusers_imagen.models.unet_imagen import ImagenUNet2DConditionModel
from diffusers_imagen.pipelines.pipeline_imagen_cascade import ImagenCascadePipeline

torch.set_num_threads(1)

WORDS = ["<pad>", "</s>", "<unk>", "a", "red", "blue", "cat", "dog", "hat", "with", "猫", "狗", "帽子"]
UNET = {
    "block_out_channels": (8, 16),
    "layers_per_block": (1, 1),
    "attention_types": ("none", "self"),
    "attention_head_dim": 8,
    "norm_num_groups": 4,
    "conditioning_dim": 16,
    "encoder_hid_dim": 16,
    "cross_attention_dim": 16,
    "text_max_length": 12,
}
STAGES = {
    "base": {"num_inference_steps": 3, "guidance_scale": 3.0},
    "sr_1": {"num_inference_steps": 2, "guidance_scale": 1.0, "noise_level": 0.1},
    "sr_2": {"num_inference_steps": 2, "guidance_scale": 1.0, "noise_level": 0.2},
}


@pytest.fixture(scope="session")
def cascade_parts() -> dict[str, Any]:
    """Give the components of a cascade that have weights, and the tokenizer; tests leave them as they are."""
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    torch.manual_seed(0)
    encoder = T5EncoderModel(
        T5Config(
            vocab_size=len(WORDS), d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2, tie_word_embeddings=True
        )
    )
    return {
        "tokenizer": PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
        ),
        "text_encoder": encoder.eval(),
        "unet": randomise(ImagenUNet2DConditionModel(sample_size=8, patch_size=1, **UNET), seed=1),
        "sr_unet_1": randomise(EfficientUNet2DConditionModel(sample_size=16, **UNET), seed=2),
        "sr_unet_2": randomise(EfficientUNet2DConditionModel(sample_size=32, patch_size=2, **UNET), seed=3),
    }


@pytest.fixture(scope="session")
def make_cascade(cascade_parts: dict[str, Any]) -> Callable[..., ImagenCascadePipeline]:
    """Give a function that makes a cascade with so many stages; keyword arguments replace components."""

    def make(stages: int = 2, settings: dict[str, Any] | None = None, **components: Any) -> ImagenCascadePipeline:
        parts = dict(cascade_parts)
        for number in (1, 2):
            exists = stages > number
            parts[f"sr_unet_{number}"] = parts[f"sr_unet_{number}"] if exists else None
            parts[f"sr_scheduler_{number}"] = ddim() if exists else None
        parts = {**parts, "scheduler": ddim(), "text": {"max_length": 12}} | components
        pipe = ImagenCascadePipeline(**parts, stages=STAGES if settings is None else settings)
        pipe.set_progress_bar_config(disable=True)
        return pipe

    return make


@pytest.fixture
def cascade(make_cascade: Callable[..., ImagenCascadePipeline]) -> ImagenCascadePipeline:
    """Give a cascade of 8 and 16 pixels."""
    return make_cascade()


@pytest.fixture(scope="session")
def seeded() -> Callable[..., Any]:
    """Give a function that makes a generator, or for several seeds a list of them."""

    def make(*seeds: int) -> torch.Generator | list[torch.Generator]:
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        return generators if len(seeds) > 1 else generators[0]

    return make


def ddim() -> diffusers.DDIMScheduler:
    # As x_0, not as the default epsilon: where alpha is near 0, a change of the last bit in eps is one of x_0 that shows.
    return diffusers.DDIMScheduler(
        beta_schedule="squaredcos_cap_v2",
        prediction_type="sample",
        timestep_spacing="trailing",
        clip_sample=False,
    )


def randomise(model: torch.nn.Module, seed: int) -> torch.nn.Module:
    """Give zero-initialised layers weights too, so that every condition reaches the output."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                fan_in = parameter[0].numel()
                parameter.copy_(torch.randn(parameter.shape, generator=generator) / fan_in**0.5)
    return model.eval()


DEEPFLOYD_UNETS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "two levels": ({"block_out_channels": (32, 64)}, {"block_out_channels": (32, 64)}),
    # As many levels, blocks and places for attention as the released ones have, I-M and II-M.
    "released levels": (
        {"block_out_channels": (32, 32, 64, 64), "layers_per_block": 2, "attention_head_dim": 16},
        {"block_out_channels": (32, 32, 32, 64, 64), "layers_per_block": (1, 1, 1, 2, 2), "attention_levels": 2},
    ),
    "text of the same width": ({"encoder_hid_dim": None}, {"encoder_hid_dim": None, "cross_attention_norm": None}),
}


@pytest.fixture(scope="session")
def deepfloyd_unet() -> Callable[..., diffusers.UNet2DConditionModel]:
    """Give a function that makes a U-Net with random weights in DeepFloyd IF's layout."""

    def make(stage: int, layout: str = "two levels", seed: int = 0) -> diffusers.UNet2DConditionModel:
        settings = {"block_out_channels": (32, 64), "attention_levels": None} | DEEPFLOYD_UNETS[layout][
            min(stage, 2) - 1
        ]
        levels = len(settings["block_out_channels"])
        with_attention = settings.pop("attention_levels") or levels - 1
        plain = levels - with_attention
        base = {
            "sample_size": 8 * 2 ** (stage - 1) if levels < 4 else 16 * stage,
            "in_channels": 3,
            "out_channels": 6,
            "layers_per_block": 1,
            "down_block_types": ("ResnetDownsampleBlock2D",) * plain
            + ("SimpleCrossAttnDownBlock2D",) * with_attention,
            "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
            "up_block_types": ("SimpleCrossAttnUpBlock2D",) * with_attention + ("ResnetUpsampleBlock2D",) * plain,
            "act_fn": "gelu",
            "attention_head_dim": 8,
            "cross_attention_dim": 32,
            "encoder_hid_dim": 32,
            "cross_attention_norm": "group_norm",
            "addition_embed_type": "text",
            "addition_embed_type_num_heads": 4,
            "resnet_time_scale_shift": "scale_shift",
        }
        enlargement = {
            "in_channels": 6,
            "class_embed_type": "timestep",
            "time_embedding_act_fn": "gelu",
            "time_embedding_dim": 64,
            "resnet_skip_time_act": True,
            "resnet_out_scale_factor": 1 / 0.7071,
            "mid_block_scale_factor": 1 / 0.7071,
            "only_cross_attention": True,
        }
        torch.manual_seed(10 * stage + seed)
        return diffusers.UNet2DConditionModel(**base | (enlargement if stage > 1 else {}) | settings).eval()

    return make


@pytest.fixture(scope="session")
def deepfloyd(cascade_parts: dict[str, Any], deepfloyd_unet: Callable[..., Any]) -> Callable[..., list[Any]]:
    """Give a function that makes DeepFloyd IF's pipelines, the base and so many enlargements, with random weights."""
    torch.manual_seed(5)
    encoder = T5EncoderModel(
        T5Config(
            vocab_size=len(WORDS), d_model=32, d_kv=8, d_ff=32, num_layers=2, num_heads=2, tie_word_embeddings=True
        )
    ).eval()

    def make(stages: int = 2, layout: str = "two levels") -> list[Any]:
        pipes = []
        for stage in range(1, stages + 1):
            parts = {
                "tokenizer": cascade_parts["tokenizer"],
                "text_encoder": encoder,
                "unet": deepfloyd_unet(stage, layout),
                "scheduler": deepfloyd_ddpm(1.5 if stage == 1 else 1.0),
                **dict.fromkeys(("safety_checker", "feature_extractor", "watermarker")),
                "requires_safety_checker": False,
            }
            noising = diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2")
            pipe = (
                diffusers.IFPipeline(**parts)
                if stage == 1
                else diffusers.IFSuperResolutionPipeline(**parts, image_noising_scheduler=noising)
            )
            pipe.set_progress_bar_config(disable=True)
            pipes.append(pipe)
        return pipes

    return make


def deepfloyd_ddpm(sample_max_value: float) -> diffusers.DDPMScheduler:
    return diffusers.DDPMScheduler(
        beta_schedule="squaredcos_cap_v2",
        variance_type="learned_range",
        thresholding=True,
        dynamic_thresholding_ratio=0.95,
        sample_max_value=sample_max_value,
    )


LINES = ["a red cat under the table", "the dog with a blue hat", "一只戴帽子的猫", "قطة حمراء تحت الطاولة", "🐱🎩 cat"]
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TEXT_MODELS = ("t5", "mt5", "umt5", "byt5", "bert", "clip", "llama", "qwen2")


def trained(model: Any, trainer: Any, split: Any) -> dict[str, Any]:
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = split
    tokenizer.train_from_iterator(LINES * 3, trainer)
    return json.loads(tokenizer.to_str())["model"]


def byte_pairs(*special: str) -> dict[str, Any]:
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=320, initial_alphabet=alphabet, special_tokens=list(special), show_progress=False
    )
    model = trained(models.BPE(), trainer, pre_tokenizers.ByteLevel(add_prefix_space=False))
    return {"vocab": model["vocab"], "merges": [tuple(pair) for pair in model["merges"]]}


def unigrams() -> list[tuple[str, float]]:
    special = ["<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(vocab_size=80, special_tokens=special, unk_token="<unk>", show_progress=False)
    return [tuple(pair) for pair in trained(models.Unigram(), trainer, pre_tokenizers.Metaspace())["vocab"]]


def make_text_model(name: str) -> tuple[PreTrainedTokenizerBase, PreTrainedModel]:
    torch.manual_seed(7)
    if "t5" in name:
        vocab = unigrams()
        tokenizer = (
            transformers.ByT5Tokenizer() if name == "byt5" else transformers.T5Tokenizer(vocab=vocab, extra_ids=0)
        )
        kind = {"mt5": "MT5", "umt5": "UMT5"}.get(name, "T5")
        config = getattr(transformers, f"{kind}Config")(
            vocab_size=len(tokenizer), d_model=16, d_kv=8, d_ff=32, num_layers=3, num_heads=2
        )
        return tokenizer, getattr(transformers, f"{kind}EncoderModel")(config).eval()
    if name == "bert":
        words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *sorted(set(" ".join(LINES))), "cat", "red", "##s"]
        tokenizer = transformers.BertTokenizer(vocab={word: number for number, word in enumerate(words)})
    elif name == "clip":
        vocab = byte_pairs("<|startoftext|>", "<|endoftext|>")["vocab"]
        letters = sorted(word for word in vocab if len(word) == 1)
        vocab |= {f"{letter}</w>": len(vocab) + number for number, letter in enumerate(letters)}
        tokenizer = transformers.CLIPTokenizer(vocab=vocab, merges=[])
    elif name == "llama":
        # Characters that it does not know are read as bytes, as in the released ones.
        words = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "\u2581", *"abcdehilnrtu"]
        vocab = {word: number for number, word in enumerate(words)}
        tokenizer = transformers.LlamaTokenizer(vocab=vocab, merges=[], add_bos_token=True)
    else:
        parts = byte_pairs("<|endoftext|>", "<|im_start|>", "<|im_end|>")
        tokenizer = transformers.Qwen2Tokenizer(**parts, padding_side="left")
        tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
        tokenizer.chat_template = CHATML
    kinds = {"bert": ("BertConfig", "BertModel"), "clip": ("CLIPTextConfig", "CLIPTextModel")}
    kinds |= {"llama": ("LlamaConfig", "LlamaForCausalLM"), "qwen2": ("Qwen2Config", "Qwen2Model")}
    config = getattr(transformers, kinds[name][0])(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=2,
        intermediate_size=32,
        max_position_embeddings=128,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return tokenizer, getattr(transformers, kinds[name][1])(config).eval()


@pytest.fixture(scope="session")
def text_models() -> Callable[[str], tuple[PreTrainedTokenizerBase, PreTrainedModel]]:
    """Give a function that returns a real tokenizer and a random text model of width 16 with 3 layers, by name."""
    return functools.cache(make_text_model)


@pytest.fixture(scope="session")
def checkpoint(make_cascade: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the folder of a saved cascade of 8 and 16 pixels; nothing may change it."""
    folder = tmp_path_factory.mktemp("checkpoint")
    make_cascade(2).save_pretrained(folder)
    return folder


@pytest.fixture
def folder(checkpoint: Path, tmp_path: Path) -> Path:
    """Give a copy of it, named "cats", to damage."""
    shutil.copytree(checkpoint, tmp_path / "cats")
    return tmp_path / "cats"
