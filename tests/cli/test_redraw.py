"""The base's own version of training pictures: named as they are, near them, and what an enlargement is trained on."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffusers_imagen.diffusion.resize import resize
from diffusers_imagen.pipelines.redrawing import redraw, redrawing_pipeline
from diffusers_imagen.training.config import DataConfig
from diffusers_imagen.training.sources import open_data

SETTINGS = ("--strength", "0.1", "--steps", "3")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Give a folder of five captioned pictures, one in a folder of its own, and one that is none."""
    folder = tmp_path / "data"
    (folder / "more").mkdir(parents=True)
    names = ["a.png", "b.png", "c.jpg", "more/d.png", "e.png"]
    for number, name in enumerate(names):
        random = np.random.default_rng(number)
        Image.fromarray(random.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(folder / name)
    (folder / "broken.png").write_bytes(b"no picture")
    rows = [{"file_name": name, "text": "a cat"} for name in [*names[:2], "broken.png", *names[2:]]]
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder


def test_every_picture_that_can_be_read_gets_its_counterpart(run, checkpoint, data, tmp_path):
    result = run("redraw", checkpoint, "--data", data, "--out", "drawn", *SETTINGS, "--batch-size", "2")
    assert result.code == 0, result.err
    assert "5 of 6 pictures drawn into drawn" in result.out
    drawn = {path.relative_to(tmp_path / "drawn").as_posix() for path in (tmp_path / "drawn").rglob("*.png")}
    assert drawn == {"a.png", "b.png", "c.png", "more/d.png", "e.png"}
    source = open_data(DataConfig(folder=str(data), size=16, max_bad_fraction=1.0))
    source.pair_with(tmp_path / "drawn")
    assert {source[index].low_res.shape for index in range(len(source))} == {(8, 8, 3)}


def test_a_second_run_draws_what_is_missing_and_the_same(run, checkpoint, data, tmp_path):
    run("redraw", checkpoint, "--data", data, "--out", "drawn", *SETTINGS)
    first = {path: path.read_bytes() for path in (tmp_path / "drawn").rglob("*.png")}
    (tmp_path / "drawn" / "b.png").unlink()
    result = run("redraw", checkpoint, "--data", data, "--out", "drawn", *SETTINGS, "--batch-size", "3")
    assert "1 of 6 pictures drawn" in result.out
    assert {path: path.read_bytes() for path in first} == first
    refused = run("redraw", checkpoint, "--data", data, "--out", "drawn", "--strength", "0.2", "--steps", "3")
    assert refused.code == 2
    assert "drawn with strength 0.1, not 0.2; choose another folder" in refused.err


def test_a_folder_among_the_pictures_is_refused(run, checkpoint, data):
    (data / "metadata.jsonl").unlink()
    result = run("redraw", checkpoint, "--data", data, "--out", data / "drawn", *SETTINGS)
    assert result.code == 2
    assert "`--out` is" in result.err
    assert "within `data.folder`" in result.err
    assert not (data / "drawn").exists()


def test_two_pictures_that_would_share_a_counterpart_are_refused(run, checkpoint, data, tmp_path):
    Image.new("RGB", (20, 20), "blue").save(data / "a.jpg")
    with (data / "metadata.jsonl").open("a") as file:
        file.write(json.dumps({"file_name": "a.jpg", "text": "a ball"}) + "\n")
    result = run("redraw", checkpoint, "--data", data, "--out", "drawn", *SETTINGS)
    assert result.code == 2
    assert "'a.jpg' and 'a.png'" in result.err
    assert not (tmp_path / "drawn").exists()


def test_little_noise_leaves_the_picture_and_much_does_not(make_cascade):
    pipe = redrawing_pipeline(make_cascade(2))
    pictures = resize(torch.rand(2, 3, 4, 4) * 2 - 1, (8, 8))
    changes = []
    for strength, steps in ((0.005, 1), (0.3, 3), (1.0, 5)):
        drawn = redraw(pipe, pictures, ["a cat", "a dog"], strength, steps, [1, 2])
        assert drawn.shape == pictures.shape
        changes.append(float((drawn - pictures).square().mean().sqrt()))
    assert changes[0] < 0.1
    assert changes[0] < changes[1] < changes[2]


def test_a_picture_is_the_same_alone_and_among_others(make_cascade):
    pipe = redrawing_pipeline(make_cascade(2))
    pictures = torch.rand(2, 3, 8, 8) * 2 - 1
    both = redraw(pipe, pictures, ["a cat", "a dog"], 0.5, 3, [1, 2])
    alone = redraw(pipe, pictures[1:], ["a dog"], 0.5, 3, [2])
    torch.testing.assert_close(both[1:], alone, rtol=0, atol=1e-5)


def test_the_cascade_keeps_its_own_scheduler(make_cascade):
    pipe = make_cascade(2)
    before = pipe.scheduler
    assert redrawing_pipeline(pipe).scheduler is not before
    assert pipe.scheduler is before
    assert pipe.sr_unet_1 is not None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--strength", "0"), "`strength` is 0.0; give a share above 0"),
        (("--strength", "1.5"), "`strength` is 1.5"),
        (("--strength", "0.01", "--steps", "11"), "`steps` is 11; give 1 to 10"),
        (("--size", "20"), "`--size` is 20; give a multiple of the 8 pixels"),
        (("--size", "8"), "`--size` is 8; give a multiple"),
    ],
)
def test_what_cannot_be_is_refused(run, checkpoint, data, tmp_path, arguments, message):
    result = run("redraw", checkpoint, "--data", data, "--out", "drawn", *arguments)
    assert result.code == 2
    assert message in result.err
    assert not (tmp_path / "drawn").exists()
