import captions
import pytest
from nouns import EYE_HEIGHT, GLASSES, HATS, HOLDABLE, NOUN_BY_NAME, NOUNS, RECOLORABLE


def test_the_table_has_177_nouns_all_named_apart_in_both_languages() -> None:
    assert len(NOUNS) == 177
    assert len({noun.singular for noun in NOUNS}) == 177
    assert len({noun.chinese for noun in NOUNS}) == 177
    assert all(noun.art and noun.measure and noun.kinds for noun in NOUNS)


def test_every_list_of_names_is_in_the_table() -> None:
    worn = [name for word in [*HATS.values(), *GLASSES.values()] for name in word.art]
    assert set(EYE_HEIGHT) | set(RECOLORABLE) | set(HOLDABLE) | set(worn) <= set(NOUN_BY_NAME)
    assert all("head" in NOUN_BY_NAME[name].kinds for name in EYE_HEIGHT)


@pytest.mark.parametrize(
    ("words", "expected"),
    [("cat", "a cat"), ("apple", "an apple"), ("unicorn", "a unicorn"), ("umbrella", "an umbrella")],
)
def test_the_article_follows_the_sound(words: str, expected: str) -> None:
    assert captions.with_article(words) == expected


def test_plain_captions_read_as_people_write_them() -> None:
    cat, dog = NOUN_BY_NAME["cat"], NOUN_BY_NAME["dog"]
    wearing = captions.wearing(cat, [HATS["hat"]])[0]
    assert (wearing.english, wearing.chinese) == ("a cat wearing a hat", "一只戴着帽子的猫")
    single = captions.single(cat)
    assert [(caption.english, caption.chinese) for caption in single] == [("a cat", "一只猫"), ("cat", "猫")]
    counted = captions.counted(NOUN_BY_NAME["mouse"], 2, None)[0]
    assert (counted.english, counted.chinese) == ("two mice", "两只老鼠")
    red = captions.counted(NOUN_BY_NAME["apple"], 3, "red")[0]
    assert (red.english, red.chinese) == ("three red apples", "三个红色的苹果")
    left = captions.relation(cat, "left", dog)[0]
    assert (left.english, left.chinese) == ("a cat to the left of a dog", "一只猫在一只狗的左边")
    assert captions.single(NOUN_BY_NAME["sun"])[0].english == "the sun"


def test_a_background_is_put_before_a_phrase_but_after_a_sentence() -> None:
    phrase = captions.Caption("a cat", "一只猫")
    sentence = captions.Caption("a cat above a dog", "一只猫在一只狗的上面", is_phrase=False)
    assert captions.on_background(phrase, "red")[0].chinese == "红色背景上的一只猫"
    assert captions.on_background(sentence, "red")[0].chinese == "一只猫在一只狗的上面，红色背景"
    assert captions.on_background(sentence, "red")[0].english == "a cat above a dog on a red background"


def test_a_style_without_words_of_its_own_is_called_by_its_name() -> None:
    (caption,) = captions.in_style(captions.Caption("a cat", "一只猫"), "woodcut")
    assert (caption.english, caption.chinese) == ("a cat, woodcut style", "一只猫，woodcut风格")
