import json
import logging
import os
import random
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable
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


def test_damaged_checkpoint_that_was_passed_by_takes_no_good_ones_place(tmp_path: Path) -> None:
    for step in (2, 4, 5):
        save_checkpoint(tmp_path, state(step), keep=3)
    flip_bit(tmp_path / "step-00000005" / "unet.safetensors")
    assert load_newest(tmp_path).step == 4
    save_checkpoint(tmp_path, state(9), keep=2, passed_by=[5])

    assert list(checkpoint_steps(tmp_path)) == [9, 4]


def test_folder_without_checkpoints_gives_none(tmp_path: Path) -> None:
    assert load_newest(tmp_path) is None
    assert load_newest(tmp_path / "nowhere") is None


@pytest.mark.parametrize("lost", [None, "unet.safetensors", "record.json"])
def test_a_manifest_that_is_not_whole_is_named_and_the_checkpoint_before_is_used(
    tmp_path: Path, lost: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    save_checkpoint(tmp_path, state(1), keep=2)
    manifest = save_checkpoint(tmp_path, state(2), keep=2) / "manifest.json"
    listed = json.loads(manifest.read_text())
    manifest.write_text(
        json.dumps([] if lost is None else {name: sum_ for name, sum_ in listed.items() if name != lost})
    )

    loaded = load_newest(tmp_path)
    assert loaded is not None
    assert loaded.step == 1
    assert "manifest.json" in caplog.text


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


def save_without_end(folder: Path, told: int) -> None:
    """Save checkpoint after checkpoint, larger ones from step to step, and tell each step through a pipe."""
    newest = load_newest(folder)
    step = newest.step if newest else 0
    while True:
        step += 1
        save_checkpoint(folder, Checkpoint(step, {"unet": {"a": torch.full((100_000,), float(step))}}, {}), keep=1)
        os.write(told, f"{step}\n".encode())


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_kills_at_random_moments_of_saving_never_cost_a_checkpoint(tmp_path: Path) -> None:
    moments, kills, steps = random.Random(0), 500, 0
    for _ in range(kills):
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            save_without_end(tmp_path, writing)
        os.close(writing)
        with os.fdopen(reading) as pipe:
            told = int(pipe.readline())
            time.sleep(moments.uniform(0, 0.02))
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            told = max([told, *map(int, pipe.read().split())])
        newest = load_newest(tmp_path)
        assert newest is not None
        # What was reported as saved is there; one more may have been finished but not reported.
        assert newest.step in (told, told + 1)
        assert (newest.tensors["unet"]["a"] == newest.step).all()
        steps = newest.step
    sys.stdout.write(f"{kills} of {kills} kills left a newest checkpoint that verifies, after {steps} saves\n")


def in_child(work: Callable[[], None]) -> int:
    """Do something in a process of its own, and give its exit code: 0, or 7 for an `OSError`."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except OSError:
            os._exit(7)
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_full_disk_is_an_error_and_leaves_the_last_checkpoint(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, state(1), keep=1)

    def save_in_little_room() -> None:
        # A file may not grow beyond this, as on a disk that is full.
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        save_checkpoint(tmp_path, Checkpoint(2, {"unet": {"a": torch.zeros(10_000)}}, {}), keep=1)

    assert in_child(save_in_little_room) == 7
    assert load_newest(tmp_path).step == 1
    # Not even the half that was written is left to take up room.
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]


def test_folder_that_cannot_be_written_to_is_an_error_and_leaves_the_last_checkpoint() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_checkpoint(folder, state(1), keep=1)
        folder.chmod(0o555)

        def save_as_somebody_else() -> None:
            # Permissions do not hold for root.
            if os.geteuid() == 0:
                os.setuid(65534)
            save_checkpoint(folder, state(2), keep=1)

        assert in_child(save_as_somebody_else) == 7
        folder.chmod(0o755)
        assert load_newest(folder).step == 1


def test_error_of_a_save_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / f".unfinished-{os.getpid()}x").mkdir()
    with pytest.raises(OSError, match=r"step 3 cannot be written to .*checkpoints .*make room there.*untouched"):
        save_checkpoint(tmp_path / "checkpoints", Checkpoint(3, {"no/such": {"a": torch.zeros(1)}}, {}), keep=1)


def test_a_hundred_random_damages_are_all_found_and_passed_by(tmp_path: Path) -> None:
    places = random.Random(0)
    good = save_checkpoint(tmp_path, state(1), keep=2)
    path = save_checkpoint(tmp_path, state(2), keep=2)
    refused = 0
    for number in range(100):
        file = places.choice(sorted(path.iterdir()))
        whole = file.read_bytes()
        damaged = bytearray(whole)
        if number % 2:
            damaged = damaged[: places.randrange(len(whole))]
        else:
            damaged[places.randrange(len(whole))] ^= 1 << places.randrange(8)
        file.write_bytes(damaged)
        # A changed manifest accuses the file whose entry was changed.
        accused = None if file.name == "manifest.json" else file.name
        with pytest.raises(CheckpointError, match=accused):
            load_checkpoint(path)
        assert load_newest(tmp_path).step == 1
        refused += 1
        file.write_bytes(whole)
    assert load_checkpoint(path).step == 2
    assert good.exists()
    sys.stdout.write(f"{refused} of 100 damaged files refused by name\n")


def test_files_are_not_pickles(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, state(1), keep=1)

    assert {file.suffix for file in path.iterdir()} == {".safetensors", ".json"}
    assert json.loads((path / "record.json").read_text()) == {"step": 1, "seed": 7, "name": "é"}
