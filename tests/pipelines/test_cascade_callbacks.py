"""Following and steering a call: callbacks, counters, progress bars, and the forms of the result."""

import copy

import numpy as np
import PIL.Image
import pytest
import torch
from diffusers import EulerDiscreteScheduler

from diffusers_imagen.pipelines.pipeline_output import ImagenCascadeOutput


def test_steps_are_counted_over_all_stages(make_cascade):
    pipe = make_cascade(3)
    seen = []

    def note(running, step, timestep, tensors):
        seen.append((step, float(timestep), tuple(tensors["latents"].shape)))
        return tensors

    pipe("a cat", callback_on_step_end=note)
    assert [step for step, _, _ in seen] == list(range(7))
    assert pipe.num_timesteps == 7
    assert [shape for _, _, shape in seen] == [(1, 3, 8, 8)] * 3 + [(1, 3, 16, 16)] * 2 + [(1, 3, 32, 32)] * 2
    # "trailing" spacing over 1000: each stage begins at the noisy end anew.
    assert [timestep for _, timestep, _ in seen] == [999, 666, 332, 999, 499, 999, 499]


def test_the_tensors_are_those_that_were_asked_for(cascade):
    seen = []
    cascade(
        "a cat",
        callback_on_step_end=lambda pipe, step, timestep, tensors: seen.append(dict(tensors)),
        callback_on_step_end_tensor_inputs=[],
    )
    assert seen == [{}] * 5


def test_changed_latents_are_what_the_next_step_sees(cascade, record_calls):
    calls = record_calls(cascade)

    def replace(pipe, step, timestep, tensors):
        return {"latents": torch.full_like(tensors["latents"], step + 1.0)}

    cascade("a cat", callback_on_step_end=replace, stop_stage="base")
    samples = [arguments["sample"] for name, arguments in calls if name == "unet"]
    assert torch.equal(samples[1], torch.full_like(samples[1], 1.0))
    assert torch.equal(samples[2], torch.full_like(samples[2], 2.0))


@pytest.mark.parametrize("stages", [1, 2, 3])
def test_zeroing_at_the_last_step_zeroes_the_picture(make_cascade, stages):
    def zero_at_the_end(pipe, step, timestep, tensors):
        if step == pipe.num_timesteps - 1:
            tensors["latents"] = torch.zeros_like(tensors["latents"])
        return tensors

    out = make_cascade(stages)("a cat", callback_on_step_end=zero_at_the_end, output_type="latent")
    assert out.images.abs().max() == 0
    assert all(picture.abs().max() > 0 for name, picture in list(out.stages.items())[:-1])


def test_a_changed_guidance_scale_lives_until_the_stage_ends(make_cascade, record_calls):
    pipe = make_cascade(1)
    seen = []

    def raise_it(running, step, timestep, tensors):
        seen.append(running.guidance_scale)
        running._guidance_scale += 1.0
        return tensors

    pipe("a cat", guidance_scale=2.0, callback_on_step_end=raise_it)
    assert seen == [2.0, 3.0, 4.0]
    assert pipe.guidance_scale == 2.0 + pipe.num_timesteps


def test_every_stage_starts_with_its_own_guidance_scale(cascade, record_calls):
    calls = record_calls(cascade)
    seen = []

    def switch_off(running, step, timestep, tensors):
        seen.append((running.guidance_scale, running.do_classifier_free_guidance))
        running._guidance_scale = 1.0

    cascade("a cat", guidance_scale={"base": 4.0, "sr_1": 2.0}, callback_on_step_end=switch_off)
    assert seen == [(4.0, True), (1.0, False), (1.0, False), (2.0, True), (1.0, False)]
    assert [len(arguments["sample"]) for name, arguments in calls if "unet" in name] == [2, 1, 1, 2, 1]


def test_an_interrupted_call_gives_what_was_drawn_so_far_and_goes_no_further(make_cascade, record_calls, seeded):
    pipe = make_cascade(3)
    calls = record_calls(pipe)
    latents = []

    def interrupt_in_the_first_enlargement(running, step, timestep, tensors):
        latents.append(tensors["latents"])
        running._interrupt = step == 3
        return tensors

    out = pipe("a cat", callback_on_step_end=interrupt_in_the_first_enlargement, output_type="latent")
    assert [name for name, _ in calls if "unet" in name] == ["unet"] * 3 + ["sr_unet_1"]
    assert pipe.interrupt
    assert list(out.stages) == ["base", "sr_1"]
    assert torch.equal(out.images, latents[-1])
    whole = pipe("a cat", output_type="latent", generator=seeded(0))
    assert list(whole.stages) == ["base", "sr_1", "sr_2"]


def test_there_is_a_progress_bar_for_each_stage_and_it_can_be_switched_off(cascade, capfd):
    cascade.set_progress_bar_config(disable=True)
    cascade("a cat")
    assert capfd.readouterr().err == ""
    cascade.set_progress_bar_config(disable=False)
    cascade("a cat")
    shown = capfd.readouterr().err
    assert "base: 100%" in shown
    assert "3/3" in shown
    assert "sr_1: 100%" in shown
    assert "2/2" in shown


def test_the_forms_of_the_result_show_the_same_pictures(cascade, seeded):
    forms = {
        kind: cascade(["a cat", "a dog"], generator=seeded(0), output_type=kind)
        for kind in ("pil", "np", "pt", "latent")
    }
    assert all(isinstance(out, ImagenCascadeOutput) for out in forms.values())
    latent, tensor = forms["latent"].images, forms["pt"].images
    assert latent.shape == (2, 3, 16, 16)
    assert latent.dtype == torch.float32
    torch.testing.assert_close(tensor, latent.clamp(-1, 1) / 2 + 0.5)
    np.testing.assert_array_equal(forms["np"].images, tensor.permute(0, 2, 3, 1).numpy())
    for image, array in zip(forms["pil"].images, forms["np"].images, strict=True):
        assert isinstance(image, PIL.Image.Image)
        np.testing.assert_array_equal(np.asarray(image), (array * 255).round().astype("uint8"))
    assert forms["pil"].stages["base"][0].size == (8, 8)
    assert forms["np"].stages["base"].shape == (2, 8, 8, 3)


def test_without_a_dict_the_pictures_come_first(cascade, seeded):
    out = cascade("a cat", generator=seeded(0), output_type="latent")
    images, stages = cascade("a cat", generator=seeded(0), output_type="latent", return_dict=False)
    assert torch.equal(images, out.images)
    assert torch.equal(out[0], out.images)
    assert list(stages) == ["base", "sr_1"]


def test_a_call_leaves_no_gradients_and_changes_no_component(make_cascade, seeded):
    pipe = make_cascade(2, scheduler=EulerDiscreteScheduler())
    before = dict(pipe.components.items())
    weights = {name: value.clone() for name, value in pipe.unet.state_dict().items()}
    config = dict(pipe.config)
    out = pipe("a cat", generator=seeded(0), output_type="latent")
    assert not out.images.requires_grad
    assert all(pipe.components[name] is component for name, component in before.items())
    assert all(torch.equal(value, weights[name]) for name, value in pipe.unet.state_dict().items())
    assert dict(pipe.config) == config
    # The second call starts from the same state as the first.
    assert torch.equal(pipe("a cat", generator=seeded(0), output_type="latent").images, out.images)


def not_finite(pipe, step, timestep, tensors):
    return {"latents": tensors["latents"] / 0}


@pytest.mark.parametrize("stop", ["base", "sr_1"])
def test_pictures_that_are_not_finite_are_none(cascade, stop):
    with pytest.raises(FloatingPointError, match="'base' drew 2 of 2 pictures with values that are not finite"):
        cascade(["a cat", "a dog"], callback_on_step_end=not_finite, stop_stage=stop)


def test_weights_that_are_not_finite_draw_nothing(make_cascade, cascade_parts):
    broken = copy.deepcopy(cascade_parts["sr_unet_1"])
    torch.nn.init.constant_(next(broken.parameters()), float("nan"))
    with pytest.raises(FloatingPointError, match=r"'sr_1' drew 1 of 1 pictures .* weights and adapters"):
        make_cascade(2, sr_unet_1=broken)("a cat")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda latents: {"latents": latents.numpy()}, "returned ndarray as 'latents'; return a floating"),
        (lambda latents: {"latents": latents[..., :4]}, r"returned torch.float32 of \(1, 3, 8, 4\) .* \(1, 3, 8, 8\)"),
        (lambda latents: {"latents": latents.long()}, "returned torch.int64 of"),
        (lambda latents: {"prompt_embeds": latents}, "returned 'prompt_embeds', which nothing reads"),
        (lambda latents: latents, "returned Tensor; return a dict or None"),
    ],
)
def test_what_a_callback_may_not_return_is_refused(cascade, change, message):
    with pytest.raises(ValueError, match=message):
        cascade("a cat", callback_on_step_end=lambda pipe, step, timestep, tensors: change(tensors["latents"]))


def test_a_changed_sample_keeps_its_precision(cascade, record_calls):
    calls = record_calls(cascade)
    cascade("a cat", callback_on_step_end=lambda *given: {"latents": given[3]["latents"].double()})
    assert {arguments["sample"].dtype for name, arguments in calls if "unet" in name} == {torch.float32}


def test_a_pipeline_that_draws_is_not_called_again(cascade, seeded):
    def again(pipe, step, timestep, tensors):
        pipe("a dog")

    with pytest.raises(ValueError, match="called while it draws"):
        cascade("a cat", callback_on_step_end=again)
    expected = cascade("a cat", generator=seeded(0), output_type="latent").images

    def another(pipe, step, timestep, tensors):
        type(pipe)(**pipe.components | {"scheduler": copy.deepcopy(pipe.scheduler)})("a dog", stop_stage="base")

    drawn = cascade("a cat", generator=seeded(0), output_type="latent", callback_on_step_end=another).images
    assert torch.equal(drawn, expected)
