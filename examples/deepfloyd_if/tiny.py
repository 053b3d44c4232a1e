"""Pipelines of the real classes with random weights, small enough to be made on the spot."""

from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DDPMScheduler,
    IFPipeline,
    IFSuperResolutionPipeline,
    StableDiffusionUpscalePipeline,
    UNet2DConditionModel,
)
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast, T5Config, T5EncoderModel

_LETTERS = ["<pad>", "</s>", "<unk>", *"abcdefghijklmnopqrstuvwxyz"]
_NOISE = {"beta_schedule": "squaredcos_cap_v2"}


def tiny_stages() -> list[Any]:
    """Return DeepFloyd IF's base, 16 pixels, and its first enlargement, to 32."""
    torch.manual_seed(0)
    width = len(_LETTERS)
    encoder = T5EncoderModel(T5Config(vocab_size=width, d_model=32, d_kv=8, d_ff=32, num_layers=1, num_heads=4)).eval()
    shared = {"tokenizer": _tokenizer(), "text_encoder": encoder, "requires_safety_checker": False}
    shared |= dict.fromkeys(("safety_checker", "feature_extractor", "watermarker"))
    base = IFPipeline(**shared, unet=_unet(3, 16), scheduler=_ddpm(1.5))
    enlargement = IFSuperResolutionPipeline(
        **shared, unet=_unet(6, 32), scheduler=_ddpm(1.0), image_noising_scheduler=DDPMScheduler(**_NOISE)
    )
    return [base, enlargement]


def tiny_upscaler() -> StableDiffusionUpscalePipeline:
    """Return Stable Diffusion's x4 upscaler."""
    torch.manual_seed(1)
    unet = UNet2DConditionModel(
        sample_size=32,
        in_channels=7,
        out_channels=4,
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=32,
        attention_head_dim=8,
        use_linear_projection=True,
        num_class_embeds=1000,
    )
    vae = AutoencoderKL(
        block_out_channels=(32, 32, 64),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
    )
    text = CLIPTextConfig(
        vocab_size=len(_LETTERS), hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=4
    )
    return StableDiffusionUpscalePipeline(
        vae=vae.eval(),
        text_encoder=CLIPTextModel(text).eval(),
        tokenizer=_tokenizer(),
        unet=unet.eval(),
        low_res_scheduler=DDPMScheduler(**_NOISE),
        scheduler=DDIMScheduler(prediction_type="v_prediction"),
        max_noise_level=350,
    )


def _unet(in_channels: int, sample_size: int) -> UNet2DConditionModel:
    enlargement = {"class_embed_type": "timestep", "only_cross_attention": True, "resnet_skip_time_act": True}
    enlargement |= {
        "time_embedding_act_fn": "gelu",
        "resnet_out_scale_factor": 2**0.5,
        "mid_block_scale_factor": 2**0.5,
    }
    return UNet2DConditionModel(
        sample_size=sample_size,
        in_channels=in_channels,
        out_channels=6,
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
        act_fn="gelu",
        attention_head_dim=8,
        cross_attention_dim=32,
        encoder_hid_dim=32,
        cross_attention_norm="group_norm",
        addition_embed_type="text",
        addition_embed_type_num_heads=4,
        resnet_time_scale_shift="scale_shift",
        **(enlargement if in_channels == 6 else {}),
    ).eval()


def _ddpm(sample_max_value: float) -> DDPMScheduler:
    return DDPMScheduler(
        **_NOISE,
        variance_type="learned_range",
        thresholding=True,
        dynamic_thresholding_ratio=0.95,
        sample_max_value=sample_max_value,
    )


def _tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.WordLevel({letter: i for i, letter in enumerate(_LETTERS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=77,
    )
