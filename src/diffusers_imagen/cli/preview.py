# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Preview sheets of a training run: the same prompts and noise again and again, drawn with the averaged U-Net.

A base draws its prompts. An enlargement is shown on the first pictures of the data: shrunk, enlarged by the U-Net, real.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from diffusers_imagen.data.transforms import to_unit_range
from diffusers_imagen.diffusion.resize import resize
from diffusers_imagen.models.stage_model import stage_model_for
from diffusers_imagen.models.unet_deepfloyd import DeepFloydUNet2DConditionModel
from diffusers_imagen.pipelines.denoise_stage import StepControl, denoise_stage
from diffusers_imagen.pipelines.stage_plan import plan_stage
from diffusers_imagen.pipelines.stage_settings import StageSettings
from diffusers_imagen.pipelines.text_batches import null_text_like
from diffusers_imagen.schedulers.defaults import default_scheduler
from diffusers_imagen.text.encoding import encode_text
from diffusers_imagen.text.loading import load_text_encoder
from diffusers_imagen.training.config import TrainConfig
from diffusers_imagen.training.sources import open_pictures
from diffusers_imagen.training.tasks import deepfloyd_noise

LOW_RES_NOISE = 0.05
PROMPTS = "prompts.txt"


class StagePreview:
    """Draws a sheet of a stage's pictures into `OUTPUT/previews/step-NNNNNNNN.png`; `prompts.txt` has a line for each."""

    def __init__(self, config: TrainConfig) -> None:
        preview = config.preview
        self._config = preview
        self._folder = Path(config.output_dir) / "previews"
        self._stage = "base" if config.model.model_class == "base" else "sr_1"
        self._real: Tensor | None = None
        self._small: Tensor | None = None
        prompts = list(preview.prompts)
        if not prompts or self._stage != "base":
            pictures = open_pictures(config)
            chosen = [pictures[i] for i in range(min(preview.num_images, len(pictures)))]
            prompts = [picture.captions[0] if picture.captions else "" for picture in chosen]
            if self._stage != "base":
                stacked = torch.from_numpy(np.stack([picture.pixels for picture in chosen]))
                self._real = to_unit_range(stacked.permute(0, 3, 1, 2))
                side = config.data.size // config.data.low_res_factor
                self._small = resize(self._real, (side, side))
        self._prompts = prompts
        self._size = (config.data.size, config.data.size)
        encoder, text = load_text_encoder(config.text.folder), config.text.settings
        self._text = encode_text(prompts, *encoder, text)
        empty = [""] * len(prompts)
        self._null = null_text_like(self._text) if text.null_empty else encode_text(empty, *encoder, text)
        self._noise = config.model.noise
        self._resize = config.data.low_res_resize

    @torch.no_grad()
    def __call__(self, unet: Any, step: int) -> None:
        """Draw with `unet` and write the sheet of this step."""
        guided = self._stage == "base"
        settings = StageSettings(
            num_inference_steps=self._config.num_inference_steps,
            guidance_scale=self._config.guidance_scale if guided else 1.0,
            noise_level=0.0 if guided else LOW_RES_NOISE,
            resize=self._resize,
            noise=deepfloyd_noise(unet, self._noise) if isinstance(unet, DeepFloydUNet2DConditionModel) else None,
        )
        scheduler = default_scheduler(stage_model_for(unet, settings.noise).noise_process)
        plan = plan_stage(self._stage, unet, scheduler, settings, self._size, {})
        device = unet.device
        generator = torch.Generator().manual_seed(self._config.seed)
        text, null = (
            type(part)(part.hidden_states.to(device), part.mask.to(device)) for part in (self._text, self._null)
        )
        small = None if self._small is None else self._small.to(device)
        condition = plan.condition(text, null, small, generator)
        steps = plan.set_timesteps(device)
        noise = plan.starting_noise(text.mask.shape[0], None, generator, device)
        control = StepControl(lambda: settings.guidance_scale, lambda index, timestep, sample: sample, lambda: False)
        drawn = denoise_stage(plan.model, plan.bridge, steps, noise, condition, settings, control, generator)
        self._save(drawn.cpu(), step)

    def _save(self, drawn: Tensor, step: int) -> None:
        rows = [drawn]
        if self._small is not None and self._real is not None:
            rows = [torch.nn.functional.interpolate(self._small, self._size), drawn, self._real]
        sheet = torch.cat([torch.cat(list(row), dim=-1) for row in rows], dim=-2)  # (C, rows * H, B * W)
        pixels = ((sheet.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0).numpy()
        self._folder.mkdir(parents=True, exist_ok=True)
        (self._folder / PROMPTS).write_text("".join(f"{prompt}\n" for prompt in self._prompts), encoding="utf-8")
        path = self._folder / f"step-{step:08d}.png"
        temporary = path.with_suffix(".tmp")
        Image.fromarray(pixels).save(temporary, format="PNG")
        temporary.replace(path)
