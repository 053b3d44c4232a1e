"""Real training on all kinds of data and on bad pictures, ended and resumed, by one process and by two."""

import json
import os
import signal
import subprocess
import sys
import tarfile
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from diffusers_imagen.training.config import TrainConfig
from diffusers_imagen.training.loop import train

MakeConfig = Callable[..., TrainConfig]

COUNT = 200
BAD = {17: "bomb", 199: "caption"}


def encoded(image: Image.Image) -> bytes:
    buffer = BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def huge_png() -> bytes:
    """Give the beginning of a PNG of 20,000 x 20,000 pixels."""
    head = b"IHDR" + (20000).to_bytes(4) * 2 + bytes([8, 0, 0, 0, 0])
    return b"\x89PNG\r\n\x1a\n" + (13).to_bytes(4) + head + zlib.crc32(head).to_bytes(4) + b"\0\0\1\0IDAT"


@pytest.fixture(scope="module")
def one_percent_bad(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Draw 200 small pictures, of which two cannot be used."""
    folder = tmp_path_factory.mktemp("bad")
    spoiled = {
        "bomb": huge_png(),
        "caption": encoded(Image.new("RGB", (8, 8))),
    }
    for i in range(COUNT):
        content = spoiled[BAD[i]] if i in BAD else encoded(Image.fromarray(np.full((8, 8, 3), i % 256, np.uint8)))
        (folder / f"{i:03d}.png").write_bytes(content)
        (folder / f"{i:03d}.txt").write_bytes(b"\xff\xfe" if BAD.get(i) == "caption" else b"a red square")
    return folder


def weights(config: TrainConfig) -> dict[str, torch.Tensor]:
    return load_file(Path(config.output_dir) / "unet" / "diffusion_pytorch_model.safetensors")


def test_run_with_one_percent_bad_pictures_completes_lists_each_once_and_resumes_to_the_same_bits(
    make_config: MakeConfig, one_percent_bad: Path, tmp_path: Path
) -> None:
    # Four steps of 50 see all 200 pictures.
    changes: dict[str, Any] = {
        "data": {"folder": str(one_percent_bad), "in_memory": False, "max_bad_fraction": 0.02},
        "batch_size": 50,
        "max_steps": 4,
    }
    whole = make_config(**changes, output_dir=str(tmp_path / "whole"))
    parts = make_config(**changes, output_dir=str(tmp_path / "parts"), preview={"every_steps": 1})

    assert train(whole).finished
    assert not train(parts, preview=lambda unet, step: os.kill(os.getpid(), signal.SIGTERM)).finished
    assert train(parts).finished
    for config in (whole, parts):
        lines = (Path(config.output_dir) / "quarantine.jsonl").read_text().splitlines()
        assert Counter(json.loads(line)["file_name"] for line in lines) == {f"{i:03d}.png": 1 for i in BAD}
    one, other = weights(whole), weights(parts)
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_run_with_too_many_bad_pictures_ends_with_an_error(make_config: MakeConfig, one_percent_bad: Path) -> None:
    config = make_config(data={"folder": str(one_percent_bad), "max_bad_fraction": 0.0075}, batch_size=8)

    with pytest.raises(ValueError, match=r"2 of 200 pictures cannot be read.*`data\.max_bad_fraction`"):
        train(config)
    assert len((Path(config.output_dir) / "quarantine.jsonl").read_text().splitlines()) == 2


def write_shards(folder: Path, count: int, each: int, bad: tuple[int, ...] = ()) -> Path:
    """Write pictures of three shapes into tars."""
    folder.mkdir()
    for start in range(0, count, each):
        with tarfile.open(folder / f"{start // each:05d}.tar", "w") as archive:
            for i in range(start, start + each):
                size = ((8, 8), (16, 8), (8, 16))[i % 3]
                picture = b"broken" if i in bad else encoded(Image.new("RGB", size, (i, 255 - i, 0)))
                for name, content in ((f"{i:09d}.png", picture), (f"{i:09d}.txt", b"a red square")):
                    info = tarfile.TarInfo(name)
                    info.size = len(content)
                    archive.addfile(info, BytesIO(content))
    return folder


@pytest.mark.parametrize(
    "changes",
    [
        {"data": {"shard_window": 2, "in_memory": False}},
        {"data": {"shard_window": 1, "bucket_multiple": 4}},
        {"text": {"cache": False}},
    ],
    ids=["shards", "buckets", "text with each batch"],
)
def test_run_that_is_left_and_resumed_ends_in_the_same_bits_on_other_data(
    make_config: MakeConfig, tmp_path: Path, changes: dict[str, Any]
) -> None:
    shards = write_shards(tmp_path / "shards", count=60, each=10)
    changes = {**changes, "data": {"folder": str(shards), **changes.get("data", {})}, "batch_size": 8, "max_steps": 4}
    whole = make_config(**changes, output_dir=str(tmp_path / "whole"))
    parts = make_config(**changes, output_dir=str(tmp_path / "parts"), preview={"every_steps": 1})

    assert train(whole).finished
    assert train(parts, preview=lambda unet, step: os.kill(os.getpid(), signal.SIGTERM)) == (2, 0, False)
    assert train(parts).finished
    one, other = weights(whole), weights(parts)
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


TRAIN = "import sys; from diffusers_imagen.training.config_file import load_config; " + (
    "from diffusers_imagen.training.loop import train; train(load_config(sys.argv[1]))"
)


@pytest.mark.slow
def test_two_processes_train_on_the_samples_of_one_and_list_each_bad_picture_once(
    make_config: MakeConfig, tmp_path: Path
) -> None:
    shards = write_shards(tmp_path / "shards", count=200, each=25, bad=(30, 130))
    changes: dict[str, Any] = {
        "data": {"folder": str(shards), "shard_window": 2, "in_memory": False},
        "model": {"config": make_config().model.config | {"dropout": 0.0}},
        "max_steps": 30,
    }
    one = make_config(**changes, batch_size=8, output_dir=str(tmp_path / "one"))
    two = make_config(**changes, batch_size=4, output_dir=str(tmp_path / "two"))
    (tmp_path / "two.yaml").write_text(json.dumps(asdict(two)))  # JSON is YAML
    (tmp_path / "train.py").write_text(TRAIN)
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true"}
    subprocess.run([*words, str(tmp_path / "train.py"), str(tmp_path / "two.yaml")], env=environment, check=True)

    assert train(one).finished
    for config in (one, two):
        lines = (Path(config.output_dir) / "quarantine.jsonl").read_text().splitlines()
        names = sorted(json.loads(line)["file_name"] for line in lines)
        assert names == ["00001/000000030.png", "00005/000000130.png"]
    mine, theirs = weights(one), weights(two)
    for name, tensor in mine.items():
        torch.testing.assert_close(theirs[name], tensor, rtol=0, atol=1e-5, msg=name)
