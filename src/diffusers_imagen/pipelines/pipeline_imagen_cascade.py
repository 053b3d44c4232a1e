# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""`ImagenCascadePipeline`: a prompt to a picture through a base and up to two enlargements."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from diffusers.callbacks import MultiPipelineCallbacks, PipelineCallback
from diffusers.guiders.guider_utils import BaseGuidance
from diffusers.image_processor import VaeImageProcessor
from diffusers.models.modeling_utils import ModelMixin
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from diffusers.utils import replace_example_docstring
from torch import Tensor
from transformers import BaseImageProcessor, PreTrainedModel, PreTrainedTokenizerBase

from diffusers_imagen.models.stage_model import stage_shape
from diffusers_imagen.models.unet_deepfloyd import DeepFloydUNet2DConditionModel
from diffusers_imagen.models.unet_efficient import EfficientUNet2DConditionModel
from diffusers_imagen.models.unet_imagen import ImagenUNet2DConditionModel
from diffusers_imagen.models.unet_imagen_pytorch import ImagenPytorchUNet2DConditionModel
from diffusers_imagen.pipelines.call_checks import (
    Prompt,
    Size,
    changed_sample,
    check_batch,
    check_callback,
    check_options,
    check_texts,
    select_stages,
    stage_sizes,
)
from diffusers_imagen.pipelines.denoise_stage import Generator, StepControl
from diffusers_imagen.pipelines.guider_plan import check_guided_steps, stage_guiders
from diffusers_imagen.pipelines.lora import LoraCascade, check_attention_kwargs, scaled_adapters
from diffusers_imagen.pipelines.pictures import finished_pictures, given_pictures, shrunk
from diffusers_imagen.pipelines.pipeline_output import ImagenCascadeOutput, Pictures
from diffusers_imagen.pipelines.prompt_caching import PromptCaching
from diffusers_imagen.pipelines.released_pictures import marked_pictures, safe_pictures
from diffusers_imagen.pipelines.stage_drawing import draw_stage
from diffusers_imagen.pipelines.stage_plan import check_unets, plan_stages
from diffusers_imagen.pipelines.stage_settings import (
    STAGES,
    for_every_stage,
    override_settings,
    per_stage,
    saved_settings,
)
from diffusers_imagen.pipelines.stored_pipeline import StoredPipeline, with_late_components
from diffusers_imagen.pipelines.text_batches import (
    Embeds,
    Prompts,
    given_text,
    null_text_like,
    padded_alike,
    paired_prompts,
    prompts_by_stage,
    repeated,
    text_settings,
)
from diffusers_imagen.text.encoding import TextEmbeddings

EXAMPLE_DOC_STRING = """
    Examples:
        ```py
        >>> import torch
        >>> from diffusers_imagen import ImagenCascadePipeline

        >>> pipe = ImagenCascadePipeline.from_pretrained("imagen-emoji")
        >>> generator = torch.Generator().manual_seed(0)
        >>> image = pipe("a cat wearing a hat", generator=generator).images[0]
        >>> image.save("cat_with_hat.png")
        ```
"""


class ImagenCascadePipeline(PromptCaching, LoraCascade, StoredPipeline):
    """Draw pictures from text with a cascade of pixel diffusion models (Imagen, arXiv:2205.11487).

    Args:
        tokenizer: of the text encoder.
        text_encoder: a frozen Hugging Face text model, encoder or decoder.
        unet: the base, which draws the small picture.
        scheduler: of the base; any that `bridge_for` knows, made in any way.
        sr_unet_1: the first enlargement, or `None`.
        sr_scheduler_1: its scheduler.
        sr_unet_2: the second enlargement, or `None`.
        sr_scheduler_2: its scheduler.
        stages: saved settings by stage name, `{"base": {"num_inference_steps": 20, ...}, "sr_1": {...}}`; see
            `StageSettings`.
        text: how prompts are encoded, `{"layers": [...], "prefix": ..., "max_length": ..., "padding": ...}`.
        guider: a Diffusers guider of the base, in place of its `guidance_scale`, or `None`.
        safety_checker: DeepFloyd IF's, which blackens what it finds, or `None`.
        feature_extractor: what the safety checker sees pictures through; needed with it.
        watermarker: DeepFloyd IF's, which marks PIL pictures, or `None`.

    Raises:
        ValueError: settings that no stage knows.
    """

    model_cpu_offload_seq = "text_encoder->unet->sr_unet_1->sr_unet_2"
    _optional_components = [  # noqa: RUF012 (the host reads class attributes)
        "tokenizer",
        "text_encoder",
        "sr_unet_1",
        "sr_scheduler_1",
        "sr_unet_2",
        "sr_scheduler_2",
        "guider",
        "safety_checker",
        "feature_extractor",
        "watermarker",
    ]
    _exclude_from_cpu_offload = ["watermarker"]  # noqa: RUF012
    _callback_tensor_inputs = ["latents"]  # noqa: RUF012

    @with_late_components("guider", "safety_checker", "feature_extractor", "watermarker")
    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase | None,
        text_encoder: PreTrainedModel | None,
        unet: ImagenUNet2DConditionModel | DeepFloydUNet2DConditionModel | ImagenPytorchUNet2DConditionModel,
        scheduler: SchedulerMixin,
        sr_unet_1: EfficientUNet2DConditionModel
        | DeepFloydUNet2DConditionModel
        | ImagenPytorchUNet2DConditionModel
        | None,
        sr_scheduler_1: SchedulerMixin | None,
        sr_unet_2: EfficientUNet2DConditionModel
        | DeepFloydUNet2DConditionModel
        | ImagenPytorchUNet2DConditionModel
        | None,
        sr_scheduler_2: SchedulerMixin | None,
        stages: dict[str, Any] | None = None,
        text: dict[str, Any] | None = None,
        *,
        guider: BaseGuidance | None = None,
        safety_checker: PreTrainedModel | None = None,
        feature_extractor: BaseImageProcessor | None = None,
        watermarker: ModelMixin | None = None,
    ) -> None:
        super().__init__()
        saved_settings(stages)
        text_settings(text)
        self.register_modules(
            tokenizer=tokenizer,
            text_encoder=text_encoder,
            unet=unet,
            scheduler=scheduler,
            sr_unet_1=sr_unet_1,
            sr_scheduler_1=sr_scheduler_1,
            sr_unet_2=sr_unet_2,
            sr_scheduler_2=sr_scheduler_2,
            guider=guider,
            safety_checker=safety_checker,
            feature_extractor=feature_extractor,
            watermarker=watermarker,
        )
        self.register_to_config(stages=stages, text=text)
        self.image_processor = VaeImageProcessor(vae_scale_factor=1, do_convert_rgb=True)
        self._guidance_scale = 1.0
        self._num_timesteps = 0
        self._interrupt = False
        self._drawing = False

    @property
    def guidance_scale(self) -> float:
        """Guidance weight of the stage that is running; a callback may change `_guidance_scale`."""
        return self._guidance_scale

    @property
    def do_classifier_free_guidance(self) -> bool:
        """Whether the stage that is running is guided."""
        return self._guidance_scale != 1.0

    @property
    def num_timesteps(self) -> int:
        """Steps of the whole call, over all stages."""
        return self._num_timesteps

    @property
    def interrupt(self) -> bool:
        """Whether the remaining steps are skipped; a callback may set `_interrupt`."""
        return self._interrupt

    @property
    def stage_names(self) -> list[str]:
        """Names of the stages that this cascade has, in order."""
        return list(self._unets)

    @property
    def _unets(self) -> dict[str, Any]:
        every = zip(STAGES, (self.unet, self.sr_unet_1, self.sr_unet_2), strict=True)
        return {stage: unet for stage, unet in every if unet is not None}

    def encode_prompt(
        self,
        prompt: Prompt | None = None,
        negative_prompt: Prompt | None = None,
        num_images_per_prompt: int = 1,
        device: torch.device | None = None,
        prompt_embeds: Tensor | None = None,
        prompt_attention_mask: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        negative_prompt_attention_mask: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Encode prompts once, for all stages.

        Args:
            prompt: one or several; the empty prompt is the learned null text.
            negative_prompt: what guidance moves away from, one for all or one for each; `None` for the null text.
            num_images_per_prompt: each prompt is repeated so often.
            device: where the results are wanted.
            prompt_embeds: (B, L, D) made before, instead of `prompt`.
            prompt_attention_mask: (B, L) bool, its mask; `None` for all tokens.
            negative_prompt_embeds: instead of `negative_prompt`.
            negative_prompt_attention_mask: its mask.

        Returns:
            Text states, their mask, negative text states, their mask, each for B * num_images_per_prompt pictures.

        Raises:
            ValueError: as `__call__`.
        """
        check_options(num_images_per_prompt)
        device = device or self._execution_device
        embeds = (prompt_embeds, prompt_attention_mask, negative_prompt_embeds, negative_prompt_attention_mask)
        prompts = prompts_by_stage("prompt", prompt, ["base"])
        negatives = prompts_by_stage("negative_prompt", negative_prompt, ["base"])
        batch = self._check_texts(prompts["base"], negatives["base"], embeds)
        texts, negative_texts = paired_prompts(prompts, negatives, batch)["base"]
        positive = self._text_of(texts, prompt_embeds, prompt_attention_mask)
        if negative_texts is None and negative_prompt_embeds is None and not self._has_null_text:
            negative_texts = ("",) * batch
        if negative_texts is None and negative_prompt_embeds is None:
            negative = null_text_like(positive)
        else:
            negative = self._text_of(negative_texts, negative_prompt_embeds, negative_prompt_attention_mask)
        positive, negative = padded_alike(positive, negative)
        positive = repeated(positive, num_images_per_prompt, device)
        negative = repeated(negative, num_images_per_prompt, device)
        prompt_embeds, prompt_attention_mask = positive.hidden_states, positive.mask
        negative_prompt_embeds, negative_prompt_attention_mask = negative.hidden_states, negative.mask
        return prompt_embeds, prompt_attention_mask, negative_prompt_embeds, negative_prompt_attention_mask

    @torch.no_grad()
    @replace_example_docstring(EXAMPLE_DOC_STRING)
    def __call__(  # noqa: PLR0913, PLR0915 (Diffusers' own argument names, one each, and one walk through the stages)
        self,
        prompt: Prompt | Mapping[str, Prompt] | None = None,
        negative_prompt: Prompt | Mapping[str, Prompt] | None = None,
        num_images_per_prompt: int = 1,
        num_inference_steps: int | Mapping[str, int] | None = None,
        guidance_scale: float | Mapping[str, float] | None = None,
        noise_level: Mapping[str, float] | None = None,
        height: int | None = None,
        width: int | None = None,
        image: Any = None,
        start_stage: str | None = None,
        stop_stage: str | None = None,
        timesteps: Sequence[float] | Mapping[str, Sequence[float]] | None = None,
        sigmas: Sequence[float] | Mapping[str, Sequence[float]] | None = None,
        guidance_rescale: float | Mapping[str, float] | None = None,
        guidance_interval: tuple[float, float] | Mapping[str, tuple[float, float]] | None = None,
        guider: BaseGuidance | Mapping[str, BaseGuidance | None] | None = None,
        thresholding: str | Mapping[str, str] | None = None,
        max_batch_size: int | Mapping[str, int | None] | None = None,
        generator: Generator = None,
        latents: Tensor | None = None,
        prompt_embeds: Tensor | None = None,
        prompt_attention_mask: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        negative_prompt_attention_mask: Tensor | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        cross_attention_kwargs: Mapping[str, Any] | None = None,
        callback_on_step_end: Callable[..., dict[str, Any] | None] | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
    ) -> ImagenCascadeOutput | tuple[Any, dict[str, Any]]:
        """Draw pictures.

        An argument "per stage" is one value, which sets the base, or a mapping such as `{"base": 20, "sr_1": 8}`,
        which sets the stages it names; all others keep what the checkpoint saved.

        Args:
            prompt: what to draw: a string, a list, or either of them by stage (stages without one take the base's).
            negative_prompt: what guidance moves away from, in the same forms; `None` for the learned null text.
            num_images_per_prompt: pictures of each prompt.
            num_inference_steps: per stage, at least 1.
            guidance_scale: per stage, weight of the text; 1 is no guidance.
            noise_level: per enlargement, in [0, 1], noise added to the smaller picture.
            height: of the final picture, in pixels.
            width: of the final picture, in pixels.
            image: a picture (PIL, tensor in [0, 1], array, or a list) to enlarge; starts at the first enlargement.
            start_stage: "base", "sr_1" or "sr_2", the first stage to run.
            stop_stage: the last stage to run; its pictures are returned.
            timesteps: per stage, instead of `num_inference_steps`, for schedulers that take them.
            sigmas: per stage, likewise.
            guidance_rescale: per stage, in [0, 1] (arXiv:2305.08891).
            guidance_interval: per stage, fractions of the steps between which guidance is on.
            guider: per stage, a guider of Diffusers, which guides in place of the three before; a mapping to `None`
                guides without the pipeline's own. See `docs/guiders.md`.
            thresholding: per stage, "dynamic", "static" or "none".
            max_batch_size: how many pictures the U-Net gets at once, for less memory: one number for every stage, or by
                stage. Pictures, steps and callbacks are the same as without it.
            generator: source of all noise; a list gives each picture its own, so that it does not depend on the rest
                of the batch.
            latents: (B, C, H, W) standard normal noise that the first stage starts from; with `timesteps` or `sigmas`
                that begin later, a picture noised that far, over the scheduler's `init_noise_sigma`.
            prompt_embeds: (B, L, D) text states made by `encode_prompt`, instead of `prompt`.
            prompt_attention_mask: (B, L) bool, their mask.
            negative_prompt_embeds: instead of `negative_prompt`.
            negative_prompt_attention_mask: their mask.
            output_type: "pil", "np", "pt" (tensors in [0, 1]) or "latent" (tensors in [-1, 1], as they are drawn).
            return_dict: whether to return an `ImagenCascadeOutput` or the tuple `(images, stages)`.
            cross_attention_kwargs: `{"scale": number}`, the strength of LoRA adapters in this call.
            callback_on_step_end: called as `f(pipe, step, timestep, tensors)` after each step, counted over all
                stages; may return changed tensors. Diffusers' `PipelineCallback`s say themselves which they get.
            callback_on_step_end_tensor_inputs: which tensors it gets; there is "latents", the noisy picture.

        Examples:

        Returns:
            The last stage's pictures as `images`, and every stage's in `stages`; after an interrupt those of the
            stage that was running, as far as it came.

        Raises:
            ValueError: a wrong argument, before any model runs, or what a callback returned.
            FloatingPointError: a stage's pictures hold values that are not finite.
        """  # noqa: D414 (Diffusers fills in the example)
        # 1. Settle and check everything before any model runs.
        if self._drawing:
            raise ValueError(
                "The pipeline is called while it draws; call `ImagenCascadePipeline(**pipe.components)`, with copies of its schedulers."
            )
        check_unets(self._unets)
        check_options(num_images_per_prompt, output_type)
        check_attention_kwargs(cross_attention_kwargs)
        if isinstance(callback_on_step_end, PipelineCallback | MultiPipelineCallbacks):
            callback_on_step_end_tensor_inputs = callback_on_step_end.tensor_inputs
        check_callback(callback_on_step_end, callback_on_step_end_tensor_inputs, self._callback_tensor_inputs)
        names = select_stages(self.stage_names, start_stage, stop_stage, image is not None)
        arguments = {
            "num_inference_steps": num_inference_steps,
            "guidance_scale": guidance_scale,
            "guidance_rescale": guidance_rescale,
            "guidance_interval": guidance_interval,
            "thresholding": thresholding,
            "noise_level": noise_level,
            "max_batch_size": for_every_stage(max_batch_size, self.stage_names),
        }
        settings = override_settings(saved_settings(self.config.stages), arguments, self.stage_names)
        small = None if image is None else given_pictures(image, self.image_processor, stage_shape(self.unet).channels)
        schedules = {
            "timesteps": per_stage("timesteps", timesteps, self.stage_names),
            "sigmas": per_stage("sigmas", sigmas, self.stage_names),
        }
        sizes = self._sizes(names, small, height, width)
        guiders = stage_guiders(guider, self.guider, arguments, self._unets, sizes)
        schedulers = dict(zip(STAGES, (self.scheduler, self.sr_scheduler_1, self.sr_scheduler_2), strict=True))
        plans = plan_stages(names, self._unets, schedulers, settings, sizes, schedules)
        plans[0] = replace(plans[0], starts_from_noise=latents is None)
        embeds = (prompt_embeds, prompt_attention_mask, negative_prompt_embeds, negative_prompt_attention_mask)
        prompts = prompts_by_stage("prompt", prompt, names)
        negatives = prompts_by_stage("negative_prompt", negative_prompt, names)
        num_prompts = self._check_texts(prompts[names[0]], negatives[names[0]], embeds)
        texts = paired_prompts(prompts, negatives, num_prompts)
        batch_size = num_prompts * num_images_per_prompt
        check_batch(batch_size, generator, latents, plans[0].shape(batch_size))
        if small is not None and small.shape[0] not in (1, num_prompts):
            raise ValueError(
                f"`image` holds {small.shape[0]} pictures for {num_prompts} prompts; give one or as many."
            )
        device = self._execution_device
        counts = [len(plan.set_timesteps(device)) for plan in plans]
        check_guided_steps(guiders, {plan.name: count for plan, count in zip(plans, counts, strict=True)})
        self._num_timesteps = sum(counts)

        # 2. Text, once for all stages that share it.
        encoded = {
            pair: self.encode_prompt(*pair, num_images_per_prompt, device, *embeds)
            for pair in dict.fromkeys(texts.values())
        }

        # 3. The stages, each starting from the picture of the one before.
        self._interrupt = False
        finished: dict[str, Tensor] = {}
        if small is not None:
            before, after = (self._unets[name].config.sample_size for name in self._from_to(names[0]))
            small = shrunk(small, plans[0].size, before / after).to(device)
            small = small.repeat_interleave(batch_size // small.shape[0], dim=0)
        for plan in plans:
            if self._interrupt:
                break
            self._align(self._unets[plan.name])
            text = encoded[texts[plan.name]]
            stage_guider = guiders.get(plan.name)
            self._guidance_scale = plan.settings.guidance_scale if stage_guider is None else stage_guider.scale
            adapters = scaled_adapters(self._unets[plan.name], cross_attention_kwargs)
            with adapters, self._busy(), self.progress_bar(total=counts[len(finished)]) as progress:
                progress.set_description(plan.name)
                done = sum(counts[: len(finished)])
                control = self._control(done, progress, callback_on_step_end, callback_on_step_end_tensor_inputs)
                small = draw_stage(
                    plan,
                    TextEmbeddings(*text[:2]),
                    TextEmbeddings(*text[2:]),
                    small,
                    control,
                    device,
                    latents if plan is plans[0] else None,
                    generator,
                    stage_guider,
                )
            finished[plan.name] = small
        self.maybe_free_model_hooks()

        # 4. Pictures.
        stages = {
            name: finished_pictures(drawn, output_type, self.image_processor) for name, drawn in finished.items()
        }
        stages = {name: self._checked(name, pictures, output_type) for name, pictures in stages.items()}
        images = list(stages.values())[-1]
        return ImagenCascadeOutput(images=images, stages=stages) if return_dict else (images, stages)

    @contextmanager
    def _busy(self) -> Iterator[None]:
        """Refuse other calls meanwhile: from a callback or another thread, they would lay out the schedulers anew."""
        self._drawing = True
        try:
            yield
        finally:
            self._drawing = False

    @property
    def _text_shape(self) -> tuple[int, int] | None:
        """What texts the U-Nets take; a pipeline without a base may still encode prompts."""
        return None if self.unet is None else check_unets(self._unets)

    def _check_texts(self, prompts: Prompts | None, negatives: Prompts | None, embeds: Embeds) -> int:
        has_encoder = self.tokenizer is not None and self.text_encoder is not None
        return check_texts(prompts, negatives, embeds, self._text_shape, has_encoder, self._has_null_text)

    @property
    def _has_null_text(self) -> bool:
        """Whether the U-Nets learned what stands for no text; others were trained with the empty prompt."""
        return text_settings(self.config.text).null_empty

    def _text_of(self, prompts: Prompts | None, embeds: Tensor | None, mask: Tensor | None) -> TextEmbeddings:
        if embeds is not None:
            return given_text(embeds, mask)
        settings = text_settings(self.config.text, self._text_shape, self.text_encoder)
        return self._encode(prompts or (), settings)

    def _checked(self, stage: str, pictures: Pictures, output_type: str) -> Pictures:
        pictures = safe_pictures(
            pictures, output_type, self.safety_checker, self.feature_extractor, self._execution_device
        )
        return marked_pictures(pictures, output_type, self.watermarker, self._unets[stage].config.sample_size)

    def _sizes(
        self, names: Sequence[str], small: Tensor | None, height: int | None, width: int | None
    ) -> dict[str, Size]:
        sides = {name: unet.config.sample_size for name, unet in self._unets.items()}
        multiples = {name: unet.size_multiple for name, unet in self._unets.items()}
        default = (sides[names[-1]], sides[names[-1]])
        if small is not None:
            before, _ = self._from_to(names[0])
            default = tuple(round(side * sides[names[-1]] / sides[before]) for side in small.shape[-2:])
        return stage_sizes(names, sides, multiples, height, width, default)

    def _from_to(self, stage: str) -> tuple[str, str]:
        """Return the stage whose pictures an enlargement takes, and the enlargement."""
        return self.stage_names[self.stage_names.index(stage) - 1], stage

    def _control(
        self,
        steps_before: int,
        progress: Any,
        callback: Callable[..., dict[str, Any] | None] | None,
        tensor_inputs: Sequence[str],
    ) -> StepControl:
        def on_step_end(index: int, timestep: Tensor, sample: Tensor) -> Tensor:
            progress.update()
            if callback is None:
                return sample
            tensors = {"latents": sample} if "latents" in tensor_inputs else {}
            return changed_sample(callback(self, steps_before + index, timestep, tensors), sample)

        keeps_samples = callback is not None and "latents" in tensor_inputs
        return StepControl(lambda: self._guidance_scale, on_step_end, lambda: self._interrupt, keeps_samples)
