import io
import shutil
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from diffusers_imagen.data.dataset import HuggingFaceDataset
from diffusers_imagen.data.schedule import is_held_out


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def png(grey: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (6, 6), (grey,) * 3).save(buffer, format="PNG")
    return buffer.getvalue()


def columns(count: int = 8) -> dict[str, list[Any]]:
    return {
        "image": [{"bytes": png(i), "path": None} for i in range(count)],
        "text": [f"grey {i}" for i in range(count)],
        "others": [[f"gray {i}", f"灰 {i}"] for i in range(count)],
        "id": [f"id-{i}" for i in range(count)],
    }


def make_dataset(kind: str, folder: Path) -> Path:
    """Store eight pictures, number n of grey n, in one of the ways that people have."""
    folder.mkdir()
    if kind == "parquet of bytes":
        table = columns()
        table["image"] = [cell["bytes"] for cell in table["image"]]
        pq.write_table(pa.table(table), folder / "train.parquet")
    elif kind == "imagefolder":
        (folder / "train").mkdir()
        lines = ["file_name,text"]
        for i in range(8):
            (folder / "train" / f"{i}.png").write_bytes(png(i))
            lines.append(f"{i}.png,grey {i}")
        (folder / "train" / "metadata.csv").write_text("\n".join(lines))
    else:
        features = datasets.Features(
            image=datasets.Image(),
            text=datasets.Value("string"),
            others=datasets.List(datasets.Value("string")),
            id=datasets.Value("string"),
        )
        rows = datasets.Dataset.from_dict(columns(), features=features)
        if kind == "parquet":
            rows.to_parquet(folder / "train-00000-of-00001.parquet")
        elif kind == "saved":
            rows.save_to_disk(folder)
        else:
            datasets.DatasetDict(train=rows).save_to_disk(folder)
    return folder


@pytest.mark.parametrize("kind", ["parquet", "parquet of bytes", "saved", "saved splits", "imagefolder"])
def test_local_datasets_of_all_kinds_are_read(kind: str, tmp_path: Path) -> None:
    source = HuggingFaceDataset.open(str(make_dataset(kind, tmp_path / "d")), side=4)

    assert [int(source[i].pixels[0, 0, 0]) for i in range(8)] == list(range(8))
    assert source[3].pixels.shape == (4, 4, 3)
    assert source[3].captions == ("grey 3",)
    assert source[3].file_name == "000000003"
    assert source.captions == {f"grey {i}" for i in range(8)}


def test_several_columns_and_lists_give_several_captions(tmp_path: Path) -> None:
    folder = str(make_dataset("parquet", tmp_path / "d"))
    source = HuggingFaceDataset.open(folder, side=4, caption_columns=("text", "others"))

    assert source[3].captions == ("grey 3", "gray 3", "灰 3")
    assert len(source.captions) == 24
    assert source.digest != HuggingFaceDataset.open(folder, side=4).digest


def test_split_is_by_the_key_column_or_the_row_number(tmp_path: Path) -> None:
    folder = str(make_dataset("parquet", tmp_path / "d"))
    for column, keys in ((None, [str(i) for i in range(8)]), ("id", [f"id-{i}" for i in range(8)])):
        train, held_out = (
            HuggingFaceDataset.open(folder, 4, wanted, validation_fraction=0.6, key_column=column)
            for wanted in (False, True)
        )
        greys = [[int(source[i].pixels[0, 0, 0]) for i in range(len(source))] for source in (train, held_out)]
        assert greys[1] == [i for i, key in enumerate(keys) if is_held_out(key, 0.6)]
        assert sorted(greys[0] + greys[1]) == list(range(8))
        assert train.digest != held_out.digest


def test_digest_is_of_the_content_and_not_of_the_place(tmp_path: Path) -> None:
    folder = make_dataset("parquet", tmp_path / "d")
    before = HuggingFaceDataset.open(str(folder), side=4).digest
    moved = tmp_path / "moved"
    shutil.copytree(folder, moved)

    assert HuggingFaceDataset.open(str(moved), side=4).digest == before
    table = pq.read_table(moved / "train-00000-of-00001.parquet")
    changed = table.set_column(1, "text", pa.array(["gray 0", *table["text"].to_pylist()[1:]]))
    pq.write_table(changed, moved / "train-00000-of-00001.parquet")
    assert HuggingFaceDataset.open(str(moved), side=4).digest != before


def test_bad_rows_are_put_in_quarantine_by_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    texts = pa.array([b"grey 0", b"gr\xff", b"grey 2", b"grey 3", b"grey 4"]).view(pa.string())
    pictures = [png(0), png(1), b"", png(3)[:50], None]
    table = pa.table({"image": pa.array(pictures, pa.binary()), "text": texts, "id": list("abcde")})
    pq.write_table(table, tmp_path / "train.parquet")
    source = HuggingFaceDataset.open(str(tmp_path), side=4, key_column="id")

    assert [int(source[i].pixels[0, 0, 0]) for i in range(5)] == [0] * 5
    for name, reason in (("b", "UnicodeDecodeError"), ("c", "is empty"), ("d", "OSError"), ("e", "has no picture")):
        assert any(f"picture {name} " in record.message and reason in record.message for record in caplog.records)
    assert len(caplog.records) == 4
    assert source.captions == {"grey 0", "grey 2", "grey 3", "grey 4"}


def test_picture_files_that_are_gone_are_put_in_quarantine(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = make_dataset("imagefolder", tmp_path / "d")
    source = HuggingFaceDataset.open(str(folder), side=4)
    (folder / "train" / "2.png").unlink()

    assert source[2].captions == ("grey 3",)
    assert "FileNotFoundError" in caplog.text


def test_missing_datasets_splits_columns_and_rows_are_refused(tmp_path: Path) -> None:
    folder = str(make_dataset("saved splits", tmp_path / "d"))
    for name in ("d", "nowhere"):
        with pytest.raises(ValueError, match="cannot be loaded"):
            HuggingFaceDataset.open(str(tmp_path / name), side=4, split="test")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "train.parquet").write_bytes(b"PAR1" * 20)
    with pytest.raises(ValueError, match="cannot be loaded"):
        HuggingFaceDataset.open(str(tmp_path / "broken"), side=4)
    with pytest.raises(ValueError, match="no column 'caption', only image, text, others, id"):
        HuggingFaceDataset.open(folder, side=4, caption_columns=("caption",))
    with pytest.raises(ValueError, match="no held-out picture"):
        HuggingFaceDataset.open(folder, side=4, held_out=True)
