import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffusers_imagen.data.folder import ImageFolder


def make_folder(folder: Path, count: int = 6, damaged: tuple[int, ...] = ()) -> Path:
    """Write pictures of one grey each, 10 * their number, and their metadata."""
    folder.mkdir()
    lines = []
    for i in range(count):
        name = f"{i}.png"
        Image.new("RGB", (6, 6), (10 * i,) * 3).save(folder / name)
        if i in damaged:
            (folder / name).write_bytes((folder / name).read_bytes()[:40])
        lines.append(json.dumps({"file_name": name, "text": [f"grey {i}", f"灰 {i}"]}))
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def test_metadata_gives_pictures_and_all_their_captions(tmp_path: Path) -> None:
    source = ImageFolder.open(make_folder(tmp_path / "p"), side=4)

    assert len(source) == 6
    picture = source[3]
    assert picture.pixels.shape == (4, 4, 3)
    assert picture.pixels.dtype == np.uint8
    assert (picture.pixels == 30).all()
    assert picture.captions == ("grey 3", "灰 3")
    assert "灰 5" in source.captions
    assert len(source.captions) == 12


def test_sidecar_texts_give_captions_in_nested_folders(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    for name, grey in (("b/x.PNG", 5), ("a.jpg", 7)):
        Image.new("L", (4, 4), grey).save(tmp_path / name)
        (tmp_path / name).with_suffix(".txt").write_text(f"grey {grey}\n")
    source = ImageFolder.open(tmp_path, side=4)

    assert [source[i].file_name for i in range(2)] == ["a.jpg", "b/x.PNG"]
    assert source[1].captions == ("grey 5",)


def test_order_does_not_depend_on_the_order_of_the_lines(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "p")
    before = ImageFolder.open(folder, side=4)
    lines = (folder / "metadata.jsonl").read_text().splitlines()
    (folder / "metadata.jsonl").write_text("\n".join(reversed(lines)))
    after = ImageFolder.open(folder, side=4)

    assert after.digest == before.digest
    assert after[0].file_name == "0.png"


def test_changed_caption_changes_the_digest(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "p")
    before = ImageFolder.open(folder, side=4).digest
    metadata = folder / "metadata.jsonl"
    metadata.write_text(metadata.read_text().replace("grey 3", "gray 3"))

    assert ImageFolder.open(folder, side=4).digest != before


def test_damaged_picture_is_replaced_by_the_next_and_listed_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = make_folder(tmp_path / "p", damaged=(2, 3, 5))
    quarantine = tmp_path / "quarantine.jsonl"
    for _ in range(2):
        source = ImageFolder.open(folder, side=4, quarantine=quarantine)
        for _ in range(2):
            assert [source[i].file_name for i in range(6)] == [f"{i}.png" for i in (0, 1, 4, 4, 4, 0)]
    assert source[2].captions == ("grey 4", "灰 4")
    listed = [json.loads(line) for line in quarantine.read_text().splitlines()]
    assert [entry["file_name"] for entry in listed] == ["2.png", "3.png", "5.png"]
    assert all(entry["reason"] for entry in listed)
    assert caplog.text.count("2.png cannot be read") == 2  # once for each opening


def test_damaged_picture_is_listed_once_when_threads_meet_it_together(tmp_path: Path) -> None:
    source = ImageFolder.open(make_folder(tmp_path / "p", damaged=(2,)), side=4, quarantine=tmp_path / "q.jsonl")
    with ThreadPoolExecutor(8) as pool:
        names = {picture.file_name for picture in pool.map(source.__getitem__, [2] * 32)}

    assert names == {"3.png"}
    assert len((tmp_path / "q.jsonl").read_text().splitlines()) == 1


@pytest.mark.parametrize("content", [b"", b"not a picture", None])
def test_empty_foreign_and_missing_files_are_put_in_quarantine(
    tmp_path: Path, content: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    folder = make_folder(tmp_path / "p")
    if content is None:
        (folder / "1.png").unlink()
    else:
        (folder / "1.png").write_bytes(content)

    assert ImageFolder.open(folder, side=4)[1].file_name == "2.png"
    assert "1.png cannot be read" in caplog.text


def test_decompression_bomb_is_put_in_quarantine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = make_folder(tmp_path / "p")
    Image.new("RGB", (100, 100)).save(folder / "1.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)

    assert ImageFolder.open(folder, side=4)[1].file_name == "2.png"
    assert "DecompressionBombError" in caplog.text


def test_folder_without_a_readable_picture_is_refused(tmp_path: Path) -> None:
    source = ImageFolder.open(make_folder(tmp_path / "p", count=2, damaged=(0, 1)), side=4)

    with pytest.raises(ValueError, match="None of the 2 pictures"):
        source[0]


def test_index_beyond_the_end_is_refused(tmp_path: Path) -> None:
    source = ImageFolder.open(make_folder(tmp_path / "p", count=2), side=4)

    with pytest.raises(IndexError, match="`index` is 2"):
        source[2]


def test_split_is_complete_and_disjoint(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "p", count=40)
    names = [
        {source[i].file_name for i in range(len(source))}
        for source in (
            ImageFolder.open(folder, 4, held_out=held_out, validation_fraction=0.3) for held_out in (False, True)
        )
    ]

    assert not names[0] & names[1]
    assert len(names[0] | names[1]) == 40
    assert names[1]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 7: this is no JSON"),
        ('{"file_name": 5, "text": "a ball"}', "line 7: `file_name` is 5; give a name"),
        ('{"file_name": "", "text": "a ball"}', "line 7: `file_name` is ''; give a name"),
        ('{"file_name": "0.png"}', "line 7: give an object"),
        ('["0.png", "grey"]', "line 7: give an object"),
        ('{"file_name": "7.png", "text": []}', r"`text` is \[\]"),
        ('{"file_name": "7.png", "text": [3]}', r"`text` is \[3\]"),
        ('{"file_name": "0.png", "text": "again"}', "names '0.png' twice"),
    ],
)
def test_malformed_metadata_is_refused(tmp_path: Path, line: str, message: str) -> None:
    folder = make_folder(tmp_path / "p")
    with (folder / "metadata.jsonl").open("a") as file:
        file.write(line)

    with pytest.raises(ValueError, match=message):
        ImageFolder.open(folder, side=4)


def test_byte_order_mark_is_no_part_of_metadata_or_caption(tmp_path: Path) -> None:
    named, beside = make_folder(tmp_path / "named"), tmp_path / "beside"
    metadata = named / "metadata.jsonl"
    metadata.write_text(metadata.read_text(encoding="utf-8"), encoding="utf-8-sig")
    beside.mkdir()
    Image.new("L", (4, 4)).save(beside / "a.png")
    (beside / "a.txt").write_text("a ball", encoding="utf-8-sig")

    assert ImageFolder.open(named, side=4)[0].captions == ("grey 0", "灰 0")
    assert ImageFolder.open(beside, side=4)[0].captions == ("a ball",)


def test_missing_folder_empty_folder_and_missing_caption_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not a folder"):
        ImageFolder.open(tmp_path / "nowhere", side=4)
    with pytest.raises(ValueError, match="no pictures"):
        ImageFolder.open(tmp_path, side=4)
    Image.new("L", (4, 4)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"a\.png has no caption; write a\.txt"):
        ImageFolder.open(tmp_path, side=4)


def test_split_without_any_picture_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no held-out picture"):
        ImageFolder.open(make_folder(tmp_path / "p"), side=4, held_out=True, validation_fraction=0.0)
