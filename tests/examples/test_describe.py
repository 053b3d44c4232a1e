import json
import re
from pathlib import Path

import describe as module
import pytest
from captions import Caption
from make_suite import FREE_TEXTS
from nouns import NOUNS


def row(name, worn=(), background="white", kind="single"):
    thing = {"name": name, "worn": list(worn)}
    return {"file_name": "0.png", "kind": kind, "facts": {"things": [thing], "background": background}}


def test_every_noun_is_described_in_both_languages_without_its_name():
    described = module.read_descriptions()
    assert list(described) == [noun.singular for noun in NOUNS]
    every = [caption for captions in described.values() for caption in captions]
    assert len({caption.english.lower() for caption in every}) == len({c.chinese for c in every}) == len(every)
    for noun in NOUNS:
        captions = described[noun.singular]
        assert len(captions) >= 20
        for caption in captions:
            assert not re.search(rf"\b{noun.singular}s?\b", caption.english.lower())
            assert noun.chinese not in caption.chinese
            assert re.search(r"[一-鿿]", caption.chinese)


def test_no_free_text_prompt_is_taught():
    taught = {
        text for captions in module.read_descriptions().values() for c in captions for text in (c.english, c.chinese)
    }
    asked = {text for line in FREE_TEXTS.read_text(encoding="utf-8").splitlines() for text in json.loads(line)["text"]}
    plain = {re.sub(r"^(a|an|the|it) |\W", "", text.lower()) for text in taught}
    assert not [text for text in asked if re.sub(r"^(a|an|the|it) |\W", "", text.lower()) in plain]


def test_descriptions_take_turns_and_say_what_is_worn_and_the_background():
    described = {
        "cat": [Caption("meower", "喵星人"), Caption("mouser", "捕鼠者")],
        "dog": [Caption("barker", "汪星人")],
    }
    rows = [
        row("cat"),
        row("dog", background="blue"),
        row("cat", ["straw hat", "pair of glasses"], kind="wear"),
        row("cat"),
        row("cat", kind="count"),
    ]
    assert [taken["text"] for taken in module.describe(rows, described)] == [
        ["meower", "喵星人"],
        ["barker, blue background", "汪星人，蓝色背景"],
        ["mouser wearing a straw hat and glasses", "戴着草帽和眼镜的捕鼠者"],
        ["meower", "喵星人"],
    ]


def test_descriptions_that_are_no_pairs_are_refused(tmp_path: Path):
    path = tmp_path / "d.jsonl"
    path.write_text(json.dumps({"noun": "cat", "en": ["meower", "mouser"], "zh": ["喵星人"]}), encoding="utf-8")
    with pytest.raises(ValueError, match="describes 'cat' 2 times in English, 1 times in Chinese"):
        module.read_descriptions(path)
