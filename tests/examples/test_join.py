import json

import join as module
import pytest
from PIL import Image

from diffusers_imagen.data.folder import ImageFolder


def make(folder, color):
    folder.mkdir()
    rows = []
    for number in range(3):
        Image.new("RGB", (8, 8), color).save(folder / f"{number}.png")
        rows.append(json.dumps({"file_name": f"{number}.png", "text": f"{color} {number}"}))
    (folder / "metadata.jsonl").write_text("\n".join(rows) + "\n")
    return folder


def test_pictures_of_all_folders_are_found_under_new_names(tmp_path):
    folders = [make(tmp_path / color, color) for color in ("red", "blue")]
    assert module.join(folders, tmp_path / "both", None) == 6
    assert module.join(folders, tmp_path / "few", 1) == 2
    both = ImageFolder.open(tmp_path / "both", 8)
    assert sorted(both[i].captions[0] for i in range(6)) == ["blue 0", "blue 1", "blue 2", "red 0", "red 1", "red 2"]
    blue = next(both[i] for i in range(6) if both[i].file_name == "blue/0.png")
    assert blue.pixels[0, 0].tolist() == [0, 0, 255]
    few = ImageFolder.open(tmp_path / "few", 8)
    assert {few.name(i) for i in range(2)} == {"red/0.png", "blue/0.png"}
    # Again, over what is there.
    assert module.join(folders, tmp_path / "both", None) == 6


def test_what_cannot_be_joined_is_refused(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(ValueError, match="has no metadata"):
        module.join([tmp_path / "a"], tmp_path / "out", None)
    red = make(tmp_path / "red", "red")
    before = (red / "metadata.jsonl").read_bytes()
    for out in (red, tmp_path):
        with pytest.raises(ValueError, match="give another folder"):
            module.join([red], out, None)
    assert (red / "metadata.jsonl").read_bytes() == before
    with pytest.raises(ValueError, match="give folders of different names"):
        module.join([tmp_path / "a", tmp_path / "b" / "a"], tmp_path / "out", None)


def test_nothing_that_somebody_made_is_replaced(tmp_path):
    red = make(tmp_path / "red", "red")
    mine = make(tmp_path / "mine", "blue")
    before = (mine / "metadata.jsonl").read_bytes()
    with pytest.raises(ValueError, match=r"whose '0.png' is no link that this made; give a new folder"):
        module.join([red], mine, None)
    for picture in mine.glob("*.png"):
        picture.unlink()
    with pytest.raises(ValueError, match=r"whose 'metadata.jsonl' is no link"):
        module.join([red], mine, None)
    assert (mine / "metadata.jsonl").read_bytes() == before


@pytest.mark.parametrize("first", [0, -1])
def test_pictures_to_take_are_counted_from_one(tmp_path, first):
    with pytest.raises(ValueError, match=f"`first` is {first}; give at least 1"):
        module.join([make(tmp_path / "red", "red")], tmp_path / "out", first)
    assert not (tmp_path / "out").exists()


def test_a_line_that_cannot_be_read_is_named(tmp_path):
    red = make(tmp_path / "red", "red")
    for line, message in (("{", "line 4, is not JSON"), ("[1]", "line 4, has no `file_name`")):
        rows = (red / "metadata.jsonl").read_text().splitlines()[:3]
        (red / "metadata.jsonl").write_text("\n".join([*rows, line]) + "\n")
        with pytest.raises(ValueError, match=message):
            module.join([red], tmp_path / "out", None)
    assert not (tmp_path / "out").exists()
