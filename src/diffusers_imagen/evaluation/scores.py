# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Scores of a suite: hits by category beside ceiling, chance and baselines, and comparisons with intervals.

The prompts of a scene share its seed, so intervals take scenes as what is independent, not pictures.
Counts verdicts; how a verdict comes about is `claims.py`'s, how scores are written down `report.py`'s.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from diffusers_imagen.evaluation.claims import Verdict, give_verdict
from diffusers_imagen.evaluation.intervals import (
    Estimate,
    Rate,
    clustered_rate,
    independent_difference,
    paired_difference,
    ratio,
    wilson_rate,
)
from diffusers_imagen.evaluation.seen_scene import SeenScene
from diffusers_imagen.evaluation.suite import SuitePrompt

ALL = "all"
# Deals of the prompts to other scenes' pictures that chance is averaged over.
_MOST_DEALS = 20


@dataclass(frozen=True)
class CategoryScore:
    """Hold the scores of one category, or of `ALL` that have a real picture to compare with.

    Attributes:
        category: Its name.
        drawn: Pictures that show all that is claimed, and nothing else.
        nouns: Pictures that show at least all the nouns.
        chance: Hits expected where prompts are dealt to the pictures of other scenes of the category.
        ceiling: Real pictures that the judge finds to show all that is claimed, one for each scene; None without any.
        share: `drawn`, of scenes with a real picture, by `ceiling`; None without a ceiling.
        baselines: Hits of each baseline's pictures.
        splits: Hits on seen and on held-out combinations, of the categories that have both: others are no match.
        languages: Hits by language.
    """

    category: str
    drawn: Rate
    nouns: Rate
    chance: float
    ceiling: Rate | None
    share: Estimate | None
    baselines: Mapping[str, Rate]
    splits: Mapping[str, Rate]
    languages: Mapping[str, Rate]


@dataclass(frozen=True)
class Comparison:
    """Hold the difference of two rates, first less second, and whether they are the same units in two conditions."""

    name: str
    category: str
    difference: Estimate
    paired: bool


@dataclass(frozen=True)
class Judged:
    """Hold a suite's prompts with what was seen in each picture, of the model and of others.

    Attributes:
        prompts: The prompts.
        drawn: What was seen in the model's pictures, in the order of the prompts.
        others: The same for the pictures of baselines, by name.
        references: What was seen in the real pictures, by scene.
    """

    prompts: Sequence[SuitePrompt]
    drawn: Sequence[SeenScene]
    others: Mapping[str, Sequence[SeenScene]]
    references: Mapping[str, SeenScene]

    def verdicts(self, name: str | None = None) -> list[Verdict]:
        """Judge the model's pictures, or those of the baseline with a name."""
        seen = self.drawn if name is None else self.others[name]
        return [give_verdict(prompt.claims, scene) for prompt, scene in zip(self.prompts, seen, strict=True)]

    def of(self, category: str) -> "Judged":
        """Return the part of one category; for `ALL`, of all prompts with a real picture."""
        if category == ALL:
            places = [i for i, prompt in enumerate(self.prompts) if prompt.scene in self.references]
        else:
            places = [i for i, prompt in enumerate(self.prompts) if prompt.category == category]
        others = {name: [seen[i] for i in places] for name, seen in self.others.items()}
        return Judged([self.prompts[i] for i in places], [self.drawn[i] for i in places], others, self.references)


def score_suite(judged: Judged) -> list[CategoryScore]:
    """Score each category in the order of the prompts, then all of them together."""
    categories = list(dict.fromkeys(prompt.category for prompt in judged.prompts))
    scores = [_score_category(category, judged.of(category)) for category in categories]
    together = judged.of(ALL)
    return [*scores, _score_category(ALL, together)] if len(categories) > 1 and together.prompts else scores


def rate_of(prompts: Sequence[SuitePrompt], verdicts: Sequence[Verdict]) -> Rate:
    """Return the rate of hits of some prompts."""
    return clustered_rate([verdict.hit for verdict in verdicts], [prompt.scene for prompt in prompts])


def _rate_where(part: Judged, verdicts: Sequence[Verdict], chosen: Sequence[bool]) -> Rate:
    pairs = [pair for pair, wanted in zip(zip(part.prompts, verdicts, strict=True), chosen, strict=True) if wanted]
    return rate_of([prompt for prompt, _ in pairs], [verdict for _, verdict in pairs])


def _score_category(category: str, part: Judged) -> CategoryScore:
    prompts, verdicts = part.prompts, part.verdicts()
    splits = {(prompt.category, prompt.held_out) for prompt in prompts}
    has_both = {category for category, held_out in splits if held_out and (category, False) in splits}
    ceiling, share = _ceiling(part, verdicts)
    return CategoryScore(
        category=category,
        drawn=rate_of(prompts, verdicts),
        nouns=clustered_rate([verdict.nouns for verdict in verdicts], [prompt.scene for prompt in prompts]),
        chance=chance_rate(part),
        ceiling=ceiling,
        share=share,
        baselines={name: rate_of(prompts, part.verdicts(name)) for name in part.others},
        splits={
            "seen": _rate_where(part, verdicts, [p.category in has_both and p.held_out is False for p in prompts]),
            "held-out": _rate_where(part, verdicts, [p.category in has_both and p.held_out is True for p in prompts]),
        },
        languages={
            language: _rate_where(part, verdicts, [p.language == language for p in prompts])
            for language in dict.fromkeys(prompt.language for prompt in prompts)
        },
    )


def _ceiling(part: Judged, verdicts: Sequence[Verdict]) -> tuple[Rate | None, Estimate | None]:
    claims = {prompt.scene: prompt.claims for prompt in part.prompts if prompt.scene in part.references}
    if not claims:
        return None, None
    real = [give_verdict(claim, part.references[scene]).hit for scene, claim in claims.items()]
    ceiling = wilson_rate(sum(real), len(real))
    return ceiling, ratio(_rate_where(part, verdicts, [p.scene in claims for p in part.prompts]), ceiling)


def chance_rate(part: Judged) -> float:
    """Return the rate of hits where each prompt gets the picture of another scene; NaN if there is but one scene."""
    count = len(part.prompts)
    deals = [step * max(1, count // _MOST_DEALS) for step in range(1, min(count, _MOST_DEALS + 1))]
    dealt = [(i, (i + deal) % count) for deal in deals for i in range(count)]
    others = [(i, j) for i, j in dealt if part.prompts[i].scene != part.prompts[j].scene]
    hits = [give_verdict(part.prompts[i].claims, part.drawn[j]).hit for i, j in others]
    return sum(hits) / len(hits) if hits else float("nan")


def compare(judged: Judged, scores: Sequence[CategoryScore]) -> list[Comparison]:
    """Compare languages (paired by scene), held-out with seen combinations, and the model with the others (paired).

    Comparisons for which a category has no units are left out.
    """
    found = []
    for score in scores:
        part = judged.of(score.category)
        verdicts = part.verdicts()
        found += _compare_languages(score.category, part.prompts, verdicts)
        if all(rate.trials for rate in score.splits.values()):
            difference = independent_difference(score.splits["held-out"], score.splits["seen"])
            found.append(Comparison("held-out less seen", score.category, difference, paired=False))
        for name in part.others:
            scenes = [prompt.scene for prompt in part.prompts]
            difference = paired_difference([v.hit for v in verdicts], [v.hit for v in part.verdicts(name)], scenes)
            found.append(Comparison(f"model less {name}", score.category, difference, paired=True))
    return found


def _compare_languages(category: str, prompts: Sequence[SuitePrompt], verdicts: Sequence[Verdict]) -> list[Comparison]:
    by_language: dict[str, dict[tuple[str, int], bool]] = {}
    for prompt, verdict in zip(prompts, verdicts, strict=True):
        known = by_language.setdefault(prompt.language, {})
        # Where a scene has several prompts of a language, the first of each belong together, and so on.
        number = sum(scene == prompt.scene for scene, _ in known)
        known[prompt.scene, number] = verdict.hit
    first, *rest = by_language
    comparisons = []
    for language in rest:
        pairs = [pair for pair in by_language[first] if pair in by_language[language]]
        if pairs:
            hits, hits_of_first = ([by_language[name][pair] for pair in pairs] for name in (language, first))
            difference = paired_difference(hits, hits_of_first, [scene for scene, _ in pairs])
            comparisons.append(Comparison(f"{language} less {first}", category, difference, paired=True))
    return comparisons
