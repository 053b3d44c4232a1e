from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusers_imagen.diffusion.noise import NoiseProcess, NoiseSchedule
from diffusers_imagen.models.unet_efficient import EfficientUNet2DConditionModel
from diffusers_imagen.models.unet_imagen import ImagenUNet2DConditionModel
from diffusers_imagen.training.batches import BatchMaker
from diffusers_imagen.training.config import DataConfig, ObjectiveConfig, TrainConfig
from diffusers_imagen.training.objective import TrainingBatch, diffusion_loss
from diffusers_imagen.training.tasks import ImagenTask

MakeBatches = Callable[..., BatchMaker]
MakeConfig = Callable[..., TrainConfig]


class Constant(nn.Module):
    """Predict one number everywhere and keep what it was asked."""

    def __init__(self, value: float = 0.0) -> None:
        super().__init__()
        self.value = value
        self.asked: dict[str, Any] = {}

    def forward(self, sample: Tensor, timestep: Tensor, text: Tensor, **rest: Any) -> tuple[Tensor]:
        self.asked = {"sample": sample, "timestep": timestep, "text": text, **rest}
        return (torch.full_like(sample, self.value),)


def task(prediction_type: str) -> ImagenTask:
    return ImagenTask(NoiseProcess(prediction_type, NoiseSchedule()))


def by_hand(batch: TrainingBatch) -> tuple[Tensor, Tensor, Tensor]:
    """Give clean images, alpha and sigma in float64, from the definition of the cosine schedule."""
    x_0 = batch.pictures.double() / 127.5 - 1
    log_snr = NoiseSchedule().log_snr(batch.t.double())
    alpha, sigma = torch.sigmoid(log_snr).sqrt(), torch.sigmoid(-log_snr).sqrt()
    return x_0, alpha.view(-1, 1, 1, 1), sigma.view(-1, 1, 1, 1)


@pytest.mark.parametrize("prediction_type", ["epsilon", "sample", "v_prediction", "flow_prediction"])
def test_loss_is_the_mean_squared_distance_from_the_target(make_batches: MakeBatches, prediction_type: str) -> None:
    batch = make_batches(batch_size=8).batch(0)
    x_0, alpha, sigma = by_hand(batch)
    eps = batch.eps.double()
    target = {
        "epsilon": eps,
        "sample": x_0,
        "v_prediction": alpha * eps - sigma * x_0,
        "flow_prediction": eps - x_0,
    }[prediction_type]
    config = DataConfig(folder="", size=8)
    loss = diffusion_loss(Constant(0.3), task(prediction_type), batch, config, ObjectiveConfig())

    expected = (0.3 - target).square().mean((1, 2, 3))
    torch.testing.assert_close(loss.per_sample.double(), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(loss.mean.double(), expected.mean(), rtol=1e-5, atol=1e-6)


def test_unet_is_asked_for_the_noisy_picture_at_its_own_time(make_batches: MakeBatches) -> None:
    batch = make_batches(batch_size=8).batch(0)
    x_0, alpha, sigma = by_hand(batch)
    unet = Constant()
    loss = diffusion_loss(unet, task("v_prediction"), batch, DataConfig(folder="", size=8), ObjectiveConfig())

    expected = alpha * x_0 + sigma * batch.eps.double()
    torch.testing.assert_close(unet.asked["sample"].double(), expected, rtol=0, atol=2e-6)
    torch.testing.assert_close(unet.asked["timestep"], 1000 * batch.t)
    assert torch.equal(unet.asked["encoder_attention_mask"], batch.text_mask)
    assert unet.asked["low_res"] is unet.asked["noise_level"] is None
    torch.testing.assert_close(loss.log_snr, NoiseSchedule().log_snr(batch.t))


def test_weighting_multiplies_each_sample(make_batches: MakeBatches) -> None:
    batch, data = make_batches(batch_size=8).batch(0), DataConfig(folder="", size=8)
    plain = diffusion_loss(Constant(), task("epsilon"), batch, data, ObjectiveConfig())
    weighted = diffusion_loss(Constant(), task("epsilon"), batch, data, ObjectiveConfig(weighting="min_snr"))

    snr = plain.log_snr.double().exp()
    torch.testing.assert_close(
        weighted.per_sample.double(), plain.per_sample.double() * snr.clamp(max=5) / snr, rtol=1e-4, atol=1e-7
    )


def test_low_resolution_is_of_the_same_crop_and_noised_by_each_samples_level(make_batches: MakeBatches) -> None:
    batch = make_batches(enlarges=True, batch_size=6).batch(0)
    data = DataConfig(folder="", size=8, crop=4, low_res_factor=2)
    whole, _, _ = by_hand(batch)
    blurred = F.interpolate(whole, (4, 4), mode="bicubic", antialias=True).clamp(-1, 1)
    blurred = F.interpolate(blurred, (8, 8), mode="bicubic", antialias=True).clamp(-1, 1)

    def crop(image: Tensor) -> Tensor:
        corners = zip(image, batch.top.tolist(), batch.left.tolist(), strict=True)
        return torch.stack([one[:, top : top + 4, left : left + 4] for one, top, left in corners])

    assert batch.noise_level is not None
    assert batch.low_res_eps is not None
    unet = Constant()
    diffusion_loss(unet, task("epsilon"), batch, data, ObjectiveConfig())
    angle = batch.noise_level.double().view(-1, 1, 1, 1) * torch.pi / 2
    expected = angle.cos() * crop(blurred) + angle.sin() * batch.low_res_eps.double()
    torch.testing.assert_close(unet.asked["low_res"].double(), expected, rtol=0, atol=1e-5)
    assert torch.equal(unet.asked["noise_level"], batch.noise_level)

    # At time 0 the noisy picture is the clean crop, whatever the noise on the low resolution.
    clean = replace(batch, t=torch.zeros(6))
    diffusion_loss(unet, task("epsilon"), clean, data, ObjectiveConfig())
    torch.testing.assert_close(unet.asked["sample"].double(), crop(whole), rtol=0, atol=5e-3)


def test_mirrored_picture_has_a_mirrored_low_resolution(make_batches: MakeBatches) -> None:
    batch = make_batches(enlarges=True, batch_size=6, data={"crop": 8}).batch(0)
    batch = replace(batch, t=torch.zeros(6), noise_level=torch.zeros(6))
    data = DataConfig(folder="", size=8, low_res_factor=2)
    plain, mirrored = Constant(), Constant()
    diffusion_loss(plain, task("epsilon"), batch, data, ObjectiveConfig())
    flipped = replace(batch, flip=torch.ones(6, dtype=torch.bool), eps=batch.eps.flip(-1))
    diffusion_loss(mirrored, task("epsilon"), flipped, data, ObjectiveConfig())

    for name in ("sample", "low_res"):
        torch.testing.assert_close(mirrored.asked[name], plain.asked[name].flip(-1), rtol=0, atol=1e-5)


@pytest.mark.parametrize("enlarges", [False, True])
def test_one_batch_is_learned_by_heart(make_batches: MakeBatches, make_config: MakeConfig, enlarges: bool) -> None:
    config = make_config(enlarges=enlarges)
    batch = make_batches(enlarges=enlarges, batch_size=8).batch(0)
    torch.manual_seed(0)
    unet_class = EfficientUNet2DConditionModel if enlarges else ImagenUNet2DConditionModel
    unet = unet_class(**{**config.model.config, "dropout": 0.0})
    optimizer = torch.optim.AdamW(unet.parameters(), lr=1e-2, betas=(0.9, 0.95))
    losses = []
    for _ in range(60):
        loss = diffusion_loss(unet, ImagenTask(unet.noise_process), batch, config.data, config.objective).mean
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())

    assert losses[-1] < losses[0] / 5
