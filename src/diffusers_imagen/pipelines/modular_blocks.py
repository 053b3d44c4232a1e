# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""The cascade as Diffusers' modular blocks: text, one block for each stage, and finished pictures.

Each block can be run alone, and others can stand between them. What a stage does is in `modular_stage.py`.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from diffusers.image_processor import VaeImageProcessor
from diffusers.models.modeling_utils import ModelMixin
from diffusers.modular_pipelines.components_manager import ComponentsManager
from diffusers.modular_pipelines.modular_pipeline import (
    ModularPipeline,
    ModularPipelineBlocks,
    PipelineState,
    SequentialPipelineBlocks,
)
from diffusers.modular_pipelines.modular_pipeline_utils import ComponentSpec, ConfigSpec, InputParam, OutputParam
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from diffusers_imagen.builtin.library import builtin_names, builtin_path
from diffusers_imagen.pipelines.call_checks import check_options
from diffusers_imagen.pipelines.modular_stage import STAGE_INPUTS, draw_modular_stage
from diffusers_imagen.pipelines.pictures import finished_pictures
from diffusers_imagen.pipelines.pipeline_imagen_cascade import ImagenCascadePipeline
from diffusers_imagen.pipelines.stage_plan import STAGE_COMPONENTS
from diffusers_imagen.pipelines.stage_settings import STAGES

_EMBEDS = ("prompt_embeds", "prompt_attention_mask", "negative_prompt_embeds", "negative_prompt_attention_mask")
_Result = tuple[Any, PipelineState]


class _CascadeBlocks(ModularPipelineBlocks):
    """Blocks that find built-in cascades by their names, as `ImagenCascadePipeline.from_pretrained` does."""

    model_name = "imagen"

    def init_pipeline(
        self,
        pretrained_model_name_or_path: str | os.PathLike[str] | None = None,
        components_manager: ComponentsManager | None = None,
        collection: str | None = None,
    ) -> ModularPipeline:
        """Make a pipeline of the blocks, as `ModularPipelineBlocks.init_pipeline`.

        Args:
            pretrained_model_name_or_path: a folder, "imagen-emoji", or a Hub repository; `None` for no components.
            components_manager: as Diffusers takes it.
            collection: likewise.
        """
        place = pretrained_model_name_or_path
        if place in builtin_names() and not Path(place).is_dir():
            place = str(builtin_path(str(place)))
        return super().init_pipeline(place, components_manager, collection)


class ImagenSequentialBlocks(_CascadeBlocks, SequentialPipelineBlocks):
    """Blocks of a cascade, one after another."""


class ImagenTextBlock(_CascadeBlocks):
    """Encode prompts as a cascade does; the only block that needs the text encoder."""

    @property
    def description(self) -> str:
        """What the block does, for people."""
        return "Encodes prompts once, for all stages."

    @property
    def expected_components(self) -> list[ComponentSpec]:
        """The tokenizer and the text encoder."""
        return [ComponentSpec("tokenizer", PreTrainedTokenizerBase), ComponentSpec("text_encoder", PreTrainedModel)]

    @property
    def expected_configs(self) -> list[ConfigSpec]:
        """How prompts are encoded, as a saved cascade has it."""
        return [ConfigSpec("text", None)]

    @property
    def inputs(self) -> list[InputParam]:
        """Prompts, as `ImagenCascadePipeline.encode_prompt` takes them."""
        return [
            InputParam("prompt", required=True, description="what to draw, a string or a list"),
            InputParam("negative_prompt", description="what guidance moves away from"),
            InputParam("num_images_per_prompt", default=1, description="pictures of each prompt"),
        ]

    @property
    def intermediate_outputs(self) -> list[OutputParam]:
        """Text states and masks, for each picture."""
        return [OutputParam(name, Tensor) for name in _EMBEDS]

    def __call__(self, components: Any, state: PipelineState) -> _Result:
        """Encode the prompts.

        Raises:
            ValueError: as `encode_prompt`.
        """
        given = self.get_block_state(state)
        nothing = dict.fromkeys(name for pair in STAGE_COMPONENTS.values() for name in pair)
        texts = ImagenCascadePipeline(
            tokenizer=components.tokenizer,
            text_encoder=components.text_encoder,
            **nothing,
            text=components.config.text,
        )
        encoded = texts.encode_prompt(
            given.prompt, given.negative_prompt, given.num_images_per_prompt, components._execution_device
        )
        for name, value in zip(_EMBEDS, encoded, strict=True):
            setattr(given, name, value)
        self.set_block_state(state, given)
        return components, state


class ImagenStageBlock(_CascadeBlocks):
    """Draw with one stage of a cascade, through the sampling loop of the pipeline.

    Args:
        stage: "base", "sr_1" or "sr_2".

    Raises:
        ValueError: another stage.
    """

    def __init__(self, stage: str = "base") -> None:
        if stage not in STAGES:
            raise ValueError(f"`stage` is {stage!r}; choose one of {', '.join(STAGES)}.")
        super().__init__()
        self.stage = stage

    @property
    def description(self) -> str:
        """What the block does, for people."""
        return f"Draws with the stage {self.stage!r}."

    @property
    def expected_components(self) -> list[ComponentSpec]:
        """The stage's U-Net and its scheduler."""
        unet, scheduler = STAGE_COMPONENTS[self.stage]
        return [ComponentSpec(unet, ModelMixin), ComponentSpec(scheduler, SchedulerMixin)]

    @property
    def expected_configs(self) -> list[ConfigSpec]:
        """How stages sample, as a saved cascade has it."""
        return [ConfigSpec("stages", None)]

    @property
    def inputs(self) -> list[InputParam]:
        """Text states, and the arguments of `ImagenCascadePipeline` that a stage reads, under the same names."""
        texts = [
            InputParam(name, Tensor, required=name == "prompt_embeds", description="from the text block")
            for name in _EMBEDS
        ]
        others = [InputParam(name, description="as `ImagenCascadePipeline` takes it") for name in STAGE_INPUTS]
        if self.stage == "base":
            return [*texts, *others]
        return [
            *texts,
            *others,
            InputParam("pictures", Tensor, description="(B, C, H, W) in [-1, 1], from the stage before"),
            InputParam("image", description="a picture in any form, instead of `pictures`"),
        ]

    @property
    def intermediate_outputs(self) -> list[OutputParam]:
        """The stage's pictures, in [-1, 1], as the next stage takes them."""
        return [OutputParam("pictures", Tensor)]

    def __call__(self, components: Any, state: PipelineState) -> _Result:
        """Draw the stage's pictures.

        Raises:
            ValueError: as `ImagenCascadePipeline`.
        """
        given = self.get_block_state(state)
        given.pictures = draw_modular_stage(components, self.stage, given.as_dict(), components._execution_device)
        self.set_block_state(state, given)
        return components, state


class ImagenPicturesBlock(_CascadeBlocks):
    """Give pictures the form that the caller wants."""

    @property
    def description(self) -> str:
        """What the block does, for people."""
        return "Finishes pictures."

    @property
    def inputs(self) -> list[InputParam]:
        """The last stage's pictures, and the form."""
        return [
            InputParam("pictures", Tensor, required=True, description="(B, C, H, W) in [-1, 1]"),
            InputParam("output_type", default="pil", description="'pil', 'np', 'pt' or 'latent'"),
        ]

    @property
    def intermediate_outputs(self) -> list[OutputParam]:
        """The finished pictures."""
        return [OutputParam("images")]

    def __call__(self, components: Any, state: PipelineState) -> _Result:
        """Finish the pictures.

        Raises:
            ValueError: an unknown form.
        """
        given = self.get_block_state(state)
        check_options(1, given.output_type)
        processor = VaeImageProcessor(vae_scale_factor=1, do_convert_rgb=True)
        given.images = finished_pictures(given.pictures, given.output_type, processor)
        self.set_block_state(state, given)
        return components, state


def cascade_blocks(stages: Sequence[str] = ("base", "sr_1")) -> ImagenSequentialBlocks:
    """Return the blocks of a cascade: "text", one of the name of each stage, and "pictures".

    Args:
        stages: names of the stages, in order.

    Raises:
        ValueError: no stage, an unknown one, or stages out of order.
    """
    if not stages or list(stages) != sorted(set(stages)):
        raise ValueError(f"`stages` is {stages!r}; give stages of a cascade in order, such as ('base', 'sr_1').")
    drawing = {stage: ImagenStageBlock(stage) for stage in stages}
    return ImagenSequentialBlocks.from_blocks_dict(
        {"text": ImagenTextBlock(), **drawing, "pictures": ImagenPicturesBlock()}
    )


def modular_cascade(pipe: ImagenCascadePipeline) -> ModularPipeline:
    """Return a modular pipeline of a cascade's own parts, which draws the same pictures.

    Args:
        pipe: the cascade. Its guider, safety checker and watermarker are not taken along.
    """
    modular = cascade_blocks(pipe.stage_names).init_pipeline()
    parts = {name: getattr(pipe, name) for name in modular.component_names}
    modular.update_components(**parts, stages=pipe.config.stages, text=pipe.config.text)
    return modular
