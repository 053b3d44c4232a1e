import io
import json
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from diffusers_imagen.data.buckets import Buckets
from diffusers_imagen.data.dataset import HuggingFaceDataset
from diffusers_imagen.data.folder import ImageFolder
from diffusers_imagen.data.quarantine import Quarantine
from diffusers_imagen.data.shards import TarShards
from diffusers_imagen.data.source import PictureSource, picture_size
from diffusers_imagen.data.transforms import to_rgb, to_shape

Write = Callable[[Path, dict[str, tuple[bytes, bytes]]], PictureSource]
RED = (255, 0, 0)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


def red(mode: str = "RGB", colour: Any = RED) -> Image.Image:
    return Image.new(mode, (8, 8), colour)


def red_exif() -> bytes:
    pixels = np.zeros((4, 8, 3), np.uint8)
    pixels[:2] = RED  # the upper half, on the left or right side when it is seen upright
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(Image.fromarray(pixels), "PNG", exif=exif)


def red_palette() -> bytes:
    image = Image.new("P", (8, 8), 0)
    image.putpalette([255, 0, 0, 0, 0, 255])
    return encoded(image, "PNG", transparency=1)


def bomb() -> bytes:
    """Give the beginning of a PNG of 20,000 x 20,000 pixels."""
    head = b"IHDR" + (20000).to_bytes(4) * 2 + bytes([8, 0, 0, 0, 0])
    return b"\x89PNG\r\n\x1a\n" + (13).to_bytes(4) + head + zlib.crc32(head).to_bytes(4) + b"\0\0\1\0IDAT"


GOOD = {
    "cmyk.jpg": encoded(red("CMYK", (0, 255, 255, 0)), "JPEG", quality=95),
    "deep.png": encoded(Image.fromarray(np.full((8, 8), 65535, np.uint16)), "PNG"),
    "palette.png": red_palette(),
    "animated.gif": encoded(red(), "GIF", save_all=True, append_images=[Image.new("RGB", (8, 8), (0, 0, 255))]),
    "animated.webp": encoded(
        red(), "WEBP", save_all=True, lossless=True, append_images=[Image.new("RGB", (8, 8), (0, 0, 255))]
    ),
    "turned.png": red_exif(),
}
BAD = {
    "zero.png": b"",
    "foreign.png": b"<html>not found</html>",
    "truncated.jpg": encoded(Image.effect_noise((64, 64), 99).convert("RGB"), "JPEG")[:900],
    "truncated.png": encoded(Image.effect_noise((64, 64), 99), "PNG")[:900],
    "bomb.png": bomb(),
    "nonsense.gif": b"GIF89a" + b"\xff" * 40,
}


def write_folder(folder: Path, files: dict[str, tuple[bytes, bytes]]) -> PictureSource:
    for name, (content, caption) in files.items():
        (folder / name).write_bytes(content)
        (folder / name).with_suffix(".txt").write_bytes(caption)
    return ImageFolder.open(folder, side=4, quarantine=folder / "quarantine.jsonl")


def write_shard(folder: Path, files: dict[str, tuple[bytes, bytes]]) -> PictureSource:
    with tarfile.open(folder / "0.tar", "w") as archive:
        for name, (content, caption) in sorted(files.items()):
            for member, data in ((name, content), (f"{Path(name).stem}.txt", caption)):
                info = tarfile.TarInfo(member)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    return TarShards.open(folder, side=4, quarantine=folder / "quarantine.jsonl")


def write_parquet(folder: Path, files: dict[str, tuple[bytes, bytes]]) -> PictureSource:
    names = sorted(files)
    texts = pa.array([files[name][1] for name in names], pa.binary()).view(pa.string())
    table = pa.table({"image": [files[name][0] for name in names], "text": texts, "name": names})
    pq.write_table(table, folder / "train.parquet")
    return HuggingFaceDataset.open(str(folder), 4, quarantine=folder / "quarantine.jsonl", key_column="name")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


each_source = pytest.mark.parametrize("write", [write_folder, write_shard, write_parquet])


@each_source
def test_unusual_pictures_are_read_as_they_look(write: Write, tmp_path: Path) -> None:
    files = {f"{i}-{name}": (content, b"x") for i, (name, content) in enumerate(GOOD.items())}
    source = write(tmp_path, files)

    looks = {source[i].file_name.rpartition("-")[2]: source[i].pixels for i in range(len(source))}
    assert looks.keys() == GOOD.keys()
    for name in ("cmyk.jpg", "palette.png", "animated.gif", "animated.webp"):
        assert (np.abs(looks[name].astype(int) - RED) <= 3).all(), name
    assert (looks["deep.png"] == 255).all()
    # A quarter turn clockwise brings the upper half to the right.
    assert (looks["turned.png"][:, 3] == RED).all()
    assert (looks["turned.png"][:, 0] == 0).all()
    assert not (tmp_path / "quarantine.jsonl").exists()


@each_source
def test_unusable_pictures_and_captions_are_listed_once_and_replaced_the_same_way_again(
    write: Write, tmp_path: Path
) -> None:
    good = encoded(red(), "PNG")
    files = {f"{i}{i}-{name}": (content, b"x") for i, (name, content) in enumerate(BAD.items())}
    files |= {f"{i}-good.png": (good, b"good %d" % i) for i in range(10)}
    files |= {"33-latin.png": (good, "café".encode("latin-1"))}
    source = write(tmp_path, files)
    first = [source[i].file_name for i in range(len(source))]
    again = write(tmp_path, files) if write is not write_shard else TarShards.open(tmp_path, side=4)
    second = [again[i].file_name for i in reversed(range(len(again)))][::-1]

    assert first == second
    assert {Path(name).name for name in first} == {f"{i}-good.png" for i in range(10)}
    listed = [json.loads(line) for line in (tmp_path / "quarantine.jsonl").read_text().splitlines()]
    assert sorted(Path(entry["file_name"]).name for entry in listed) == sorted(
        [f"{i}{i}-{name}" for i, name in enumerate(BAD)] + ["33-latin.png"]
    )
    assert "DecompressionBombError" in next(entry["reason"] for entry in listed if "bomb" in entry["file_name"])
    assert all("\ufffd" not in caption for caption in source.captions)


def test_failing_disk_ends_the_run_instead_of_filling_the_quarantine(tmp_path: Path) -> None:
    class FailingDisk(ImageFolder):
        def read(self, index: int) -> Any:
            raise OSError(5, "Input/output error")

    with pytest.raises(OSError, match="Input/output error"):
        FailingDisk(tmp_path, [("a.png", ("a",))], side=4)[0]


def test_caption_with_a_lone_surrogate_is_left_out_while_another_is_good(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "a.png", "text": ["\\ud800", "good"]}\n')
    source = ImageFolder.open(tmp_path, side=4)

    assert source[0].captions == ("good",)
    assert source.captions == {"good"}


@pytest.mark.parametrize(("fraction", "allowed"), [(0.0, 0), (0.01, 10), (0.1, 100)])
def test_run_ends_when_too_large_a_share_is_bad(fraction: float, allowed: int) -> None:
    quarantine = Quarantine(max_fraction=fraction)
    for index in range(allowed):
        quarantine.add(index, f"{index}.png", "bad", 2000)

    with pytest.raises(ValueError, match=rf"{allowed + 1} of 1000 pictures cannot be read.*max_bad_fraction"):
        quarantine.add(allowed, "last.png", "bad", 2000)


def test_share_is_of_the_pictures_tried_and_at_most_of_all() -> None:
    for tried, size, allowed in ((4000, 10000, 400), (4000, 300, 30), (0, 20, 2)):
        quarantine = Quarantine(max_fraction=0.1)
        for _ in range(tried):
            quarantine.count_try()
        for index in range(allowed):
            quarantine.add(index, f"{index}.png", "bad", size)
        with pytest.raises(ValueError, match="cannot be read"):
            quarantine.add(allowed, "last.png", "bad", size)


def test_impossible_share_is_refused() -> None:
    with pytest.raises(ValueError, match="`max_bad_fraction` is 2"):
        Quarantine(max_fraction=2)


def test_replacement_is_of_the_same_bucket(tmp_path: Path) -> None:
    files = {f"{i}.png": (encoded(Image.new("RGB", (8, 8), (i,) * 3), "PNG"), b"x") for i in range(5)}
    files["0.png"] = (b"", b"x")
    source = write_folder(tmp_path, files)
    source.use_buckets(Buckets(((4, 4), (2, 8)), np.array([1, 0, 0, 1, 0], np.uint8), 1))

    assert source[0].pixels.shape == (2, 8, 3)
    assert source[0].pixels.max() == 3


def test_low_resolution_of_the_same_name_comes_with_the_picture(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "small").mkdir()
    files = {f"{i}.jpg": (encoded(red(), "JPEG"), b"x") for i in range(2)}
    (tmp_path / "small" / "0.png").write_bytes(encoded(Image.new("RGB", (2, 2), (1, 2, 3)), "PNG"))
    (tmp_path / "large").mkdir()
    source = write_folder(tmp_path / "large", files)
    with pytest.raises(ValueError, match="`low_res_folder` is"):
        source.pair_with(tmp_path / "none")
    source.pair_with(tmp_path / "small")

    low_res = source[0].low_res
    assert low_res is not None
    assert low_res.shape == (2, 2, 3)
    assert low_res[0, 0].tolist() == [1, 2, 3]
    assert source[1].file_name == "0.jpg"
    assert "1.jpg cannot be read (FileNotFoundError" in caplog.text


@each_source
def test_sizes_are_those_of_upright_pictures(write: Write, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 8
    files = {
        "a.jpg": (encoded(Image.new("RGB", (30, 20)), "JPEG"), b"x"),
        "b.jpg": (encoded(Image.new("RGB", (30, 20)), "JPEG", exif=exif), b"x"),
        "c.png": (b"", b"x"),
    }

    assert write(tmp_path, files).picture_sizes().tolist() == [[20, 30], [30, 20], [0, 0]]


def test_size_of_what_is_no_picture_is_unknown(tmp_path: Path) -> None:
    assert picture_size(tmp_path / "none") == (0, 0)
    assert picture_size(io.BytesIO(BAD["bomb.png"])) == (0, 0)


def test_large_jpeg_looks_the_same_as_when_decoded_in_full(tmp_path: Path) -> None:
    rough = np.random.default_rng(0).integers(0, 256, (12, 9, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    content = encoded(Image.fromarray(rough).resize((900, 1200)), "JPEG", quality=95, exif=exif)
    source = write_folder(tmp_path, {"a.jpg": (content, b"x")})
    source.use_buckets(Buckets(((48, 64),), np.zeros(1, np.uint8), 1))
    with Image.open(io.BytesIO(content)) as image:
        expected = np.asarray(to_shape(to_rgb(image), 48, 64)).astype(int)

    difference = np.abs(source[0].pixels - expected)
    assert difference.mean() < 0.6
    assert difference.max() <= 6
