from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from diffusers_imagen.text.cache import TextEmbeddingCache
from diffusers_imagen.text.loading import load_text_encoder
from diffusers_imagen.training.config import TrainConfig
from diffusers_imagen.training.held_out import HeldOutLoss, LevelLoss
from diffusers_imagen.training.sources import open_pictures
from diffusers_imagen.training.state import make_unet

MakeConfig = Callable[..., TrainConfig]
FRACTION = {"validation_fraction": 0.5}


def measure(config: TrainConfig, process: int = 0, processes: int = 1, trained: bool = False) -> list[LevelLoss]:
    pictures = open_pictures(config, held_out=True)
    text = TextEmbeddingCache.build(pictures.captions, *load_text_encoder(config.text.folder), config.text.settings)
    torch.manual_seed(0)
    unet = make_unet(config.model).eval()
    if trained:
        # A new U-Net predicts 0 whatever it is told.
        for weight in unet.parameters():
            torch.nn.init.normal_(weight, std=0.1)
    return HeldOutLoss(config, pictures, text, processes, process).measure(unet, nullcontext, lambda values: values)


def test_a_new_epsilon_model_has_the_loss_one_at_every_level(make_config: MakeConfig) -> None:
    model = {"config": {**make_config().model.config, "prediction_type": "epsilon"}}
    levels = measure(make_config(data=FRACTION, model=model, held_out={"levels": 4, "num_images": 64}))

    assert [level.t for level in levels] == [0.125, 0.375, 0.625, 0.875]
    # A new U-Net predicts 0, so the loss is the noise's own square.
    assert all(level.loss == pytest.approx(1, abs=0.15) for level in levels)
    log_snrs = [level.log_snr for level in levels]
    assert log_snrs == sorted(log_snrs, reverse=True)


def test_every_caption_counts_and_no_picture_is_mirrored_however_training_does(make_config: MakeConfig) -> None:
    plain = measure(make_config(data=FRACTION), trained=True)
    varied = make_config(data={**FRACTION, "horizontal_flip": True}, objective={"caption_drop": 1.0})
    assert measure(varied, trained=True) == plain
    assert measure(make_config(data=FRACTION, text={"prefix": "blue "}), trained=True) != plain


def test_two_processes_measure_what_one_does(make_config: MakeConfig) -> None:
    config = make_config(data=FRACTION, held_out={"num_images": 4, "levels": 3}, batch_size=4)
    whole = measure(config)
    halves = [measure(config, process, processes=2) for process in range(2)]

    for one, first, second in zip(whole, *halves, strict=True):
        assert one.loss == pytest.approx((first.loss + second.loss) / 2, rel=1e-5)


def test_held_out_pictures_are_not_those_trained_on(make_config: MakeConfig, pictures: Path) -> None:
    config = make_config(data=FRACTION)
    names = [
        {source[i].file_name for i in range(len(source))}
        for source in (open_pictures(config), open_pictures(config, held_out=True))
    ]
    assert names[0] & names[1] == set()
    assert len(names[0] | names[1]) == 12
