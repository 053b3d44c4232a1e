from collections.abc import Callable
from pathlib import Path

import pytest
from accelerate import Accelerator
from accelerate.tracking import GeneralTracker
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from diffusers_imagen.training.config import TrainConfig
from diffusers_imagen.training.loop import train
from diffusers_imagen.training.trackers import start_trackers, stop_trackers, track, tracker_names


class Notebook(GeneralTracker):
    """Keep all that it is told."""

    name = "notebook"
    requires_logging_directory = False

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[tuple[dict, int]] = []

    @property
    def tracker(self) -> list:
        return self.lines

    def store_init_configuration(self, values: dict) -> None:
        self.settings = values

    def log(self, values: dict, step: int | None = None) -> None:
        self.lines.append((values, step))

    def finish(self) -> None:
        self.lines.append(({}, None))


def test_unknown_or_missing_tracker_is_refused(make_config: Callable[..., TrainConfig]) -> None:
    with pytest.raises(ValueError, match="`trackers` names 'notepad'; choose of"):
        tracker_names(make_config(trackers=("notepad",)))
    with pytest.raises(ValueError, match="`trackers` names 'dvclive', which is not installed"):
        tracker_names(make_config(trackers=("dvclive",)))
    assert tracker_names(make_config(trackers=())) == []


def test_trackers_get_settings_and_scalars(make_config: Callable[..., TrainConfig], tmp_path: Path) -> None:
    notebook = Notebook()
    accelerator = Accelerator(log_with=notebook, project_dir=tmp_path)
    start_trackers(accelerator, make_config(), step=3)
    track(accelerator, {"step": 4, "loss": 0.5}, step=4)
    stop_trackers(accelerator)

    assert notebook.lines == [({"loss": 0.5}, 4), ({}, None)]
    assert notebook.settings["data.size"] == 8
    assert notebook.settings["text.layers"] == "(-1,)"


def test_tensorboard_shows_each_step_once_after_an_interrupted_run(make_config: Callable[..., TrainConfig]) -> None:
    config = make_config(
        trackers=None, log_every=1, max_steps=6, checkpoint={"every_steps": 3}, preview={"every_steps": 5}
    )

    def interrupt(unet: object, step: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config, preview=interrupt)
    train(config)

    events = EventAccumulator(str(Path(config.output_dir) / "trackers" / "diffusers-imagen")).Reload()
    assert [event.step for event in events.Scalars("loss")] == [1, 2, 3, 4, 5, 6]
