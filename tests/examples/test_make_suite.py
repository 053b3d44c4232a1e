import argparse
import json
from collections.abc import Callable
from pathlib import Path

import make_suite as example
import pytest
from describe import read_descriptions
from nouns import NOUN_BY_NAME
from PIL import Image
from scenes import SceneSampler
from suite_scenes import CATEGORIES
from train_scene_judge import new_judge

from diffusers_imagen.evaluation.suite import read_suite


@pytest.fixture
def arguments(art_folder: Path, tmp_path: Path) -> Callable[..., argparse.Namespace]:
    """Give a function that makes the arguments of a tiny suite, for an untrained judge."""
    new_judge({"shapes": 1.0}).save_pretrained(tmp_path / "judge")

    def make(**changes: object) -> argparse.Namespace:
        given = {
            "art": art_folder,
            "judge": tmp_path / "judge",
            "out": tmp_path / "suite",
            "size": 64,
            "scenes": 2,
            "seed": example.SUITE_SEED,
            "styles": ["shapes"],
            "categories": ["single", "position", "wearing"],
            "training_data": None,
            "encoder": None,
        }
        return argparse.Namespace(**given | changes)

    return make


def test_the_suite_can_be_read_and_has_what_was_asked_for(
    arguments: Callable[..., argparse.Namespace], capsys: pytest.CaptureFixture[str]
) -> None:
    example.make_suite(arguments())
    suite = read_suite(arguments().out)
    assert suite.categories == ["single", "position", "wearing", "description", "free text"]
    assert {Image.open(p.reference).size for p in suite.prompts if p.reference} == {(64, 64)}
    assert [sum(p.category == name for p in suite.prompts) for name in suite.categories] == [4, 4, 4, 4, 2 * 60]
    held_out = {p.scene for p in suite.prompts if p.held_out}
    assert "position-relation-0001" in held_out
    assert {p.held_out for p in suite.prompts if p.category in ("single", "description", "free text")} == {None}
    # "A hat" may be one that training has; the held-out scene is then none for the prompt.
    worn = next(p for p in suite.prompts if p.scene == "wearing-wear-0001").claims.things[0].worn
    assert ("wearing-wear-0001" in held_out) == all(len(word) == 1 for word in worn)
    for english, chinese in zip(suite.prompts[::2], suite.prompts[1::2], strict=True):
        assert (english.language, chinese.language) == ("en", "zh")
        assert (english.scene, english.seed, english.claims) == (chinese.scene, chinese.seed, chinese.claims)
    assert len({p.seed for p in suite.prompts}) == len({p.scene for p in suite.prompts})
    assert "judge on real pictures, single:" in capsys.readouterr().out


def test_held_out_is_what_no_caption_of_the_training_data_says(art_folder: Path) -> None:
    sampler = SceneSampler(art_folder, CATEGORIES[6].settings(["shapes"]))
    scenes = [sampler.sample(0, number, "held_out") for number in range(60)]
    claims = [example.claims_of(scene, CATEGORIES[6]) for scene in scenes]
    found = [example.is_held_out(*pair, ()) for pair in zip(scenes, claims, strict=True)]
    assert 0 < sum(found) < 60
    assert not any(held_out for held_out, scene in zip(found, scenes, strict=True) if "a hat" in scene.text[0])
    first = found.index(True)
    assert not example.is_held_out(scenes[first], claims[first], {scenes[first].text[1]})
    seen = sampler.sample(0, 0, "train")
    assert not example.is_held_out(seen, example.claims_of(seen, CATEGORIES[6]), ())


def test_another_seed_makes_other_scenes(arguments: Callable[..., argparse.Namespace]) -> None:
    example.make_suite(arguments(categories=["position"]))
    example.make_suite(arguments(categories=["position"], out=arguments().out / "dev", seed=5_000_000))
    suites = [read_suite(path) for path in (arguments().out, arguments().out / "dev")]
    (first, *_), (other, *_) = ([prompt for prompt in suite.prompts if prompt.reference] for suite in suites)
    assert (first.prompt, first.seed) != (other.prompt, other.seed)
    # The free texts, and the last description of each noun, are asked for by one suite only.
    assert "free text" not in suites[1].categories
    described = read_descriptions()
    for suite, which in zip(suites, (-1, -2), strict=True):
        asked = [prompt for prompt in suite.prompts if prompt.category == "description"]
        assert len(asked) == 4
        for english, chinese in zip(asked[::2], asked[1::2], strict=True):
            choice = described[english.claims.things[0].names[0]][which]
            assert (english.prompt, chinese.prompt) == (choice.english, choice.chinese)
    for wrong, message in (
        ({"scenes": 0}, "`scenes` is 0; give at least 1"),
        ({"scenes": 1, "categories": ["background"]}, "`scenes` is 1; give at least 2"),
        ({"judge": Path("none")}, "`judge` is none"),
    ):
        with pytest.raises(ValueError, match=message):
            example.make_suite(arguments(out=arguments().out / "wrong", **wrong))


def test_a_suite_is_not_overwritten(arguments: Callable[..., argparse.Namespace]) -> None:
    arguments().out.mkdir()
    with pytest.raises(ValueError, match="which exists"):
        example.make_suite(arguments())
    with pytest.raises(ValueError, match="`training_data` and `encoder`"):
        example.make_suite(arguments(out=arguments().out / "new", encoder=Path("encoder")))


def test_prompts_differ_while_there_are_other_ones(art_folder: Path) -> None:
    category = next(category for category in CATEGORIES if category.name == "position")
    sampler = SceneSampler(art_folder, category.settings(["shapes"]))
    scenes = list(example.choose_scenes(category, sampler, 20, seed=1))
    assert len({(scene.facts.relation, *(thing.name for thing in scene.facts.things)) for scene in scenes}) == 20


def test_free_texts_name_known_nouns_that_they_do_not_say() -> None:
    lines = [json.loads(line) for line in example.FREE_TEXTS.read_text(encoding="utf-8").splitlines()]
    assert len({tuple(line["text"]) for line in lines}) == len(lines) == 60
    for line in lines:
        english, chinese = line["text"]
        for name in line["nouns"]:
            assert name not in english.lower().split()
            assert NOUN_BY_NAME[name].chinese not in chinese
