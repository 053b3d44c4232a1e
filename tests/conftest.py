"""For all tests: no network, one thread, and a tiny real cascade of 8, 16 and 32 pixels."""

import os
from collections.abc import Callable
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import diffusers
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel

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
