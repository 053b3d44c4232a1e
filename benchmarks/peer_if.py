# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Diffusers' own U-Net as DeepFloyd IF configures it, scaled down, and IF's two pipelines.

The block types, embeddings and switches are those of IF's converted checkpoints: the enlargements attend to the text
alone (`only_cross_attention`) and have their blocks before each downsampling. Only the widths are smaller.
"""

from typing import Any

import torch
from diffusers import DDPMScheduler, IFPipeline, IFSuperResolutionPipeline, UNet2DConditionModel
from inputs import Inputs
from scale import TEXT_WIDTH
from torch import Tensor, nn

_ALL = {
    "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
    "out_channels": 6,
    "encoder_hid_dim": TEXT_WIDTH,
    "addition_embed_type": "text",
    "cross_attention_norm": "group_norm",
    "resnet_time_scale_shift": "scale_shift",
    "act_fn": "gelu",
}
_ENLARGEMENT = {
    "in_channels": 6,
    "class_embed_type": "timestep",
    "time_embedding_act_fn": "gelu",
    "resnet_skip_time_act": True,
    "resnet_out_scale_factor": 2**0.5,
    "mid_block_scale_factor": 2**0.5,
    "only_cross_attention": True,
}
_WIDTHS = {
    "full": {"cross_attention_dim": 256, "attention_head_dim": 64, "addition_embed_type_num_heads": 8},
    "quick": {
        "cross_attention_dim": 64,
        "attention_head_dim": 32,
        "addition_embed_type_num_heads": 8,
        "norm_num_groups": 8,
    },
}
# Channels, blocks, and how many of the levels, counted from the coarsest, have attention.
_LEVELS = {
    "full": {
        "base": ((64, 128, 192, 256), (3, 3, 4, 3), 3),
        "sr": ((32, 64, 128, 256), (2, 4, 6, 6), 1),
        "large": ((32, 64, 128, 192), (2, 4, 6, 6), 1),
    },
    "quick": {
        "base": ((16, 32), (1, 1), 1),
        "sr": ((16, 32), (1, 1), 1),
        "large": ((16, 32), (1, 1), 1),
    },
}
_NOISE = {"num_train_timesteps": 1000, "beta_schedule": "squaredcos_cap_v2"}


class IFUNet(nn.Module):
    """IF's U-Net, called as all sides are."""

    def __init__(self, unet: UNet2DConditionModel) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, inputs: Inputs) -> Tensor:
        """Return the prediction, (B, C, H, W)."""
        if inputs.low_res is None or inputs.noise_level is None:
            return self.unet(inputs.x, inputs.timestep, inputs.text, return_dict=False)[0]
        level = (1000 * inputs.noise_level).long()
        both = torch.cat([inputs.x, inputs.low_res], dim=1)
        return self.unet(both, inputs.timestep, inputs.text, class_labels=level, return_dict=False)[0]


def build(stage: str, scale: str, pixels: int) -> IFUNet:
    """Make a U-Net in float32."""
    channels, blocks, attending = _LEVELS[scale][stage]
    plain = len(channels) - attending
    unet = UNet2DConditionModel(
        sample_size=pixels,
        block_out_channels=channels,
        layers_per_block=list(blocks),
        down_block_types=["ResnetDownsampleBlock2D"] * plain + ["SimpleCrossAttnDownBlock2D"] * attending,
        up_block_types=["SimpleCrossAttnUpBlock2D"] * attending + ["ResnetUpsampleBlock2D"] * plain,
        **_ALL,
        **_WIDTHS[scale],
        **({"in_channels": 3} if stage == "base" else _ENLARGEMENT),
    )
    return IFUNet(unet)


class IFCascade:
    """IF's two pipelines one after the other, with the schedulers that its checkpoints have."""

    def __init__(self, base: UNet2DConditionModel, enlargement: UNet2DConditionModel) -> None:
        thresholded = {
            **_NOISE,
            "thresholding": True,
            "dynamic_thresholding_ratio": 0.95,
            "sample_max_value": 1.5,
            "variance_type": "learned_range",
        }
        absent: dict[str, Any] = dict.fromkeys(
            ("tokenizer", "text_encoder", "safety_checker", "feature_extractor", "watermarker")
        )
        absent["requires_safety_checker"] = False
        self._base = IFPipeline(unet=base, scheduler=DDPMScheduler(**thresholded), **absent)
        self._enlargement = IFSuperResolutionPipeline(
            unet=enlargement,
            scheduler=DDPMScheduler(**thresholded),
            image_noising_scheduler=DDPMScheduler(**_NOISE),
            **absent,
        )
        for pipe in (self._base, self._enlargement):
            pipe.set_progress_bar_config(disable=True)

    def __call__(self, text: Tensor, steps: int, guidance_scale: float) -> Any:
        """Draw one picture for each row of `text`, as PIL."""
        given = {
            "prompt_embeds": text,
            "negative_prompt_embeds": torch.zeros_like(text),
            "guidance_scale": guidance_scale,
            "num_inference_steps": steps,
        }
        small = self._base(output_type="pt", **given).images
        return self._enlargement(image=small, noise_level=250, output_type="pil", **given).images
