import logging

import pytest

from diffusers_imagen.training.progress import Progress, hours_left


def test_hours_left_are_those_of_the_remaining_samples() -> None:
    assert hours_left(step=100, last=1000, samples_per_step=8, samples_per_s=2.0) == 900 * 8 / 2 / 3600


def test_without_a_terminal_each_line_goes_to_the_log(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    progress = Progress(step=0, last=10, samples_per_step=4, enabled=True)
    with caplog.at_level(logging.INFO):
        progress.step()
        progress.show({"step": 1, "loss": 0.5, "samples_per_s": 2.0})
        progress.close()

    assert "step 1 of 10, loss 0.5000, 2.0 samples/s, 0.01 hours left" in caplog.text
    assert capsys.readouterr().err == ""


def test_on_a_terminal_there_is_a_bar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    progress = Progress(step=3, last=10, samples_per_step=4, enabled=True)
    progress.step()
    progress.show({"step": 4, "loss": 0.5, "samples_per_s": 2.0})
    progress.close()

    shown = capsys.readouterr().err
    assert "4/10" in shown
    assert "loss=0.5000" in shown
    assert "hours_left=" in shown


def test_other_processes_are_silent(caplog: pytest.LogCaptureFixture) -> None:
    progress = Progress(step=0, last=10, samples_per_step=4, enabled=False)
    with caplog.at_level(logging.INFO):
        progress.show({"step": 1, "loss": 0.5, "samples_per_s": 2.0})
    assert caplog.text == ""
