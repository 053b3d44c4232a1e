from pathlib import Path

import numpy as np
import yaml
from character import sample_moffle
from make_character import captions_for, write_pictures
from nouns import NOUNS
from score_character import character_prompts, other_prompts

from diffusers_imagen.data.folder import ImageFolder
from diffusers_imagen.training.config_file import load_config

CONFIG = Path(__file__).resolve().parents[2] / "examples" / "emoji" / "character.yaml"


def test_moffle_is_settled_by_its_seed_and_stands_on_the_named_background() -> None:
    pictures = [np.asarray(sample_moffle(f"a/{number}", 32)[0]) for number in range(6)]
    again, background = sample_moffle("a/3", 32)

    assert np.array_equal(pictures[3], np.asarray(again))
    assert all(not np.array_equal(pictures[0], other) for other in pictures[1:])
    corner = np.asarray(again)[0, 0]
    assert (corner.min() == 255) == (background == "white")
    teal = (pictures[0][..., 1].astype(int) - pictures[0][..., 0] > 60).mean()
    assert 0.1 < teal < 0.6


def test_written_pictures_are_read_with_captions_in_both_languages(tmp_path: Path) -> None:
    write_pictures(tmp_path, 4, 32, "train")
    source = ImageFolder.open(tmp_path, 32)

    assert len(source) == 4
    assert all(len(source[i].captions) == 2 and "moffle" in source[i].captions[0] for i in range(4))
    assert captions_for("white") == ["a moffle", "一只莫弗怪"]
    assert captions_for("orange")[0] == "a moffle on an orange background"


def test_what_is_scored_is_no_prompt_that_was_kept_by_pictures() -> None:
    config = load_config(CONFIG)
    assert config.prior is not None
    others = other_prompts(config.prior.prompts)

    assert yaml.safe_load(CONFIG.read_text(encoding="utf-8"))["prior"]["prompts"] == list(config.prior.prompts)
    assert len(others) == len(NOUNS)
    assert not {prompt for prompt, _ in others} & set(config.prior.prompts)
    prompts = character_prompts(100)
    assert len(prompts) == 100
    assert prompts[:2] == ["a moffle", "一只莫弗怪"]
    assert len(set(prompts)) == 10
