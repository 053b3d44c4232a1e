import numpy as np
import pytest
from diffusers.training_utils import find_nearest_bucket, generate_aspect_ratio_buckets

from diffusers_imagen.data.buckets import assign_buckets
from diffusers_imagen.data.schedule import BucketSchedule, DataSchedule

SHAPES = generate_aspect_ratio_buckets(64, divisibility=8)


def random_sizes(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(100, 1000, (count, 2))


def test_pictures_go_where_diffusers_puts_them() -> None:
    sizes = random_sizes(500)
    buckets = assign_buckets(sizes, side=64, multiple=8, unit=1)

    for index, (height, width) in enumerate(sizes.tolist()):
        nearest = find_nearest_bucket(height, width, list(buckets.shapes))
        assert buckets.shape_of(index) == buckets.shapes[nearest]
    assert sum(buckets.counts.values()) == 500
    assert all(height % 8 == width % 8 == 0 for height, width in buckets.shapes)
    assert all(abs(height * width / 64**2 - 1) < 0.13 for height, width in buckets.shapes)


def test_buckets_with_too_few_pictures_for_a_step_are_left_out() -> None:
    sizes = np.array([[100, 100]] * 20 + [[100, 150]] * 16 + [[100, 200]] * 3)
    buckets = assign_buckets(sizes, side=64, multiple=8, unit=16)

    assert set(buckets.counts.values()) == {20, 19}
    assert buckets.shape_of(0) == (64, 64)
    # The widest go to the next widest, whose shape is 2:3.
    assert buckets.shape_of(38) == buckets.shape_of(25) == (56, 80)


def test_pictures_of_unknown_size_count_as_squares() -> None:
    sizes = np.array([[0, 0], [100, 200], [300, 300]])

    assert assign_buckets(sizes, side=64, multiple=16, unit=1).shape_of(0) == (64, 64)


@pytest.mark.parametrize(
    ("multiple", "unit", "message"), [(24, 1, "bucket_multiple` is 24"), (8, 9, "One step takes 9 pictures")]
)
def test_impossible_buckets_are_refused(multiple: int, unit: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        assign_buckets(np.full((8, 2), 64), 64, multiple, unit)


@pytest.mark.parametrize("groups", [None, np.arange(0, 300, 30)])
def test_each_run_comes_from_one_bucket_and_no_picture_twice_in_an_epoch(groups: np.ndarray | None) -> None:
    buckets = assign_buckets(random_sizes(300), side=64, multiple=8, unit=8)
    schedule = BucketSchedule(DataSchedule(1, 300, groups, 2), buckets)
    runs = sum(count // 8 for count in buckets.counts.values())
    epochs = [np.array(schedule.indices(8 * runs * e, 8 * runs * (e + 1))).reshape(runs, 8) for e in range(3)]

    for epoch in epochs:
        assert all(len(set(buckets.of[run])) == 1 for run in epoch)
        assert len(set(epoch.reshape(-1))) == 8 * runs
        # Buckets come mixed, in the order in which they fill.
        assert np.count_nonzero(np.diff(buckets.of[epoch[:, 0]])) > runs / 3
    left_out = [set(range(300)) - set(epoch.reshape(-1).tolist()) for epoch in epochs]
    assert left_out[0] != left_out[1] != left_out[2]
    assert all(len(left) < 8 * len(buckets.shapes) for left in left_out)


@pytest.mark.parametrize("batch_size", [1, 8, 24])
def test_stream_is_the_same_from_any_place_and_in_any_pieces(batch_size: int) -> None:
    buckets = assign_buckets(random_sizes(300), side=64, multiple=8, unit=24)
    whole = BucketSchedule(DataSchedule(1, 300), buckets).indices(0, 720)
    again = BucketSchedule(DataSchedule(1, 300), buckets)
    starts = list(range(0, 720, batch_size))
    pieces = {start: again.indices(start, start + batch_size) for start in reversed(starts)}

    assert [index for start in starts for index in pieces[start]] == whole


def test_pictures_of_one_bucket_come_in_the_order_of_the_epoch() -> None:
    buckets = assign_buckets(random_sizes(300), side=64, multiple=8, unit=4)
    order = DataSchedule(1, 300)
    seen = BucketSchedule(order, buckets).indices(0, 200)

    for number in range(len(buckets.shapes)):
        expected = [index for index in order.epoch(0).tolist() if buckets.of[index] == number]
        mine = [index for index in seen if buckets.of[index] == number]
        assert mine == expected[: len(mine)]
