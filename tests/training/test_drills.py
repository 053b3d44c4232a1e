"""Runs of one and two processes that are killed, told to leave, or fed with numbers that are none.

Processes are forked from this one, which has imported everything already, and train together over gloo on the CPU.
"""

import importlib.util
import json
import os
import random
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType
from safetensors.torch import load_file

from diffusers_imagen.training import loop as module
from diffusers_imagen.training.checkpoint import checkpoint_steps, load_checkpoint
from diffusers_imagen.training.config import TrainConfig
from diffusers_imagen.training.fine_tune_config import LoraConfig
from diffusers_imagen.training.loop import Preview, train
from diffusers_imagen.training.objective import Loss
from diffusers_imagen.training.run_folder import read_lines

MakeConfig = Callable[..., TrainConfig]
STATE_FILES = ("unet", "ema", "optimizer", "ema-0.05", "ema-0.1")
KILLS = 20
POST_HOC = {"post_hoc": True, "snapshot_every_steps": 7}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
HAS_DEEPSPEED = importlib.util.find_spec("deepspeed") is not None
needs_deepspeed = pytest.mark.skipif(not HAS_DEEPSPEED, reason="DeepSpeed is not installed: run `make test-deepspeed`")


def with_deepspeed(*values: object) -> Any:
    """Give the parameters of a test that runs where DeepSpeed is installed."""
    return pytest.param(*values, marks=[pytest.mark.deepspeed, needs_deepspeed])


SHARED = ["fsdp", with_deepspeed("deepspeed")]
ALL = ["ddp", *SHARED]


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


def start(
    config: TrainConfig,
    processes: int = 1,
    prepare: Callable[[int], None] = lambda rank: None,
    preview: Preview | None = None,
) -> list[int]:
    """Fork processes that train together, after `prepare` with their rank; 0 is a run that came to its end."""
    port, children = free_port(), []
    for rank in range(processes):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                AcceleratorState._reset_state(reset_partial_state=True)
                if processes > 1:
                    places = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes}
                    os.environ |= {name: str(value) for name, value in places.items()}
                    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true"}
                prepare(rank)
                # As the command line has it.
                train(config, preview if rank == 0 else None)
                code = 0
            except BaseException as error:
                sys.stderr.write(f"rank {rank}: {type(error).__name__}: {error}\n")
            finally:
                # Neither the tests' own end nor gloo's may run in a fork.
                os._exit(code)
        children.append(child)
    return children


def end(children: list[int]) -> list[int]:
    """Wait for processes and give their exit codes, below 0 for a signal."""
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def run(config: TrainConfig, processes: int = 1, prepare: Callable[[int], None] = lambda rank: None) -> None:
    assert end(start(config, processes, prepare)) == [0] * processes


def steps_made(config: TrainConfig) -> int:
    lines = read_lines(Path(config.output_dir) / "log.jsonl")
    return int(lines[-1]["step"]) if lines else 0


def wait_for_step(config: TrainConfig, step: int) -> None:
    # A run that dies meanwhile would be waited for until the test's own timeout.
    while steps_made(config) < step:
        time.sleep(0.002)


def final_state(config: TrainConfig) -> dict[str, torch.Tensor]:
    newest = next(iter(checkpoint_steps(Path(config.output_dir) / "checkpoints").values()))
    assert newest.name == f"step-{config.max_steps:08d}"
    files = [path for path in newest.glob("*.safetensors") if path.stem in STATE_FILES]
    return {f"{path.stem} {key}": tensor for path in files for key, tensor in load_file(path).items()}


def assert_same_bits(one: TrainConfig, other: TrainConfig) -> int:
    first, second = final_state(one), final_state(other)
    assert first.keys() == second.keys()
    assert [name for name, tensor in first.items() if not torch.equal(tensor, second[name])] == []
    return len(first)


def losses(config: TrainConfig) -> list[float]:
    return [line["loss"] for line in read_lines(Path(config.output_dir) / "log.jsonl")]


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize(
    ("processes", "strategy"), [(1, "auto"), (2, "ddp"), (2, "fsdp"), with_deepspeed(2, "deepspeed")]
)
def test_twenty_kills_at_random_moments_change_no_bit(
    make_config: MakeConfig, tmp_path: Path, processes: int, strategy: str, workers: int
) -> None:
    changes: dict[str, Any] = {
        "strategy": strategy,
        "max_steps": 60,
        "batch_size": 2,
        "log_every": 1,
        "ema": POST_HOC,
        "data": {"workers": workers},
        "checkpoint": {"every_steps": 2},
    }
    whole = make_config(**changes, output_dir=str(tmp_path / "whole"))
    killed = make_config(**changes, output_dir=str(tmp_path / "killed"))
    run(whole, processes)
    moments = random.Random(100 * processes + workers)
    kills = 0
    for step in sorted(moments.sample(range(1, 60), KILLS)):
        children = start(killed, processes)
        wait_for_step(killed, step)
        time.sleep(moments.uniform(0, 0.05))
        for child in children:
            os.kill(child, signal.SIGKILL)
        kills += sum(code == -signal.SIGKILL for code in end(children))
    run(killed, processes)

    compared = assert_same_bits(whole, killed)
    sys.stdout.write(f"{kills} of {KILLS * processes} processes killed, {compared} tensors the same to the bit\n")
    assert kills == KILLS * processes


def test_other_numbers_of_processes_and_passes_see_the_same_samples(make_config: MakeConfig, tmp_path: Path) -> None:
    model = {"config": make_config().model.config | {"dropout": 0.0}}
    runs = []
    for processes, batch_size, passes in ((1, 8, 1), (1, 2, 4), (2, 4, 1), (2, 2, 2)):
        config = make_config(
            max_steps=50,
            model=model,
            batch_size=batch_size,
            gradient_accumulation_steps=passes,
            log_every=1,
            output_dir=str(tmp_path / f"{processes}-{batch_size}"),
        )
        run(config, processes)
        runs.append(losses(config))
    difference = max(abs(a - b) / a for other in runs[1:] for a, b in zip(runs[0], other, strict=True))
    sys.stdout.write(f"4 layouts, 50 steps: losses differ by {difference:.1e} at most\n")
    assert difference < 1e-5


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((1, "auto"), (2, "ddp")),
        ((1, "auto"), (2, "fsdp")),
        ((2, "fsdp"), (1, "auto")),
        ((2, "fsdp"), (2, "ddp")),
        with_deepspeed((1, "auto"), (2, "deepspeed")),
        with_deepspeed((2, "deepspeed"), (1, "auto")),
        with_deepspeed((2, "fsdp"), (2, "deepspeed")),
    ],
)
def test_run_goes_on_with_another_number_of_processes_and_strategy(
    make_config: MakeConfig, tmp_path: Path, before: tuple[int, str], after: tuple[int, str]
) -> None:
    model = {"config": make_config().model.config | {"dropout": 0.0}}
    changes: dict[str, Any] = {"model": model, "log_every": 1, "ema": POST_HOC}
    whole = make_config(max_steps=6, batch_size=4, **changes, output_dir=str(tmp_path / "whole"))
    run(whole)
    for max_steps, (processes, strategy) in ((3, before), (6, after)):
        changed = make_config(
            max_steps=max_steps,
            batch_size=4 // processes,
            strategy=strategy,
            **changes,
            output_dir=str(tmp_path / "changed"),
        )
        run(changed, processes)
    assert losses(changed) == pytest.approx(losses(whole), rel=1e-5)
    assert_close_states(whole, changed)


def assert_close_states(one: TrainConfig, other: TrainConfig) -> None:
    first, second = final_state(one), final_state(other)
    assert first.keys() == second.keys()
    assert {name for name in first if first[name].shape != second[name].shape} == set()
    assert max(float((first[name] - second[name]).abs().max()) for name in first) < 1e-5


def kinds_seen(folder: Path) -> Preview:
    """Write down what a preview was given: class of the U-Net and of its weights, the mode and the step."""

    def preview(unet: Any, step: int) -> None:
        kinds = {type(weight).__name__ for weight in unet.parameters()}
        line = f"{type(unet).__name__} {sorted(kinds)} {unet.training} {step}\n"
        with (folder / "previews.txt").open("a") as file:
            file.write(line)

    return preview


@pytest.mark.parametrize(
    "changes",
    [
        {"data": {"validation_fraction": 0.25}, "held_out": {"every_steps": 3, "levels": 2}},
        {
            "enlarges": True,
            "gradient_accumulation_steps": 2,
            "optimizer": {"name": "SGD", "options": {"momentum": 0.9}},
        },
        {"model": {"gradient_checkpointing": True}, "precision": "bf16"},
    ],
    ids=["base with held-out pictures", "enlargement with accumulation", "checkpointing in bfloat16"],
)
@pytest.mark.parametrize("strategy", SHARED)
def test_what_is_shared_trains_and_writes_what_ddp_does(
    make_config: MakeConfig, tmp_path: Path, strategy: str, changes: dict[str, Any]
) -> None:
    enlarges = changes.get("enlarges", False)
    plain = make_config(enlarges=enlarges).model.config | {"dropout": 0.0}
    changes = {**changes, "model": {"config": plain, **changes.get("model", {})}}
    runs = []
    for kind in ("ddp", strategy):
        folder = tmp_path / kind
        config = make_config(**changes, max_steps=6, log_every=1, ema=POST_HOC, strategy=kind, output_dir=str(folder))
        assert end(start(config, 2, preview=kinds_seen(folder))) == [0, 0]
        runs.append(config)
    ddp, shared = runs
    assert losses(shared) == pytest.approx(losses(ddp), rel=1e-5 if shared.precision == "no" else 1e-3)
    if shared.precision == "no":
        assert_close_states(ddp, shared)
    held_out = [
        [line["loss"] for line in read_lines(tmp_path / name / "held_out.jsonl")] for name in ("ddp", strategy)
    ]
    assert held_out[1] == pytest.approx(held_out[0], rel=1e-5)
    assert len(held_out[1]) == (2 if "held_out" in changes else 0)
    files = [
        {path.relative_to(tmp_path / name) for path in (tmp_path / name).rglob("*")} for name in ("ddp", strategy)
    ]
    assert files[0] == files[1]
    assert (tmp_path / strategy / "previews.txt").read_text() == (tmp_path / "ddp" / "previews.txt").read_text()
    exported = [load_file(next((tmp_path / name / "unet").glob("*.safetensors"))) for name in ("ddp", strategy)]
    assert {name: weight.shape for name, weight in exported[0].items()} == {
        name: weight.shape for name, weight in exported[1].items()
    }


def as_on_gpus(rank: int) -> None:
    """Let the launcher ask for FSDP2, and Accelerate take the CPUs for devices on which it knows FSDP2 itself."""
    os.environ |= {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}
    PartialState(cpu=True)
    PartialState._shared_state["distributed_type"] = DistributedType.MULTI_XPU


def asked_by_launcher(rank: int) -> None:
    """Let the launcher ask for FSDP2 on CPUs, where Accelerate by itself would train with DDP."""
    os.environ |= {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}


@pytest.mark.parametrize("prepare", [as_on_gpus, asked_by_launcher])
def test_fsdp_that_a_launcher_asks_for_is_that_of_the_configuration(
    make_config: MakeConfig, tmp_path: Path, prepare: Callable[[int], None]
) -> None:
    configured = make_config(strategy="fsdp", output_dir=str(tmp_path / "configured"))
    launched = make_config(output_dir=str(tmp_path / "launched"))
    run(configured, 2)
    run(launched, 2, prepare)
    assert_same_bits(configured, launched)


@pytest.mark.parametrize("strategy", SHARED)
def test_what_is_shared_trains_an_adapter_as_ddp_does(make_config: MakeConfig, tmp_path: Path, strategy: str) -> None:
    run(make_config(max_steps=1, output_dir=str(tmp_path / "base")))
    runs = []
    for kind in ("ddp", strategy):
        config = make_config(
            model={"config": {}, "pretrained": str(tmp_path / "base")},
            lora=LoraConfig(rank=2),
            max_steps=4,
            batch_size=2,
            strategy=kind,
            output_dir=str(tmp_path / kind),
        )
        run(config, 2)
        runs.append(config)
    assert_close_states(*runs)
    adapters = [load_file(tmp_path / name / "lora" / "pytorch_lora_weights.safetensors") for name in ("ddp", strategy)]
    assert adapters[0].keys() == adapters[1].keys()
    assert all(torch.allclose(adapters[0][name], adapters[1][name], atol=1e-6) for name in adapters[0])


def infinite_at(rank: int, guilty: int) -> None:
    """Make the loss of one rank's third step infinite."""
    original, calls = module.diffusion_loss, []

    def sometimes_infinite(*arguments: Any) -> Loss:
        calls.append(1)
        loss = original(*arguments)
        return loss._replace(mean=loss.mean * float("inf")) if rank == guilty and len(calls) == 3 else loss

    module.diffusion_loss = sometimes_infinite


@pytest.mark.parametrize("strategy", ALL)
def test_all_processes_skip_a_step_that_one_of_them_spoils(
    make_config: MakeConfig, tmp_path: Path, strategy: str
) -> None:
    configs = []
    for guilty in (0, 1):
        folder = str(tmp_path / f"{guilty}")
        config = make_config(max_steps=5, log_every=1, ema=POST_HOC, strategy=strategy, output_dir=folder)
        run(config, 2, lambda rank, guilty=guilty: infinite_at(rank, guilty))
        assert [line["skipped"] for line in read_lines(tmp_path / f"{guilty}" / "log.jsonl")] == [0, 0, 1, 1, 1]
        configs.append(config)
    # Whoever spoiled it, the step is the only thing that is missing.
    assert_same_bits(*configs)


@pytest.mark.parametrize("strategy", ALL)
def test_a_killed_process_ends_the_others_within_a_minute(make_config: MakeConfig, strategy: str) -> None:
    config = make_config(max_steps=100_000, log_every=1, strategy=strategy)
    children = start(config, processes=2)
    wait_for_step(config, 3)
    os.kill(children[1], signal.SIGKILL)
    killed = time.monotonic()
    codes = end(children)
    seconds = time.monotonic() - killed
    sys.stdout.write(f"the other process ended with {codes[0]} after {seconds:.1f} s\n")
    assert codes == [1, -signal.SIGKILL]
    assert seconds < 60


@pytest.mark.parametrize(
    ("told", "strategy"),
    [((0,), "ddp"), ((1,), "ddp"), ((0, 1), "ddp"), ((1,), "fsdp"), with_deepspeed((1,), "deepspeed")],
)
def test_sigterm_to_any_process_saves_and_leaves_all_with_code_0(
    make_config: MakeConfig, tmp_path: Path, told: tuple[int, ...], strategy: str
) -> None:
    whole = make_config(max_steps=40, log_every=1, strategy=strategy, output_dir=str(tmp_path / "whole"))
    parts = make_config(max_steps=40, log_every=1, strategy=strategy, output_dir=str(tmp_path / "parts"))
    run(whole, 2)
    children = start(parts, 2)
    wait_for_step(parts, 5)
    for rank in told:
        os.kill(children[rank], signal.SIGTERM)
    assert end(children) == [0, 0]
    saved = max(checkpoint_steps(tmp_path / "parts" / "checkpoints"))
    assert 5 <= saved < 40
    assert load_checkpoint(tmp_path / "parts" / "checkpoints" / f"step-{saved:08d}").step == saved
    run(parts, 2)
    assert_same_bits(whole, parts)


def test_damaged_newest_checkpoint_costs_its_steps_and_no_bit(make_config: MakeConfig, tmp_path: Path) -> None:
    changes: dict[str, Any] = {"checkpoint": {"every_steps": 2}, "log_every": 1}
    whole = make_config(max_steps=6, **changes, output_dir=str(tmp_path / "whole"))
    run(whole)
    run(make_config(max_steps=4, **changes, output_dir=str(tmp_path / "damaged")))
    file = tmp_path / "damaged" / "checkpoints" / "step-00000004" / "optimizer.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    damaged = make_config(max_steps=6, **changes, output_dir=str(tmp_path / "damaged"))
    run(damaged)
    assert_same_bits(whole, damaged)
    assert [json.loads(line)["step"] for line in (tmp_path / "damaged" / "log.jsonl").read_text().splitlines()] == [
        1, 2, 3, 4, 5, 6,
    ]  # fmt: skip
