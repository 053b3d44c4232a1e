from timing import Rounds, interleave


def test_every_round_runs_everything_once_and_begins_with_another():
    calls = []
    functions = {name: lambda name=name: calls.append(name) for name in "abc"}
    seconds = interleave(functions, Rounds(least=1, most=4, seconds=60, warmup=0))
    assert "".join(calls) == "abcbcacababc"
    assert {name: len(values) for name, values in seconds.items()} == {"a": 4, "b": 4, "c": 4}


def test_warm_up_is_not_timed():
    calls = []
    seconds = interleave({"a": lambda: calls.append(0)}, Rounds(least=1, most=3, seconds=60, warmup=2))
    assert len(calls) == 5
    assert len(seconds["a"]) == 3


def test_the_least_rounds_are_made_even_when_time_is_over():
    assert len(interleave({"a": lambda: None}, Rounds(least=3, most=9, seconds=0))["a"]) == 3
