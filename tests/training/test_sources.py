import io
import json
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from diffusers_imagen.data.dataset import HuggingFaceDataset
from diffusers_imagen.data.folder import ImageFolder, read_entries
from diffusers_imagen.data.schedule import is_held_out
from diffusers_imagen.data.shards import TarShards
from diffusers_imagen.text.cache import TextEmbeddingCache
from diffusers_imagen.text.loading import load_text_encoder
from diffusers_imagen.training.batches import BatchMaker
from diffusers_imagen.training.config import TrainConfig
from diffusers_imagen.training.fine_tune_config import PriorConfig
from diffusers_imagen.training.loop import train
from diffusers_imagen.training.sources import check_places, open_pictures

MakeConfig = Callable[..., TrainConfig]


def write_shards(pictures: Path, folder: Path, each: int) -> Path:
    """Write the pictures of a folder into tars of a few samples, with captions in .txt and .json."""
    folder.mkdir()
    entries = read_entries(pictures)
    for start in range(0, len(entries), each):
        with tarfile.open(folder / f"{start // each:05d}.tar", "w") as archive:
            for name, captions in entries[start : start + each]:
                record = json.dumps({"texts": captions}).encode()
                key = Path(name).stem
                for extension, content in (
                    ("png", (pictures / name).read_bytes()),
                    ("txt", captions[0].encode()),
                    ("json", record),
                ):
                    info = tarfile.TarInfo(f"{key}.{extension}")
                    info.size = len(content)
                    archive.addfile(info, io.BytesIO(content))
    return folder


@pytest.fixture
def shards(pictures: Path, tmp_path: Path) -> Path:
    return write_shards(pictures, tmp_path / "shards", each=3)


def batch_makers(config: TrainConfig, processes: int = 1) -> list[BatchMaker]:
    samples = config.batch_size * config.gradient_accumulation_steps * processes
    pictures = open_pictures(config, samples_per_step=samples)
    text = TextEmbeddingCache.build(pictures.captions, *load_text_encoder(config.text.folder), config.text.settings)
    return [BatchMaker(config, pictures, text, processes, rank) for rank in range(processes)]


def test_what_a_folder_holds_is_told_by_its_files(make_config: MakeConfig, shards: Path) -> None:
    assert isinstance(open_pictures(make_config()), ImageFolder)
    assert isinstance(open_pictures(make_config(data={"folder": str(shards)})), TarShards)


@pytest.mark.parametrize("fraction", [0.0, 0.5])
def test_two_pictures_that_would_share_a_low_resolution_are_refused(
    make_config: MakeConfig, pictures: Path, tmp_path: Path, fraction: float
) -> None:
    # With half of the pictures held out these two are in different halves.
    (pictures / "twins").mkdir()
    twins = ["twins/a.jpg", "twins/a.png"]
    assert [is_held_out(name, 0.5) for name in twins].count(True) == 1
    with (pictures / "metadata.jsonl").open("a") as file:
        for name in twins:
            Image.new("RGB", (8, 8)).save(pictures / name)
            file.write(json.dumps({"file_name": name, "text": "a square"}) + "\n")
    data = {"low_res_folder": str(tmp_path), "validation_fraction": fraction}

    with pytest.raises(ValueError, match=r"'twins/a\.jpg' and 'twins/a\.png' .* rename one"):
        open_pictures(make_config(enlarges=True, data=data))


@pytest.mark.parametrize("inside", [".", "runs/first"])
def test_run_within_the_folder_whose_pictures_it_would_add_to_is_refused(
    make_config: MakeConfig, pictures: Path, monkeypatch: pytest.MonkeyPatch, inside: str
) -> None:
    config = make_config(data={"prompts": ("a square",)}, output_dir=str(Path("pictures") / inside))
    monkeypatch.chdir(pictures.parent)
    # Where all pictures are named nothing is added.
    assert len(open_pictures(config)) == 12
    (pictures / "metadata.jsonl").unlink()

    with pytest.raises(ValueError, match=r"`output_dir` is 'pictures.*', within `data\.folder`, '.*pictures'"):
        open_pictures(config)
    assert len(open_pictures(replace(config, output_dir="pictures-run"))) == 12


@pytest.mark.parametrize("name", ["data.low_res_folder", "prior.folder"])
def test_other_pictures_within_the_folder_of_pictures_are_refused(
    make_config: MakeConfig, pictures: Path, name: str
) -> None:
    (pictures / "metadata.jsonl").unlink()
    inside = str(pictures / "inside")
    low_res = {"low_res_folder": inside} if name == "data.low_res_folder" else {}
    config = make_config(enlarges=bool(low_res), data={"prompts": ("a square",), **low_res})
    if name == "prior.folder":
        config = replace(config, prior=PriorConfig(folder=inside))

    with pytest.raises(ValueError, match=rf"`{name}` is '.*inside', within `data\.folder`"):
        check_places(config)


def test_captions_come_from_the_fields_that_are_named(make_config: MakeConfig, shards: Path) -> None:
    plain, named = (
        open_pictures(make_config(data={"folder": str(shards), "captions": fields})) for fields in ((), ("texts",))
    )

    assert plain[0].captions == ("a red square",)
    assert named[0].captions == ("a red square", "red right")


@pytest.mark.parametrize("window", [1, 2])
def test_shards_give_the_same_global_batches_on_any_number_of_ranks(
    make_config: MakeConfig, shards: Path, window: int
) -> None:
    data = {"folder": str(shards), "shard_window": window, "captions": ("texts",)}
    (whole,) = batch_makers(make_config(data=data, batch_size=8))
    expected = [whole.batch(number) for number in range(4)]

    for processes in (2, 4):
        ranks = batch_makers(make_config(data=data, batch_size=8 // processes), processes)
        for number, batch in enumerate(expected):
            parts = [maker.batch(number) for maker in ranks]
            for name in ("pictures", "t", "eps"):
                assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(batch, name))
    seen = torch.cat([batch.pictures for batch in expected[:3]])
    # The twelve pictures, twice, are eight different ones.
    assert len(torch.unique(seen.flatten(1), dim=0)) == 8


def test_run_on_shards_resumes_but_not_on_changed_ones(make_config: MakeConfig, shards: Path, pictures: Path) -> None:
    config = make_config(data={"folder": str(shards)}, max_steps=2)
    assert train(config).finished
    assert train(replace(config, max_steps=3)).step == 3

    shard = shards / "00002.tar"
    shard.write_bytes(shard.read_bytes().replace(b"a red square", b"a RED square"))
    with pytest.raises(ValueError, match="had data "):
        train(replace(config, max_steps=4))


def test_run_on_a_dataset_trains_and_gives_the_samples_of_the_folder(
    make_config: MakeConfig, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    entries = read_entries(pictures)
    rows = {
        "picture": [(pictures / name).read_bytes() for name, _ in entries],
        "captions": [list(captions) for _, captions in entries],
    }
    folder = tmp_path / "dataset"
    folder.mkdir()
    pq.write_table(pa.table(rows), folder / "train.parquet")
    data = {"folder": str(folder), "image_column": "picture", "captions": ("captions",)}
    config = make_config(data=data, max_steps=1)

    assert isinstance(open_pictures(config), HuggingFaceDataset)
    (ours,), (plain,) = batch_makers(config), batch_makers(make_config())
    for name in ("pictures", "text", "eps"):
        assert torch.equal(getattr(ours.batch(1), name), getattr(plain.batch(1), name))
    assert train(config).finished


@pytest.fixture
def wide_and_tall(tmp_path: Path) -> Path:
    """Draw 24 pictures of three shapes."""
    folder = tmp_path / "shapes"
    folder.mkdir()
    for i in range(24):
        size = ((16, 16), (32, 16), (16, 32))[i % 3]
        Image.new("RGB", size, (10 * i, 0, 0)).save(folder / f"{i:02d}.png")
        (folder / f"{i:02d}.txt").write_text("a red square")
    return folder


@pytest.mark.parametrize("in_memory", [True, False])
def test_steps_come_from_one_bucket_whatever_the_ranks_and_the_accumulation(
    make_config: MakeConfig, wide_and_tall: Path, in_memory: bool
) -> None:
    data = {"folder": str(wide_and_tall), "bucket_multiple": 4, "in_memory": in_memory}
    (whole,) = batch_makers(make_config(data=data, batch_size=4))
    expected = [whole.batch(number) for number in range(7)]

    assert {tuple(batch.pictures.shape[2:]) for batch in expected} == {(8, 8), (4, 12), (12, 4)}
    assert all(batch.eps.shape == batch.pictures.shape for batch in expected)
    ranks = batch_makers(make_config(data=data, batch_size=1, gradient_accumulation_steps=2), processes=2)
    for number, batch in enumerate(expected):
        parts = [maker.batch(2 * number + micro) for micro in range(2) for maker in ranks]
        for name in ("pictures", "t", "eps"):
            assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(batch, name))


def test_run_on_buckets_trains_and_resumes_but_not_with_other_buckets(
    make_config: MakeConfig, wide_and_tall: Path
) -> None:
    data = {"folder": str(wide_and_tall), "bucket_multiple": 4}
    assert train(make_config(data=data, max_steps=4)).finished
    assert train(make_config(data=data, max_steps=5)).finished

    with pytest.raises(ValueError, match="had data "):
        train(make_config(data={**data, "bucket_multiple": None}, max_steps=6))


def test_captions_are_encoded_once_or_with_each_batch(make_config: MakeConfig, tmp_path: Path) -> None:
    both = []
    for cache in (True, False):
        config = make_config(text={"cache": cache}, max_steps=2, output_dir=str(tmp_path / str(cache)))
        assert train(config).finished
        assert (tmp_path / str(cache) / "text_cache").is_dir() == cache
        both.append(weights(config))

    for name, tensor in both[0].items():
        torch.testing.assert_close(both[1][name], tensor, rtol=0, atol=1e-5, msg=name)


def weights(config: TrainConfig) -> dict[str, torch.Tensor]:
    return load_file(Path(config.output_dir) / "unet" / "diffusion_pytorch_model.safetensors")


def test_missing_folders_are_named_as_configurations_do(make_config: MakeConfig) -> None:
    with pytest.raises(ValueError, match=r"`data\.folder` is 'nowhere', which is not a folder"):
        check_places(make_config(data={"folder": "nowhere"}))
    with pytest.raises(ValueError, match=r"`text\.folder` is 'nowhere', which has no folder 'tokenizer'"):
        check_places(make_config(text={"folder": "nowhere"}))
