# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""What DeepFloyd IF's pipelines do to pictures before they leave: a safety check and a visible mark.

Called by the pipeline, for every stage's pictures.
"""

from typing import Any

import numpy as np
import torch
from diffusers.image_processor import VaeImageProcessor
from torch import Tensor
from transformers import BaseImageProcessor, PreTrainedModel

from diffusers_imagen.pipelines.pipeline_output import Pictures


def safe_pictures(
    pictures: Pictures,
    output_type: str,
    checker: PreTrainedModel | None,
    extractor: BaseImageProcessor | None,
    device: torch.device,
) -> Pictures:
    """Return pictures, black where the safety checker finds something (it then says so itself).

    Args:
        pictures: in the form of `output_type`; "latent" ones, which are not finished, are let through.
        output_type: "pil", "np", "pt" or "latent".
        checker: DeepFloyd IF's `IFSafetyChecker`, or `None`.
        extractor: what it sees pictures through.
        device: where it runs.

    Raises:
        ValueError: a checker without an extractor.
    """
    if checker is None or output_type == "latent":
        return pictures
    if extractor is None:
        raise ValueError("`feature_extractor` is None, and the `safety_checker` needs it; give both or neither.")
    arrays = _as_arrays(pictures)
    seen = extractor(VaeImageProcessor.numpy_to_pil(arrays), return_tensors="pt").pixel_values
    arrays, unsafe, marked = checker(images=arrays, clip_input=seen.to(device, checker.dtype))
    if not any(unsafe) and not any(marked):
        return pictures
    if output_type == "pil":
        return VaeImageProcessor.numpy_to_pil(arrays)
    return arrays if output_type == "np" else VaeImageProcessor.numpy_to_pt(arrays)


def marked_pictures(pictures: Pictures, output_type: str, watermarker: Any, sample_size: int) -> Pictures:
    """Return PIL pictures with DeepFloyd IF's mark on them, all others as they are.

    Args:
        pictures: in the form of `output_type`.
        output_type: "pil", "np", "pt" or "latent".
        watermarker: DeepFloyd IF's `IFWatermarker`, or `None`.
        sample_size: side of the pictures that the stage was trained on.
    """
    if watermarker is None or output_type != "pil":
        return pictures
    marked: Pictures = watermarker.apply_watermark(pictures, sample_size)
    return marked


def _as_arrays(pictures: Pictures) -> np.ndarray:
    """Return pictures as (B, H, W, C) in [0, 1]."""
    if isinstance(pictures, Tensor):
        return VaeImageProcessor.pt_to_numpy(pictures)
    if isinstance(pictures, np.ndarray):
        return pictures.copy()  # the checker writes into it
    return VaeImageProcessor.pil_to_numpy(pictures)
