"""The judge's labels and the suite's claims agree with the scenes' facts."""

from pathlib import Path

import pytest
import torch
from compose import COLORS
from scene_labels import BACKGROUND_NAMES, NONE, NOUN_NAMES, WORN_NAMES, SceneLabels, label_scenes
from scenes import Scene, SceneSampler
from suite_scenes import CATEGORIES, Category, claims_of
from train_scene_judge import SIZE, calibrate, disturb, judge_loss, new_judge

from diffusers_imagen.evaluation.claims import Claims, give_verdict, parse_claims
from diffusers_imagen.evaluation.scene_judge import STRIDE, JudgeOutput, SceneJudge
from diffusers_imagen.evaluation.seen_scene import SeenScene, read_output

STYLES = ("shapes",)
CELLS = SIZE // STRIDE


@pytest.fixture(scope="module")
def judge() -> SceneJudge:
    return new_judge(dict.fromkeys(STYLES, 1.0)).eval()


def scenes_of(art_folder: Path, category: Category, count: int = 20) -> list[Scene]:
    sampler = SceneSampler(art_folder, category.settings(STYLES))
    return [sampler.sample(seed=7, number=number, split="any") for number in range(count)]


def perfect_output(labels: SceneLabels) -> JudgeOutput:
    """Say exactly what the labels say."""
    count = len(labels.noun)

    def sure(*shape: int) -> torch.Tensor:
        return torch.full((count, *shape), -20.0)

    output = JudgeOutput(
        presence=sure(CELLS, CELLS),
        box=sure(CELLS, CELLS, 4),
        noun=sure(CELLS, CELLS, len(NOUN_NAMES)),
        color=sure(CELLS, CELLS, len(COLORS)),
        worn=sure(CELLS, CELLS, len(WORN_NAMES)),
        held=sure(CELLS, CELLS),
        background=sure(len(BACKGROUND_NAMES)),
        style=sure(len(STYLES)),
        features=torch.zeros(count, 1),
    )
    for i in range(count):
        output.background[i, labels.background[i]] = 20
        output.style[i, labels.style[i]] = 20
        for k in (labels.noun[i] != NONE).nonzero().flatten().tolist():
            x, y, width, height = (labels.box[i, k] * torch.tensor([CELLS, CELLS, 1, 1])).tolist()
            cell = (i, int(y), int(x))
            output.presence[cell] = 20
            output.box[cell] = torch.tensor([x % 1, y % 1, width, height]).logit(eps=1e-6)
            output.noun[(*cell, int(labels.noun[i, k]))] = 20
            output.color[(*cell, int(labels.color[i, k]))] = 20
            output.worn[cell] = 40 * labels.worn[i, k] - 20
            output.held[cell] = 40 * labels.held[i, k] - 20
    return output


def see_perfectly(judge: SceneJudge, scenes: list[Scene]) -> list[SeenScene]:
    return read_output(judge, perfect_output(label_scenes(scenes, STYLES)))


def read_claims(judge: SceneJudge, scene: Scene, category: Category) -> Claims:
    known = {kind: tuple(judge.config[kind]) for kind in ("nouns", "colors", "worn", "backgrounds", "styles")}
    return parse_claims(claims_of(scene, category), known)


@pytest.mark.parametrize("category", CATEGORIES, ids=lambda category: f"{category.name} {category.kind}")
def test_a_judge_that_says_its_labels_finds_every_claim_true(
    art_folder: Path, judge: SceneJudge, category: Category
) -> None:
    scenes = scenes_of(art_folder, category)
    claims = [read_claims(judge, scene, category) for scene in scenes]
    seen = see_perfectly(judge, scenes)
    assert all(give_verdict(claim, scene).hit for claim, scene in zip(claims, seen, strict=True))
    crossed = [give_verdict(claims[i], seen[(i + 1) % len(seen)]).hit for i in range(len(seen))]
    assert sum(crossed) < len(crossed) / 2


def test_labels_are_the_facts_in_numbers(art_folder: Path) -> None:
    categories = {category.name: category for category in CATEGORIES}
    (scene,) = scenes_of(art_folder, categories["holding"], count=1)
    labels = label_scenes([scene], STYLES)
    head, held = scene.facts.things
    assert labels.noun[0].tolist() == [NOUN_NAMES.index(head.name), NOUN_NAMES.index(held.name), *[NONE] * 4]
    assert labels.held[0].tolist() == [0, 1, 0, 0, 0, 0]
    left, top, right, bottom = (edge / scene.image.width for edge in held.box)
    assert labels.box[0, 1].tolist() == pytest.approx(
        [(left + right) / 2, (top + bottom) / 2, right - left, bottom - top]
    )
    scenes = scenes_of(art_folder, categories["two colors"])
    for scene, colors in zip(scenes, label_scenes(scenes, STYLES).color.tolist(), strict=True):
        assert [COLORS[color] for color in colors[:2]] == [thing.color for thing in scene.facts.things]


def test_the_word_hat_accepts_every_hat_and_a_named_one_itself(art_folder: Path) -> None:
    category = next(category for category in CATEGORIES if category.name == "wearing")
    accepted = {}
    for scene in scenes_of(art_folder, category, count=60):
        (thing,) = scene.facts.things
        for drawn, right in zip(thing.worn, claims_of(scene, category)["things"][0]["worn"], strict=True):
            assert drawn in right
            accepted.setdefault(("a hat" in scene.text[0], drawn), right)
    assert accepted[True, "straw hat"] == ["top hat", "straw hat", "cap"]
    assert accepted[False, "straw hat"] == ["straw hat"]
    assert accepted[False, "pair of sunglasses"] == ["pair of sunglasses"]


def test_boxes_move_with_their_things(art_folder: Path) -> None:
    (scene,) = scenes_of(art_folder, CATEGORIES[0], count=1)
    labels = label_scenes([scene], STYLES)
    x, y = (labels.box[0, 0, :2] * SIZE).long().tolist()
    dot = torch.full((1, 3, SIZE, SIZE), -1.0)
    dot[0, :, y - 1 : y + 2, x - 1 : x + 2] = 1
    for seed in range(5):
        disturbed, moved = disturb(dot, labels, torch.Generator().manual_seed(seed))
        brightest = disturbed[0].sum(0).argmax().item()
        assert abs(brightest % SIZE - moved.box[0, 0, 0] * SIZE) <= 2
        assert abs(brightest // SIZE - moved.box[0, 0, 1] * SIZE) <= 2


def test_the_loss_falls_on_what_is_learned(art_folder: Path) -> None:
    scenes = scenes_of(art_folder, CATEGORIES[0], count=8)
    labels = label_scenes(scenes, STYLES)
    # Only a scene with a color has a loss of colors.
    labels.color[0, 0] = 0
    pictures = torch.rand(8, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)) * 2 - 1
    torch.manual_seed(0)
    judge = new_judge(dict.fromkeys(STYLES, 1.0)).train()
    optimizer = torch.optim.AdamW(judge.parameters(), lr=3e-3)
    losses = []
    for _ in range(6):
        loss = judge_loss(judge, pictures, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


def test_the_threshold_is_that_at_which_most_scenes_have_their_number_of_things(
    art_folder: Path, judge: SceneJudge
) -> None:
    sampler = SceneSampler(art_folder, CATEGORIES[0].settings(STYLES))
    # An untrained judge says 0.5 or so of every cell: only above that are things as few as there are.
    assert calibrate(judge, sampler, num_scenes=8) == 1
    assert judge.config.presence_threshold > 0.5
