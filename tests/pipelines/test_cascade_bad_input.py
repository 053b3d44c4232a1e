"""Wrong arguments are told before any model runs: the argument, the value, and what to do."""

import re
from typing import Any

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    EulerDiscreteScheduler,
    RePaintScheduler,
    UNet2DConditionModel,
)
from PIL import Image

from diffusers_imagen.models.unet_imagen import ImagenUNet2DConditionModel


def embeds(*shape: int) -> torch.Tensor:
    return torch.zeros(*shape)


PICTURE = Image.new("RGB", (8, 8))
REMEDY = r"; (give|choose|name|start|make|swap|use)|Take |for instance|the (stages|settings) are|there is"

# What is wrong in the call, and what the message must hold.
BAD_ARGUMENTS: list[tuple[dict[str, Any], str]] = [
    ({"prompt": None}, "`prompt` and `prompt_embeds` are both missing"),
    ({"prompt": []}, "`prompt` is an empty list"),
    ({"prompt": 3}, "`prompt` is 3 (int)"),
    ({"prompt": ["a", 3]}, "`prompt` holds 3 (int)"),
    ({"prompt": {"sr_3": "a"}}, "`prompt` names the stage 'sr_3'"),
    ({"prompt": {"sr_1": "a"}}, "`prompt` names no prompt for 'base'"),
    ({"prompt": {"base": "a", "sr_1": None}}, "`prompt` names no prompt for 'sr_1'"),
    ({"prompt": {"base": "a", "sr_1": ["a", "a"]}}, "`prompt` has 2 texts for 'sr_1', but 1 are drawn"),
    ({"negative_prompt": 7}, "`negative_prompt` is 7 (int)"),
    ({"negative_prompt": ["a", "a"]}, "`negative_prompt` has 2 texts for 'base', but 1 are drawn"),
    ({"prompt_embeds": embeds(1, 3, 16)}, "`prompt` and `prompt_embeds` are both given"),
    (
        {"negative_prompt": "a", "negative_prompt_embeds": embeds(1, 3, 16)},
        "`negative_prompt` and `negative_prompt_embeds` are both given",
    ),
    ({"negative_prompt_embeds": embeds(2, 3, 16)}, "`negative_prompt_embeds` holds 2 texts, but 1 are drawn"),
    ({"prompt": None, "prompt_embeds": "a cat"}, "`prompt_embeds` is str"),
    ({"prompt": None, "prompt_embeds": embeds(0, 3, 16)}, "`prompt_embeds` is (0, 3, 16)"),
    ({"prompt": None, "prompt_embeds": embeds(3, 16)}, "`prompt_embeds` is (3, 16)"),
    ({"prompt": None, "prompt_embeds": embeds(1, 3, 15)}, "`prompt_embeds` has width 15"),
    ({"prompt": None, "prompt_embeds": embeds(1, 13, 16)}, "`prompt_embeds` holds 13 tokens"),
    (
        {"prompt": None, "prompt_embeds": embeds(2, 3, 16), "prompt_attention_mask": embeds(2, 4)},
        "`prompt_attention_mask` is (2, 4); give (2, 3)",
    ),
    ({"prompt_attention_mask": embeds(1, 3)}, "`prompt_attention_mask` is given without `prompt_embeds`"),
    (
        {"negative_prompt_embeds": embeds(1, 3, 16), "negative_prompt_attention_mask": embeds(1, 2)},
        "`negative_prompt_attention_mask` is (1, 2)",
    ),
    ({"num_images_per_prompt": 0}, "`num_images_per_prompt` is 0"),
    ({"num_images_per_prompt": 1.5}, "`num_images_per_prompt` is 1.5"),
    ({"num_inference_steps": 0}, "`num_inference_steps` is 0"),
    ({"num_inference_steps": -1}, "`num_inference_steps` is -1"),
    ({"num_inference_steps": "3"}, "`num_inference_steps` is '3'"),
    ({"num_inference_steps": {"sr_1": 2.5}}, "`num_inference_steps` is 2.5"),
    ({"num_inference_steps": {"base": None}}, "`num_inference_steps` is None"),
    ({"num_inference_steps": 10_001}, "`num_inference_steps` is 10001; give a whole number from 1 to 10000"),
    ({"max_batch_size": 0}, "`max_batch_size` is 0"),
    ({"max_batch_size": 1.5}, "`max_batch_size` is 1.5"),
    ({"max_batch_size": {"sr_1": True}}, "`max_batch_size` is True"),
    ({"max_batch_size": {"sr_2": 1}}, "`max_batch_size` names the stage 'sr_2'"),
    ({"num_inference_steps": {"sr_2": 3}}, "`num_inference_steps` names the stage 'sr_2'"),
    ({"num_inference_steps": {"sr_1": 2000}}, "`num_inference_steps` is 2000, but DDIMScheduler has 1000"),
    ({"guidance_scale": "5"}, "`guidance_scale` is '5'"),
    ({"guidance_scale": float("nan")}, "`guidance_scale` is nan"),
    ({"guidance_rescale": 1.5}, "`guidance_rescale` is 1.5"),
    ({"guidance_interval": (0.8, 0.2)}, "`guidance_interval` is (0.8, 0.2)"),
    ({"guidance_interval": ("a", 1)}, "`guidance_interval` is ('a', 1)"),
    ({"guidance_interval": 0.5}, "`guidance_interval` is 0.5"),
    ({"thresholding": "clip"}, "`thresholding` is 'clip'"),
    ({"noise_level": 0.2}, "`noise_level` is 0.2, but the base"),
    ({"noise_level": {"base": 0.2}}, "but the base has no smaller picture"),
    ({"noise_level": {"sr_1": 250}}, "`noise_level` is 250"),
    ({"noise_level": {"sr_1": -0.1}}, "`noise_level` is -0.1"),
    ({"timesteps": 3}, "`timesteps` is 3 for 'base'"),
    ({"timesteps": ["a"]}, "`timesteps` is ['a'] for 'base'"),
    ({"timesteps": {"sr_7": [1]}}, "`timesteps` names the stage 'sr_7'"),
    ({"timesteps": [900, 100]}, "`timesteps` cannot be set for DDIMScheduler"),
    ({"sigmas": [3.0, 0.0]}, "`sigmas` cannot be set for DDIMScheduler"),
    ({"height": "16"}, "`height` is '16'"),
    ({"height": 0}, "`height` is 0"),
    (
        {"height": 18},
        "`height` is 18 pixels for the final picture, but these stages draw multiples of 4; give 16 or 20",
    ),
    ({"width": 3}, "`width` is 3 pixels"),
    ({"generator": 0}, "`generator` is or holds 0"),
    ({"generator": ["seed"]}, "`generator` is or holds 'seed'"),
    ({"generator": [torch.Generator(), torch.Generator()]}, "`generator` is a list of 2, but 1 pictures are drawn"),
    ({"latents": embeds(1, 3, 16, 16)}, "`latents` is (1, 3, 16, 16)"),
    ({"latents": [0.0]}, "`latents` is list"),
    ({"output_type": "png"}, "`output_type` is 'png'"),
    ({"start_stage": "sr_2"}, "`start_stage` is 'sr_2'"),
    ({"stop_stage": "refiner"}, "`stop_stage` is 'refiner'"),
    ({"stop_stage": 1}, "`stop_stage` is 1"),
    ({"start_stage": "sr_1"}, "`start_stage` is 'sr_1', which enlarges a picture"),
    ({"start_stage": "sr_1", "stop_stage": "base", "image": PICTURE}, "comes after `stop_stage`, 'base'"),
    ({"start_stage": "base", "image": PICTURE}, "`image` is given, but the base starts from noise"),
    ({"image": 3}, "`image` is 3"),
    ({"image": "cat.png"}, "`image` is 'cat.png'"),
    ({"image": []}, "`image` is []"),
    ({"image": [PICTURE, "cat.png"]}, "`image` is [<PIL.Image"),
    ({"image": [PICTURE, PICTURE]}, "`image` holds 2 pictures for 1 prompts"),
    ({"image": torch.rand(1, 4, 8, 8)}, "`image` has 4 channels"),
    ({"image": torch.full((1, 3, 8, 8), 255.0)}, "`image` holds values from 255 to 255"),
    ({"image": torch.full((1, 3, 8, 8), -1.0)}, "`image` holds values from -1 to -1"),
    ({"callback_on_step_end": 3}, "`callback_on_step_end` is 3"),
    ({"callback_on_step_end_tensor_inputs": ["noise"]}, "`callback_on_step_end_tensor_inputs` holds 'noise'"),
]


def refusal(pipe: Any, calls: list[Any], **arguments: Any) -> str:
    """Call, and return the message of the refusal; no model may have run."""
    with pytest.raises(ValueError, match=REMEDY) as caught:
        pipe(**{"prompt": "a cat"} | arguments)
    assert calls == []
    return str(caught.value)


@pytest.mark.parametrize(("arguments", "message"), BAD_ARGUMENTS, ids=[message for _, message in BAD_ARGUMENTS])
def test_a_wrong_argument_is_told_before_any_model_runs(cascade, record_calls, arguments, message):
    assert message in refusal(cascade, record_calls(cascade), **arguments)


@pytest.mark.parametrize(
    ("stages", "components", "message"),
    [
        (2, {"sr_scheduler_1": None}, "`sr_scheduler_1` is None, but the stage 'sr_1' runs"),
        (1, {"scheduler": None}, "`scheduler` is None"),
        (1, {"unet": None}, "`unet` is None"),
        (1, {"text_encoder": None}, "`prompt` is given, but this pipeline has no text encoder"),
        (1, {"tokenizer": None}, "`prompt` is given, but this pipeline has no text encoder"),
        (
            2,
            {"sr_scheduler_1": RePaintScheduler()},
            "`sr_scheduler_1` cannot drive the stage 'sr_1': `scheduler` is a RePaintScheduler",
        ),
        (1, {"scheduler": DDPMScheduler(variance_type="learned_range")}, "wants a learned variance"),
        (1, {"text": {"layers": [-1, -2]}}, "`text_encoder` gives states of width 32"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_a_cascade_that_lacks_a_part_is_told_before_any_model_runs(
    make_cascade, record_calls, stages, components, message
):
    pipe = make_cascade(stages, **components)
    assert message in refusal(pipe, record_calls(pipe))


def test_stages_that_do_not_run_need_no_scheduler(make_cascade):
    assert make_cascade(2, sr_scheduler_1=None)("a cat", stop_stage="base").images[0].size == (8, 8)


def test_a_negative_prompt_needs_the_text_encoder_too(make_cascade, record_calls):
    pipe = make_cascade(1, text_encoder=None)
    message = refusal(pipe, record_calls(pipe), prompt=None, prompt_embeds=embeds(1, 3, 16), negative_prompt="a hat")
    assert "`negative_prompt` is given, but this pipeline has no text encoder" in message


def test_a_u_net_of_another_kind_is_refused_with_the_right_ones(make_cascade, record_calls):
    foreign = UNet2DConditionModel(
        sample_size=8, block_out_channels=(8,), down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",),
        norm_num_groups=4, layers_per_block=1, cross_attention_dim=16, attention_head_dim=8,
    )  # fmt: skip
    pipe = make_cascade(1, unet=foreign)
    message = refusal(pipe, record_calls(pipe))
    assert "`unet` is a UNet2DConditionModel" in message
    assert "ImagenUNet2DConditionModel" in message


def test_a_u_net_in_the_wrong_stage_is_refused(make_cascade, cascade_parts, record_calls):
    for name, kind, other in (("unet", "an enlargement", "sr_unet_1"), ("sr_unet_1", "a base", "unet")):
        pipe = make_cascade(2, **{name: cascade_parts[other]})
        assert f"`{name}` is the U-Net of {kind}; give each stage" in refusal(pipe, record_calls(pipe))


def test_u_nets_for_different_texts_are_refused(make_cascade, cascade_parts, record_calls):
    config = dict(cascade_parts["unet"].config) | {"encoder_hid_dim": 8}
    pipe = make_cascade(2, unet=ImagenUNet2DConditionModel.from_config(config))
    assert "{'base': 8, 'sr_1': 16}" in refusal(pipe, record_calls(pipe))


@pytest.mark.parametrize("scheduler", [DDIMScheduler(), DDPMScheduler(thresholding=True)], ids=["clip", "threshold"])
def test_no_thresholding_with_a_scheduler_that_clips_is_refused(make_cascade, record_calls, scheduler):
    pipe = make_cascade(1, scheduler=scheduler)
    message = refusal(pipe, record_calls(pipe), thresholding="none")
    assert "`thresholding` is 'none' for 'base'" in message
    assert "clip_sample=False" in message


def test_no_thresholding_with_a_scheduler_that_does_not_clip_is_fine(make_cascade):
    pipe = make_cascade(1, scheduler=EulerDiscreteScheduler())
    out = pipe("a cat", guidance_scale=50.0, thresholding="none", output_type="latent")
    assert out.images.abs().max() > 1.5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"refiner": {}}, "`stages` names the stage 'refiner'"),
        ({"base": {"steps": 3}}, "`stages['base']` holds ['steps']"),
        ({"base": 3}, "`stages['base']` is 3"),
        ({"base": {"num_inference_steps": 0}}, "`num_inference_steps` is 0"),
        ({"sr_1": {"noise_level": 2}}, "`noise_level` is 2"),
        ({"sr_1": {"resize": "lanczos"}}, "`resize` is 'lanczos'"),
        ({"base": {"threshold_percentile": 0}}, "`threshold_percentile` is 0"),
        ({"base": {"threshold_max": 0.5}}, "`threshold_max` is 0.5"),
        ([], "`stages` is []"),
    ],
)
def test_wrong_saved_settings_are_refused_when_the_pipeline_is_made(make_cascade, settings, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make_cascade(2, settings=settings)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ({"size": 3}, "`text` holds ['size']"),
        ({"layers": []}, "`layers` is ()"),
        ({"max_length": 0}, "`max_length` is 0"),
        ({"padding": "left"}, "`padding` is 'left'"),
    ],
)
def test_wrong_text_settings_are_refused_when_the_pipeline_is_made(make_cascade, text, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make_cascade(1, text=text)


def test_encode_prompt_refuses_what_the_call_refuses(cascade, record_calls):
    calls = record_calls(cascade)
    for arguments, message in (
        ((), "both missing"),
        (("a cat", None, 0), "`num_images_per_prompt` is 0"),
        (([],), "`prompt` is an empty list"),
        (("a cat", ["a", "b"]), "`negative_prompt` has 2 texts"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            cascade.encode_prompt(*arguments)
    assert calls == []
