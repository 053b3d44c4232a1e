"""What a run leaves behind for reports, averages and those who come after it."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from diffusers_imagen.models.unet_imagen import ImagenUNet2DConditionModel
from diffusers_imagen.training.checkpoint import CheckpointError, checkpoint_steps
from diffusers_imagen.training.config import TrainConfig
from diffusers_imagen.training.config_file import load_config
from diffusers_imagen.training.loop import train
from diffusers_imagen.training.post_hoc import write_average
from diffusers_imagen.training.power_average import Profile, gamma_of, profile_shares
from diffusers_imagen.training.report import smoothed, write_report
from diffusers_imagen.training.run_folder import read_lines, read_run_config, unet_folder

MakeConfig = Callable[..., TrainConfig]
POST_HOC = {"post_hoc": True, "snapshot_every_steps": 2}


def test_run_leaves_its_configuration_in_a_form_that_starts_it_again(make_config: MakeConfig) -> None:
    config = make_config(max_steps=1, optimizer={"name": "Adafactor", "warmup_steps": 0})
    train(config)
    path = Path(config.output_dir) / "train_config.json"
    assert json.dumps(asdict(load_config(path))) == json.dumps(asdict(config))
    assert read_run_config(Path(config.output_dir))["optimizer"]["name"] == "Adafactor"


def test_held_out_loss_is_measured_at_intervals_and_at_the_end(make_config: MakeConfig) -> None:
    config = make_config(
        max_steps=5,
        data={"validation_fraction": 0.4},
        held_out={"every_steps": 2, "levels": 3, "num_images": 4},
    )
    train(config)
    lines = read_lines(Path(config.output_dir) / "held_out.jsonl")
    assert [line["step"] for line in lines] == [2, 4, 5]
    for line in lines:
        assert [level["t"] for level in line["levels"]] == pytest.approx([1 / 6, 1 / 2, 5 / 6])
        assert line["loss"] == pytest.approx(sum(level["loss"] for level in line["levels"]) / 3)


def test_measuring_and_snapshots_do_not_change_the_training(make_config: MakeConfig, tmp_path: Path) -> None:
    data = {"validation_fraction": 0.4}
    plain = make_config(data=data, output_dir=str(tmp_path / "a"), held_out={"every_steps": 100})
    watched = make_config(data=data, output_dir=str(tmp_path / "b"), held_out={"every_steps": 1}, ema=POST_HOC)
    for config in (plain, watched):
        train(config)
    for name in ("unet", "ema", "optimizer"):
        one, other = (load_file(tmp_path / run / f"checkpoints/step-00000004/{name}.safetensors") for run in "ab")
        assert all(torch.equal(tensor, other[key]) for key, tensor in one.items())


def test_average_chosen_afterwards_is_the_weighted_sum_of_every_steps_weights(
    make_config: MakeConfig, tmp_path: Path
) -> None:
    config = make_config(max_steps=12, checkpoint={"every_steps": 1, "keep": 12}, ema=POST_HOC)
    train(config)
    run = Path(config.output_dir)
    made = write_average(run, 0.1, tmp_path / "average")
    assert (made.step, made.snapshots) == (12, 6)
    assert made.error < 1e-6

    weights = [load_file(run / f"checkpoints/step-{step:08d}/unet.safetensors") for step in range(1, 13)]
    shares = profile_shares(Profile(0.1, 12))
    assert shares[0] == pytest.approx((1 / 12) ** (gamma_of(0.1) + 1))
    unet = ImagenUNet2DConditionModel.from_pretrained(tmp_path / "average")
    for name, value in unet.state_dict().items():
        expected = sum(share * step[name].double() for share, step in zip(shares.tolist(), weights, strict=True))
        torch.testing.assert_close(value.double(), expected, rtol=0, atol=1e-6)

    # A width that was not kept, at an earlier step; four snapshots of two averages determine eight shares.
    with pytest.raises(ValueError, match=r"`output` is '.*average', which is there already; give a new folder"):
        write_average(run, 0.08, tmp_path / "average", step=8)
    made = write_average(run, 0.08, tmp_path / "other", step=8)
    shares = profile_shares(Profile(0.08, 8))
    for name, value in ImagenUNet2DConditionModel.from_pretrained(tmp_path / "other").state_dict().items():
        expected = sum(share * step[name].double() for share, step in zip(shares.tolist(), weights, strict=False))
        torch.testing.assert_close(value.double(), expected, rtol=0, atol=1e-5)
    assert made.step == 8
    assert made.error < 1e-5
    assert unet_folder(tmp_path / "other") == tmp_path / "other"
    assert read_run_config(tmp_path / "other")["max_steps"] == 12


def test_resumed_run_keeps_the_same_averages(make_config: MakeConfig, tmp_path: Path) -> None:
    whole = make_config(max_steps=5, ema=POST_HOC, output_dir=str(tmp_path / "a"))
    parts = make_config(max_steps=5, ema=POST_HOC, output_dir=str(tmp_path / "b"))
    train(whole)
    train(make_config(max_steps=3, ema=POST_HOC, output_dir=str(tmp_path / "b")))
    train(parts)
    # The first part's end had a snapshot of its own.
    assert sorted(checkpoint_steps(tmp_path / "a" / "snapshots")) == [2, 4, 5]
    assert sorted(checkpoint_steps(tmp_path / "b" / "snapshots")) == [2, 3, 4, 5]
    for step in (4, 5):
        for width in ("0.05", "0.1"):
            one, other = (load_file(tmp_path / run / f"snapshots/step-{step:08d}/{width}.safetensors") for run in "ab")
            assert all(torch.equal(tensor, other[key]) for key, tensor in one.items())


def test_run_without_averages_cannot_have_them_later(make_config: MakeConfig, tmp_path: Path) -> None:
    train(make_config(max_steps=1))
    with pytest.raises(ValueError, match=r"`ema\.post_hoc` is true, but the run has no averages"):
        train(make_config(max_steps=2, ema=POST_HOC))
    with pytest.raises(ValueError, match=r"has no snapshots/; train it with `ema\.post_hoc` true"):
        write_average(Path(make_config().output_dir), 0.1, tmp_path / "average")


def test_impossible_averages_are_refused_and_damaged_snapshots_named(make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config(max_steps=2, ema=POST_HOC)
    train(config)
    run = Path(config.output_dir)
    with pytest.raises(ValueError, match="`step` is 1, but there are snapshots of 2"):
        write_average(run, 0.1, tmp_path / "average", step=1)
    with pytest.raises(ValueError, match=r"`sigma_rel` is 0\.5"):
        write_average(run, 0.5, tmp_path / "average")
    file = run / "snapshots" / "step-00000002" / "0.05.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"0\.05\.safetensors is damaged"):
        write_average(run, 0.1, tmp_path / "average")
    assert not (tmp_path / "average").exists()


def test_report_is_one_picture_of_curves_and_previews(make_config: MakeConfig, tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "previews").mkdir(parents=True)
    lines = [
        {"step": i, "loss": 1 / i, "grad_norm": 1.0, "lr": 1e-3, "skipped": 0, "samples_per_s": 9.0, "data_wait": 0.0}
        for i in range(1, 80)
    ]
    (run / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    without = Image.open(write_report(run))
    levels = [{"t": t, "log_snr": 10 - 20 * t, "loss": t} for t in (0.1, 0.5, 0.9)]
    (run / "held_out.jsonl").write_text(json.dumps({"step": 40, "loss": 0.5, "levels": levels}) + "\n")
    Image.new("RGB", (64, 16), (255, 0, 0)).save(run / "previews" / "step-00000079.png")
    path = write_report(run, tmp_path / "out" / "picture.png")

    with Image.open(path) as report:
        assert report.width == without.width
        assert report.height > without.height
        # The red preview is at the bottom, as wide as the page allows.
        assert report.getpixel((report.width // 2, report.height - 60)) == (255, 0, 0)
    assert [p.name for p in path.parent.iterdir()] == ["picture.png"]


def test_folder_without_steps_has_no_report(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"has no log\.jsonl"):
        write_report(tmp_path)


def test_smoothed_line_is_the_mean_of_neighbours() -> None:
    points = [(float(i), float(i % 2)) for i in range(100)]
    assert smoothed(points, 3)[50] == (50.0, pytest.approx(2 / 3))
    assert smoothed(points, 3)[0] == (0.0, 0.5)
