import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(10):
        Image.fromarray(rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(folder / f"{i}.png")
        (folder / f"{i}.txt").write_text(["a cat", "a red dog"][i % 2])
    return folder


def test_stages_of_a_random_cascade_are_compared(run, checkpoint, pictures, tmp_path):
    result = run("diagnose", checkpoint, "--data", pictures, "--out", "found", "-n", "4", "--steps", "base=1,sr_1=1")
    assert result.code == 0, result.err
    found = json.loads((tmp_path / "found" / "diagnosis.json").read_text())
    assert [stage["stage"] for stage in found["stages"]] == ["base", "sr_1"]
    assert (found["drawn"], found["real"]) == (4, 4)
    assert found["verdict"] in result.out
    assert "| sr_1 |" in result.out
    # Four rows of the real picture, the whole cascade's two, and the enlargement of the real smaller one.
    sheet = Image.open(tmp_path / "found" / "sheet.png")
    assert sheet.width // 128 == 4
    assert sheet.height // 128 == 4


def test_pictures_in_tar_shards_serve_as_well(run, checkpoint, pictures, tmp_path):
    (tmp_path / "shards").mkdir()
    with tarfile.open(tmp_path / "shards" / "00000.tar", "w") as tar:
        for path in sorted(pictures.iterdir()):
            tar.add(path, path.name)
    small = ("--out", "found", "-n", "4", "--steps", "base=1,sr_1=1")
    result = run("diagnose", checkpoint, "--data", tmp_path / "shards", *small)
    assert result.code == 0, result.err
    assert json.loads((tmp_path / "found" / "diagnosis.json").read_text())["real"] == 4


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--data", "nowhere"), "`folder` is 'nowhere'"),
        (("--data", "pictures", "-n", "6"), "`--num-images` is 6, for which 12 pictures are needed"),
        (("--data", "pictures", "--features", "plain"), "`features` is 'plain'"),
    ],
)
def test_what_cannot_be_diagnosed_is_refused(run, checkpoint, pictures, words, message):
    result = run("diagnose", checkpoint, *words)
    assert result.code == 2
    assert message in result.err
