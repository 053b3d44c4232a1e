"""Text adapters learn to read descriptions as the nouns that they describe."""

import copy
import random
from types import SimpleNamespace

import pytest
import torch

import diffusers_imagen
from diffusers_imagen import ImagenUNet2DConditionModel
from diffusers_imagen.models.embeddings import TextAdapter
from diffusers_imagen.text.loading import load_text_encoder


@pytest.fixture(scope="module")
def reader():
    from word_lessons import Reader

    folder = diffusers_imagen.builtin_path("imagen-emoji")
    unet = ImagenUNet2DConditionModel.from_pretrained(folder / "unet")
    return Reader(*load_text_encoder(folder), unet.text_adapter)


def test_a_description_shall_be_read_as_its_noun_and_the_words_around_it_as_they_were(reader):
    from captions import Caption
    from word_lessons import lessons_of, nouns_of

    described = {"dog": [Caption("loyal pet", "看家的宠物")], "cat": [Caption("pet with whiskers", "长着胡须的宠物")]}
    lessons = lessons_of(reader, described, random.Random(0), variants=10)
    nouns = nouns_of(reader, list(described))
    for language, description in ((0, "pet with whiskers"), (1, "长着胡须的宠物")):
        alone = next(lesson for lesson in lessons if (lesson.language, lesson.noun) == (language, 1))
        words = reader.tokenizer.tokenize(("query: " if language == 0 else "query:") + description)
        prefix = reader.tokenizer.tokenize("query:")
        assert alone.inside.sum() == len(words) - len(prefix)
        torch.testing.assert_close(alone.reading.tokens[alone.inside].mean(0), nouns[language, 1])

    hat = reader.read(["a cat wearing a hat", "pet with whiskers wearing a hat"])
    meant, said = hat["a cat wearing a hat"], hat["pet with whiskers wearing a hat"]
    lesson = next(
        x for x in lessons if len(x.inside) == len(said.states) and torch.equal(x.reading.states, said.states)
    )
    after = int(lesson.inside.nonzero().max()) + 1
    assert after < len(lesson.inside) - 3
    torch.testing.assert_close(lesson.reading.tokens[after:], meant.tokens[after - len(said.states) :])
    torch.testing.assert_close(lesson.reading.pooled, meant.pooled)


def test_only_what_has_eyes_wears_something(reader):
    from captions import Caption
    from word_lessons import AROUND, AROUND_HEADS, lessons_of, plain_of

    described = {
        "banana": [Caption("monkeys peel it", "猴子爱剥的水果")],
        "cat": [Caption("it purrs", "会打呼噜的宠物")],
    }
    # What is read around the plain words tells which captions were made, as texts.
    read = []
    monitored = SimpleNamespace(
        read=lambda captions: read.extend(captions) or reader.read(captions),
        span=reader.span,
        tokenizer=reader.tokenizer,
    )
    for name, description in described.items():
        read.clear()
        around = [*AROUND, *(AROUND_HEADS if name == "cat" else ())]
        lessons = lessons_of(monitored, {name: description}, random.Random(0), variants=len(around))
        assert {lesson.language for lesson in lessons} == {0, 1}
        for language in (0, 1):
            words = (description[0].english, description[0].chinese)[language], plain_of(name, language)[0]
            templates = ["{}", *(pair[language] for pair in around)]
            made = {template.format(word) for template in templates for word in words}
            assert {caption for caption in read if any(word in caption for word in words)} == made


def test_an_adapter_learns_descriptions_and_keeps_what_captions_were():
    from teach_words import Teaching, teach, understood
    from word_lessons import Lesson, Reading

    torch.manual_seed(0)
    adapter = TextAdapter(24, 1, 64, 16, 2, 8)
    before = copy.deepcopy(adapter).eval()
    plain, traits, other = torch.randn(6, 24), torch.randn(6, 24), torch.randn(20, 4, 24)

    def read(states, meant):
        tokens, _, pooled = before(meant[None], None)
        return Reading(states.half(), tokens[0].detach(), pooled[0].detach())

    nouns = torch.stack([read(noun[None], noun[None]).tokens[0] for noun in plain]).expand(2, -1, -1)

    def described(noun):
        # "it barks loudly": one word of several says which noun it is, as no plain noun does.
        words = torch.stack([traits[noun], torch.randn(24), torch.randn(24)])[torch.randperm(3)]
        reading = read(words, plain[noun].expand(3, -1))
        wanted = nouns[0, noun].expand(3, -1)
        return Lesson(Reading(reading.states, wanted, reading.pooled), torch.ones(3, dtype=torch.bool), noun % 2, noun)

    lessons, asked = ([described(i % 6) for i in range(count)] for count in (240, 60))
    kept = [read(states, states) for states in other]
    assert understood(before, asked, nouns) < 0.5
    teaching = Teaching(adapter, lessons, kept, nouns, rate=2e-3)
    assert teach(teaching, asked, steps=300, batch_size=32, seed=0) > 0.9
    assert not adapter.training
    was, now = (model(other, None)[0] for model in (before, adapter))
    assert (now - was).square().mean() < 0.05 * was.square().mean()


def test_a_folder_without_captions_is_refused(tmp_path):
    from teach_words import captions_of

    with pytest.raises(ValueError, match=r"has no metadata\.jsonl; give a folder that make_dataset"):
        captions_of(tmp_path, 10, random.Random(0))
