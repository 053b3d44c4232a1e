from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffusers_imagen.evaluation.drawing import claim_folder, draw_suite, drawn_with, missing_prompts, picture_path
from diffusers_imagen.evaluation.suite import read_suite

Sampler = Callable[[list[str], list[int]], list[Image.Image]]


def test_each_prompt_is_drawn_from_its_own_seed(
    write_suite: Callable[..., Path], draw_squares: Sampler, tmp_path: Path
) -> None:
    suite, told = read_suite(write_suite()), []
    assert draw_suite(suite, draw_squares, tmp_path, 5, progress=lambda *state: told.append(state)) == 16
    assert told == [(5, 16), (10, 16), (15, 16), (16, 16)]
    for prompt in suite.prompts:
        pixel = Image.open(picture_path(tmp_path, prompt.id)).getpixel((0, 0))
        assert pixel == (10 * prompt.seed, len(prompt.prompt), 50)


def test_what_is_drawn_already_is_kept(
    write_suite: Callable[..., Path], draw_squares: Sampler, tmp_path: Path
) -> None:
    suite = read_suite(write_suite())

    def break_off(prompts: list[str], seeds: list[int]) -> list[Image.Image]:
        if 3 in seeds:
            raise KeyboardInterrupt
        return draw_squares(prompts, seeds)

    with pytest.raises(KeyboardInterrupt):
        draw_suite(suite, break_off, tmp_path, batch_size=2)
    assert len(missing_prompts(suite, tmp_path)) == 10
    kept = picture_path(tmp_path, "scene-0-en")
    Image.new("RGB", (16, 16), "white").save(kept)
    assert draw_suite(suite, draw_squares, tmp_path) == 10
    assert not missing_prompts(suite, tmp_path)
    assert np.asarray(Image.open(kept)).min() == 255


def test_a_folder_keeps_to_what_its_pictures_were_drawn_with(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "out"
    assert drawn_with(folder) is None
    claim_folder(folder, {"checkpoint": "a", "steps": {"base": 8}})
    claim_folder(folder, {"checkpoint": "a", "steps": {"base": 8}})
    assert drawn_with(folder) == {"checkpoint": "a", "steps": {"base": 8}}
    # Nothing is drawn yet: a mistake in the first command binds nobody.
    claim_folder(folder, {"checkpoint": "a", "steps": {"base": 7}, "weights": "f00"})
    claim_folder(folder, {"checkpoint": "a", "steps": {"base": 8}, "weights": "f00"})
    (folder / "pictures").mkdir()
    Image.new("RGB", (8, 8)).save(folder / "pictures" / "one.png")
    # The same weights by another name.
    claim_folder(folder, {"checkpoint": "b", "steps": {"base": 8}, "weights": "f00"})
    with pytest.raises(ValueError, match="drawn with weights 'f00', not 'ba7'"):
        claim_folder(folder, {"checkpoint": "a", "steps": {"base": 8}, "weights": "ba7"})
    with pytest.raises(ValueError, match=r"drawn with steps \{'base': 8\}, not \{'base': 9\}"):
        claim_folder(folder, {"checkpoint": "a", "steps": {"base": 9}, "weights": "f00"})
    with pytest.raises(ValueError, match="drawn with steps"):
        claim_folder(folder, {"checkpoint": "a", "weights": "f00"})
    (folder / "drawn_with.json").write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match=r"drawn_with\.json cannot be read"):
        drawn_with(folder)


def test_pictures_of_unknown_making_are_refused(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    with pytest.raises(ValueError, match=r"with 'pictures' but no drawn_with\.json; choose another folder"):
        claim_folder(tmp_path, {})


def test_a_sampler_that_loses_pictures_is_refused(write_suite: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="returned 0 pictures for 16 prompts"):
        draw_suite(read_suite(write_suite()), lambda prompts, seeds: [], tmp_path)
