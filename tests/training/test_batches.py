from collections.abc import Callable
from dataclasses import fields
from itertools import islice
from typing import Any

import pytest
import torch

from diffusers_imagen.training.batches import BatchMaker
from diffusers_imagen.training.objective import TrainingBatch

MakeBatches = Callable[..., BatchMaker]


def joined(batches: list[TrainingBatch]) -> dict[str, Any]:
    """Put batches together, texts without their padding."""
    tensors: dict[str, Any] = {
        part.name: torch.cat([getattr(batch, part.name) for batch in batches])
        for part in fields(TrainingBatch)
        if getattr(batches[0], part.name) is not None and not part.name.startswith("text")
    }
    tensors["texts"] = [
        text[mask].tolist() for batch in batches for text, mask in zip(batch.text, batch.text_mask, strict=True)
    ]
    return tensors


def assert_same_samples(one: list[TrainingBatch], other: list[TrainingBatch]) -> None:
    left, right = joined(one), joined(other)
    assert left.keys() == right.keys()
    for name, value in left.items():
        assert torch.equal(value, right[name]) if isinstance(value, torch.Tensor) else value == right[name], name


@pytest.mark.parametrize("enlarges", [False, True])
def test_samples_do_not_depend_on_batch_size_processes_or_memory(make_batches: MakeBatches, enlarges: bool) -> None:
    changes: dict[str, Any] = {"enlarges": enlarges, "data": {"horizontal_flip": True}}
    reference = [make_batches(**changes, batch_size=12).batch(i) for i in range(2)]

    small = make_batches(**changes, batch_size=3)
    assert_same_samples([small.batch(i) for i in range(8)], reference)
    ranks = [make_batches(processes=2, process=rank, **changes, batch_size=6) for rank in range(2)]
    assert_same_samples([maker.batch(i) for i in range(2) for maker in ranks], reference)
    from_disk = make_batches(**{**changes, "data": {"horizontal_flip": True, "in_memory": False}}, batch_size=12)
    assert_same_samples([from_disk.batch(i) for i in range(2)], reference)


def test_batches_made_ahead_come_in_order_from_any_number(make_batches: MakeBatches) -> None:
    maker = make_batches(data={"workers": 3})
    stream = maker.batches(first=5)
    ahead = list(islice(stream, 10))
    stream.close()

    assert_same_samples(ahead, [maker.batch(number) for number in range(5, 15)])


def test_epoch_shows_each_picture_once(make_batches: MakeBatches, pictures: Any) -> None:
    maker = make_batches(data={"size": 8})
    seen = torch.cat([maker.batch(number).pictures for number in range(3)]).flatten(1)

    # The twelve pictures are eight different ones, four of them drawn twice.
    unique, counts = torch.unique(seen, dim=0, return_counts=True)
    assert len(unique) == 8
    assert sorted(counts.tolist()) == [1, 1, 1, 1, 2, 2, 2, 2]


def test_captions_are_dropped_at_the_given_rate(make_batches: MakeBatches) -> None:
    maker = make_batches(objective={"caption_drop": 0.25}, batch_size=2000)
    dropped = ~maker.batch(0).text_mask.any(1)

    # Binomial: a share of 0.25 with a standard deviation of 0.0097; not whole batches, nor every fourth sample.
    assert abs(dropped.float().mean() - 0.25) < 5 * 0.0097
    assert abs((dropped[1:] & dropped[:-1]).float().mean() - 0.25**2) < 0.03
    # Whether a caption is dropped says nothing about the sample's time.
    assert abs(maker.batch(0).t[dropped].mean() - 0.5) < 5 * 0.29 / 500**0.5


def test_no_caption_is_dropped_at_rate_zero_and_all_at_rate_one(make_batches: MakeBatches) -> None:
    assert make_batches(objective={"caption_drop": 0.0}, batch_size=200).batch(0).text_mask.any(1).all()
    assert not make_batches(objective={"caption_drop": 1.0}, batch_size=200).batch(0).text_mask.any()


def test_all_captions_of_a_picture_are_used(make_batches: MakeBatches) -> None:
    maker = make_batches(objective={"caption_drop": 0.0}, batch_size=1000)
    lengths = maker.batch(0).text_mask.sum(1)

    # "a red square" has 3 words and "red left" has 2, each with an end token.
    assert abs((lengths == 4).float().mean() - 0.5) < 5 * 0.016
    assert set(lengths.tolist()) == {3, 4}


def test_time_noise_level_and_noise_differ_by_sample(make_batches: MakeBatches) -> None:
    batch = make_batches(
        enlarges=True, objective={"noise_level_min": 0.2, "noise_level_max": 0.6}, batch_size=500
    ).batch(0)

    assert batch.noise_level is not None
    assert batch.low_res_eps is not None
    for value, least, most in ((batch.t, 0, 1), (batch.noise_level, 0.2, 0.6)):
        assert len(set(value.tolist())) == 500
        assert least <= value.min() < least + 0.02
        assert most - 0.02 < value.max() <= most
    for noise in (batch.eps, batch.low_res_eps):
        assert abs(noise.std() - 1) < 0.03
    assert abs((batch.eps * batch.low_res_eps).mean()) < 0.03


def test_logit_normal_times_prefer_noisy_pictures(make_batches: MakeBatches) -> None:
    objective = {"times": "logit_normal", "times_mean": 1.5, "times_std": 2.0}
    preferred, uniform = make_batches(objective=objective, batch_size=1000), make_batches(batch_size=1000)
    logits = torch.logit(preferred.batch(0).t)

    assert abs(logits.mean() - 1.5) < 5 * 2 / 1000**0.5
    assert abs(logits.std() - 2) < 5 * 2 / 2000**0.5
    # Nothing else about the samples depends on it.
    assert torch.equal(preferred.batch(0).eps, uniform.batch(0).eps)


def test_base_stage_has_no_low_resolution(make_batches: MakeBatches) -> None:
    batch = make_batches().batch(0)

    assert batch.noise_level is None
    assert batch.low_res_eps is None


def test_crops_begin_at_every_multiple_of_the_factor(make_batches: MakeBatches) -> None:
    batch = make_batches(enlarges=True, batch_size=300).batch(0)

    for corner in (batch.top, batch.left):
        assert set(corner.tolist()) == {0, 2, 4}
    assert not torch.equal(batch.top, batch.left)


@pytest.mark.parametrize(("flips", "share"), [(False, 0.0), (True, 0.5)])
def test_pictures_are_mirrored_only_when_asked(make_batches: MakeBatches, flips: bool, share: float) -> None:
    batch = make_batches(data={"horizontal_flip": flips}, batch_size=1000).batch(0)

    assert abs(batch.flip.float().mean() - share) <= share * 0.16


def test_texts_have_one_length_when_compiled(make_batches: MakeBatches) -> None:
    maker = make_batches(compile=True, batch_size=1)

    assert {maker.batch(number).text.shape[1] for number in range(20)} == {4}
