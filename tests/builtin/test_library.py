import hashlib
import json
import multiprocessing
import os
import re
import stat
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from diffusers_imagen.builtin import library
from diffusers_imagen.builtin.library import MAX_FILE_BYTES, builtin_names, builtin_path, write_packed
from diffusers_imagen.builtin.packing import pack_q8, unpack_tensors
from diffusers_imagen.models.unet_imagen import ImagenUNet2DConditionModel
from diffusers_imagen.pipelines.pipeline_imagen_cascade import ImagenCascadePipeline

WEIGHTS = ("unet", "sr_unet_1")


@pytest.fixture(scope="module")
def packed(make_cascade: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder of built-in cascades that holds "tiny", of two stages with weights in int8."""
    saved = tmp_path_factory.mktemp("saved")
    make_cascade(2).save_pretrained(saved)
    names = {f"{name}/diffusion_pytorch_model.safetensors": name for name in WEIGHTS}
    files = {
        str(path.relative_to(saved)): path
        for path in saved.rglob("*")
        if path.is_file() and str(path.relative_to(saved)) not in names
    }
    weights = {path: pack_q8(load_file(saved / path), smallest=64) for path in names}
    folder = tmp_path_factory.mktemp("packed")
    write_packed(folder / "tiny", files, weights, {"source": "a test"})
    return folder


@pytest.fixture
def builtins(packed: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Make that folder the package's own, and give an empty one to unpack to."""
    monkeypatch.setattr(library, "_FOLDER", packed)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/diffusers-imagen"


def contents(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_cascade_is_unpacked_once_into_the_users_cache(builtins):
    assert builtin_names() == ["tiny"]
    folder = builtin_path("tiny")
    assert folder.parent == builtins
    assert re.fullmatch(r"tiny-[0-9a-f]{12}", folder.name)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert builtin_path("tiny") == folder
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    # Nothing else stays behind.
    assert list(builtins.iterdir()) == [folder]


def test_the_unpacked_cascade_draws_what_one_with_the_unpacked_weights_draws(builtins, make_cascade, seeded):
    loaded = ImagenCascadePipeline.from_pretrained("tiny")
    loaded.set_progress_bar_config(disable=True)
    expected = make_cascade(2)
    exact = expected("a red cat", generator=seeded(0), output_type="latent").images
    for name in WEIGHTS:
        unet = getattr(expected, name)
        rounded = type(unet).from_config(unet.config)
        rounded.load_state_dict(unpack_tensors(pack_q8(unet.state_dict(), smallest=64)))
        setattr(expected, name, rounded.eval())
    picture = loaded("a red cat", generator=seeded(0), output_type="latent").images
    assert torch.equal(picture, expected("a red cat", generator=seeded(0), output_type="latent").images)
    # Eight bits change little, but they do change something.
    assert 0 < (picture - exact).abs().mean() < 0.05


def test_a_folder_of_the_same_name_comes_before_the_built_in(builtins, make_cascade, tmp_path, monkeypatch):
    make_cascade(1).save_pretrained(tmp_path / "tiny")
    monkeypatch.chdir(tmp_path)
    assert ImagenCascadePipeline.from_pretrained("tiny").stage_names == ["base"]
    assert not builtins.exists()


def test_an_unknown_name_is_refused(builtins):
    with pytest.raises(ValueError, match=r"`name` is 'huge', but the built-in cascades are \['tiny'\]"):
        builtin_path("huge")


def test_the_cache_may_be_somewhere_else(builtins, tmp_path):
    assert builtin_path("tiny", tmp_path / "elsewhere").parent == tmp_path / "elsewhere"
    assert not builtins.exists()


def test_threads_that_unpack_at_once_get_one_whole_folder(builtins):
    with ThreadPoolExecutor(4) as pool:
        folders = set(pool.map(lambda _: builtin_path("tiny"), range(8)))
    (folder,) = folders
    assert list(builtins.iterdir()) == [folder]
    assert contents(folder) == contents(builtin_path("tiny", builtins / "again"))


def test_processes_that_unpack_at_once_get_one_whole_folder(builtins):
    # Forked, so that each of them begins at once and sees the packed folder.
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=builtin_path, args=("tiny",)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(30)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    (folder,) = builtins.iterdir()
    assert contents(folder) == contents(builtin_path("tiny", builtins / "again"))


@pytest.mark.parametrize("damage", ["cut", "changed", "gone"])
@pytest.mark.parametrize("name", ["unet-1.safetensors", "files/model_index.json"])
def test_a_damaged_file_is_named_and_nothing_is_left(builtins, packed, monkeypatch, tmp_path, name, damage):
    for path in packed.rglob("*"):
        if path.is_file():
            copy = tmp_path / "damaged" / path.relative_to(packed)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    victim = tmp_path / "damaged/tiny" / name
    content = victim.read_bytes()
    if damage == "gone":
        victim.unlink()
    else:
        victim.write_bytes(content[:-1] if damage == "cut" else content[:-1] + b"?")
    monkeypatch.setattr(library, "_FOLDER", tmp_path / "damaged")
    with pytest.raises(OSError, match=rf"'{name}' .* missing or damaged; install the package again"):
        builtin_path("tiny")
    assert list(builtins.iterdir()) == []


def test_another_manifest_unpacks_to_another_folder(builtins, packed, monkeypatch, tmp_path, make_cascade):
    first = builtin_path("tiny")
    write_packed(tmp_path / "newer/tiny", {}, {"unet/w.safetensors": {"w": torch.ones(3)}}, {})
    monkeypatch.setattr(library, "_FOLDER", tmp_path / "newer")
    second = builtin_path("tiny")
    assert second != first
    assert torch.equal(load_file(second / "unet/w.safetensors")["w"], torch.ones(3))


def test_other_versions_go_when_they_have_long_not_been_used(builtins):
    folder = builtin_path("tiny")
    names = {
        "tiny-0123456789ab": 40, ".tiny-0123456789ab-x1_y": 40, "tiny-ba9876543210": 20, "tiny-wheels-0123456789ab": 40,
        "teeny-0123456789ab": 40,
    }  # fmt: skip
    for name, days in names.items():
        (builtins / name / "unet").mkdir(parents=True)
        os.utime(builtins / name, (time.time() - days * 86400,) * 2)
    os.utime(folder, (0, 0))
    assert builtin_path("tiny") == folder
    # What is in use counts as such from now on, for the other versions too.
    assert time.time() - folder.stat().st_mtime < 60
    left = {path.name for path in builtins.iterdir()}
    assert left == {folder.name, "tiny-ba9876543210", "tiny-wheels-0123456789ab", "teeny-0123456789ab"}


def test_a_failed_unpacking_does_not_hide_behind_an_old_folder(builtins, monkeypatch):
    # What stands in the way is a file, not another process's folder.
    folder = builtin_path("tiny")
    moved = folder.rename(folder.with_name("moved"))
    folder.write_text("in the way")
    with pytest.raises(OSError, match="tiny"):
        builtin_path("tiny")
    assert sorted(path.name for path in builtins.iterdir()) == sorted([folder.name, moved.name])


def test_the_manifest_holds_the_facts_and_every_file(packed):
    manifest = json.loads((packed / "tiny/manifest.json").read_text())
    assert manifest["source"] == "a test"
    assert manifest["format_version"] == 1
    assert manifest["weights"]["unet/diffusion_pytorch_model.safetensors"] == ["unet-1.safetensors"]
    files = contents(packed / "tiny")
    assert manifest["sha256"] == {name: digest for name, digest in files.items() if name != "manifest.json"}


def test_large_weights_are_split_into_files_that_may_be_shipped(builtins, monkeypatch, tmp_path):
    tensors = {f"layer.{i}": torch.full((4_000_000,), i, dtype=torch.int8) for i in range(8)}
    # Many small tensors have a large header.
    tensors |= {f"blocks.{i}.a_name_of_the_usual_length.weight": torch.zeros(1) for i in range(300)}
    write_packed(tmp_path / "large/big", {}, {"unet/w.safetensors": tensors}, {})
    shards = sorted((tmp_path / "large/big").glob("*.safetensors"))
    assert [path.name for path in shards] == ["unet-1.safetensors", "unet-2.safetensors", "unet-3.safetensors"]
    assert all(path.stat().st_size <= MAX_FILE_BYTES for path in shards)
    monkeypatch.setattr(library, "_FOLDER", tmp_path / "large")
    unpacked = load_file(builtin_path("big") / "unet/w.safetensors")
    assert unpacked.keys() == tensors.keys()
    assert all(torch.equal(unpacked[name], tensor) for name, tensor in tensors.items())


def test_many_small_tensors_fill_no_file_too_far(tmp_path, monkeypatch):
    monkeypatch.setattr(library, "MAX_FILE_BYTES", 20_000)
    tensors = {f"down_levels.{i}.attention.to_k.weight.scale": torch.zeros(4) for i in range(200)}
    write_packed(tmp_path / "small", {}, {"unet/w.safetensors": tensors}, {})
    assert all(path.stat().st_size <= 20_000 for path in (tmp_path / "small").glob("*.safetensors"))


def test_a_tensor_that_fits_no_file_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(library, "MAX_FILE_BYTES", 1000)
    with pytest.raises(ValueError, match=r"`weights` holds 'w' of 4000 bytes, but a file has 1000 at most"):
        write_packed(tmp_path / "x", {}, {"unet/w.safetensors": {"w": torch.zeros(1000)}}, {})


def test_an_existing_folder_is_not_written_over(packed):
    before = contents(packed / "tiny")
    with pytest.raises(FileExistsError):
        write_packed(packed / "tiny", {}, {}, {})
    assert contents(packed / "tiny") == before


def test_what_was_unpacked_is_the_users_alone_to_change(builtins):
    assert builtin_path("tiny").stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH) == 0


def test_unpacked_weights_load_as_a_model(builtins, cascade_parts):
    loaded = ImagenUNet2DConditionModel.from_pretrained(builtin_path("tiny") / "unet")
    for name, weight in cascade_parts["unet"].state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], weight, rtol=0, atol=float(weight.abs().max()) / 200)


def test_the_shipped_cascades_are_small_enough_and_whole():
    for name in builtin_names():
        folder = Path(library.__file__).parent / name
        manifest = json.loads((folder / "manifest.json").read_text())
        for path, digest in manifest["sha256"].items():
            assert (folder / path).stat().st_size <= MAX_FILE_BYTES
            assert hashlib.sha256((folder / path).read_bytes()).hexdigest() == digest


@pytest.mark.parametrize("damage", ["truncate", "remove"])
def test_an_unpacked_cascade_that_lost_something_is_unpacked_anew(builtins, damage):
    folder = builtin_path("tiny")
    whole = contents(folder)
    weights = folder / "unet/diffusion_pytorch_model.safetensors"
    if damage == "truncate":
        weights.write_bytes(weights.read_bytes()[:100])
    else:
        weights.unlink()
    assert contents(builtin_path("tiny")) == whole


def test_a_cache_that_cannot_be_written_to_is_told_with_a_remedy(builtins, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(OSError, match=r"'tiny' cannot be unpacked into .*set XDG_CACHE_HOME"):
        builtin_path("tiny")
