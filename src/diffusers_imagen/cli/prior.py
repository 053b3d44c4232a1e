# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Draw the pictures that keep a fine-tuning from forgetting, with the cascade that is fine-tuned or another one."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from diffusers_imagen.cli.text_folder import text_folder
from diffusers_imagen.pipelines.pipeline_imagen_cascade import ImagenCascadePipeline
from diffusers_imagen.training.config import TrainConfig


class PriorDrawer:
    """Draws with the cascade of a run's `prior`, up to the stage that the run trains; it is loaded when first needed.

    Args:
        config: Of the run.
    """

    def __init__(self, config: TrainConfig) -> None:
        self._config = config
        self._pipe: Any = None

    def __call__(self, prompts: Sequence[str], seeds: Sequence[int]) -> Sequence[Image.Image]:
        """Draw a picture of each prompt from its seed, with the cascade's saved settings.

        Raises:
            ValueError: If the run names no cascade.
        """
        if self._pipe is None:
            self._pipe = self._load()
        stage = "base" if self._config.model.model_class == "base" else "sr_1"
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        images: list[Image.Image] = self._pipe(list(prompts), generator=generators, stop_stage=stage).images
        return images

    def _load(self) -> Any:
        prior, pretrained = self._config.prior, self._config.model.pretrained
        given = None if prior is None else prior.checkpoint
        place = pretrained if given is None else str(text_folder(given))
        if place is None or (given is None and not Path(place, "model_index.json").is_file()):
            raise ValueError(
                f"`prior.checkpoint` is {given!r} and `model.pretrained` {pretrained!r}, which is no cascade; give one "
                "that draws the pictures, or set `prior.num_images` to 0 and put pictures into `prior.folder`."
            )
        pipe = ImagenCascadePipeline.from_pretrained(place)
        pipe.set_progress_bar_config(disable=True)
        return pipe.to("cuda" if torch.cuda.is_available() else "cpu")
