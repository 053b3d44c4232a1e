import numpy as np
import pytest

from diffusers_imagen.data.schedule import DataSchedule, epoch_order, is_held_out


def test_each_epoch_is_another_permutation_of_all_pictures() -> None:
    schedule = DataSchedule(seed=3, size=50)
    epochs = [schedule.indices(50 * epoch, 50 * (epoch + 1)) for epoch in range(3)]

    for epoch in epochs:
        assert sorted(epoch) == list(range(50))
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]


@pytest.mark.parametrize("batch_size", [1, 7, 16, 100])
def test_stream_does_not_depend_on_the_batch_size(batch_size: int) -> None:
    schedule = DataSchedule(seed=3, size=50)
    batches = [schedule.indices(start, start + batch_size) for start in range(0, 200, batch_size)]

    assert [index for batch in batches for index in batch][:200] == schedule.indices(0, 200)


def test_order_is_a_function_of_the_seed() -> None:
    assert DataSchedule(0, 50).indices(0, 50) == DataSchedule(0, 50).indices(0, 50)
    assert DataSchedule(0, 50).indices(0, 50) != DataSchedule(1, 50).indices(0, 50)


def test_first_positions_are_spread_over_all_pictures() -> None:
    firsts = [int(epoch_order(0, epoch, 10)[0]) for epoch in range(2000)]

    # Each is expected 200 times with a standard deviation of 13.4.
    assert all(abs(firsts.count(index) - 200) < 5 * 13.4 for index in range(10))


@pytest.mark.parametrize(("seed", "size", "message"), [(0, 0, "`size` is 0"), (-1, 5, "`seed` is -1")])
def test_empty_collections_and_negative_seeds_are_refused(seed: int, size: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DataSchedule(seed, size)


def test_share_of_held_out_names_is_as_asked() -> None:
    names = [f"{i:05d}.png" for i in range(10_000)]
    held_out = {name for name in names if is_held_out(name, 0.1)}

    # Binomial: 1000 with a standard deviation of 30.
    assert abs(len(held_out) - 1000) < 150
    # A larger share holds the same names out, and more.
    assert held_out < {name for name in names if is_held_out(name, 0.2)}
    assert not any(is_held_out(name, 0.0) for name in names)


@pytest.mark.parametrize("fraction", [-0.1, 1.0])
def test_impossible_shares_are_refused(fraction: float) -> None:
    with pytest.raises(ValueError, match="`validation_fraction`"):
        is_held_out("a.png", fraction)


GROUPS = np.array([0, 10, 15, 40])


@pytest.mark.parametrize("window", [1, 2, 3, 9])
def test_epochs_of_groups_are_permutations_too(window: int) -> None:
    schedule = DataSchedule(3, 50, GROUPS, window)
    epochs = [schedule.indices(50 * epoch, 50 * (epoch + 1)) for epoch in range(3)]

    for number, epoch in enumerate(epochs):
        assert sorted(epoch) == list(range(50))
        assert schedule.epoch(number).tolist() == epoch
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]


@pytest.mark.parametrize("batch_size", [1, 7, 100])
def test_stream_of_groups_does_not_depend_on_the_batch_size_or_where_it_begins(batch_size: int) -> None:
    whole = DataSchedule(3, 50, GROUPS, 2).indices(0, 200)
    later = DataSchedule(3, 50, GROUPS, 2)
    batches = [later.indices(start, start + batch_size) for start in reversed(range(0, 200, batch_size))]

    assert [index for batch in reversed(batches) for index in batch][:200] == whole


def test_pictures_of_a_window_are_shuffled_anew_in_each_epoch() -> None:
    schedule = DataSchedule(3, 50, np.array([0]), 1)

    assert schedule.epoch(0).tolist() != schedule.epoch(1).tolist()


def test_groups_stay_together_when_the_window_is_one() -> None:
    epoch = DataSchedule(3, 50, GROUPS, 1).epoch(0)
    groups = np.searchsorted(GROUPS, epoch, side="right")

    assert np.count_nonzero(np.diff(groups)) == 3
    assert (np.diff(epoch) != 1).any()
