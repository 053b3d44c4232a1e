# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""How DeepFloyd IF samples: what its pipelines and its original files leave to the code that draws with them.

Called by the converter of original files and by the pipeline that is made of IF's pipelines.
"""

from typing import Any

BASE = {"num_inference_steps": 100, "guidance_scale": 7.0}
"""What a call of `IFPipeline` does by default."""

ENLARGEMENT = {
    "num_inference_steps": 50,
    "guidance_scale": 4.0,
    "noise_level": 0.25,
    "resize": "bilinear_align_corners",
}
"""What a call of `IFSuperResolutionPipeline` does by default; its `noise_level` is 250 of 1000."""

NOISE = {"prediction_type": "epsilon", "num_train_timesteps": 1000, "beta_schedule": "squaredcos_cap_v2"}
"""The noise that all released U-Nets were trained on."""

LOW_RES_NOISE = {"num_train_timesteps": 1000, "beta_schedule": "squaredcos_cap_v2"}
"""The noise on the smaller pictures that the released enlargements were trained on."""


def text_settings(mask_padding: bool = False) -> dict[str, Any]:
    """Return how prompts are encoded, `ImagenCascadePipeline`'s `text`.

    Args:
        mask_padding: whether the U-Nets shall not see the padding, unlike in IF's training.
    """
    return {
        "max_length": 77,
        "padding": "max_length",
        "null_empty": False,
        "masked": mask_padding,
        "captions": "deepfloyd_if",
    }


def ddpm_settings(enlarges: bool) -> dict[str, Any]:
    """Return the arguments of the `DDPMScheduler` that a stage comes with.

    Args:
        enlarges: whether the stage is an enlargement, whose dynamic threshold is capped at 1.
    """
    return {
        **NOISE,
        "variance_type": "learned_range",
        "thresholding": True,
        "dynamic_thresholding_ratio": 0.95,
        "sample_max_value": 1.0 if enlarges else 1.5,
    }
