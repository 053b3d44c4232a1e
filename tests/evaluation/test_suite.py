from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from diffusers_imagen.evaluation.suite import read_suite

Line = Callable[..., dict[str, Any]]


def test_a_suite_is_read_whole(write_suite: Callable[..., Path]) -> None:
    folder = write_suite()
    (folder / "baselines" / "retrieval").mkdir(parents=True)
    suite = read_suite(folder)
    assert suite.name == "tiny"
    assert suite.categories == ["single", "count"]
    assert len(suite.prompts) == 16
    assert suite.prompts[1].language == "zh"
    assert suite.prompts[1].claims.things[0].names == ("cat",)
    assert suite.prompts[0].reference == folder / "references/scene-0.png"
    assert suite.baselines == {"retrieval": folder / "baselines/retrieval"}
    assert suite.judge.config.sample_size == 16


def test_the_first_scenes_keep_all_their_languages(write_suite: Callable[..., Path]) -> None:
    suite = read_suite(write_suite()).first_scenes(2)
    assert [prompt.id for prompt in suite.prompts if prompt.category == "count"] == [
        "scene-1-en", "scene-1-zh", "scene-3-en", "scene-3-zh"
    ]  # fmt: skip
    with pytest.raises(ValueError, match="`per_category` is 0"):
        suite.first_scenes(0)


def test_the_digest_changes_with_what_is_drawn(write_suite: Callable[..., Path]) -> None:
    suite = read_suite(write_suite())
    assert suite.digest == read_suite(suite.prompts[0].reference.parent.parent).digest
    assert suite.digest != suite.first_scenes(1).digest


def test_the_identity_changes_with_claims_judge_and_real_pictures(write_suite: Callable[..., Path]) -> None:
    folder = write_suite()
    known = {read_suite(folder).identity}
    assert read_suite(folder).first_scenes(1).identity in known
    for path in ("prompts.jsonl", "judge/config.json", "references/*.png"):
        changed = next(folder.glob(path))
        content = changed.read_bytes()
        changed.write_bytes(content + b"\n")
        known.add(read_suite(folder).identity)
        changed.write_bytes(content)
    assert len(known) == 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompt": ""}, "line 1: `prompt` is ''"),
        ({"seed": -1}, "`seed` is -1"),
        ({"seed": True}, "`seed` is True"),
        ({"id": "../escape"}, "`id` is '../escape'"),
        ({"colour": 1}, r"the line has \['colour'\]; give an object with fields of"),
        ({"held_out": "no"}, "`held_out` is 'no'"),
        ({"claims": {"things": [{"names": ["cat"]}], "concept_only": "no"}}, "`concept_only` 'no'"),
        ({"reference": "references/none.png"}, "`reference` is 'references/none.png'"),
        ({"reference": "../outside.png"}, "within the suite's folder"),
        ({"claims": {"things": [{"names": ["unicorn"]}]}}, "line 1: the claims name"),
    ],
)
def test_a_malformed_line_is_named(
    write_suite: Callable[..., Path], line: Line, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    (tmp_path / "outside.png").touch()
    with pytest.raises(ValueError, match=message):
        read_suite(write_suite([line(0, "en", **changes)]))


def test_two_prompts_with_one_id_are_refused(write_suite: Callable[..., Path], line: Line) -> None:
    with pytest.raises(ValueError, match="2 prompts with the id 'scene-0-en'"):
        read_suite(write_suite([line(0, "en"), line(0, "en")]))


def test_what_is_missing_is_named(write_suite: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"has no suite\.json"):
        read_suite(tmp_path)
    folder = write_suite()
    (folder / "judge" / "config.json").unlink()
    with pytest.raises(ValueError, match="holds no judge"):
        read_suite(folder)
    (folder / "suite.json").write_text('{"format": 9}')
    with pytest.raises(ValueError, match="another format"):
        read_suite(folder)
    (folder / "suite.json").write_text("{")
    with pytest.raises(ValueError, match="is no JSON"):
        read_suite(folder)


def test_an_empty_suite_is_refused(write_suite: Callable[..., Path]) -> None:
    with pytest.raises(ValueError, match="is empty"):
        read_suite(write_suite([]))
