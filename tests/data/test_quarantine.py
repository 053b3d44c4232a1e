import json
from pathlib import Path

import pytest

from diffusers_imagen.data.quarantine import Quarantine

WHOLE = '{"file_name": "a.png", "reason": "empty"}'


@pytest.mark.parametrize("cut", [b'{"file_name": "b.png", "rea', '{"file_name": "球'.encode()[:-1], b'"b.png"', b"3"])
def test_line_that_a_crash_cut_is_passed_over_and_the_next_begins_a_new_one(tmp_path: Path, cut: bytes) -> None:
    path = tmp_path / "quarantine.jsonl"
    path.write_bytes(WHOLE.encode() + b"\n" + cut)
    for _ in range(2):
        quarantine = Quarantine(path)
        for index, name in enumerate(("a.png", "b.png", "c.png")):
            quarantine.add(index, name, "empty", 100)

    lines = path.read_bytes().split(b"\n")
    assert lines[:2] == [WHOLE.encode(), cut]
    assert [json.loads(line)["file_name"] for line in lines[2:-1]] == ["b.png", "c.png"]
    assert lines[-1] == b""


def test_whole_last_line_without_its_end_counts(tmp_path: Path) -> None:
    path = tmp_path / "quarantine.jsonl"
    path.write_text(WHOLE)
    quarantine = Quarantine(path)
    quarantine.add(0, "a.png", "empty", 100)
    quarantine.add(1, "b.png", "empty", 100)

    assert [json.loads(line)["file_name"] for line in path.read_text().splitlines()] == ["a.png", "b.png"]
