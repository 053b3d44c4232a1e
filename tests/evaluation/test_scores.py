import math

import pytest

from diffusers_imagen.evaluation.claims import ClaimedThing, Claims
from diffusers_imagen.evaluation.scores import Judged, chance_rate, compare, score_suite
from diffusers_imagen.evaluation.seen_scene import SeenScene, SeenThing
from diffusers_imagen.evaluation.suite import SuitePrompt

NOUNS = ("cat", "dog", "star", "key")


def seen(name: str) -> SeenScene:
    return SeenScene((SeenThing(name, "red", (), False, (0.5, 0.5, 0.5, 0.5), 0.9),), "white", "flat")


def make_judged(drawn: list[str], real: list[str] | None = None, other: list[str] | None = None) -> Judged:
    """Ask for the four nouns in turn, each in both languages; the last two scenes are held out."""
    prompts = [
        SuitePrompt(f"{i}-{language}", str(i), "single", language, noun, i, i > 1, Claims((ClaimedThing((noun,)),)))
        for i, noun in enumerate(NOUNS)
        for language in ("en", "zh")
    ]
    references = {} if real is None else {str(i): seen(name) for i, name in enumerate(real)}
    others = {} if other is None else {"paste": [seen(name) for name in other]}
    return Judged(prompts, [seen(name) for name in drawn], others, references)


# English: cat, dog and star right; Chinese: cat right.
DRAWN = ["cat", "cat", "dog", "cat", "star", "cat", "cat", "cat"]


def test_hits_are_counted_by_split_and_language() -> None:
    (score,) = score_suite(make_judged(DRAWN))
    assert (score.drawn.hits, score.drawn.trials) == (4, 8)
    assert {name: (rate.hits, rate.trials) for name, rate in score.languages.items()} == {"en": (3, 4), "zh": (1, 4)}
    assert {name: (rate.hits, rate.trials) for name, rate in score.splits.items()} == {
        "seen": (3, 4), "held-out": (1, 4)
    }  # fmt: skip
    assert score.ceiling is None
    assert score.share is None


def test_the_share_of_the_ceiling_is_per_scene() -> None:
    (score, _) = (*score_suite(make_judged(DRAWN, real=["cat", "dog", "star", "dog"])), None)[:2]
    assert (score.ceiling.hits, score.ceiling.trials) == (3, 4)
    # Scenes are hit in 1, 1/2, 1/2 and none of their two languages: 2 of 3 that the judge can see.
    assert score.share.value == pytest.approx(2 / 3)
    assert score.share.low <= score.share.value <= score.share.high


def test_a_judge_that_sees_nothing_right_has_no_share() -> None:
    score = score_suite(make_judged(DRAWN, real=["dog", "cat", "cat", "cat"]))[0]
    assert score.ceiling.hits == 0
    assert math.isnan(score.share.value)


def test_chance_is_that_of_other_scenes_pictures() -> None:
    # Each picture shows a noun of its own: no other scene's picture is ever right.
    assert chance_rate(make_judged([noun for noun in NOUNS for _ in range(2)])) == 0
    # Everything is a cat: of the prompts dealt other scenes' pictures, a quarter asks for one.
    assert chance_rate(make_judged(["cat"] * 8)) == pytest.approx(0.25)


def test_languages_and_baselines_are_compared_in_pairs() -> None:
    judged = make_judged(DRAWN, other=["cat"] * 8)
    found = {comparison.name: comparison for comparison in compare(judged, score_suite(judged))}
    assert found["zh less en"].difference.value == pytest.approx(-0.5)
    assert found["zh less en"].difference.trials == 4
    assert found["held-out less seen"].difference.value == pytest.approx(-0.5)
    assert not found["held-out less seen"].paired
    assert found["model less paste"].difference.value == pytest.approx(0.25)
    assert found["model less paste"].difference.trials == 8


def test_several_prompts_of_a_language_are_paired_in_turn() -> None:
    judged = make_judged(DRAWN)
    prompts = [SuitePrompt(**{**vars(prompt), "scene": "0"}) for prompt in judged.prompts]
    judged = Judged(prompts, judged.drawn, {}, {})
    found = {comparison.name: comparison.difference for comparison in compare(judged, score_suite(judged))}
    assert (found["zh less en"].value, found["zh less en"].trials) == (-0.5, 4)


def test_scenes_without_a_held_out_counterpart_are_no_seen_ones() -> None:
    judged = make_judged(DRAWN)
    prompts = [SuitePrompt(**{**vars(p), "held_out": p.held_out or None}) for p in judged.prompts]
    (score,) = score_suite(Judged(prompts, judged.drawn, {}, {}))
    assert all(rate.trials == 0 for rate in score.splits.values())


def test_all_categories_are_scored_together() -> None:
    judged = make_judged(DRAWN, real=list(NOUNS))
    prompts = [SuitePrompt(**{**vars(p), "category": "first" if p.scene < "2" else "second"}) for p in judged.prompts]
    scores = score_suite(Judged(prompts, judged.drawn, {}, judged.references))
    assert [(score.category, score.drawn.hits) for score in scores] == [("first", 3), ("second", 1), ("all", 4)]
    # Neither category has both seen and held-out combinations, so nothing compares the two.
    assert all(rate.trials == 0 for score in scores for rate in score.splits.values())
