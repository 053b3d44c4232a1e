from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from diffusers_imagen.data.folder import ImageFolder
from diffusers_imagen.training.batches import BatchMaker
from diffusers_imagen.training.config import ObjectiveConfig, TrainConfig
from diffusers_imagen.training.dry_run import dry_run
from diffusers_imagen.training.fine_tune_config import LoraConfig, PriorConfig
from diffusers_imagen.training.loop import train
from diffusers_imagen.training.objective import diffusion_loss
from diffusers_imagen.training.prior import BatchesWithPrior, draw_prior, join_batches
from diffusers_imagen.training.sources import open_pictures
from diffusers_imagen.training.state import make_unet
from diffusers_imagen.training.tasks import ImagenTask

MakeConfig = Callable[..., TrainConfig]


def draw_grey(prompts: Sequence[str], seeds: Sequence[int]) -> list[Image.Image]:
    return [Image.new("RGB", (8, 8), (seed, seed, seed)) for seed, _ in zip(seeds, prompts, strict=True)]


@pytest.mark.parametrize("enlarges", [False, True])
def test_joined_batch_has_the_loss_of_both_parts(make_batches: Callable[..., BatchMaker], enlarges: bool) -> None:
    own = make_batches(enlarges=enlarges, batch_size=3).batch(0)
    prior = make_batches(enlarges=enlarges, batch_size=2, seed=5).batch(1)
    prior = replace(prior, text=prior.text[:, :2], text_mask=prior.text_mask[:, :2])
    maker = make_batches(enlarges=enlarges)
    torch.manual_seed(0)
    unet = make_unet(maker._config.model).eval()
    with torch.no_grad():
        for weight in unet.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    losses = [
        diffusion_loss(unet, ImagenTask(unet.noise_process), batch, maker._config.data, ObjectiveConfig()).mean
        for batch in (own, prior, join_batches(own, prior, 0.3))
    ]

    torch.testing.assert_close(losses[2], losses[0] + 0.3 * losses[1])
    assert losses[1] > 0.01


def test_missing_pictures_are_drawn_once_with_their_prompts(tmp_path: Path) -> None:
    prior = PriorConfig(folder=str(tmp_path / "prior"), prompts=("a red square", "a blue square"), num_images=5)
    asked: list[tuple[str, int]] = []

    def draw(prompts: Sequence[str], seeds: Sequence[int]) -> list[Image.Image]:
        asked.extend(zip(prompts, seeds, strict=True))
        return draw_grey(prompts, seeds)

    assert draw_prior(prior, draw) == 5
    (tmp_path / "prior" / "prior-00003.png").unlink()
    assert draw_prior(prior, draw) == 1
    assert draw_prior(prior, None) == 0

    words = ["a red square", "a blue square"]
    assert asked == [(words[i % 2], i) for i in range(5)] + [("a blue square", 3)]
    source = ImageFolder.open(prior.folder, 8)
    assert [source[i].captions for i in range(5)] == [(words[i % 2],) for i in range(5)]
    assert [int(source[i].pixels[0, 0, 0]) for i in range(5)] == [0, 1, 2, 3, 4]


def test_pictures_that_nothing_draws_or_that_would_not_count_are_refused(tmp_path: Path) -> None:
    prior = PriorConfig(folder=str(tmp_path), prompts=("a square",), num_images=2)
    with pytest.raises(ValueError, match="lacks 2 of 2 pictures, and nothing here draws them"):
        draw_prior(prior, None)
    (tmp_path / "metadata.jsonl").write_text("")
    with pytest.raises(ValueError, match=r"whose metadata\.jsonl says what is in it"):
        draw_prior(prior, draw_grey)


@pytest.mark.parametrize("with_lora", [False, True])
@pytest.mark.parametrize("enlarges", [False, True])
def test_dreambooth_trains_pictures_without_captions_beside_prior_ones(
    make_config: MakeConfig, tmp_path: Path, with_lora: bool, enlarges: bool
) -> None:
    own = tmp_path / "own"
    own.mkdir()
    for number in range(3):
        Image.new("RGB", (8, 8), (250, 10 * number, 0)).save(own / f"{number}.png")
    config = make_config(enlarges=enlarges, max_steps=3, data={"folder": str(own), "prompts": ("a green square",)})
    make_unet(config.model).save_pretrained(tmp_path / "unet")
    config = replace(
        config,
        model=replace(config.model, config={}, pretrained=str(tmp_path / "unet")),
        lora=LoraConfig(rank=2) if with_lora else None,
        prior=PriorConfig(folder=str(tmp_path / "prior"), prompts=("a square",), num_images=4, batch_size=2),
    )
    assert open_pictures(config).captions == {"a green square"}
    seen: list[int] = []

    def draw(prompts: Sequence[str], seeds: Sequence[int]) -> list[Image.Image]:
        seen.extend(seeds)
        return draw_grey(prompts, seeds)

    assert train(config, draw=draw).finished
    assert train(config, draw=draw).finished
    assert seen == [0, 1, 2, 3]
    assert (Path(config.output_dir) / ("lora" if with_lora else "unet")).is_dir()
    (tmp_path / "prior" / "prior-00001.txt").write_text("a blue square")
    with pytest.raises(ValueError, match="had prior "):
        train(config, draw=draw)


def test_prior_pictures_have_randomness_of_their_own(make_config: MakeConfig, make_batches: Any) -> None:
    own, prior = make_batches(), make_batches(seed=1)
    both = BatchesWithPrior(own, prior, 1.0).batches(2)
    batch = next(both)
    both.close()

    torch.testing.assert_close(batch.t, torch.cat([own.batch(2).t, prior.batch(2).t]))
    assert len(set(batch.t.tolist())) == len(batch.t)
    assert make_config().pass_size == 4


def test_dry_run_counts_the_prior_in_every_batch(make_config: MakeConfig, tmp_path: Path) -> None:
    plain = make_config()
    prior = PriorConfig(folder=str(tmp_path), prompts=("a square",), num_images=9, batch_size=12)
    found, alone = dry_run(replace(plain, prior=prior)), dry_run(plain)

    assert found.memory.activations > 3 * alone.memory.activations
    assert "prior        9 pictures, 9 of them to be drawn first, 12 in each batch" in list(found.lines())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_images": -1}, r"`prior\.num_images` is -1"),
        ({"num_images": 5}, r"`prior\.prompts` is empty, but 5"),
        ({"weight": 0.0}, r"`prior\.weight` is 0\.0"),
        ({"batch_size": 0}, r"`prior\.batch_size` is 0"),
    ],
)
def test_impossible_priors_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PriorConfig(folder="prior", **values)


def test_prior_without_buckets_or_stored_low_resolution(make_config: MakeConfig) -> None:
    prior = PriorConfig(folder="prior")
    for name, value in (("bucket_multiple", 4), ("low_res_folder", "small")):
        config = make_config(enlarges=name == "low_res_folder", data={name: value})
        with pytest.raises(ValueError, match=rf"`data\.{name}` is .*leave it out with `prior`"):
            replace(config, prior=prior)


def test_prompts_are_only_for_folders(make_config: MakeConfig) -> None:
    with pytest.raises(ValueError, match=r"`data\.prompts` is \['a square'\], but `data\.folder` is of the kind"):
        open_pictures(make_config(data={"source": "dataset", "prompts": ("a square",)}))
