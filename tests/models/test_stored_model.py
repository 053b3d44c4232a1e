"""U-Nets and their files of weights: the note in the configuration, what it finds, and what it lets pass."""

import json
import logging
import shutil

import pytest
import torch
from diffusers import ModelMixin

from diffusers_imagen.models.stored_model import (
    BLOCK_BYTES,
    MOST_BLOCKS,
    NOTE,
    fingerprint,
    forget_weights,
)
from diffusers_imagen.models.unet_imagen import ImagenUNet2DConditionModel

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def unet(cascade_parts):
    return cascade_parts["unet"]


def load(folder, **options):
    return ImagenUNet2DConditionModel.from_pretrained(folder, **options)


def test_the_weights_of_another_save_are_refused_by_name(unet, tmp_path):
    for name in ("one", "two"):
        unet.save_pretrained(tmp_path / name)
    other = ImagenUNet2DConditionModel.from_config(unet.config)
    other.save_pretrained(tmp_path / "two")
    load(tmp_path / "two")
    shutil.copyfile(tmp_path / "one" / WEIGHTS, tmp_path / "two" / WEIGHTS)
    with pytest.raises(OSError, match=f"two/{WEIGHTS} is not the file that was saved with the config.json"):
        load(tmp_path / "two")
    forget_weights(tmp_path / "two")
    loaded = load(tmp_path / "two")
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), unet.parameters(), strict=True))


def test_an_exchanged_part_is_refused_by_name(unet, tmp_path):
    for name in ("one", "two"):
        model = unet if name == "one" else ImagenUNet2DConditionModel.from_config(unet.config)
        model.save_pretrained(tmp_path / name, max_shard_size="20KB")
    part = sorted(path.name for path in (tmp_path / "one").glob("*.safetensors"))[1]
    load(tmp_path / "two")
    shutil.copyfile(tmp_path / "one" / part, tmp_path / "two" / part)
    with pytest.raises(OSError, match=f"two/{part} is not the file"):
        load(tmp_path / "two")


def test_without_the_note_another_architecture_is_refused_by_name(unet, cascade_parts, tmp_path):
    unet.save_pretrained(tmp_path / "unet")
    cascade_parts["sr_unet_2"].save_pretrained(tmp_path / "other")
    shutil.copyfile(tmp_path / "other" / WEIGHTS, tmp_path / "unet" / WEIGHTS)
    forget_weights(tmp_path / "unet")
    with pytest.raises(OSError, match=f"unet/{WEIGHTS} holds the weights of another model"):
        load(tmp_path / "unet")


def test_weights_that_are_missing_are_refused_unless_they_are_to_be_trained(unet, tmp_path):
    unet.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"flow_map": True}))
    with pytest.raises(
        OSError, match=rf"{WEIGHTS} lacks \d of the weights .*'target_embedding.*low_cpu_mem_usage=False"
    ):
        load(tmp_path)
    assert load(tmp_path, low_cpu_mem_usage=False).target_embedding is not None


def test_the_note_is_the_folder_s_and_not_the_model_s(unet, tmp_path, caplog):
    unet.save_pretrained(tmp_path / "one")
    assert set(json.loads((tmp_path / "one/config.json").read_text())[NOTE]) == {WEIGHTS}
    with caplog.at_level(logging.WARNING):
        loaded = load(tmp_path / "one")
    assert NOTE not in loaded.config
    assert NOTE not in caplog.text
    # What Diffusers writes by itself vouches for nothing.
    loaded.save_config(tmp_path / "two")
    assert NOTE not in json.loads((tmp_path / "two/config.json").read_text())


def test_a_folder_that_diffusers_wrote_by_itself_is_loaded(unet, tmp_path):
    ModelMixin.save_pretrained(unet, tmp_path)
    assert NOTE not in json.loads((tmp_path / "config.json").read_text())
    assert load(tmp_path).config.sample_size == unet.config.sample_size


def test_only_the_main_process_notes(unet, tmp_path):
    unet.save_pretrained(tmp_path, is_main_process=False)
    assert not (tmp_path / "config.json").exists()


def test_a_fingerprint_sees_size_ends_and_most_places_at_a_bounded_cost(tmp_path):
    file = tmp_path / "large"
    size = 3 * MOST_BLOCKS * BLOCK_BYTES
    seen = set()
    for length in (size - 1, size):
        with file.open("wb") as stream:
            stream.truncate(length)  # all zeros, and no place on the disk
        seen.add(fingerprint(file))
    for place in (0, size - 1, BLOCK_BYTES // 2):
        with file.open("r+b") as stream:
            stream.seek(place)
            stream.write(b"x")
        seen.add(fingerprint(file))
    assert len(seen) == 5


@pytest.mark.parametrize("size", [0, 1, BLOCK_BYTES, BLOCK_BYTES + 1, 5 * BLOCK_BYTES - 3])
def test_a_small_file_s_fingerprint_sees_every_byte(tmp_path, size):
    file = tmp_path / "small"
    places = sorted({0, size // 3, size // 2, max(0, size - 2), max(0, size - 1)})
    seen = set()
    for place in [None, *(places if size else [])]:
        content = bytearray(size)
        if place is not None:
            content[place] = 1
        file.write_bytes(content)
        seen.add(fingerprint(file))
    assert len(seen) == 1 + (len(places) if size else 0)
