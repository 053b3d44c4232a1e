# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""A training step of the base stage: noise, forward, backward, clipping, optimizer and averaged weights.

Ours is what `diffusers_imagen.training` makes of a batch, without its loader; IF's a plain loop as Diffusers' training
scripts have it; imagen-pytorch's its `ImagenTrainer`. All train in bf16 autocast on float32 weights, IF also in
float32. Texts are given, a tenth of them dropped.
"""

import contextlib
from collections.abc import Callable

import torch
import torch.nn.functional as F
from candidates import Variant, apply, build
from diffusers import DDPMScheduler
from diffusers.training_utils import EMAModel
from flops import count_gflop
from inputs import Inputs, make_inputs
from peer_imagen_pytorch import make_imagen, make_trainer
from results import OURS, Measurement, Row
from scale import Scale
from timing import interleave
from torch import Tensor, nn

from diffusers_imagen.training.config import DataConfig, ObjectiveConfig, OptimizerConfig
from diffusers_imagen.training.ema import ExponentialAverage
from diffusers_imagen.training.objective import TrainingBatch, diffusion_loss
from diffusers_imagen.training.optimizers import make_optimizer
from diffusers_imagen.training.tasks import ImagenTask

DROPPED = 0.1
_FP32 = Variant("fp32")
_AUTOCAST = Variant("bf16 autocast", autocast=True)
_AUTOCAST_LAST = Variant("bf16 autocast channels_last", autocast=True, channels_last=True)
_VARIANTS: dict[str, tuple[Variant, ...]] = {
    **dict.fromkeys(OURS, (_AUTOCAST_LAST,)),
    "IF": (_FP32, _AUTOCAST, _AUTOCAST_LAST),
    "imagen-pytorch": (_AUTOCAST, _AUTOCAST_LAST),
}


def measure(scale: Scale) -> list[Row]:
    """Time training steps, in turns."""
    steps: dict[str, Callable[[], object]] = {}
    known: dict[str, Measurement] = {}
    for side, variants in _VARIANTS.items():
        for variant in variants:
            unet = build(side, "base", scale)
            parameters = sum(weight.numel() for weight in unet.parameters())
            gflop = 3 * count_gflop(lambda unet=unet: unet(_inputs(scale)))  # backward is twice forward
            apply(variant, unet)
            name = f"{side} / {variant.name}"
            steps[name] = _step(side, variant, unet.train(), scale)
            known[name] = Measurement(side, variant.name, variant.precision, [], parameters, round(gflop, 3))
    seconds = interleave(steps, scale.whole)
    measurements = [Measurement(**{**vars(known[name]), "values": values}) for name, values in seconds.items()]
    title = f"training step, base {scale.training_pixels} px, batch {scale.training_batch}"
    return [Row("training", title, "s", True, measurements, samples=scale.training_batch)]


def _inputs(scale: Scale) -> Inputs:
    return make_inputs("base", scale.training_pixels, scale.training_batch)


def _step(side: str, variant: Variant, unet: nn.Module, scale: Scale) -> Callable[[], object]:
    inputs = _inputs(scale)
    pictures = (127.5 * (inputs.x.clamp(-1, 1) + 1)).to(torch.uint8)
    if side == "IF":
        return _if_step(unet.unet, variant, pictures, inputs.text)
    if side == "imagen-pytorch":
        return _imagen_pytorch_step(unet.unet, pictures, inputs.text, scale)
    return _our_step(unet.unet, variant, pictures, inputs.text)


def autocast(variant: Variant) -> contextlib.AbstractContextManager[object]:
    """Return bf16 autocast for variants that have it."""
    return torch.autocast("cpu", torch.bfloat16) if variant.autocast else contextlib.nullcontext()


def _our_step(unet: nn.Module, variant: Variant, pictures: Tensor, text: Tensor) -> Callable[[], object]:
    B, _, size, _ = pictures.shape
    data, objective, settings = DataConfig(folder="", size=size), ObjectiveConfig(), OptimizerConfig()
    optimizer, average = make_optimizer(unet, settings), ExponentialAverage(unet, 0.9999)
    zeros = torch.zeros(B, dtype=torch.long)
    task = ImagenTask(unet.noise_process)

    def step() -> None:
        batch = TrainingBatch(
            pictures=pictures,
            text=text,
            text_mask=(torch.rand(B, 1) > DROPPED).expand(text.shape[:2]),
            t=torch.rand(B),
            eps=torch.randn(pictures.shape),
            flip=zeros.bool(),
            top=zeros,
            left=zeros,
        )
        with autocast(variant):
            loss = diffusion_loss(unet, task, batch, data, objective).mean
        loss.backward()
        nn.utils.clip_grad_norm_(unet.parameters(), settings.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        average.update(unet, 1000)

    return step


def _if_step(unet: nn.Module, variant: Variant, pictures: Tensor, text: Tensor) -> Callable[[], object]:
    scheduler = DDPMScheduler(beta_schedule="squaredcos_cap_v2")
    optimizer = torch.optim.AdamW(unet.parameters(), lr=1e-4, fused=True)
    average = EMAModel(unet.parameters(), foreach=True)
    B = len(pictures)

    def step() -> None:
        x_0 = pictures / 127.5 - 1
        eps, t = torch.randn_like(x_0), torch.randint(0, 1000, (B,))
        kept = (torch.rand(B, 1, 1) > DROPPED).float()
        with autocast(variant):
            prediction = unet(scheduler.add_noise(x_0, eps, t), t, text * kept, return_dict=False)[0]
        F.mse_loss(prediction[:, :3].float(), eps).backward()
        nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        average.step(unet.parameters())

    return step


def _imagen_pytorch_step(unet: nn.Module, pictures: Tensor, text: Tensor, scale: Scale) -> Callable[[], object]:
    trainer = make_trainer(make_imagen([unet], [scale.training_pixels]))
    x_0 = pictures / 255

    def step() -> None:
        trainer(x_0, text_embeds=text, unet_number=1, max_batch_size=len(pictures))
        trainer.update(unet_number=1)

    return step
