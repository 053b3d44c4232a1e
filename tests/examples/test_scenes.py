import re
from collections import deque
from dataclasses import replace
from pathlib import Path

import captions
import numpy as np
import pytest
from backgrounds import LANDSCAPES
from compose import HUES
from nouns import GLASSES, HATS, NOUN_BY_NAME, NOUNS
from numpy.typing import NDArray
from PIL import Image
from scenes import Scene, SceneSampler, Split
from settings import ALL_KINDS, PRESETS, SceneSettings
from studio import is_held_out

Colors = dict[str, tuple[int, int, int]]


def scenes_of(
    art_folder: Path,
    kind: str,
    number: int,
    background: str = "white",
    split: Split = "any",
    name_background: float = 0,
) -> list[Scene]:
    settings = SceneSettings(
        size=96,
        kinds={kind: 1},
        styles={"shapes": 1},
        backgrounds={background: 1},
        name_background=name_background,
        as_picture=0,
        name_style=0,
    )
    sampler = SceneSampler(art_folder, settings)
    return [sampler.sample(seed=3, number=index, split=split) for index in range(number)]


def mask_of(image: Image.Image, color: tuple[int, int, int]) -> NDArray[np.bool_]:
    distance = np.abs(np.asarray(image).astype(int) - np.array(color)).max(axis=-1)
    return distance < 12


def center_of(mask: NDArray[np.bool_]) -> tuple[float, float]:
    rows, columns = np.nonzero(mask)
    assert len(rows) > 0
    return float(columns.mean()), float(rows.mean())


def count_blobs(mask: NDArray[np.bool_]) -> int:
    left = {(int(row), int(column)) for row, column in zip(*np.nonzero(mask), strict=True)}
    blobs = 0
    while left:
        blobs += 1
        queue = deque([left.pop()])
        while queue:
            row, column = queue.popleft()
            for neighbor in ((row + 1, column), (row - 1, column), (row, column + 1), (row, column - 1)):
                if neighbor in left:
                    left.remove(neighbor)
                    queue.append(neighbor)
    return blobs


def hue_of(image: Image.Image, mask: NDArray[np.bool_]) -> float:
    hsv = np.asarray(image.convert("HSV")).astype(float)
    return float(np.median(hsv[..., 0][mask])) * 360 / 255


def read_english_relation(text: str) -> tuple[str, str, str]:
    both = re.fullmatch(r"an? (.+) on the (left|right) and an? (.+) on the (left|right)", text)
    if both:
        assert both[2] != both[4]
        return both[1], both[2], both[3]
    places = {
        "to the left of": "left",
        "to the right of": "right",
        "above": "above",
        "on top of": "above",
        "below": "below",
        "under": "below",
    }
    found = re.fullmatch(rf"an? (.+) ({'|'.join(places)}) an? (.+)", text)
    assert found, text
    return found[1], places[found[2]], found[3]


def read_chinese_relation(text: str) -> tuple[str, str, str]:
    places = {"左边": "left", "右边": "right", "上面": "above", "下面": "below"}
    both = re.fullmatch(r"(左边|右边)是(.+)，(左边|右边)是(.+)", text)
    if both:
        assert both[1] != both[3]
        return both[2], places[both[1]], both[4]
    plain = re.fullmatch(r"(.+)在(.+)的(左边|右边|上面|下面)", text)
    if plain:
        return plain[1], places[plain[3]], plain[2]
    inverted = re.fullmatch(r"(.+)(上面|下面)有(.+)", text)
    assert inverted, text
    return inverted[3], places[inverted[2]], inverted[1]


def assert_placed(image: Image.Image, first: tuple[int, int, int], place: str, second: tuple[int, int, int]) -> None:
    x_1, y_1 = center_of(mask_of(image, first))
    x_2, y_2 = center_of(mask_of(image, second))
    is_true = {"left": x_1 < x_2, "right": x_1 > x_2, "above": y_1 < y_2, "below": y_1 > y_2}
    assert is_true[place]
    across = abs(y_1 - y_2) if place in ("left", "right") else abs(x_1 - x_2)
    along = abs(x_1 - x_2) if place in ("left", "right") else abs(y_1 - y_2)
    assert along > across


def test_relations_are_drawn_as_both_captions_say(art_folder: Path, shape_colors: Colors) -> None:
    chinese = {captions.one_zh(noun): noun.singular for noun in NOUNS}
    for scene in scenes_of(art_folder, "relation", 60):
        first, place, second = read_english_relation(scene.text[0])
        assert_placed(scene.image, shape_colors[first], place, shape_colors[second])
        first_zh, place_zh, second_zh = read_chinese_relation(scene.text[1])
        assert_placed(scene.image, shape_colors[chinese[first_zh]], place_zh, shape_colors[chinese[second_zh]])


def test_counts_are_drawn_as_both_captions_say(art_folder: Path) -> None:
    numbers = set()
    for scene in scenes_of(art_folder, "count", 30):
        number = count_blobs(np.asarray(scene.image.convert("L")) < 250)
        assert captions.NUMBERS_EN.index(scene.text[0].split()[0]) == number
        assert captions.NUMBERS_ZH.index(scene.text[1][0]) == number
        assert len(scene.facts.things) == number
        numbers.add(number)
    assert numbers == {2, 3, 4, 5, 6}


def test_colors_are_drawn_as_both_captions_say(art_folder: Path) -> None:
    for scene in scenes_of(art_folder, "color", 60, background="gray"):
        thing = scene.facts.things[0]
        color = scene.text[0].removeprefix("an ").removeprefix("a ").split()[0]
        assert captions.COLORS_ZH[color] in scene.text[1]
        pixels = np.asarray(scene.image).astype(int)
        middle = pixels[48, 48]
        if color in ("black", "white"):
            assert (middle.max() < 110) if color == "black" else (middle.min() > 200)
            continue
        inside = np.zeros(pixels.shape[:2], dtype=bool)
        inside[thing.box[1] + 3 : thing.box[3] - 3, thing.box[0] + 3 : thing.box[2] - 3] = True
        apart = abs(hue_of(scene.image, inside) - HUES[color]) % 360
        assert min(apart, 360 - apart) < 6


def test_no_caption_of_a_recolored_thing_is_another_noun_s(art_folder: Path) -> None:
    colored = [
        (thing.color, thing.name)
        for kind in ("color", "count")
        for scene in scenes_of(art_folder, kind, 1500)
        for thing in scene.facts.things
        if thing.color
    ]
    assert ("red", "apple") in colored
    assert not [pair for pair in colored if " ".join(pair) in NOUN_BY_NAME]


def test_the_first_named_color_of_a_pair_is_on_the_left(art_folder: Path) -> None:
    for scene in scenes_of(art_folder, "color pair", 40, background="gray"):
        named = re.findall(rf"\b({'|'.join(captions.COLORS_ZH)})\b", scene.text[0])
        assert len(named) == 2
        for color, thing, is_left in zip(named, scene.facts.things, (True, False), strict=True):
            x = (thing.box[0] + thing.box[2]) / 2
            assert (x < 48) == is_left
            if color in HUES:
                inside = np.zeros((96, 96), dtype=bool)
                inside[thing.box[1] + 3 : thing.box[3] - 3, thing.box[0] + 3 : thing.box[2] - 3] = True
                apart = abs(hue_of(scene.image, inside) - HUES[color]) % 360
                assert min(apart, 360 - apart) < 6


def test_a_hat_is_worn_on_top_of_the_head_and_glasses_on_it(art_folder: Path, shape_colors: Colors) -> None:
    worn_at_all = set()
    for scene in scenes_of(art_folder, "wear", 40):
        (thing,) = scene.facts.things
        head = mask_of(scene.image, shape_colors[thing.name])
        x_head, _ = center_of(head)
        head_rows = np.flatnonzero(head.any(axis=1))
        for worn in thing.worn:
            x, y = center_of(mask_of(scene.image, shape_colors[worn]))
            assert abs(x - x_head) < 3
            if "glasses" in worn:
                assert head_rows[0] < y < head_rows[-1]
            else:
                assert y < head_rows[0] + 0.1 * len(head_rows)
            worn_at_all.add(worn)
    assert worn_at_all == {"top hat", "straw hat", "crown", "pair of glasses", "pair of sunglasses"}


def test_captions_of_worn_things_name_what_is_drawn(art_folder: Path) -> None:
    words = {**HATS, **GLASSES}
    for scene in scenes_of(art_folder, "wear", 40):
        (thing,) = scene.facts.things
        assert re.match(rf"an? {thing.name} (wearing|with|in|that wears) ", scene.text[0])
        for worn in thing.worn:
            fitting = [word for word in words.values() if worn in word.art]
            assert any(word.english in scene.text[0] and word.chinese in scene.text[1] for word in fitting)


def test_the_big_thing_of_a_size_scene_is_bigger(art_folder: Path, shape_colors: Colors) -> None:
    for scene in scenes_of(art_folder, "size", 20):
        found = re.fullmatch(r"a big (.+) and a small (.+)", scene.text[0])
        assert found
        big, small = (mask_of(scene.image, shape_colors[name]).sum() for name in found.groups())
        assert big > 2 * small


def test_a_single_noun_is_near_the_middle_and_named_in_both_languages(art_folder: Path, shape_colors: Colors) -> None:
    for scene in scenes_of(art_folder, "single", 40):
        (thing,) = scene.facts.things
        assert scene.text[0] in (captions.with_article(thing.name), thing.name)
        assert scene.text[1].endswith(NOUN_BY_NAME[thing.name].chinese)
        x, y = center_of(mask_of(scene.image, shape_colors[thing.name]))
        assert abs(x - 48) < 6
        assert abs(y - 48) < 6


def test_a_named_background_is_the_one_drawn(art_folder: Path) -> None:
    for scene in scenes_of(art_folder, "pair", 20, background="red", name_background=1):
        assert "red background" in scene.text[0]
        assert "红色背景" in scene.text[1]
        red, green, blue = scene.image.getpixel((0, 0))
        assert red > 2 * green > 0
        assert red > 2 * blue > 0


@pytest.mark.parametrize("kind", sorted(ALL_KINDS))
def test_every_kind_gives_two_captions_and_the_same_scene_again(art_folder: Path, kind: str) -> None:
    for once, again in zip(scenes_of(art_folder, kind, 4), scenes_of(art_folder, kind, 4), strict=True):
        assert once.kind == kind
        assert re.search("[a-z]", once.text[0])
        assert re.search("[\u4e00-\u9fff]", once.text[1])
        assert once.text == again.text
        assert once.facts == again.facts
        assert once.image.tobytes() == again.image.tobytes()


def test_other_numbers_and_other_seeds_give_other_scenes(art_folder: Path) -> None:
    sampler = SceneSampler(art_folder, SceneSettings(size=48, styles={"shapes": 1}))
    pictures = {sampler.sample(seed, number).image.tobytes() for seed in range(3) for number in range(5)}
    assert len(pictures) >= 14


def test_held_out_pairs_are_never_in_training_and_always_in_the_held_out_split(art_folder: Path) -> None:
    def has_held_out_pair(scene: Scene) -> bool:
        names = sorted(thing.name for thing in scene.facts.things)
        return is_held_out("pair", *names, share=0.1)

    assert not any(has_held_out_pair(scene) for scene in scenes_of(art_folder, "pair", 100, split="train"))
    held_out = scenes_of(art_folder, "pair", 10, split="held_out")
    assert all(has_held_out_pair(scene) and scene.held_out for scene in held_out)


def test_a_worn_thing_is_held_out_by_what_is_drawn_whatever_the_word(art_folder: Path) -> None:
    def has_held_out_worn(scene: Scene) -> bool:
        (thing,) = scene.facts.things
        return any(is_held_out("wear", thing.name, worn) for worn in thing.worn)

    assert not any(has_held_out_worn(scene) for scene in scenes_of(art_folder, "wear", 60, split="train"))
    held_out = scenes_of(art_folder, "wear", 10, split="held_out")
    assert all(has_held_out_worn(scene) and scene.held_out for scene in held_out)


def test_the_cat_may_wear_every_hat_in_training() -> None:
    assert not any(is_held_out("wear", "cat", drawn) for word in HATS.values() for drawn in word.art)


def test_a_split_that_no_kind_can_give_is_refused(art_folder: Path) -> None:
    sampler = SceneSampler(art_folder, SceneSettings(kinds={"single": 1}, styles={"shapes": 1}))
    with pytest.raises(ValueError, match="`split` is 'held_out'"):
        sampler.sample(seed=0, number=0, split="held_out")


def test_settings_refuse_unknown_names_and_empty_shares() -> None:
    with pytest.raises(ValueError, match=r"`kinds` names \['sculpture'\]"):
        SceneSettings(kinds={"sculpture": 1})
    with pytest.raises(ValueError, match="`backgrounds` is"):
        SceneSettings(backgrounds={"white": 0})
    with pytest.raises(ValueError, match="`size` is 8"):
        SceneSettings(size=8)


def test_the_share_of_unnamed_backgrounds_is_spread_evenly() -> None:
    shares = SceneSettings(backgrounds={"white": 0.6, "red": 0.2}).background_shares()
    assert shares["white"] == 0.6
    assert shares["blue"] == pytest.approx(0.2 / 8)
    assert sum(shares.values()) == pytest.approx(1)


def test_the_first_preset_often_draws_the_cat_in_a_hat(art_folder: Path) -> None:
    settings = replace(PRESETS["first-singles"], size=32, styles={"shapes": 1}, kinds={"wear": 1}, cat_in_hat=0.5)
    sampler = SceneSampler(art_folder, settings)
    texts = [sampler.sample(0, number).text[0] for number in range(60)]
    assert sum(text.startswith("a cat") and "hat" in text for text in texts) > 25


def test_a_held_thing_is_drawn_over_the_right_side_of_the_holder(art_folder: Path, shape_colors: Colors) -> None:
    for scene in scenes_of(art_folder, "hold", 20):
        found = re.fullmatch(r"an? (.+) (?:holding|with) an? (.+)", scene.text[0])
        assert found
        assert "拿着" in scene.text[1]
        holder, held = (mask_of(scene.image, shape_colors[name]) for name in found.groups())
        assert center_of(holder)[0] < center_of(held)[0]
        rightmost_of_holder = np.flatnonzero(holder.any(axis=0))[-1]
        assert np.flatnonzero(held.any(axis=0))[0] <= rightmost_of_holder + 1


def test_things_in_a_landscape_stand_on_its_ground(art_folder: Path, shape_colors: Colors) -> None:
    for scene in scenes_of(art_folder, "scene", 30):
        landscape = LANDSCAPES[scene.facts.background]
        assert any(words in scene.text[0] for words in landscape.english)
        assert landscape.chinese in scene.text[1]
        (thing,) = scene.facts.things
        if landscape.ground is not None:
            # The ground begins at 0.55 to 0.7 of the height.
            assert thing.box[3] > 0.55 * 96


def test_the_chinese_caption_of_two_colors_says_the_same_as_the_english_one(art_folder: Path) -> None:
    for scene in scenes_of(art_folder, "color pair", 30, background="gray"):
        said = []
        for part in scene.text[1].split("和"):
            found = re.fullmatch(r"一.(.+)的(.+)", part)
            assert found, scene.text[1]
            said.append((found[1], found[2]))
        things = scene.facts.things
        assert said == [(captions.COLORS_ZH[str(t.color)], NOUN_BY_NAME[t.name].chinese) for t in things]


def test_the_chinese_caption_of_sizes_calls_the_bigger_thing_big(art_folder: Path, shape_colors: Colors) -> None:
    chinese = {noun.chinese: noun.singular for noun in NOUNS}
    for scene in scenes_of(art_folder, "size", 20):
        found = re.fullmatch(r"一.大(.+)和一.小(.+)", scene.text[1])
        assert found, scene.text[1]
        big, small = (mask_of(scene.image, shape_colors[chinese[name]]).sum() for name in found.groups())
        assert big > 2 * small


def test_the_chinese_caption_of_holding_names_holder_and_held(art_folder: Path) -> None:
    for scene in scenes_of(art_folder, "hold", 20):
        holder, held = (NOUN_BY_NAME[thing.name] for thing in scene.facts.things)
        plain = f"{captions.one_zh(holder)}拿着{captions.one_zh(held)}"
        assert scene.text[1] in (plain, f"一{holder.measure}拿着{captions.one_zh(held)}的{holder.chinese}")


def test_things_in_a_landscape_are_named_in_both_languages(art_folder: Path) -> None:
    for scene in scenes_of(art_folder, "scene", 20):
        noun = NOUN_BY_NAME[scene.facts.things[0].name]
        assert captions.one_en(noun) in scene.text[0]
        assert captions.one_zh(noun) in scene.text[1]


@pytest.mark.parametrize("kind", ["color", "count", "hold", "scene"])
def test_what_is_held_out_is_no_other_split_s(art_folder: Path, kind: str) -> None:
    def combination(scene: Scene) -> tuple[str, ...]:
        things = scene.facts.things
        parts = {
            "color": (things[0].name, str(things[0].color)),
            "count": (things[0].name, str(len(things))),
            "hold": tuple(thing.name for thing in things),
            "scene": (things[0].name, scene.facts.background),
        }
        return kind, *parts[kind]

    share = 0.08 if kind == "scene" else 0.12
    for scene in scenes_of(art_folder, kind, 60, background="gray"):
        assert scene.held_out == is_held_out(*combination(scene), share=share)
    assert not any(scene.held_out for scene in scenes_of(art_folder, kind, 40, background="gray", split="train"))
