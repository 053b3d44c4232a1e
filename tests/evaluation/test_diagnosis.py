"""Cascades that are wrong at a known stage, and what is found out about them."""

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from diffusers_imagen.evaluation.diagnosis import Diagnosis, PlainFeatures, diagnose

SIDES = {"base": 8, "sr_1": 16, "sr_2": 32}
Pictures = Sequence[Image.Image]


def scenes(count: int, seed: int) -> list[Image.Image]:
    """Draw bright squares anywhere on dark grounds, of 32 pixels."""
    rng = np.random.default_rng(seed)
    pictures = []
    for _ in range(count):
        pixels = np.full((32, 32, 3), rng.integers(0, 60, 3), dtype=np.uint8)
        top, left = rng.integers(0, 20, 2)
        pixels[top : top + 12, left : left + 12] = rng.integers(120, 256, 3)
        pictures.append(Image.fromarray(pixels))
    return pictures


class Cascade:
    """Draw pictures that are perfect but for one stage, since it knows them: a negative base, or blurred enlargements."""

    def __init__(self, truth: Pictures, wrong: str | None) -> None:
        self._truth, self._wrong = truth, wrong
        self.started: list[tuple[str, tuple[int, int] | None]] = []

    def __call__(self, start: str, smaller: Pictures | None) -> Mapping[str, Pictures]:
        self.started.append((start, smaller[0].size if smaller else None))
        names = list(SIDES)
        drawn: dict[str, Pictures] = {}
        for name in names[names.index(start) :]:
            right = [picture.resize((SIDES[name],) * 2, Image.Resampling.BICUBIC) for picture in self._truth]
            spoiled_before = any(names.index(self._wrong) <= names.index(s) for s in drawn) if self._wrong else False
            if name == self._wrong and name == "base":
                right = [picture.point(lambda value: 255 - value) for picture in right]
            elif name == self._wrong:
                right = [picture.filter(ImageFilter.GaussianBlur(SIDES[name] / 8)) for picture in right]
            elif spoiled_before:
                right = [picture.resize((SIDES[name],) * 2) for picture in list(drawn.values())[-1]]
            drawn[name] = right
        return drawn


def find(wrong: str | None, count: int = 24) -> Diagnosis:
    pictures = scenes(count, seed=1)
    found, _ = diagnose(SIDES, pictures, scenes(count, seed=2), Cascade(pictures, wrong), PlainFeatures())
    return found


@pytest.mark.parametrize("wrong", ["base", "sr_1", "sr_2"])
def test_the_wrong_stage_is_named(wrong: str) -> None:
    found = find(wrong)
    assert found.verdict.startswith(f"The weak stage is {wrong}: it costs")
    costs = {finding.stage: finding.cost for finding in found.stages}
    assert max(costs, key=costs.__getitem__) == wrong


def test_perfect_cascade_has_no_weak_stage() -> None:
    found = find(None)
    assert found.verdict.startswith("No stage is weak as far as 24 pictures tell")
    assert all(finding.cost == pytest.approx(0, abs=1e-9) for finding in found.stages[2:])


def test_costs_add_up_to_the_distance_of_the_whole_cascade() -> None:
    found = find("sr_1")
    assert sum(finding.cost for finding in found.stages) == pytest.approx(found.stages[-1].fed_drawn - found.floor)


def test_a_stage_fed_with_real_pictures_is_not_blamed_for_the_one_before() -> None:
    found = find("base")
    first = found.stages[1]
    assert first.fed_real is not None
    assert first.fed_real < 0.2 * first.fed_drawn
    assert found.stages[0].fed_real is None


def test_every_stage_is_started_from_pictures_of_the_size_before() -> None:
    pictures = scenes(4, seed=1)
    cascade = Cascade(pictures, None)
    _, drawn = diagnose(SIDES, pictures, scenes(4, seed=2), cascade, PlainFeatures())
    assert cascade.started == [("base", None), ("sr_1", (8, 8)), ("sr_2", (16, 16))]
    assert {start: list(stages) for start, stages in drawn.items()} == {
        "base": ["base", "sr_1", "sr_2"],
        "sr_1": ["sr_1", "sr_2"],
        "sr_2": ["sr_2"],
    }


def test_too_few_pictures_are_refused() -> None:
    pictures = scenes(3, seed=1)
    with pytest.raises(ValueError, match="are 3 and 3; give at least 4 of each"):
        diagnose(SIDES, pictures, pictures, Cascade(pictures, None), PlainFeatures())


def test_plain_features_see_blur_and_colour() -> None:
    sharp = scenes(1, seed=0)[0]
    extractor = PlainFeatures()

    def features(picture: Image.Image) -> torch.Tensor:
        return extractor(torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1)[None])[0]

    blurred, negative = sharp.filter(ImageFilter.GaussianBlur(2)), sharp.point(lambda value: 255 - value)
    colours = 3 * 8 * 8
    assert (features(sharp) - features(negative))[:colours].abs().mean() > 0.5
    assert (features(sharp) - features(blurred))[colours:].mean() > 0.2
