import json
import logging
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from diffusers_imagen.training import checkpoint as module
from diffusers_imagen.training.checkpoint import (
    Checkpoint,
    CheckpointError,
    checkpoint_steps,
    load_checkpoint,
    load_newest,
    save_checkpoint,
)


def state(step: int) -> Checkpoint:
    weight = torch.full((2, 3), float(step))
    tensors = {"unet": {"a": weight, "b": torch.rand(2, 3, 4, 4).to(memory_format=torch.channels_last)}}
    return Checkpoint(step, {**tensors, "ema": {"a": weight / 2}}, {"seed": 7, "name": "é"})


def flip_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_checkpoint_comes_back_to_the_bit(tmp_path: Path) -> None:
    saved = state(12)
    path = save_checkpoint(tmp_path / "checkpoints", saved, keep=2)
    loaded = load_checkpoint(path)

    assert path.name == "step-00000012"
    assert loaded.step == 12
    assert loaded.record == {"seed": 7, "name": "é"}
    for name, tensors in saved.tensors.items():
        assert loaded.tensors[name].keys() == tensors.keys()
        assert all(torch.equal(loaded.tensors[name][key], tensor) for key, tensor in tensors.items())


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    for step in (3, 9, 10, 200_000_000):
        save_checkpoint(tmp_path, state(step), keep=2)

    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000010", "step-200000000"]
    assert list(checkpoint_steps(tmp_path)) == [200_000_000, 10]


def test_folder_without_checkpoints_gives_none(tmp_path: Path) -> None:
    assert load_newest(tmp_path) is None
    assert load_newest(tmp_path / "nowhere") is None


@pytest.mark.parametrize("name", ["unet.safetensors", "ema.safetensors", "record.json", "manifest.json"])
@pytest.mark.parametrize("damage", ["bit", "cut", "gone"])
def test_damaged_file_is_named_and_the_checkpoint_before_is_used(
    tmp_path: Path, name: str, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    save_checkpoint(tmp_path, state(1), keep=2)
    path = save_checkpoint(tmp_path, state(2), keep=2)
    if damage == "bit":
        flip_bit(path / name)
    elif damage == "cut":
        (path / name).write_bytes((path / name).read_bytes()[:-5])
    else:
        (path / name).unlink()

    # A changed digest in the manifest accuses the file that it is about.
    accused = r"\.(json|safetensors)" if name == "manifest.json" else name
    with pytest.raises(CheckpointError, match=accused):
        load_checkpoint(path)
    with caplog.at_level(logging.WARNING):
        newest = load_newest(tmp_path)
    assert newest is not None
    assert newest.step == 1
    assert "step-00000002" in caplog.text


def test_only_damaged_checkpoints_are_an_error_and_not_a_fresh_start(tmp_path: Path) -> None:
    for step in (1, 2):
        flip_bit(save_checkpoint(tmp_path, state(step), keep=2) / "unet.safetensors")

    with pytest.raises(CheckpointError, match="None of the 2 checkpoints"):
        load_newest(tmp_path)


def test_damaged_later_checkpoint_never_pushes_a_good_one_out(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, state(1), keep=1)
    save_checkpoint(tmp_path, state(5), keep=2)
    flip_bit(tmp_path / "step-00000005" / "unet.safetensors")
    # The run went back to step 1 and saves its next checkpoint before step 5.
    save_checkpoint(tmp_path, state(3), keep=2)

    assert list(checkpoint_steps(tmp_path)) == [3, 1]


def test_same_step_can_be_saved_again(tmp_path: Path) -> None:
    flip_bit(save_checkpoint(tmp_path, state(4), keep=1) / "unet.safetensors")
    save_checkpoint(tmp_path, state(4), keep=1)

    assert load_newest(tmp_path).step == 4
    save_checkpoint(tmp_path, state(5), keep=1)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000005"]


class PowerCutError(Exception):
    """End a save at a chosen moment."""


@pytest.mark.parametrize("operation", ["save_file", "_write_json", "_sync", "_sha256"])
@pytest.mark.parametrize("count", [0, 1, 2])
def test_crash_while_saving_leaves_the_last_good_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, operation: str, count: int
) -> None:
    save_checkpoint(tmp_path, state(1), keep=1)
    original, calls = getattr(module, operation), []

    def fail(*arguments: object) -> object:
        calls.append(1)
        if len(calls) > count:
            raise PowerCutError
        return original(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(module, operation, fail)
        crashes = not (operation in ("save_file", "_write_json") and count == 2)  # there are only two of each
        if crashes:
            with pytest.raises(PowerCutError):
                save_checkpoint(tmp_path, state(2), keep=1)
    if crashes:
        assert load_newest(tmp_path).step == 1
    # The next save clears what the crash left behind.
    save_checkpoint(tmp_path, state(3), keep=1)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000003"]


KILLED_CHILD = """
import sys
from pathlib import Path
import torch
from diffusers_imagen.training.checkpoint import Checkpoint, load_newest, save_checkpoint

folder = Path(sys.argv[1])
newest = load_newest(folder)
step = newest.step if newest else 0
while True:
    step += 1
    save_checkpoint(folder, Checkpoint(step, {"unet": {"a": torch.full((1_000_000,), float(step))}}, {}), keep=1)
    print(step, flush=True)
"""


@pytest.mark.slow
def test_kills_at_random_moments_of_saving_never_cost_a_checkpoint(tmp_path: Path) -> None:
    moments = random.Random(0)
    for _ in range(20):
        with subprocess.Popen(
            [sys.executable, "-c", KILLED_CHILD, str(tmp_path)], stdout=subprocess.PIPE, text=True
        ) as child:
            assert child.stdout is not None
            told = int(child.stdout.readline())
            time.sleep(moments.uniform(0, 0.1))
            child.kill()
            told = max([told, *map(int, child.stdout.read().split())])
        newest = load_newest(tmp_path)
        assert newest is not None
        # What was reported as saved is there; one more may have been finished but not reported.
        assert newest.step in (told, told + 1)
        assert (newest.tensors["unet"]["a"] == newest.step).all()


def test_files_are_not_pickles(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, state(1), keep=1)

    assert {file.suffix for file in path.iterdir()} == {".safetensors", ".json"}
    assert json.loads((path / "record.json").read_text()) == {"step": 1, "seed": 7, "name": "é"}
