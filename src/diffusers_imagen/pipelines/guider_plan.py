# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Which guider guides which stage of a call, and the refusal of those that cannot. Called by the pipeline."""

import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Any

from diffusers.guiders.classifier_free_zero_star_guidance import ClassifierFreeZeroStarGuidance
from diffusers.guiders.guider_utils import BaseGuidance
from diffusers.guiders.perturbed_attention_guidance import PerturbedAttentionGuidance
from diffusers.guiders.smoothed_energy_guidance import SmoothedEnergyGuidance

from diffusers_imagen.guiders.catalogue import OWN, Driven, Refused, verdict_on
from diffusers_imagen.guiders.unet_auto_guidance import UNetAutoGuidance
from diffusers_imagen.models.stage_model import StageModel, stage_model_for, uncompiled
from diffusers_imagen.models.unet import ImagenUNet
from diffusers_imagen.models.worsened import with_blurred_queries, without_blocks, without_self_attention
from diffusers_imagen.pipelines.call_checks import Size
from diffusers_imagen.pipelines.guider_run import StageGuider
from diffusers_imagen.pipelines.stage_settings import is_number, per_stage
from diffusers_imagen.pipelines.weights import align_weights

# What a guider has of its own, and so cannot be given beside one.
_OWN_SETTINGS = ("guidance_scale", "guidance_rescale", "guidance_interval")
_KINDS = ("in_channels", "low_res_channels", "num_text_layers", "encoder_hid_dim")


def stage_guiders(
    argument: Any,
    saved: Any,
    settings: Mapping[str, Any],
    unets: Mapping[str, Any],
    sizes: Mapping[str, Size],
) -> dict[str, StageGuider]:
    """Return the guiders of the stages that run and have one, each checked against its stage.

    Args:
        argument: `guider` of the call: `None`, a guider for the base, or guiders (or `None`) by stage.
        saved: the pipeline's own guider, for the base where the call names none, or `None`.
        settings: the call's arguments for settings, as they were given.
        unets: the cascade's U-Nets by stage.
        sizes: (height, width) of the pictures, by stage that runs.

    Raises:
        ValueError: what is no guider or cannot guide the stage, or a guider beside `guidance_scale` and its kin.
    """
    stages = list(unets)
    chosen = per_stage("guider", saved, stages) | per_stage("guider", argument, stages)
    guiders = {}
    for stage, guider in chosen.items():
        if guider is None:
            continue
        _check_alone(stage, guider, settings, stages)
        if stage in sizes:
            guiders[stage] = plan_guider(stage, guider, unets[stage], sizes[stage])
    return guiders


def plan_guider(stage: str, guider: Any, unet: Any, size: Size) -> StageGuider:
    """Check a guider against the stage that it is to guide.

    Args:
        stage: "base", "sr_1" or "sr_2".
        guider: one of Diffusers' guiders, of this package's or of the user's own.
        unet: the stage's U-Net.
        size: (height, width) of its pictures.

    Raises:
        ValueError: what is no guider, a class that cannot guide, or settings that do not suit the U-Net.
    """
    if not isinstance(guider, BaseGuidance):
        raise ValueError(
            f"`guider` is {guider!r} for {stage!r}; give a guider of Diffusers, such as ClassifierFreeGuidance()."
        )
    name = type(guider).__name__
    verdict = verdict_on(guider)
    if isinstance(verdict, Refused):
        raise ValueError(f"`guider` is a {name} for {stage!r}, which {verdict.reason}. Take {verdict.instead}.")
    if verdict is OWN and type(guider).prepare_models is not BaseGuidance.prepare_models:
        raise ValueError(
            f"`guider` is a {name} for {stage!r}, which changes the U-Net in `prepare_models`; that is not called here. "
            "Make it without, or derive it from SkipLayerGuidance."
        )
    try:
        if verdict is not OWN:
            _check_numbers(guider)
        return StageGuider(guider, _worse_model(guider, verdict, unet, size))
    except ValueError as error:
        raise ValueError(f"`guider` ({name}) cannot guide {stage!r}: {error}") from error


def check_guided_steps(guiders: Mapping[str, StageGuider], evaluations: Mapping[str, int]) -> None:
    """Refuse a guider that would never let the U-Net say anything.

    Args:
        guiders: by stage.
        evaluations: how often each stage's U-Net is asked.

    Raises:
        ValueError: naming the guider's setting.
    """
    for stage, given in guiders.items():
        steps = getattr(given.guider, "zero_init_steps", 0)
        if isinstance(given.guider, ClassifierFreeZeroStarGuidance) and steps >= evaluations.get(stage, steps + 1):
            raise ValueError(
                f"`zero_init_steps` of the guider is {steps}, but {stage!r} makes {evaluations[stage]} steps, none of which "
                "would then go towards a picture; make it less, or take more steps."
            )


def _check_numbers(guider: Any) -> None:
    """Refuse settings that are no numbers where the class has numbers by default: no class of Diffusers looks."""
    for name, parameter in inspect.signature(type(guider).__init__).parameters.items():
        # Not by `getattr`, which would find settings of the config too, and warn of it.
        value = vars(guider).get(name, parameter.default)
        if isinstance(parameter.default, bool) or not isinstance(parameter.default, int | float):
            continue
        if value is None and name.endswith("_momentum"):
            # Without any, where the class has some by default.
            continue
        if not is_number(value) and not _is_list(value):
            raise ValueError(f"`{name}` is {value!r}; give a finite number.")
        if name == "guidance_rescale" and not _is_list(value) and not 0 <= value <= 1:
            raise ValueError(f"`{name}` is {value!r}; give a number from 0 to 1.")


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(is_number(one) for one in value)


def _check_alone(stage: str, guider: Any, settings: Mapping[str, Any], stages: Sequence[str]) -> None:
    for key in _OWN_SETTINGS:
        given = per_stage(key, settings.get(key), stages)
        if stage in given:
            raise ValueError(
                f"`{key}` is {given[stage]!r} for {stage!r}, which is guided by a {type(guider).__name__} with settings "
                f"of its own; change those, or give `guider={{{stage!r}: None}}` to guide without it."
            )


def _worse_model(guider: Any, verdict: Driven, unet: Any, size: Size) -> StageModel | None:
    """Check the settings of classes that need it, and return the worse network of those that want one."""
    unet = uncompiled(unet)
    if verdict.worse and not isinstance(unet, ImagenUNet):
        raise ValueError(
            f"it makes the U-Net worse, which is known for this package's own and not for {type(unet).__name__}; take "
            "ClassifierFreeGuidance."
        )
    if isinstance(guider, UNetAutoGuidance):
        _check_worse_unet(guider.unet, unet, size)
        align_weights(guider.unet)
        return stage_model_for(guider.unet)
    if hasattr(guider, "guidance_scales"):
        _check_levels(guider)
    if not verdict.worse:
        return None
    names = ("skip_layer_config", "auto_guidance_config", "seg_guidance_config")
    configs = next(getattr(guider, name) for name in names if hasattr(guider, name))
    places = [(config.fqn, _as_list(config.indices)) for config in configs]
    if isinstance(guider, PerturbedAttentionGuidance):
        return without_self_attention(unet, places)
    if isinstance(guider, SmoothedEnergyGuidance):
        return with_blurred_queries(unet, places, _blur_sigma(guider))
    for config in configs:
        if not (config.skip_attention and config.skip_ff) or config.skip_attention_scores or config.dropout != 1.0:
            raise ValueError(
                f"it skips parts of blocks ({config}), but only whole blocks can be skipped here; leave `skip_attention` "
                "and `skip_ff` True, `skip_attention_scores` False and `dropout` 1.0."
            )
    return without_blocks(unet, places)


def _blur_sigma(guider: SmoothedEnergyGuidance) -> float:
    if not guider.seg_blur_sigma > 0:
        raise ValueError(
            f"`seg_blur_sigma` is {guider.seg_blur_sigma!r}; give a number above 0, in places of the map."
        )
    return math.inf if guider.seg_blur_sigma > guider.seg_blur_threshold_inf else float(guider.seg_blur_sigma)


def _as_list(indices: Any) -> list[int]:
    return [indices] if isinstance(indices, int) else list(indices)


def _check_worse_unet(worse: Any, unet: ImagenUNet, size: Size) -> None:
    if not isinstance(worse, ImagenUNet):
        raise ValueError(f"`unet` is a {type(worse).__name__}; give a worse U-Net of the same kind as the stage's.")
    for key in _KINDS:
        if worse.config[key] != unet.config[key]:
            raise ValueError(
                f"`unet` has `{key}` {worse.config[key]}, but the stage's U-Net {unet.config[key]}; give one that was "
                "trained for the same stage and text encoder."
            )
    if worse.config.text_max_length < unet.config.text_max_length:
        raise ValueError(
            f"`unet` takes {worse.config.text_max_length} tokens, but the stage's U-Net {unet.config.text_max_length}; "
            "give one that takes as many."
        )
    if worse.device != unet.device:
        raise ValueError(
            f"`unet` is on {worse.device}, but the stage's U-Net on {unet.device}; move it: "
            f"`guider.unet.to({str(unet.device)!r})`."
        )
    if size[0] % worse.size_multiple or size[1] % worse.size_multiple:
        raise ValueError(
            f"`unet` draws multiples of {worse.size_multiple} pixels, not {size[0]} x {size[1]}; change the size."
        )


def _check_levels(guider: Any) -> None:
    """Refuse frequency levels of which one is not guided: in its place Diffusers takes the level before."""
    neutral = 0.0 if guider.use_original_formulation else 1.0
    same_interval = len({*guider.guidance_start}) == len({*guider.guidance_stop}) == 1
    if any(math.isclose(scale, neutral) for scale in guider.guidance_scales) or not same_interval:
        raise ValueError(
            f"`guidance_scales` is {guider.guidance_scales}, `start` {guider.guidance_start} and `stop` "
            f"{guider.guidance_stop}, but Diffusers confuses the levels when some are guided and others are not; give "
            f"scales other than {neutral:g} and one `start` and `stop` for all."
        )
