import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file

from diffusers_imagen.models.unet_imagen import ImagenUNet2DConditionModel
from diffusers_imagen.training import loop as module
from diffusers_imagen.training.checkpoint import checkpoint_steps
from diffusers_imagen.training.config import TrainConfig
from diffusers_imagen.training.loop import train
from diffusers_imagen.training.objective import Loss

MakeConfig = Callable[..., TrainConfig]

STATE_FILES = ("unet", "ema", "optimizer")


def read_log(config: TrainConfig) -> list[dict[str, float]]:
    return [json.loads(line) for line in (Path(config.output_dir) / "log.jsonl").read_text().splitlines()]


def final_state(config: TrainConfig) -> dict[str, torch.Tensor]:
    """Give all tensors of the newest checkpoint."""
    newest = next(iter(checkpoint_steps(Path(config.output_dir) / "checkpoints").values()))
    return {
        f"{name} {key}": tensor
        for name in STATE_FILES
        for key, tensor in load_file(newest / f"{name}.safetensors").items()
    }


def assert_same_bits(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    assert [name for name, tensor in one.items() if not torch.equal(tensor, other[name])] == []


def test_run_leaves_checkpoints_log_and_a_loadable_average(make_config: MakeConfig) -> None:
    config = make_config(max_steps=5, checkpoint={"every_steps": 2}, log_every=2, ema={"decay": 0.5})
    result = train(config)

    assert result == (5, 0, True)
    folder = Path(config.output_dir)
    assert list(checkpoint_steps(folder / "checkpoints")) == [5, 4]
    assert [line["step"] for line in read_log(config)] == [2, 4, 5]
    exported = ImagenUNet2DConditionModel.from_pretrained(folder / "unet").state_dict()
    state = final_state(config)
    assert all(torch.equal(tensor, state[f"ema {name}"]) for name, tensor in exported.items())
    assert any(not torch.equal(tensor, state[f"unet {name}"]) for name, tensor in exported.items())


@pytest.mark.parametrize("enlarges", [False, True])
def test_run_that_is_left_and_resumed_ends_in_the_same_bits(
    make_config: MakeConfig, tmp_path: Path, enlarges: bool
) -> None:
    whole = make_config(enlarges=enlarges, max_steps=5, gradient_accumulation_steps=2, output_dir=str(tmp_path / "a"))
    parts = make_config(
        enlarges=enlarges,
        max_steps=5,
        gradient_accumulation_steps=2,
        output_dir=str(tmp_path / "b"),
        preview={"every_steps": 2},
    )
    train(whole)
    # The signal comes during the preview after step 2, so the run leaves after step 3.
    left = train(parts, preview=lambda unet, step: os.kill(os.getpid(), signal.SIGTERM))
    resumed = train(parts)

    assert left == (3, 0, False)
    assert resumed == (5, 0, True)
    assert_same_bits(final_state(parts), final_state(whole))


CHILD = """
import json, os, signal, sys
import torch
from diffusers_imagen.training.config_file import load_config
from diffusers_imagen.training.loop import train

torch.set_num_threads(1)
train(load_config(sys.argv[1]), preview=lambda unet, step: os.kill(os.getpid(), signal.SIGKILL))
"""


def test_run_that_was_killed_ends_in_the_same_bits_when_resumed(make_config: MakeConfig, tmp_path: Path) -> None:
    changes: dict[str, Any] = {
        "max_steps": 8,
        "checkpoint": {"every_steps": 3},
        "preview": {"every_steps": 5},
        "log_every": 1,
    }
    whole = make_config(**changes, output_dir=str(tmp_path / "a"))
    killed = make_config(**changes, output_dir=str(tmp_path / "b"))
    (tmp_path / "run.yaml").write_text(json.dumps(asdict(killed)))  # JSON is YAML
    child = subprocess.run([sys.executable, "-c", CHILD, str(tmp_path / "run.yaml")], capture_output=True, check=False)

    assert child.returncode == -signal.SIGKILL, child.stderr.decode()
    assert [line["step"] for line in read_log(killed)] == [1, 2, 3, 4, 5]
    assert list(checkpoint_steps(Path(killed.output_dir) / "checkpoints")) == [3]
    train(whole)
    train(killed)
    assert_same_bits(final_state(killed), final_state(whole))
    drop = ("samples_per_s", "data_wait")
    logs = [[{k: v for k, v in line.items() if k not in drop} for line in read_log(run)] for run in (killed, whole)]
    assert logs[0] == logs[1]


def test_accumulated_small_batches_equal_a_large_one(make_config: MakeConfig, tmp_path: Path) -> None:
    model = make_config().model.config | {"dropout": 0.0}
    states = []
    for size, count in ((8, 1), (2, 4)):
        config = make_config(
            model={"config": model},
            batch_size=size,
            gradient_accumulation_steps=count,
            # Adam's division would blow rounding errors up where gradients are next to nothing.
            optimizer={"eps": 1e-3},
            output_dir=str(tmp_path / str(size)),
        )
        train(config)
        states.append(final_state(config))

    for name, tensor in states[0].items():
        torch.testing.assert_close(states[1][name], tensor, rtol=0, atol=1e-5, msg=name)


def test_step_without_finite_gradient_is_skipped_and_counted_and_saved_by_nobody(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    config = make_config(max_steps=5, log_every=1, checkpoint={"every_steps": 3, "keep": 4})
    original, calls = module.diffusion_loss, []
    states: list[dict[str, torch.Tensor]] = []

    def sometimes_infinite(unet: torch.nn.Module, *arguments: Any) -> Loss:
        calls.append(1)
        states.append({name: weight.detach().clone() for name, weight in unet.named_parameters()})
        loss = original(unet, *arguments)
        return loss._replace(mean=loss.mean * float("inf")) if len(calls) == 3 else loss

    monkeypatch.setattr(module, "diffusion_loss", sometimes_infinite)
    result = train(config)

    assert result == (5, 1, True)
    assert "Step 3 has a gradient that is not finite" in caplog.text
    assert [line["skipped"] for line in read_log(config)] == [0, 0, 1, 1, 1]
    assert all(torch.equal(states[3][name], weight) for name, weight in states[2].items())
    assert any(not torch.equal(states[4][name], weight) for name, weight in states[3].items())
    # Step 3 was due; 4 is the first one after it that was good.
    saved = sorted(path.name for path in (Path(config.output_dir) / "checkpoints").iterdir())
    assert saved == ["step-00000004", "step-00000005"]


def test_checkpoints_of_before_a_blow_up_stay_and_the_run_is_not_finished(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(max_steps=12, max_bad_steps=4, checkpoint={"every_steps": 2, "keep": 2})
    original, calls = module.diffusion_loss, []

    def blown_up(*arguments: Any) -> Loss:
        calls.append(1)
        loss = original(*arguments)
        return loss._replace(mean=loss.mean * float("inf")) if len(calls) > 8 else loss

    monkeypatch.setattr(module, "diffusion_loss", blown_up)
    with pytest.raises(RuntimeError, match="4 steps in a row"):
        train(config)
    saved = sorted(path.name for path in (Path(config.output_dir) / "checkpoints").iterdir())
    assert saved == ["step-00000006", "step-00000008"]


def test_run_fails_when_no_gradient_is_finite_any_more(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(max_steps=20, max_bad_steps=3)
    original = module.diffusion_loss

    def infinite(*arguments: Any) -> Loss:
        loss = original(*arguments)
        return loss._replace(mean=loss.mean * float("nan"))

    monkeypatch.setattr(module, "diffusion_loss", infinite)
    with pytest.raises(RuntimeError, match="3 steps in a row"):
        train(config)
    assert not checkpoint_steps(Path(config.output_dir) / "checkpoints")


def test_average_follows_the_weights_from_step_to_step(make_config: MakeConfig) -> None:
    config = make_config(max_steps=5, checkpoint={"every_steps": 1, "keep": 5}, ema={"decay": 0.3})
    train(config)
    folder = Path(config.output_dir) / "checkpoints"
    states = [
        {name: load_file(folder / f"step-0000000{step}" / f"{name}.safetensors") for name in ("unet", "ema")}
        for step in range(1, 6)
    ]

    for updates, (before, after) in enumerate(pairwise(states), start=1):
        decay = min(0.3, (1 + updates) / (10 + updates))
        for name, average in after["ema"].items():
            expected = decay * before["ema"][name].double() + (1 - decay) * after["unet"][name].double()
            torch.testing.assert_close(average.double(), expected, rtol=1e-5, atol=1e-7)


def test_preview_gets_the_average_in_evaluation_mode(make_config: MakeConfig) -> None:
    seen: list[tuple[int, bool]] = []
    config = make_config(max_steps=5, preview={"every_steps": 2})
    train(config, preview=lambda unet, step: seen.append((step, unet.training)))

    assert seen == [(2, False), (4, False), (5, False)]


def test_preview_does_not_change_the_training(make_config: MakeConfig, tmp_path: Path) -> None:
    plain = make_config(output_dir=str(tmp_path / "a"))
    shown = make_config(output_dir=str(tmp_path / "b"), preview={"every_steps": 1})
    train(plain)
    train(shown, preview=lambda unet, step: torch.manual_seed(torch.randint(99, ()).item()))

    assert_same_bits(final_state(plain), final_state(shown))


def test_time_limit_saves_and_leaves(make_config: MakeConfig) -> None:
    config = make_config(max_steps=1000, time_limit=0.0)
    result = train(config)

    assert result == (1, 0, False)
    assert list(checkpoint_steps(Path(config.output_dir) / "checkpoints")) == [1]


def test_checkpoints_are_written_by_the_clock_too(make_config: MakeConfig) -> None:
    config = make_config(max_steps=3, checkpoint={"every_seconds": 0.0, "keep": 9})
    train(config)

    assert list(checkpoint_steps(Path(config.output_dir) / "checkpoints")) == [3, 2, 1]


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"seed": 1}, "seed"),
        ({"batch_size": 2}, "samples_per_step"),
        ({"data": {"validation_fraction": 0.3}}, "data"),
        ({"optimizer": {"options": {"amsgrad": True}}}, r"optimizer\.options"),
    ],
)
def test_run_with_other_samples_is_not_resumed(make_config: MakeConfig, changes: dict[str, Any], name: str) -> None:
    train(make_config(max_steps=1))

    with pytest.raises(ValueError, match=f"had {name} "):
        train(make_config(max_steps=2, **changes))


def test_run_with_another_model_is_not_resumed(make_config: MakeConfig) -> None:
    train(make_config(max_steps=1))

    with pytest.raises(
        ValueError, match=r"of another U-Net than `model` says; .* size mismatch for \S+: copying"
    ) as error:
        train(make_config(max_steps=2, model={"config": make_config().model.config | {"conditioning_dim": 32}}))
    assert "\n" not in str(error.value)


def test_run_within_its_pictures_leaves_no_folder(make_config: MakeConfig, pictures: Path) -> None:
    (pictures / "metadata.jsonl").unlink()

    with pytest.raises(ValueError, match="`output_dir` is"):
        train(make_config(data={"prompts": ("a square",)}, output_dir=str(pictures / "run")))

    assert not (pictures / "run").exists()


@pytest.mark.parametrize(
    "changes", [{"data": {"low_res_blur": 1.0}}, {"data": {"crop": 8}}, {"data": {"low_res_jpeg": 50}}]
)
def test_enlargement_on_another_task_is_not_resumed(make_config: MakeConfig, changes: dict[str, Any]) -> None:
    train(make_config(enlarges=True, max_steps=1))

    with pytest.raises(ValueError, match=r"had task \{.*\(sizes and degradation, of `data`\); give another"):
        train(make_config(enlarges=True, max_steps=2, **changes))


def test_stage_of_the_other_kind_is_not_resumed(make_config: MakeConfig) -> None:
    train(make_config(max_steps=1))

    with pytest.raises(ValueError, match="had model_class 'base', now it is 'super_resolution'"):
        train(make_config(enlarges=True, max_steps=2))


def test_damaged_checkpoint_is_gone_after_the_next_one(make_config: MakeConfig) -> None:
    checkpoints = Path(make_config().output_dir) / "checkpoints"
    train(make_config(max_steps=2, checkpoint={"every_steps": 1}))
    file = checkpoints / "step-00000002" / "unet.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    train(make_config(max_steps=3, checkpoint={"every_steps": 3}))

    assert list(checkpoint_steps(checkpoints)) == [3, 1]


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": {"name": "Adm"}},
        {"model": {"config": {"patch_size": 3}}},
        {"text": {"layers": (30,)}},
        {"data": {"size": 9}},
    ],
)
def test_refused_run_leaves_nothing_behind(make_config: MakeConfig, changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="`"):
        train(make_config(**changes))

    assert not Path(make_config().output_dir).exists()


def test_interrupted_run_saves_its_step_and_says_so(make_config: MakeConfig, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    config = make_config(max_steps=9, preview={"every_steps": 2})
    with pytest.raises(KeyboardInterrupt):
        train(config, preview=lambda unet, step: os.kill(os.getpid(), signal.SIGINT))

    assert list(checkpoint_steps(Path(config.output_dir) / "checkpoints")) == [3]
    assert "3 steps are saved; the same again goes on from there." in caplog.text
    assert train(config).finished


def test_second_interrupt_leaves_at_once(make_config: MakeConfig) -> None:
    config = make_config(max_steps=9, preview={"every_steps": 2})

    def impatient(unet: object, step: int) -> None:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(config, preview=impatient)

    assert not checkpoint_steps(Path(config.output_dir) / "checkpoints")


def test_fresh_start_over_checkpoints_is_refused(make_config: MakeConfig) -> None:
    train(make_config(max_steps=1))

    with pytest.raises(ValueError, match="`resume` is 'never'"):
        train(make_config(max_steps=2, resume="never"))


def test_finished_run_is_only_exported_again(make_config: MakeConfig) -> None:
    config = make_config(max_steps=2)
    train(config)
    before = final_state(config)
    exported = Path(config.output_dir) / "unet" / "diffusion_pytorch_model.safetensors"
    exported.unlink()

    assert train(config) == (2, 0, True)
    assert_same_bits(final_state(config), before)
    assert exported.exists()


def test_damaged_pictures_are_listed_and_training_goes_on(make_config: MakeConfig, pictures: Path) -> None:
    (pictures / "003.png").write_bytes(b"damaged")
    config = make_config(max_steps=2)

    assert train(config).finished
    listed = (Path(config.output_dir) / "quarantine.jsonl").read_text().splitlines()
    assert [json.loads(line)["file_name"] for line in listed] == ["003.png"]


@pytest.fixture
def other_precision() -> Iterator[None]:
    """Let a run have its own precision: Accelerate otherwise fixes one for the whole process."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.usefixtures("other_precision")
def test_bfloat16_autocast_keeps_weights_and_moments_in_float32(make_config: MakeConfig) -> None:
    plain = make_config(output_dir=make_config().output_dir + "-plain")
    train(plain)
    AcceleratorState._reset_state(reset_partial_state=True)
    config = make_config(precision="bf16")
    train(config)

    state, expected = final_state(config), final_state(plain)
    assert {tensor.dtype for tensor in state.values()} == {torch.float32}
    assert not all(torch.equal(tensor, expected[name]) for name, tensor in state.items())
    assert read_log(config)[-1]["loss"] == pytest.approx(read_log(plain)[-1]["loss"], rel=0.02)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {"config": {"prediction_type": "epsilon"}}}, "had prediction .* now it is .*epsilon"),
        ({"text": {"prefix": "foo "}}, "had text .* now it is .*foo"),
    ],
)
def test_a_run_does_not_go_on_with_weights_that_meant_something_else(
    make_config: MakeConfig, changes: dict[str, Any], message: str
) -> None:
    config = make_config(max_steps=1)
    train(config)
    if "model" in changes:
        changes = {"model": {"config": config.model.config | changes["model"]["config"]}}
    with pytest.raises(ValueError, match=message):
        train(make_config(max_steps=2, **changes))


def test_pictures_of_another_size_than_the_u_nets_are_refused(make_config: MakeConfig) -> None:
    config = make_config()
    model = {"config": config.model.config | {"sample_size": 2 * config.data.size}}
    with pytest.raises(ValueError, match=r"`data\.size` is .*, but the U-Net draws pictures of"):
        train(make_config(model=model))
