"""Batches that are split to fit into memory: what the models get, what callers see, and what is held."""

import gc
from typing import Any

import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, EulerDiscreteScheduler

PROMPTS = ["a cat", "a dog", "a red hat", "a blue cat", "猫"]


def sizes(calls: list[Any], name: str) -> list[int]:
    return [len(arguments["sample"]) for component, arguments in calls if component == name]


@pytest.mark.parametrize(
    ("argument", "base", "enlargement"),
    [
        (None, [10], [5]),
        (2, [4, 4, 2], [2, 2, 1]),
        ({"sr_1": 3}, [10], [3, 2]),
        ({"base": 4, "sr_1": None}, [6, 4], [5]),
        (50, [10], [5]),
    ],
)
def test_one_number_is_for_every_stage_and_a_mapping_for_those_it_names(
    cascade, record_calls, argument, base, enlargement
):
    calls = record_calls(cascade)
    cascade(PROMPTS, max_batch_size=argument)
    assert sizes(calls, "unet") == base * 3
    assert sizes(calls, "sr_unet_1") == enlargement * 2
    assert len([name for name, _ in calls if name == "text_encoder"]) == 1


def test_a_checkpoint_may_say_it(make_cascade, record_calls, tmp_path):
    pipe = make_cascade(2, settings={"sr_1": {"max_batch_size": 1, "num_inference_steps": 1}})
    calls = record_calls(pipe)
    pipe(PROMPTS[:2], num_inference_steps=1)
    assert sizes(calls, "unet") == [4]
    assert sizes(calls, "sr_unet_1") == [1, 1]
    calls.clear()
    pipe(PROMPTS[:2], num_inference_steps=1, max_batch_size={"sr_1": None})
    assert sizes(calls, "sr_unet_1") == [2]


@pytest.mark.parametrize("scheduler", [DPMSolverMultistepScheduler, EulerDiscreteScheduler])
@pytest.mark.parametrize("seeds", [(3,), (3, 4, 5, 6, 7)], ids=["one generator", "a generator for each"])
def test_the_pictures_are_the_same_for_every_size(make_cascade, seeded, seeds, scheduler):
    pipe = make_cascade(3, scheduler=scheduler(), sr_scheduler_1=scheduler())

    def draw(size: int | None) -> torch.Tensor:
        return pipe(PROMPTS, generator=seeded(*seeds), max_batch_size=size, output_type="pt").images

    whole = draw(None)
    for size in (1, 2, 3):
        # Not to the bit: a network's sums depend on how many pictures it gets.
        torch.testing.assert_close(draw(size), whole, rtol=0, atol=1e-4)


def test_a_callback_sees_the_whole_batch_once_a_step_and_what_it_keeps_stays(cascade, seeded):
    def follow(size: int | None) -> list[tuple[int, float, torch.Tensor]]:
        seen = []

        def note(pipe, step, timestep, tensors):
            seen.append((step, float(timestep), tensors["latents"]))

        cascade(PROMPTS, generator=seeded(0), max_batch_size=size, callback_on_step_end=note)
        return seen

    whole, split = follow(None), follow(2)
    assert [entry[:2] for entry in split] == [entry[:2] for entry in whole]
    assert cascade.num_timesteps == len(split) == 5
    for (_, _, expected), (_, _, latents) in zip(whole, split, strict=True):
        torch.testing.assert_close(latents, expected, rtol=0, atol=1e-4)


def test_a_callback_changes_and_ends_a_split_batch_as_any_other(cascade, record_calls):
    calls = record_calls(cascade)

    def change(pipe, step, timestep, tensors):
        pipe._interrupt = step == 1
        return {"latents": torch.full_like(tensors["latents"], step + 1.0)}

    out = cascade(PROMPTS[:3], max_batch_size=2, callback_on_step_end=change, stop_stage="base", output_type="latent")
    assert sizes(calls, "unet") == [4, 2, 4, 2]
    samples = [arguments["sample"] for name, arguments in calls if name == "unet"]
    assert torch.equal(samples[2], torch.ones_like(samples[2]))
    assert torch.equal(out.images, torch.full((3, 3, 8, 8), 2.0))


@pytest.mark.parametrize(("scheduler", "buffers"), [(EulerDiscreteScheduler, 2), (DPMSolverMultistepScheduler, 4)])
def test_a_further_picture_costs_its_own_memory_and_its_smaller_ones(make_cascade, scheduler, buffers):
    # Per picture: itself, what it is enlarged from, and with a multistep solver the last two predictions.
    pipe = make_cascade(2, sr_scheduler_1=scheduler())
    side = pipe.sr_unet_1.config.sample_size

    def held(*_: Any) -> None:
        large = [t for t in gc.get_objects() if isinstance(t, torch.Tensor) and t.shape[-2:] == (side, side)]
        storages = {
            t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in large if t.shape[1:2] == (3,)
        }
        totals.append(sum(storages.values()))

    def peak(number: int) -> int:
        totals.clear()
        gc.collect()
        gc.freeze()  # only what this call makes is looked at
        pipe(["a cat"] * number, max_batch_size=1, num_inference_steps={"base": 1, "sr_1": 4}, output_type="latent")
        gc.unfreeze()
        return max(totals)

    totals: list[int] = []
    handle = pipe.sr_unet_1.register_forward_pre_hook(held)
    growth = (peak(6) - peak(2)) / 4
    handle.remove()
    assert growth == buffers * 3 * side * side * 4
