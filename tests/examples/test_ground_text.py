"""Text adapters learn where the things lie that a caption names."""

import json

import pytest
import torch

import diffusers_imagen
from diffusers_imagen.models.embeddings import TextAdapter
from diffusers_imagen.text.loading import load_text_encoder


@pytest.mark.parametrize(
    ("caption", "language", "names", "expected"),
    [
        ("A cat above a dog", "en", ["cat", "dog"], ["cat", "dog"]),
        ("a dog under grapes", "en", ["grape", "dog"], ["grapes", "dog"]),
        ("一只狗上面有一只猫", "zh", ["cat", "dog"], ["猫", "狗"]),
        # "bear" is part of "teddy bear", 熊 of 熊猫.
        ("a bear above a teddy bear", "en", ["bear", "teddy bear"], None),
        ("一只熊猫在一只熊的上面", "zh", ["panda", "bear"], None),
        ("a cat above a cloud", "en", ["cat", "dog"], None),
    ],
)
def test_each_thing_is_found_where_it_is_named_alone(caption, language, names, expected):
    from ground_text import spans_of

    spans = spans_of(caption, language, names)
    assert (spans and [caption[start:stop] for start, stop in spans]) == expected


def test_tokens_that_name_a_thing_get_the_middle_of_its_box(art_folder, tmp_path):
    from ground_text import read_examples
    from make_dataset import DatasetPlan, make_dataset
    from settings import SceneSettings

    settings = SceneSettings(size=64, kinds={"relation": 1.0}, styles={"shapes": 1.0}, as_picture=0.0)
    make_dataset(DatasetPlan(art_folder, tmp_path / "data", settings, 0, "train"), 6)
    path = tmp_path / "data" / "metadata.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    rows[0] |= {"text": ["a cat above a top hat", "一只猫在一顶礼帽的上面"]}
    rows[0]["facts"]["things"] = [
        {"name": "cat", "box": [20, 0, 44, 16]},
        {"name": "top hat", "box": [16, 32, 32, 64]},
    ]
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    encoder = load_text_encoder(diffusers_imagen.builtin_path("imagen-emoji"))
    english, chinese = read_examples(tmp_path / "data", *encoder, scenes=1)

    tokens = encoder[0].tokenize("query: a cat above a top hat")
    # The first and the last token of the encoder's are not of the text.
    assert len(english.states) == len(tokens) + 2
    named = {token: english.places[1 + index].tolist() for index, token in enumerate(tokens)}
    assert named["▁cat"] == [0.0, -0.75]
    assert named["▁top"] == named["▁hat"] == [-0.25, 0.5]
    assert english.places.isnan().all(1).sum() == len(english.states) - 3
    assert set(map(tuple, chinese.places[~chinese.places.isnan().any(1)].tolist())) == {(0.0, -0.75), (-0.25, 0.5)}
    rows = [row | {"kind": "single"} for row in rows]
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    with pytest.raises(ValueError, match=r"`data` is .* no scenes of the kind 'relation'"):
        read_examples(tmp_path / "data", *encoder, scenes=1)


def test_an_adapter_learns_what_only_order_and_word_together_tell():
    from ground_text import Example, Grounding, ground

    torch.manual_seed(0)
    nouns, words = torch.randn(6, 24), torch.randn(2, 24)

    def example(first, word, second):
        states = torch.stack([nouns[first], words[word], nouns[second]])
        x = 0.5 if word else -0.5
        return Example(states.half(), torch.tensor([[x, 0.0], [torch.nan] * 2, [-x, 0.0]]))

    examples = [example(a, word, b) for a in range(6) for b in range(6) if a != b for word in (0, 1)]
    examples = [examples[i] for i in torch.randperm(len(examples)).tolist()]
    adapter = TextAdapter(24, 1, 64, 16, 2, 8)
    before = {name: value.clone() for name, value in adapter.state_dict().items()}
    assert ground(adapter, examples, steps=300, batch_size=32, seed=0) == 1.0
    assert not adapter.training
    # As it was before, no reading of single tokens tells more than chance.
    adapter.load_state_dict(before)
    assert 0.2 < Grounding(adapter).told_apart(examples) < 0.8
