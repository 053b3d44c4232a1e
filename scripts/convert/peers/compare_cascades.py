# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Draw with one release's cascades and with what becomes of them, from the same noise.

`Imagen`'s sampler becomes a scheduler here, so that both sides draw the same numbers in the same order and whole pictures
can be compared. Rounding grows on the way, with guidance all the more, so every step of theirs is repeated, too: that is
also how `ElucidatedImagen` is compared, whose sampler no scheduler here has.

Called by `check_against_imagen_pytorch.py`.
"""

import contextlib
import inspect
import io
from dataclasses import replace
from types import ModuleType
from typing import Any

import torch
from compare_unets import liven, soften
from diffusers import DDPMScheduler
from import_peer import TEXT_WIDTH
from torch import Tensor, nn

from diffusers_imagen.conversion.imagen_pytorch import convert_imagen_pytorch
from diffusers_imagen.conversion.imagen_pytorch_checkpoint import find_unets
from diffusers_imagen.conversion.imagen_pytorch_options import ImagenOptions
from diffusers_imagen.models.stage_model import stage_model_for
from diffusers_imagen.pipelines.converted_cascade import converted_cascade
from diffusers_imagen.pipelines.denoise_stage import StageCondition, predict_x_0
from diffusers_imagen.pipelines.pipeline_imagen_cascade import ImagenCascadePipeline
from diffusers_imagen.pipelines.stage_settings import saved_settings

_SIZES, _STEPS, _PLACES = (8, 16), 5, 12
_UNET = {
    "dim": 16,
    "text_embed_dim": TEXT_WIDTH,
    "dim_mults": (1, 2),
    "attn_heads": 2,
    "attn_dim_head": 16,
    "max_text_len": _PLACES,
    "attn_pool_num_latents": 4,
}


class AncestralScheduler(DDPMScheduler):
    """imagen-pytorch's sampler: equal steps on its continuous schedule, the last one without noise.

    Index i of the noise levels is time i / steps; unlike DDPM it ends at time 0, where a little noise is left.
    """

    def set_timesteps(self, num_inference_steps: int, device: Any = None) -> None:
        """Lay out all steps."""
        self.num_inference_steps = num_inference_steps
        self.timesteps = torch.arange(num_inference_steps, 0, -1, device=device)

    def previous_timestep(self, timestep: int) -> int:
        """Return the next index."""
        return timestep - 1

    def _get_variance(self, t: int, predicted_variance: Any = None, variance_type: Any = None) -> Tensor:
        variance = super()._get_variance(t, predicted_variance, variance_type)
        return variance if t > 1 else torch.zeros(())

    def step(self, model_output: Tensor, timestep: Any, sample: Tensor, generator: Any = None) -> Any:
        """Step, and clamp the finished picture."""
        result = super().step(model_output, timestep, sample, generator=generator)
        if int(timestep) == 1:
            result.prev_sample = result.prev_sample.clamp(-1, 1)
        return result


def compare_cascades(peer: ModuleType) -> dict[str, tuple[float, float | None]]:
    """Return the largest differences for each way to sample: of every step's clean pictures, and of whole pictures."""
    outcomes: dict[str, tuple[float, float | None]] = {}
    objectives = ["noise", "x_start", "v"]
    if "'v'" not in inspect.getsource(peer.Imagen.p_mean_variance):
        objectives.remove("v")
    for objective in objectives:
        for schedules in (("cosine", "cosine"), ("linear", "linear")):
            for scale in (1.0, 3.0):
                name = f"{objective}, {schedules[0]}, guidance {scale}"
                arguments = {"pred_objectives": objective, "noise_schedules": schedules}
                outcomes[name] = _compare_imagen(peer, arguments, scale)
    linear = {"noise_schedules": ("linear", "linear")}
    # Not with predicted noise: where there is little picture, clipping turns rounding into other pictures.
    static = linear | {"pred_objectives": objectives[-1], "dynamic_thresholding": False}
    outcomes[f"{objectives[-1]}, linear, static thresholding"] = _compare_imagen(peer, static, 3.0)
    outcomes["noise, linear, low-res cosine"] = _compare_imagen(
        peer, linear | {"lowres_noise_schedule": "cosine"}, 3.0
    )
    for scale in (1.0, 3.0):
        outcomes[f"elucidated, guidance {scale}"] = _compare_elucidated(peer, scale)
    if "self_cond" in inspect.signature(peer.Unet).parameters:
        itself = {"self_cond": True}
        outcomes["noise, linear, self-conditioned"] = _compare_imagen(peer, linear, 3.0, itself)
        outcomes["elucidated, self-conditioned"] = _compare_elucidated(peer, 3.0, itself)
    return outcomes


def make_unets(peer: ModuleType, changed: dict[str, Any]) -> list[nn.Module]:
    """Return a base and an enlargement with weights as if trained."""
    shared = _UNET | changed
    unets = [peer.Unet(**shared), peer.Unet(**shared, lowres_cond=True, memory_efficient=True)]
    for unet in unets:
        liven(unet)
        soften(unet)
        unet.eval()
    return unets


def _compare_imagen(
    peer: ModuleType, arguments: dict[str, Any], scale: float, changed: dict[str, Any] | None = None
) -> tuple[float, float]:
    torch.manual_seed(0)
    shared = {"image_sizes": _SIZES, "text_embed_dim": TEXT_WIDTH, "timesteps": _STEPS} | arguments
    with contextlib.redirect_stdout(io.StringIO()):
        theirs = peer.Imagen(make_unets(peer, changed or {}), **shared).eval()
    ours = _converted(theirs, ImagenOptions(**{key: shared[key] for key in shared if key != "text_embed_dim"}))
    for part, schedule in zip(("scheduler", "sr_scheduler_1"), theirs.noise_schedulers, strict=True):
        scheduler = AncestralScheduler(_STEPS + 1, clip_sample=False, prediction_type="sample")
        times = torch.linspace(0, 1, _STEPS + 1)
        scheduler.alphas_cumprod = schedule.log_snr(times).double().sigmoid()
        setattr(ours, part, scheduler)
    text, mask = _text()
    repeat = _Repeat(ours, text, mask, scale)
    step = theirs.p_mean_variance

    def repeated(unet: nn.Module, x: Tensor, t: Tensor, *, noise_scheduler: Any, **keywords: Any) -> Any:
        result = step(unet, x, t, noise_scheduler=noise_scheduler, **keywords)
        log_snr = noise_scheduler.log_snr(t).double()
        alpha, sigma = (float(level[0].sigmoid().sqrt()) for level in (log_snr, -log_snr))
        # Releases differ in whether the clean picture comes along.
        if isinstance(result[0], tuple):
            repeat(x, alpha, sigma, keywords, result[1])
        return result

    theirs.p_mean_variance = repeated
    plain = {"cfg_remove_parallel_component": False} if _projects(peer) else {}
    torch.manual_seed(1)
    with contextlib.redirect_stderr(io.StringIO()):
        expected = theirs.sample(
            text_embeds=text, text_masks=mask, cond_scale=scale, return_all_unet_outputs=True, **plain
        )
        torch.manual_seed(1)
        drawn = ours(
            prompt_embeds=text,
            prompt_attention_mask=mask,
            guidance_scale={"base": scale, "sr_1": scale},
            output_type="latent",
        ).stages
    pairs = list(zip(drawn.values(), expected, strict=True))
    if "normalize_img)(lowres_cond_img" in inspect.getsource(peer.Imagen.p_sample_loop):
        # Old releases noise the smaller picture before they bring it to [-1, 1], in sampling alone: the base is compared.
        pairs = pairs[:1]
    pictures = max(float((picture - (2 * their - 1)).abs().max()) for picture, their in pairs)
    return max(repeat.differences, default=float("nan")), pictures


def _compare_elucidated(peer: ModuleType, scale: float, changed: dict[str, Any] | None = None) -> tuple[float, None]:
    torch.manual_seed(0)
    steps = {"num_sample_steps": _STEPS}
    with contextlib.redirect_stdout(io.StringIO()):
        theirs = peer.ElucidatedImagen(
            make_unets(peer, changed or {}), image_sizes=_SIZES, text_embed_dim=TEXT_WIDTH, **steps
        ).eval()
    ours = _converted(theirs, ImagenOptions(image_sizes=_SIZES, elucidated=True, **steps))
    text, mask = _text()
    repeat = _Repeat(ours, text, mask, scale)
    network = theirs.preconditioned_network_forward

    def repeated(unet_forward: Any, noised: Tensor, sigma: float, **keywords: Any) -> Tensor:
        low_res = keywords.get("lowres_cond_img")
        if low_res is not None:
            # Its training tells the U-Net log-SNRs of the smaller picture, its sampling forgets to.
            times = keywords["lowres_noise_times"]
            keywords["lowres_noise_times"] = theirs.lowres_noise_schedule.get_condition(times)
        result = network(unet_forward, noised, sigma, **keywords)
        repeat(noised, 1.0, float(sigma), keywords, result)
        return result

    theirs.preconditioned_network_forward = repeated
    plain = {"cfg_remove_parallel_component": False} if _projects(peer) else {}
    with contextlib.redirect_stderr(io.StringIO()), torch.no_grad():
        theirs.sample(text_embeds=text, text_masks=mask, cond_scale=scale, **plain)
    return max(repeat.differences), None


class _Repeat:
    """Predicts the clean pictures of their steps with our stages and keeps the differences."""

    def __init__(self, pipeline: ImagenCascadePipeline, text: Tensor, mask: Tensor, scale: float) -> None:
        self._models = [stage_model_for(unet) for unet in (pipeline.unet, pipeline.sr_unet_1)]
        self._settings = list(saved_settings(pipeline.config.stages).values())
        self._texts = (text, mask, torch.zeros_like(text), torch.zeros_like(mask))
        self._scale = scale
        self.differences: list[float] = []

    def __call__(
        self, x: Tensor, alpha: float, sigma: float, keywords: dict[str, Tensor | None], expected: Tensor
    ) -> None:
        """Compare one step."""
        low_res, last = keywords.get("lowres_cond_img"), keywords.get("self_cond")
        stage = 0 if low_res is None else 1
        settings = self._settings[stage]
        level = None if low_res is None else torch.full((len(x),), settings.noise_level)
        condition = StageCondition(*self._texts, low_res, level)
        model = self._models[stage] if last is None else self._models[stage].after(last)
        x_0, _ = predict_x_0(model, x, alpha, sigma, condition, self._scale, settings)
        self.differences.append(float((x_0 - expected).abs().max()))


def _converted(theirs: nn.Module, options: ImagenOptions) -> ImagenCascadePipeline:
    # Its default has changed between releases.
    options = replace(options, dynamic_thresholding_percentile=theirs.dynamic_thresholding_percentile)
    pipeline = converted_cascade(convert_imagen_pytorch([find_unets(theirs.state_dict())], options, usual=True))
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _text() -> tuple[Tensor, Tensor]:
    torch.manual_seed(2)
    mask = torch.tensor([[True] * 7, [True] * 3 + [False] * 4])
    return torch.randn(2, 7, TEXT_WIDTH), mask


def _projects(peer: ModuleType) -> bool:
    """Say whether the release's guidance drops the part that is parallel to the prediction, unless told not to."""
    return "cfg_remove_parallel_component" in inspect.signature(peer.Imagen.p_mean_variance).parameters
