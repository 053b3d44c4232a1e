from pathlib import Path

import pytest
from environment import INPUTS, fingerprint, make_environment


def test_the_fingerprint_follows_every_requirement(tmp_path):
    file = tmp_path / "requirements.txt"
    file.write_text("a==1")
    before = fingerprint((file,))
    assert fingerprint((file,)) == before
    file.write_text("a==2")
    assert fingerprint((file,)) != before


def test_an_environment_with_the_right_stamp_is_left_alone(tmp_path):
    (tmp_path / "installed").write_text(fingerprint())
    make_environment(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["installed"]


def test_a_folder_that_is_no_environment_is_not_deleted(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(SystemExit, match="no virtual environment"):
        make_environment(tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def test_every_peer_is_pinned():
    lines = [
        line for file in INPUTS if file.name.startswith("requirements") for line in Path(file).read_text().splitlines()
    ]
    names = [line for line in lines if line and not line.startswith("#")]
    assert "imagen-pytorch==2.1.0" in names
    assert [line for line in names if "==" not in line] == []
