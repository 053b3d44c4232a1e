"""Trained parts on disk to a cascade, and parts that make none."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from diffusers_imagen.models.unet_efficient import EfficientUNet2DConditionModel
from diffusers_imagen.models.unet_imagen import ImagenUNet2DConditionModel
from diffusers_imagen.pipelines import assembly
from diffusers_imagen.pipelines.assembly import assemble, check_text_encoder, order_stages
from diffusers_imagen.pipelines.pipeline_imagen_cascade import ImagenCascadePipeline
from diffusers_imagen.text.encoding import TextSettings

TEXT = TextSettings(max_length=12)


@pytest.fixture(scope="module")
def saved(make_cascade: Callable[..., ImagenCascadePipeline], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the folder of a saved cascade of three stages, whose parts stand for trained ones."""
    folder = tmp_path_factory.mktemp("saved")
    make_cascade(3).save_pretrained(folder)
    return folder


def test_stages_find_their_places_in_any_order(saved: Path) -> None:
    folders = [saved / name for name in ("sr_unet_2", "unet", "sr_unet_1")]
    assert order_stages(folders) == {
        "base": saved / "unet",
        "sr_1": saved / "sr_unet_1",
        "sr_2": saved / "sr_unet_2",
    }


def test_assembled_cascade_draws_what_its_parts_draw(
    saved: Path, tmp_path: Path, make_cascade: Callable[..., ImagenCascadePipeline], seeded: Callable[..., object]
) -> None:
    stages = order_stages([saved / "unet", saved / "sr_unet_1"])
    settings = {"base": {"num_inference_steps": 2, "guidance_scale": 2.0}, "sr_1": {"num_inference_steps": 2}}
    text = replace(TEXT, template="a {prompt} </s>", template_tokens="after")
    assemble(stages, saved, text, settings, tmp_path / "new" / "cascade")
    pipe = ImagenCascadePipeline.from_pretrained(tmp_path / "new" / "cascade")
    pipe.set_progress_bar_config(disable=True)

    parts = make_cascade(2, settings, text=text.saved(), scheduler=pipe.scheduler, sr_scheduler_1=pipe.sr_scheduler_1)
    drawn = [one("a red cat", generator=seeded(0), output_type="latent").images for one in (pipe, parts)]
    assert torch.equal(*drawn)
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["cascade"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "`stages` is empty"),
        (["sr_unet_1"], "0 of them of a base"),
        (["unet", "unet"], r"2 folders \(1 different ones\)"),
        (["unet", "text_encoder"], "holds a None"),
        (["unet", "tokenizer"], "no config.json"),
    ],
)
def test_folders_that_make_no_cascade_are_refused(saved: Path, names: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        order_stages([saved / name for name in names])


def test_enlargements_that_do_not_follow_each_other_are_refused(saved: Path, tmp_path: Path) -> None:
    unet = EfficientUNet2DConditionModel.from_pretrained(saved / "sr_unet_1")
    unet.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="each enlarges the one before"):
        order_stages([saved / "unet", saved / "sr_unet_1", tmp_path])
    with pytest.raises(ValueError, match=r"'sr_1' .* enlarge 4 pixels to 16, but 'base' draws 8"):
        order_stages([saved / "unet", tmp_path], {tmp_path: 4})
    assert list(order_stages([saved / "unet", tmp_path], {tmp_path: 2})) == ["base", "sr_1"]


def test_stages_of_different_text_widths_are_refused(saved: Path, tmp_path: Path) -> None:
    config = {**ImagenUNet2DConditionModel.load_config(saved / "unet"), "encoder_hid_dim": 24}
    ImagenUNet2DConditionModel.from_config(config).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="texts of different widths"):
        order_stages([tmp_path, saved / "sr_unet_1"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (TextSettings(layers=(1, 2), max_length=12), r"2 layer\(s\) of width 16 make 32, but the U-Nets take 16"),
        (TextSettings(layers=(3,), max_length=12), r"`layers` is \(3,\), but the text encoder has the layers 0 to 2"),
        (TextSettings(max_length=13), "`max_length` is 13, but the U-Nets take 12"),
    ],
)
def test_text_that_the_unets_do_not_take_is_refused(saved: Path, text: TextSettings, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_text_encoder(order_stages([saved / "unet"]), saved, text)


def test_nothing_is_left_when_a_part_does_not_fit_or_saving_fails(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages = order_stages([saved / "unet"])
    with pytest.raises(ValueError, match="no subfolder 'tokenizer'"):
        assemble(stages, tmp_path, TEXT, {}, tmp_path / "cascade")

    def half(pipe: ImagenCascadePipeline, folder: Path) -> None:
        folder.mkdir()
        (folder / "model_index.json").write_text("{}")
        raise OSError("No space left on device")

    monkeypatch.setattr(assembly.ImagenCascadePipeline, "save_pretrained", half)
    with pytest.raises(OSError, match="No space"):
        assemble(stages, saved, TEXT, {}, tmp_path / "cascade")
    assert list(tmp_path.iterdir()) == []


def test_an_existing_cascade_is_not_written_over(saved: Path) -> None:
    with pytest.raises(ValueError, match="there already; give a new folder"):
        assemble(order_stages([saved / "unet"]), saved, TEXT, {}, saved)
