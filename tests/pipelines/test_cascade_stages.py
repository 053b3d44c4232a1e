"""Which stages run, with which settings, from which picture, at which size."""

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
)
from PIL import Image

from diffusers_imagen.diffusion.resize import resize

COSINE = {"beta_schedule": "squaredcos_cap_v2"}
SCHEDULERS = [
    DDPMScheduler(**COSINE),
    DDIMScheduler(**COSINE),
    DPMSolverMultistepScheduler(**COSINE),
    EulerDiscreteScheduler(**COSINE),
    FlowMatchEulerDiscreteScheduler(),
]


def counts(calls):
    """Count the forward passes of each U-Net."""
    names = [name for name, _ in calls if name != "text_encoder"]
    return {name: names.count(name) for name in dict.fromkeys(names)}


@pytest.mark.parametrize("scheduler", SCHEDULERS, ids=lambda scheduler: type(scheduler).__name__)
def test_the_smaller_picture_reaches_the_u_net_bit_by_bit_at_every_step(make_cascade, record_calls, seeded, scheduler):
    pipe = make_cascade(sr_scheduler_1=scheduler)
    calls = record_calls(pipe)
    # The level is 0, so the condition is the base's picture itself, only enlarged.
    pictures = pipe(
        ["a cat", "a dog"], num_inference_steps={"sr_1": 4}, noise_level={"sr_1": 0.0}, guidance_scale={"sr_1": 2.0},
        generator=seeded(0), output_type="latent",
    ).stages["base"]  # fmt: skip
    expected = resize(pictures, (16, 16))
    conditions = [arguments["low_res"] for name, arguments in calls if name == "sr_unet_1"]
    assert len(conditions) == 4
    for condition in conditions:
        assert torch.equal(condition, torch.cat([expected, expected]))


@pytest.mark.parametrize("scheduler", SCHEDULERS, ids=lambda scheduler: type(scheduler).__name__)
def test_the_noise_on_the_smaller_picture_is_drawn_once_and_told(make_cascade, record_calls, seeded, scheduler):
    pipe = make_cascade(sr_scheduler_1=scheduler)
    calls = record_calls(pipe)
    pictures = pipe("a cat", noise_level={"sr_1": 0.5}, generator=seeded(0), output_type="latent").stages["base"]
    conditions = [arguments for name, arguments in calls if name == "sr_unet_1"]
    assert len(conditions) == 2
    assert torch.equal(conditions[0]["low_res"], conditions[1]["low_res"])
    assert [condition["noise_level"].tolist() for condition in conditions] == [[0.5], [0.5]]
    # cos(pi/4) of the picture; what is left is sin(pi/4) of standard noise.
    rest = conditions[0]["low_res"] - 0.5**0.5 * resize(pictures, (16, 16))
    assert float(rest.std()) == pytest.approx(0.5**0.5, rel=0.1)


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        (None, {"unet": 3, "sr_unet_1": 2, "sr_unet_2": 2}),
        (5, {"unet": 5, "sr_unet_1": 2, "sr_unet_2": 2}),
        ({"sr_1": 4}, {"unet": 3, "sr_unet_1": 4, "sr_unet_2": 2}),
        ({"base": 2, "sr_2": 3}, {"unet": 2, "sr_unet_1": 2, "sr_unet_2": 3}),
    ],
)
def test_a_number_of_steps_sets_the_base_and_a_mapping_the_stages_it_names(
    make_cascade, record_calls, argument, expected
):
    pipe = make_cascade(3)
    calls = record_calls(pipe)
    pipe("a cat", num_inference_steps=argument)
    assert counts(calls) == expected
    assert pipe.num_timesteps == sum(expected.values())


@pytest.mark.parametrize(
    ("argument", "batches"),
    [(None, [4, 2, 2]), (1.0, [2, 2, 2]), ({"sr_1": 2.0}, [4, 4, 2]), ({"base": 1, "sr_2": 0.0}, [2, 2, 4])],
)
def test_guidance_doubles_the_batch_of_the_stages_that_have_it(make_cascade, record_calls, argument, batches):
    pipe = make_cascade(3)
    calls = record_calls(pipe)
    pipe(["a cat", "a dog"], guidance_scale=argument)
    found = [(name, len(arguments["sample"])) for name, arguments in calls if name != "text_encoder"]
    steps = {"unet": 3, "sr_unet_1": 2, "sr_unet_2": 2}
    expected = [(name, batch) for (name, count), batch in zip(steps.items(), batches, strict=True)]
    assert list(dict.fromkeys(found)) == expected
    assert counts(calls) == steps


def test_guidance_in_an_interval_only(cascade, record_calls):
    calls = record_calls(cascade)
    cascade("a cat", num_inference_steps=4, guidance_interval=(0.25, 0.75), stop_stage="base")
    assert [len(arguments["sample"]) for name, arguments in calls if name == "unet"] == [1, 2, 2, 1]


def test_a_checkpoint_that_says_nothing_guides_the_base_alone(make_cascade, record_calls):
    pipe = make_cascade(2, settings={})
    calls = record_calls(pipe)
    pipe("a cat", num_inference_steps={"base": 2, "sr_1": 2})
    assert [len(arguments["sample"]) for name, arguments in calls if "unet" in name] == [2, 2, 1, 1]


def test_stopping_at_the_base_leaves_the_enlargement_out(cascade, record_calls, seeded):
    whole = cascade("a cat", generator=seeded(0), output_type="latent")
    calls = record_calls(cascade)
    stopped = cascade("a cat", generator=seeded(0), output_type="latent", stop_stage="base")
    assert counts(calls) == {"unet": 3}
    assert list(stopped.stages) == ["base"]
    assert list(whole.stages) == ["base", "sr_1"]
    assert stopped.images.shape == (1, 3, 8, 8)
    assert torch.equal(stopped.images, whole.stages["base"])
    assert torch.equal(whole.images, whole.stages["sr_1"])


def test_an_enlargement_alone_equals_that_of_the_whole_cascade(cascade, record_calls, seeded):
    whole = cascade("a red cat", generator=seeded(0), output_type="latent")
    generator = seeded(0)
    base = cascade("a red cat", generator=generator, output_type="pt", stop_stage="base").images
    calls = record_calls(cascade)
    # The generator goes on where the base left it, so the noise is the same.
    alone = cascade("a red cat", image=base, start_stage="sr_1", generator=generator, output_type="latent")
    assert counts(calls) == {"sr_unet_1": 2}
    assert list(alone.stages) == ["sr_1"]
    torch.testing.assert_close(alone.images, whole.images, rtol=0, atol=1e-4)


@pytest.mark.parametrize("scheduler", SCHEDULERS[1:], ids=lambda scheduler: type(scheduler).__name__)
@pytest.mark.parametrize("max_batch_size", [None, 1])
def test_an_enlargement_may_keep_the_mean_colour_of_what_it_enlarges(make_cascade, seeded, scheduler, max_batch_size):
    small = {"num_inference_steps": 3, "guidance_scale": 2.0, "max_batch_size": max_batch_size}
    drawn = {}
    for keep_color in (False, True):
        pipe = make_cascade(
            settings={"base": small, "sr_1": {**small, "keep_color": keep_color}}, sr_scheduler_1=scheduler
        )
        stages = pipe(["a cat", "a dog"], generator=seeded(0), output_type="latent").stages
        colors = [stages[name].mean(dim=(2, 3)).clamp(-1, 1) for name in ("base", "sr_1")]
        drawn[keep_color] = (colors[0] - colors[1]).abs().max()
    assert drawn[True] < 1e-3 < drawn[False]


def test_a_picture_may_come_in_any_form(cascade, seeded):
    pil = cascade("a cat", generator=seeded(0), stop_stage="base").images
    array = cascade.image_processor.pil_to_numpy(pil)
    tensor = torch.from_numpy(array).permute(0, 3, 1, 2)

    def enlarged(image):
        return cascade("a cat", image=image, generator=seeded(1), output_type="pt").images

    expected = enlarged(pil[0])
    for image in (pil, array, tensor, [tensor[0]], pil[0].convert("RGBA")):
        torch.testing.assert_close(enlarged(image), expected, rtol=0, atol=1e-5)
    assert not torch.allclose(enlarged(Image.new("RGB", (8, 8))), expected, atol=0.05)


def test_one_picture_is_enlarged_for_several_prompts(cascade, seeded):
    image = Image.new("RGB", (8, 8), "red")
    many = cascade(["a cat", "a dog"], image=image, generator=seeded(4, 5), output_type="pt").images
    each = [
        cascade(prompt, image=image, generator=seeded(seed), output_type="pt").images[0]
        for prompt, seed in (("a cat", 4), ("a dog", 5))
    ]
    torch.testing.assert_close(many, torch.stack(each), rtol=0, atol=1e-4)


def test_several_pictures_go_to_their_own_prompts(cascade, seeded):
    images = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    many = cascade(
        ["a cat", "a dog"], image=images, num_images_per_prompt=2, generator=seeded(1, 2, 3, 4), output_type="pt"
    ).images
    for index, (prompt, image) in enumerate([("a cat", images[0])] * 2 + [("a dog", images[1])] * 2):
        alone = cascade(prompt, image=image, generator=seeded(index + 1), output_type="pt").images[0]
        torch.testing.assert_close(many[index], alone, rtol=0, atol=1e-4)


def test_a_picture_of_another_size_is_shrunk_to_what_the_stage_enlarges(cascade, record_calls, seeded):
    calls = record_calls(cascade)
    image = torch.rand(1, 3, 24, 24, generator=seeded(0))
    out = cascade(
        "a cat", image=image, height=16, width=16, noise_level={"sr_1": 0.0}, generator=seeded(1), output_type="pt"
    )
    assert out.images.shape == (1, 3, 16, 16)
    expected = resize(resize(image * 2 - 1, (8, 8)), (16, 16))
    low_res = next(arguments["low_res"] for name, arguments in calls if name == "sr_unet_1")
    torch.testing.assert_close(low_res, expected, rtol=0, atol=1e-5)


def test_the_second_enlargement_starts_alone_too(make_cascade, record_calls):
    pipe = make_cascade(3)
    calls = record_calls(pipe)
    out = pipe("a cat", image=Image.new("RGB", (16, 16)), start_stage="sr_2")
    assert counts(calls) == {"sr_unet_2": 2}
    assert out.images[0].size == (32, 32)


def test_an_image_starts_at_the_first_enlargement_by_itself(make_cascade, record_calls):
    pipe = make_cascade(3)
    calls = record_calls(pipe)
    pipe("a cat", image=Image.new("RGB", (8, 8)), stop_stage="sr_1")
    assert counts(calls) == {"sr_unet_1": 2}


@pytest.mark.parametrize(
    ("stages", "height", "width", "sizes"),
    [
        (3, 64, 32, {"base": (16, 8), "sr_1": (32, 16), "sr_2": (64, 32)}),
        (3, None, 48, {"base": (8, 12), "sr_1": (16, 24), "sr_2": (32, 48)}),
        (2, 8, 24, {"base": (4, 12), "sr_1": (8, 24)}),
        (1, 12, None, {"base": (12, 8)}),
    ],
)
def test_height_and_width_are_the_final_pictures(make_cascade, stages, height, width, sizes):
    out = make_cascade(stages)("a cat", height=height, width=width, output_type="pt")
    assert {name: tuple(picture.shape[-2:]) for name, picture in out.stages.items()} == sizes


def test_a_picture_sets_the_shape_of_what_is_drawn(cascade):
    out = cascade("a cat", image=Image.new("RGB", (8, 12)))
    assert out.images[0].size == (16, 24)


def test_a_cascade_without_its_first_enlargement_goes_on_to_the_second(make_cascade, cascade_parts, record_calls):
    pipe = make_cascade(3, sr_unet_1=None)
    calls = record_calls(pipe)
    out = pipe("a cat")
    assert pipe.stage_names == ["base", "sr_2"]
    assert counts(calls) == {"unet": 3, "sr_unet_2": 2}
    assert out.images[0].size == (32, 32)


def test_latents_are_the_noise_of_the_first_stage(cascade, record_calls, seeded):
    latents = torch.randn(1, 3, 8, 8, generator=seeded(3))
    calls = record_calls(cascade)
    first = cascade("a cat", latents=latents, generator=seeded(0), output_type="latent", stop_stage="base").images
    # A DDIM scheduler starts from standard noise, and only the noisy picture's level scales it.
    torch.testing.assert_close(calls[1][1]["sample"][:1], latents, rtol=1e-5, atol=1e-5)
    again = cascade("a cat", latents=latents, generator=seeded(9), output_type="latent", stop_stage="base").images
    assert torch.equal(first, again)


def test_latents_are_scaled_to_what_the_scheduler_starts_from(make_cascade, record_calls, seeded):
    pipe = make_cascade(1, scheduler=EulerDiscreteScheduler())
    calls = record_calls(pipe)
    latents = torch.randn(1, 3, 8, 8, generator=seeded(3))
    pipe("a cat", latents=latents)
    sigma = pipe.scheduler.sigmas[0]
    expected = latents * pipe.scheduler.init_noise_sigma / (1 + sigma**2) ** 0.5
    torch.testing.assert_close(calls[1][1]["sample"][:1], expected)


@pytest.mark.parametrize(
    ("scheduler", "argument", "steps"),
    [
        (DDPMScheduler(**COSINE), {"timesteps": [900, 400, 100, 20]}, 4),
        (EulerDiscreteScheduler(**COSINE), {"sigmas": [20.0, 4.0, 0.5, 0.0]}, 3),
        (FlowMatchEulerDiscreteScheduler(), {"sigmas": {"base": [1.0, 0.4]}}, 2),
    ],
    ids=["timesteps", "sigmas", "mapping"],
)
def test_own_timesteps_and_sigmas_reach_the_scheduler(make_cascade, record_calls, scheduler, argument, steps):
    pipe = make_cascade(2, scheduler=scheduler)
    calls = record_calls(pipe)
    pipe("a cat", **argument)
    assert counts(calls) == {"unet": steps, "sr_unet_1": 2}


def test_one_scheduler_may_serve_two_stages(make_cascade, seeded):
    scheduler = DPMSolverMultistepScheduler(**COSINE)
    twice = make_cascade(2, scheduler=scheduler, sr_scheduler_1=scheduler)
    apart = make_cascade(
        2, scheduler=DPMSolverMultistepScheduler(**COSINE), sr_scheduler_1=DPMSolverMultistepScheduler(**COSINE)
    )
    pictures = [pipe("a cat", generator=seeded(0), output_type="latent").images for pipe in (twice, apart)]
    assert torch.equal(*pictures)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_weights_draw_nearly_the_same(make_cascade, cascade_parts, seeded, dtype):
    precise = make_cascade(1)("a cat", generator=seeded(0), output_type="pt").images
    parts = {
        name: type(part).from_config(part.config) if name == "unet" else type(part)(part.config)
        for name, part in cascade_parts.items()
        if name in ("unet", "text_encoder")
    }
    for name, part in parts.items():
        part.load_state_dict(cascade_parts[name].state_dict())
        part.eval()
    pipe = make_cascade(1, **parts).to(dtype)
    half = pipe("a cat", generator=seeded(0), output_type="pt").images
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, precise, rtol=0, atol=0.1)
