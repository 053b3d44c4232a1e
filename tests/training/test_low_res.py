"""What an enlargement is trained on: shrunk, spoiled or stored low resolutions, and crops of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from diffusers_imagen.data.degradation import Degradation
from diffusers_imagen.data.transforms import low_res_of, to_uint8, to_unit_range
from diffusers_imagen.diffusion.noise import NoiseProcess, NoiseSchedule
from diffusers_imagen.diffusion.resize import resize
from diffusers_imagen.text.cache import TextEmbeddingCache
from diffusers_imagen.text.loading import load_text_encoder
from diffusers_imagen.training.batches import BatchMaker
from diffusers_imagen.training.config import TrainConfig
from diffusers_imagen.training.loop import train
from diffusers_imagen.training.objective import _images
from diffusers_imagen.training.sources import open_pictures
from diffusers_imagen.training.tasks import ImagenTask

MakeConfig = Callable[..., TrainConfig]

TASK = ImagenTask(NoiseProcess("v_prediction", NoiseSchedule()))
NO_NOISE = {"noise_level_min": 0.0, "noise_level_max": 0.0}


def batch_maker(config: TrainConfig) -> BatchMaker:
    pictures = open_pictures(config)
    text = TextEmbeddingCache.build(pictures.captions, *load_text_encoder(config.text.folder), config.text.settings)
    return BatchMaker(config, pictures, text)


def test_plain_low_resolution_is_left_to_the_device(make_config: MakeConfig) -> None:
    assert batch_maker(make_config(enlarges=True)).batch(0).low_res is None
    assert batch_maker(make_config()).batch(0).low_res is None


def test_spoiled_low_resolution_is_the_shrunk_picture_spoiled_for_its_sample(make_config: MakeConfig) -> None:
    config = make_config(enlarges=True, data={"low_res_blur": 1.5, "low_res_jpeg": 40}, batch_size=6)
    batch = batch_maker(config).batch(1)

    assert batch.low_res is not None
    assert batch.low_res.shape == (6, 3, 4, 4)
    for place in range(6):
        small = to_uint8(resize(to_unit_range(batch.pictures[place : place + 1]), (4, 4)))[0]
        assert torch.equal(batch.low_res[place], Degradation(1.5, 40)(small, config.seed, 6 + place))
    # The other numbers of the samples stay what they are without.
    plain = batch_maker(make_config(enlarges=True, batch_size=6)).batch(1)
    assert torch.equal(batch.eps, plain.eps)
    assert torch.equal(batch.top, plain.top)


def test_low_resolution_of_a_folder_goes_with_its_picture_mirrored_and_cropped_like_it(
    make_config: MakeConfig, pictures: Path, tmp_path: Path
) -> None:
    stored = tmp_path / "low"
    stored.mkdir()
    for file in pictures.glob("*.png"):
        with Image.open(file) as image:
            # What a base could have drawn: the same picture, smaller and darker.
            Image.fromarray(np.asarray(image.resize((4, 4), Image.Resampling.BOX)) // 2).save(stored / file.name)
    config = make_config(
        enlarges=True,
        data={"low_res_folder": str(stored), "horizontal_flip": True},
        objective=NO_NOISE,
        batch_size=24,
    )
    batch = batch_maker(config).batch(0)
    x_0, low_res = _images(batch, config.data, TASK)

    assert batch.low_res is not None
    assert low_res is not None
    assert batch.flip.any()
    assert not batch.flip.all()
    box = torch.nn.functional.avg_pool2d(batch.pictures.float(), 2)
    assert (batch.low_res.float() - box // 2).abs().max() <= 1
    for place in range(24):
        small = to_unit_range(batch.low_res[place])
        small = small.flip(-1) if batch.flip[place] else small
        whole = resize(small[None], (8, 8))[0]
        top, left = int(batch.top[place]), int(batch.left[place])
        torch.testing.assert_close(low_res[place], whole[:, top : top + 4, left : left + 4])
    assert x_0.shape == low_res.shape == (24, 3, 4, 4)
    assert train(make_config(enlarges=True, data={"low_res_folder": str(stored)}, max_steps=1)).finished


def test_stored_low_resolution_of_another_size_is_refused(
    make_config: MakeConfig, pictures: Path, tmp_path: Path
) -> None:
    stored = tmp_path / "low"
    stored.mkdir()
    for file in pictures.glob("*.png"):
        Image.new("RGB", (5, 5)).save(stored / file.name)
    config = make_config(enlarges=True, data={"low_res_folder": str(stored)})

    with pytest.raises(ValueError, match=r"`data.low_res_folder` is \(5, 5\) high and wide; the stage takes \(4, 4\)"):
        batch_maker(config).batch(0)


@pytest.mark.parametrize(("size", "crop", "factor"), [(1024, 256, 4), (256, 64, 4)])
def test_crops_of_large_pictures_meet_their_low_resolution_exactly(
    make_config: MakeConfig, tmp_path: Path, size: int, crop: int, factor: int
) -> None:
    folder = tmp_path / "large"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "a.png")
    (folder / "a.txt").write_text("a red square")
    data: dict[str, Any] = {"folder": str(folder), "size": size, "crop": crop, "low_res_factor": factor}
    config = make_config(enlarges=True, data=data, objective=NO_NOISE, batch_size=3)
    batch = batch_maker(config).batch(0)
    x_0, low_res = _images(batch, config.data, TASK)

    assert low_res is not None
    whole = low_res_of(to_unit_range(batch.pictures[:1]), factor)[0]
    for place in range(3):
        top, left = int(batch.top[place]), int(batch.left[place])
        assert top % factor == left % factor == 0
        cut = (slice(None), slice(top, top + crop), slice(left, left + crop))
        assert torch.equal(x_0[place], to_unit_range(torch.from_numpy(pixels).permute(2, 0, 1))[cut])
        torch.testing.assert_close(low_res[place], whole[cut], rtol=0, atol=1e-6)
    assert len(set(zip(batch.top.tolist(), batch.left.tolist(), strict=True))) == 3
