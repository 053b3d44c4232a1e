import json
import time
from pathlib import Path

import torch

from diffusers_imagen.training.progress import loss_text
from diffusers_imagen.training.record import ScalarLog


def read(path: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_line_holds_the_means_since_the_last_one(tmp_path: Path) -> None:
    log = ScalarLog(tmp_path / "log.jsonl", step=0, enabled=True)
    for step in range(1, 6):
        log.add(torch.tensor(float(step)), torch.tensor(2.0 * step), 1e-3, skipped=0, samples=8)
        log.due(step, every=2, last=5)

    lines = read(tmp_path / "log.jsonl")
    assert [line["step"] for line in lines] == [2, 4, 5]
    assert [line["loss"] for line in lines] == [1.5, 3.5, 5.0]
    assert [line["grad_norm"] for line in lines] == [3.0, 7.0, 10.0]
    assert all(line["samples_per_s"] > 0 for line in lines)


def test_line_tells_how_long_training_stood_still_for_data(tmp_path: Path) -> None:
    log = ScalarLog(tmp_path / "log.jsonl", step=0, enabled=True)
    log._since = time.monotonic() - 10.0
    for seconds in (1.0, 1.5):
        log.waited(seconds)
        log.add(torch.tensor(1.0), torch.tensor(1.0), 1e-3, skipped=0, samples=8)
    log.due(1, every=1, last=2)
    log.due(2, every=1, last=2)

    first, second = read(tmp_path / "log.jsonl")
    assert 0.24 < first["data_wait"] <= 0.25
    assert second["data_wait"] == 0


def test_steps_without_a_finite_loss_do_not_spoil_the_mean(tmp_path: Path) -> None:
    log = ScalarLog(tmp_path / "log.jsonl", step=0, enabled=True)
    for value in (1.0, float("nan"), float("inf"), 3.0):
        log.add(torch.tensor(value), torch.tensor(value), 1e-3, skipped=2, samples=8)
    log.due(4, every=4, last=4)

    assert read(tmp_path / "log.jsonl")[0]["loss"] == 2.0
    assert read(tmp_path / "log.jsonl")[0]["skipped"] == 2


def test_line_without_a_finite_loss_has_none(tmp_path: Path) -> None:
    log = ScalarLog(tmp_path / "log.jsonl", step=0, enabled=True)
    log.add(torch.tensor(float("nan")), torch.tensor(float("nan")), 1e-3, skipped=1, samples=8)
    log.due(1, every=1, last=1)

    (line,) = read(tmp_path / "log.jsonl")
    assert not {"loss", "grad_norm"} & set(line)
    assert line["skipped"] == 1
    assert loss_text(line) == "not finite"
    assert loss_text({"loss": 0.25}) == "0.2500"


def test_lines_after_the_resumed_step_and_half_lines_are_removed(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 2}\n{"step": 4}\n{"step": 6}\n{"ste')
    ScalarLog(path, step=4, enabled=True)

    assert read(path) == [{"step": 2}, {"step": 4}]


def test_disabled_log_writes_nothing(tmp_path: Path) -> None:
    log = ScalarLog(tmp_path / "log.jsonl", step=0, enabled=False)
    log.add(torch.tensor(1.0), torch.tensor(1.0), 1e-3, skipped=0, samples=8)

    assert log.due(1, every=1, last=1) is not None
    assert not list(tmp_path.iterdir())
