"""Prompts, negative prompts, their embeddings, and pictures of a batch that do not depend on one another."""

import logging

import pytest
import torch
from diffusers import DDPMScheduler, DPMSolverMultistepScheduler


def draw(pipe, *arguments, **options):
    return pipe(*arguments, output_type="latent", **options).images


def test_the_prompt_and_the_seed_decide_the_picture(cascade, seeded):
    cat = draw(cascade, "a red cat", generator=seeded(0))
    assert torch.equal(draw(cascade, "a red cat", generator=seeded(0)), cat)
    assert not torch.allclose(draw(cascade, "a blue dog", generator=seeded(0)), cat, atol=1e-2)
    assert not torch.allclose(draw(cascade, "一只 猫", generator=seeded(0)), cat, atol=1e-2)
    assert not torch.allclose(draw(cascade, "a red cat", generator=seeded(1)), cat, atol=1e-2)


@pytest.mark.parametrize(
    "scheduler",
    [DDPMScheduler(), DPMSolverMultistepScheduler(algorithm_type="sde-dpmsolver++"), DPMSolverMultistepScheduler()],
    ids=["ddpm", "sde", "dpm"],
)
def test_a_picture_with_its_own_generator_does_not_depend_on_the_batch(make_cascade, seeded, scheduler):
    pipe = make_cascade(2, scheduler=scheduler, sr_scheduler_1=DDPMScheduler())
    prompts = ["a red cat with a hat", "狗", ""]
    batch = pipe(prompts, generator=seeded(5, 6, 7), guidance_scale={"sr_1": 2.0}, output_type="latent")
    for index, prompt in enumerate(prompts):
        alone = pipe(prompt, generator=seeded(5 + index), guidance_scale={"sr_1": 2.0}, output_type="latent")
        for stage in ("base", "sr_1"):
            torch.testing.assert_close(batch.stages[stage][index], alone.stages[stage][0], rtol=0, atol=1e-4)


def test_several_pictures_of_each_prompt_stand_together(cascade, seeded):
    pictures = draw(cascade, ["a cat", "a dog"], num_images_per_prompt=2, generator=seeded(0, 1, 2, 3))
    assert pictures.shape == (4, 3, 16, 16)
    for index, prompt in enumerate(["a cat", "a cat", "a dog", "a dog"]):
        alone = draw(cascade, prompt, generator=seeded(index))[0]
        torch.testing.assert_close(pictures[index], alone, rtol=0, atol=1e-4)


def test_embeddings_made_before_give_the_same_picture(make_cascade, record_calls, seeded):
    pipe = make_cascade(2)
    expected = draw(pipe, "a red cat", negative_prompt="a hat", generator=seeded(0))
    names = (
        "prompt_embeds",
        "prompt_attention_mask",
        "negative_prompt_embeds",
        "negative_prompt_attention_mask",
    )
    embeds = dict(zip(names, pipe.encode_prompt("a red cat", "a hat"), strict=True))
    without_encoder = make_cascade(2, text_encoder=None, tokenizer=None)
    calls = record_calls(without_encoder)
    assert torch.equal(draw(without_encoder, **embeds, generator=seeded(0)), expected)
    assert "text_encoder" not in [name for name, _ in calls]


def test_embeddings_without_a_mask_are_all_read(cascade, seeded):
    embeds, mask, _, _ = cascade.encode_prompt("a red cat")
    assert mask.all()
    with_mask = draw(cascade, prompt_embeds=embeds, prompt_attention_mask=mask, generator=seeded(0))
    assert torch.equal(draw(cascade, prompt_embeds=embeds, generator=seeded(0)), with_mask)


def test_embeddings_go_with_negative_prompts(cascade, seeded):
    embeds, mask, _, _ = cascade.encode_prompt("a red cat")
    mixed = draw(
        cascade, prompt_embeds=embeds, prompt_attention_mask=mask, negative_prompt="a hat", generator=seeded(0)
    )
    expected = draw(cascade, "a red cat", negative_prompt="a hat", generator=seeded(0))
    torch.testing.assert_close(mixed, expected, rtol=0, atol=1e-5)


def test_encoded_prompts_are_repeated_and_padded_alike(cascade):
    embeds, mask, negative, negative_mask = cascade.encode_prompt(["a red cat", "狗"], "a hat", 2)
    assert embeds.shape == negative.shape == (4, 4, 16)
    assert mask.sum(1).tolist() == [4, 4, 2, 2]
    assert negative_mask.sum(1).tolist() == [3, 3, 3, 3]
    assert torch.equal(embeds[0], embeds[1])
    assert embeds[~mask].abs().max() == 0
    assert negative[~negative_mask].abs().max() == 0


def test_without_a_negative_prompt_the_null_text_is_taken(cascade):
    _, mask, negative, negative_mask = cascade.encode_prompt("a red cat")
    assert negative_mask.shape == mask.shape
    assert not negative_mask.any()
    assert negative.abs().max() == 0


@pytest.mark.parametrize("negative", [None, "", " "])
def test_the_empty_prompt_is_the_null_text_so_guidance_has_nothing_to_do(cascade, seeded, negative):
    guided = draw(cascade, "", negative_prompt=negative, guidance_scale=7.0, generator=seeded(0))
    unguided = draw(cascade, "", guidance_scale=1.0, generator=seeded(0))
    torch.testing.assert_close(guided, unguided, rtol=0, atol=1e-4)


def test_guidance_away_from_the_prompt_itself_has_nothing_to_do(cascade, seeded):
    guided = draw(cascade, "a red cat", negative_prompt="a red cat", guidance_scale=7.0, generator=seeded(0))
    torch.testing.assert_close(
        guided, draw(cascade, "a red cat", guidance_scale=1.0, generator=seeded(0)), rtol=0, atol=1e-4
    )


def test_a_negative_prompt_changes_the_picture_and_one_serves_all(cascade, seeded):
    prompts = ["a cat", "a dog"]
    none = draw(cascade, prompts, generator=seeded(0))
    one = draw(cascade, prompts, negative_prompt="a hat", generator=seeded(0))
    each = draw(cascade, prompts, negative_prompt=["a hat", "a hat"], generator=seeded(0))
    assert not torch.allclose(one, none, atol=1e-2)
    assert torch.equal(one, each)


def test_a_negative_prompt_has_no_say_without_guidance(cascade, seeded):
    plain = draw(cascade, "a cat", guidance_scale=1.0, generator=seeded(0))
    assert torch.equal(draw(cascade, "a cat", negative_prompt="a hat", guidance_scale=1.0, generator=seeded(0)), plain)


def test_stages_may_have_prompts_of_their_own(cascade, record_calls, seeded):
    cat = cascade("a cat", generator=seeded(0), output_type="latent")
    calls = record_calls(cascade)
    both = cascade({"base": "a cat", "sr_1": "a blue hat"}, generator=seeded(0), output_type="latent")
    assert [name for name, _ in calls].count("text_encoder") == 2
    assert torch.equal(both.stages["base"], cat.stages["base"])
    assert not torch.allclose(both.images, cat.images, atol=1e-2)


def test_a_stage_without_a_prompt_takes_the_bases(cascade, record_calls, seeded):
    calls = record_calls(cascade)
    mapped = draw(cascade, {"base": ["a cat"]}, negative_prompt={"base": "a hat"}, generator=seeded(0))
    assert [name for name, _ in calls].count("text_encoder") == 2
    assert torch.equal(mapped, draw(cascade, "a cat", negative_prompt="a hat", generator=seeded(0)))


def test_text_is_encoded_once_for_all_stages(make_cascade, record_calls):
    pipe = make_cascade(3)
    calls = record_calls(pipe)
    pipe("a red cat")
    assert [name for name, _ in calls].count("text_encoder") == 1


def test_a_longer_prompt_than_the_u_nets_take_is_cut_with_a_warning(make_cascade, seeded, caplog):
    pipe = make_cascade(2, text=None)
    with caplog.at_level(logging.WARNING):
        cut = draw(pipe, "a " * 11 + "red cat", generator=seeded(0))
    assert "only 12 are used" in caplog.text
    assert "red cat" in caplog.text
    assert torch.equal(cut, draw(pipe, "a " * 11, generator=seeded(0)))


def test_saved_text_settings_are_used(make_cascade, cascade_parts):
    settings = {"prefix": "red ", "layers": [0], "padding": "max_length", "max_length": 6}
    embeds, mask, _, _ = make_cascade(1, text=settings).encode_prompt("cat")
    assert embeds.shape == (1, 6, 16)
    assert mask.sum() == 3
    # Layer 0 is the embedding of the tokens themselves: red, cat, end.
    tokens = cascade_parts["tokenizer"]("red cat", return_tensors="pt").input_ids
    assert torch.equal(embeds[0, :3], cascade_parts["text_encoder"].get_input_embeddings()(tokens)[0])


def test_a_pipeline_without_its_base_encodes_prompts_and_draws_none(make_cascade):
    whole = make_cascade(2)
    texts = make_cascade(2, unet=None)
    for one, other in zip(texts.encode_prompt("a red cat"), whole.encode_prompt("a red cat"), strict=True):
        assert torch.equal(one, other)
    with pytest.raises(ValueError, match="`unet` is None, and without a base there is no cascade"):
        texts("a red cat")


def test_a_pipeline_without_u_nets_encodes_prompts_for_one_with_them(make_cascade, seeded):
    whole = make_cascade(2)
    texts = make_cascade(1, unet=None, scheduler=None)
    assert texts.stage_names == []
    names = ("prompt_embeds", "prompt_attention_mask", "negative_prompt_embeds", "negative_prompt_attention_mask")
    encoded = dict(zip(names, texts.encode_prompt("a red cat", negative_prompt="a dog"), strict=True))
    drawn = whole(**encoded, generator=seeded(0), output_type="pt").images
    same = whole("a red cat", negative_prompt="a dog", generator=seeded(0), output_type="pt").images
    assert torch.equal(drawn, same)
