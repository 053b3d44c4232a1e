from pathlib import Path

import pytest
from art import ArtLibrary


def test_flags_are_left_out(art_folder: Path) -> None:
    art = ArtLibrary(art_folder, ["shapes"])
    assert art.has("shapes", "1f431")
    assert not art.has("shapes", "1f3f3")
    assert len(art.code_points("shapes")) == 10


def test_pictures_are_tightly_cropped(art_folder: Path) -> None:
    art = ArtLibrary(art_folder, ["shapes"])
    assert art.image("shapes", "1f452").size == (60, 30)
    assert art.image("shapes", "1f452").mode == "RGBA"
    assert art.record("shapes", "1f452").name_en == "straw hat emoji"


def test_a_style_without_a_file_is_refused(art_folder: Path) -> None:
    with pytest.raises(ValueError, match="`styles` names 'woodcut'"):
        ArtLibrary(art_folder, ["woodcut"])
