"""Input that is nearly right: refused in our words, or understood."""

import numpy as np
import pytest
import torch
from diffusers import (
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
)

from diffusers_imagen.pipelines.pipeline_imagen_cascade import ImagenCascadePipeline


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prompt": "\ud800 cat"}, "`prompt` holds '\\\\ud800', half a character"),
        ({"negative_prompt": ["\udc00"]}, "`negative_prompt` holds"),
        ({"generator": [None]}, "`generator` is or holds None"),
        ({"latents": torch.full((1, 3, 8, 8), torch.nan)}, "`latents` holds values that are not finite"),
        ({"height": True}, "`height` is True"),
        ({"callback_on_step_end_tensor_inputs": None}, "`callback_on_step_end_tensor_inputs` is None"),
        ({"callback_on_step_end_tensor_inputs": "latents"}, "`callback_on_step_end_tensor_inputs` is 'latents'"),
        ({"image": torch.rand(1, 3, 5, 8)}, r"`height` is 10 pixels .*\(from the picture that is given\)"),
        ({"image": torch.full((1, 3, 8, 8), torch.inf)}, "`image` holds values that are not finite"),
    ],
)
def test_what_is_nearly_right_is_refused_in_our_words(cascade, arguments, message):
    if "latents" in arguments or "height" in arguments:
        arguments = arguments | {"stop_stage": "base"}
    with pytest.raises(ValueError, match=message):
        cascade(**{"prompt": "a cat"} | arguments)


@pytest.mark.parametrize(
    ("scheduler", "steps", "message"),
    [
        (DPMSolverMultistepScheduler(), {"timesteps": [5000]}, "`timesteps` holds 5000; give numbers from 0 to 999"),
        (
            DPMSolverMultistepScheduler(use_exponential_sigmas=True),
            {"timesteps": [900, 500]},
            r"The steps of 'base' \(timesteps\) do not suit its scheduler: .*exponential",
        ),
        (EulerDiscreteScheduler(), {"sigmas": [0.5, 3.0]}, "do not fall from step to step"),
        (FlowMatchEulerDiscreteScheduler(), {"sigmas": [5.0, 0.5]}, "`sigmas` starts at 5, beyond pure noise"),
    ],
)
def test_own_steps_that_cannot_work_are_refused_with_the_stage(make_cascade, scheduler, steps, message):
    with pytest.raises(ValueError, match=message):
        make_cascade(1, scheduler=scheduler)("a cat", **steps)


def test_numpys_numbers_are_numbers(cascade, seeded):
    arguments = {"num_inference_steps": np.int64(2), "guidance_scale": np.float32(2), "height": np.int64(16)}
    drawn = cascade("a cat", generator=seeded(0), output_type="pt", **arguments).images
    plain = cascade("a cat", generator=seeded(0), output_type="pt", num_inference_steps=2, guidance_scale=2.0).images
    assert torch.equal(drawn, plain)


def test_a_callback_may_return_none_for_a_tensor_but_nothing_else_than_a_dict(cascade, seeded):
    plain = cascade("a cat", generator=seeded(0), output_type="pt").images
    kept = cascade(
        "a cat", generator=seeded(0), output_type="pt", callback_on_step_end=lambda *_: {"latents": None}
    ).images
    assert torch.equal(plain, kept)
    with pytest.raises(ValueError, match="`callback_on_step_end` returned Tensor"):
        cascade("a cat", callback_on_step_end=lambda *_: torch.zeros(2))


def test_a_misspelt_name_is_answered_with_the_built_in_ones():
    with pytest.raises(
        OSError, match=r"'imagen-emojy': there is no such folder, it is no built-in cascade \(there is imagen-emoji\)"
    ):
        ImagenCascadePipeline.from_pretrained("imagen-emojy", local_files_only=True)


def test_what_is_no_name_is_refused():
    with pytest.raises(ValueError, match="`pretrained_model_name_or_path` is None"):
        ImagenCascadePipeline.from_pretrained(None)


@pytest.mark.parametrize("name", ["/nowhere/at/all", "./models/nope"])
def test_a_path_that_does_not_exist_is_not_looked_for_on_the_hub(name):
    with pytest.raises(OSError, match=f"is '{name}', and there is no such folder; check the path"):
        ImagenCascadePipeline.from_pretrained(name)


@pytest.mark.parametrize(
    ("scheduler", "steps"),
    [
        (EulerDiscreteScheduler(), {"sigmas": [0.1, 0.05]}),
        (FlowMatchEulerDiscreteScheduler(), {"timesteps": [1.0, 0.75, 0.5, 0.25]}),
        (FlowMatchEulerDiscreteScheduler(), {"sigmas": [0.1, 0.05]}),
        (DDPMScheduler(), {"timesteps": [100, 50, 1]}),
        (DPMSolverMultistepScheduler(), {"timesteps": [100, 50, 10]}),
    ],
)
def test_steps_that_begin_at_a_picture_are_refused_unless_one_is_given(make_cascade, scheduler, steps):
    pipe = make_cascade(1)
    pipe.scheduler = scheduler
    with pytest.raises(ValueError, match=r"steps of 'base' .*more picture than noise"):
        pipe("a cat", **steps)
    assert len(pipe("a cat", latents=torch.zeros(1, 3, 8, 8), **steps).images) == 1


@pytest.mark.parametrize("kind", [torch.tensor, np.array])
def test_steps_may_be_an_array(make_cascade, seeded, kind):
    pipe = make_cascade(1)
    pipe.scheduler = DDPMScheduler()
    drawn = [
        pipe("a cat", timesteps=steps, generator=seeded(0), output_type="np").images
        for steps in ([900, 400], kind([900, 400]))
    ]
    np.testing.assert_array_equal(*drawn)
    with pytest.raises(ValueError, match=r"`timesteps` is \[999, True\]"):
        pipe("a cat", timesteps=[999, True])
