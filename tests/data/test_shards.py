import io
import json
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from diffusers_imagen.cli.main import app
from diffusers_imagen.data import shard_index
from diffusers_imagen.data.schedule import DataSchedule, is_held_out
from diffusers_imagen.data.shard_index import INDEX_NAME, open_index
from diffusers_imagen.data.shards import TarShards


def png(grey: int, size: tuple[int, int] = (6, 6)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, (grey,) * 3).save(buffer, format="PNG")
    return buffer.getvalue()


def write_tar(path: Path, files: dict[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def img2dataset_files(number: int) -> dict[str, bytes]:
    record = {"caption": f"grey {number}", "others": [f"gray {number}", f"灰 {number}"], "status": "success"}
    return {
        f"{number:09d}.jpg": png(number),
        f"{number:09d}.json": json.dumps(record).encode(),
        f"{number:09d}.txt": f"grey {number}".encode(),
    }


def make_shards(folder: Path, shards: int = 4, each: int = 5) -> Path:
    """Write shards in img2dataset's layout; picture n is of grey n."""
    for shard in range(shards):
        files: dict[str, bytes] = {}
        for place in range(each):
            files |= img2dataset_files(shard * each + place)
        write_tar(folder / f"{shard:05d}.tar", files)
    return folder


def greys(source: TarShards) -> list[int]:
    return [int(source[i].pixels[0, 0, 0]) for i in range(len(source))]


def test_byte_order_mark_is_no_part_of_a_caption(tmp_path: Path) -> None:
    files = {
        name: content if name.endswith("jpg") else b"\xef\xbb\xbf" + content
        for name, content in img2dataset_files(3).items()
    }
    write_tar(tmp_path / "00000.tar", files)

    assert TarShards.open(tmp_path, side=4)[0].captions == ("grey 3",)
    assert TarShards.open(tmp_path, side=4, caption_fields=("caption",)).captions == {"grey 3"}


def test_each_sample_of_all_shards_is_read_by_its_index(tmp_path: Path) -> None:
    source = TarShards.open(make_shards(tmp_path), side=4)

    assert greys(source) == list(range(20))
    picture = source[7]
    assert picture.pixels.shape == (4, 4, 3)
    assert picture.captions == ("grey 7",)
    assert picture.file_name == "00001/000000007.jpg"
    assert source.captions == {f"grey {i}" for i in range(20)}


def test_index_takes_24_bytes_a_sample_and_is_mapped_into_memory(tmp_path: Path) -> None:
    index = open_index(make_shards(tmp_path))

    assert isinstance(index.records, np.memmap)
    with (tmp_path / INDEX_NAME).open("rb") as file:
        head = len(file.readline())
    assert (tmp_path / INDEX_NAME).stat().st_size - head == 24 * 20


def test_json_fields_give_several_captions(tmp_path: Path) -> None:
    source = TarShards.open(make_shards(tmp_path), side=4, caption_fields=("caption", "others"))

    assert source[3].captions == ("grey 3", "gray 3", "灰 3")
    assert len(source.captions) == 60
    assert source.digest != TarShards.open(tmp_path, side=4).digest


def test_sample_without_the_caption_field_is_put_in_quarantine(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_tar(tmp_path / "0.tar", {"a.png": png(1), "a.json": b'{"text": "a"}', "b.png": png(2), "b.json": b"{}"})
    source = TarShards.open(tmp_path, side=4, caption_fields=("text",))

    assert source[1].captions == ("a",)
    assert "0/b.png cannot be read (ValueError: there is no `text`" in caplog.text
    assert source.captions == {"a"}


def test_sample_without_any_caption_has_none(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", {"a.png": png(1)})

    assert TarShards.open(tmp_path, side=4)[0].captions == ()


def test_other_members_long_names_and_dotted_extensions_are_understood(tmp_path: Path) -> None:
    long = "folder/" + "x" * 150
    write_tar(
        tmp_path / "sub" / "0.tar",
        {f"{long}.seg.png": png(9), f"{long}.PNG": png(5), f"{long}.cls": b"3", f"{long}.txt": b"five", "b.txt": b"b"},
    )
    source = TarShards.open(tmp_path, side=4)

    assert len(source) == 1
    assert greys(source) == [5]
    assert source[0].captions == ("five",)
    assert source[0].file_name == f"sub/0/{long}.PNG"


def test_second_opening_does_not_walk_through_the_shards(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = TarShards.open(make_shards(tmp_path), side=4).digest
    assert "Indexing 4 of the 4 tar files" in caplog.text
    caplog.clear()

    assert TarShards.open(tmp_path, side=4).digest == first
    assert not caplog.records


def test_only_new_and_changed_shards_are_walked_through_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = TarShards.open(make_shards(tmp_path), side=4)
    write_tar(tmp_path / "00001.tar", img2dataset_files(99))
    make_shards(tmp_path / "new", shards=1, each=2)
    walked = []
    original = shard_index._walk
    monkeypatch.setattr(shard_index, "_walk", lambda path, state: walked.append(path.name) or original(path, state))
    after = TarShards.open(tmp_path, side=4)

    assert "Indexing 2 of the 5 tar files" in caplog.text
    assert walked == ["00001.tar", "00000.tar"]
    assert greys(after) == [*range(5), 99, *range(10, 20), 0, 1]
    assert after.digest != before.digest


def test_indexing_that_was_broken_off_goes_on_where_it_was(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = TarShards.open(make_shards(tmp_path / "a"), side=4).digest
    make_shards(tmp_path / "b")
    original = shard_index._walk

    def interrupted(path: Path, state: tuple[str, int, int]) -> object:
        if path.name == "00002.tar":
            raise KeyboardInterrupt
        return original(path, state)

    with monkeypatch.context() as patch:
        patch.setattr(shard_index, "_walk", interrupted)
        patch.setattr(shard_index, "_SECONDS_BETWEEN_SAVES", -1.0)
        with pytest.raises(KeyboardInterrupt):
            open_index(tmp_path / "b")
    caplog.clear()

    assert TarShards.open(tmp_path / "b", side=4).digest == expected
    assert "Indexing 2 of the 4 tar files" in caplog.text


def test_changed_caption_of_the_same_length_changes_the_digest(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", {"a.png": png(1), "a.txt": b"one"})
    before = TarShards.open(tmp_path, side=4).digest
    write_tar(tmp_path / "0.tar", {"a.png": png(1), "a.txt": b"two"})

    assert TarShards.open(tmp_path, side=4).digest != before


def test_touched_or_copied_shards_keep_the_digest(tmp_path: Path) -> None:
    before = TarShards.open(make_shards(tmp_path), side=4).digest
    os.utime(tmp_path / "00002.tar", (1, 1))

    assert TarShards.open(tmp_path, side=4).digest == before


@pytest.mark.parametrize("damage", ["truncated", "other format", "foreign"])
def test_damaged_index_is_made_again(tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    expected = TarShards.open(make_shards(tmp_path), side=4).digest
    file = tmp_path / INDEX_NAME
    content = file.read_bytes()
    file.write_bytes(
        {
            "truncated": content[:-5],
            "other format": content.replace(b'"format": 1', b'"format": 9'),
            "foreign": b"\xff\xfe",
        }[damage]
    )

    assert TarShards.open(tmp_path, side=4).digest == expected
    assert "cannot be used" in caplog.text


def test_shards_in_a_folder_that_cannot_be_written_are_read_all_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make_shards(tmp_path)
    # A folder in the index's place stops even a user who may write everywhere.
    (tmp_path / INDEX_NAME / "x").mkdir(parents=True)

    assert greys(TarShards.open(tmp_path, side=4)) == list(range(20))
    assert "cannot be written" in caplog.text
    assert not list(tmp_path.glob("*.tmp"))


def test_truncated_shard_gives_what_is_whole_and_a_foreign_one_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make_shards(tmp_path, shards=2)
    shard = tmp_path / "00000.tar"
    # A sample takes six blocks of 512 bytes; the cut is in the fourth sample's picture.
    shard.write_bytes(shard.read_bytes()[: 3 * 6 * 512 + 600])
    (tmp_path / "00002.tar").write_bytes(b"no tar" * 1000)
    source = TarShards.open(tmp_path, side=4)

    assert greys(source) == [0, 1, 2, 5, 6, 7, 8, 9]
    assert {f"grey {i}" for i in (0, 1, 2, 5, 6, 7, 8, 9)} <= source.captions
    assert "00000.tar is damaged" in caplog.text
    assert "00002.tar is damaged" in caplog.text


def test_shard_with_a_spoiled_header_is_told_and_used_up_to_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make_shards(tmp_path, shards=1)
    content = bytearray((tmp_path / "00000.tar").read_bytes())
    content[2 * 6 * 512 + 10] ^= 1  # in the name of the third sample's picture
    (tmp_path / "00000.tar").write_bytes(content)

    assert greys(TarShards.open(tmp_path, side=4)) == [0, 1]
    assert "invalid header at byte 6144" in caplog.text


def test_split_by_key_is_that_of_the_hash_and_complete(tmp_path: Path) -> None:
    make_shards(tmp_path)
    train, held_out = (
        TarShards.open(tmp_path, side=4, held_out=wanted, validation_fraction=0.3) for wanted in (False, True)
    )

    expected = [number for number in range(20) if is_held_out(f"{number:09d}", 0.3)]
    assert greys(held_out) == expected
    assert greys(train) == [number for number in range(20) if number not in expected]
    assert 0 < len(expected) < 20
    assert len({source.digest for source in (train, held_out, TarShards.open(tmp_path, side=4))}) == 3


def test_window_keeps_a_batch_within_few_shards(tmp_path: Path) -> None:
    source = TarShards.open(make_shards(tmp_path, shards=6), side=4, window=2)
    schedule = DataSchedule(0, len(source), source.groups, source.window)
    epoch = schedule.indices(0, 30)

    assert sorted(epoch) == list(range(30))
    shards_of_windows = [{index // 5 for index in epoch[start : start + 10]} for start in (0, 10, 20)]
    assert [len(shards) for shards in shards_of_windows] == [2, 2, 2]
    assert set.union(*shards_of_windows) == set(range(6))


def test_folders_without_shards_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not a folder"):
        TarShards.open(tmp_path / "nowhere", side=4)
    with pytest.raises(ValueError, match=r"0 \.tar files hold no picture"):
        TarShards.open(tmp_path, side=4)
    make_shards(tmp_path)
    with pytest.raises(ValueError, match="no held-out picture"):
        TarShards.open(tmp_path, side=4, held_out=True)
    with pytest.raises(ValueError, match="`validation_fraction` is 1"):
        TarShards.open(tmp_path, side=4, validation_fraction=1)


def test_sample_that_vanished_after_indexing_is_put_in_quarantine(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = TarShards.open(make_shards(tmp_path, shards=2), side=4)
    (tmp_path / "00000.tar").write_bytes(b"\0" * 100)

    assert int(source[0].pixels[0, 0, 0]) == 5
    assert "00000.tar, byte 0 cannot be read" in caplog.text


def test_command_indexes_and_says_what_it_found(tmp_path: Path) -> None:
    make_shards(tmp_path)
    (tmp_path / "9.tar").write_bytes(b"no tar" * 1000)
    result = CliRunner().invoke(app, ["data", "index", str(tmp_path)])

    assert result.exit_code == 0
    assert "20 pictures in 5 shards" in result.output
    assert "9.tar is damaged after 0 pictures" in result.output
    assert (tmp_path / INDEX_NAME).is_file()
