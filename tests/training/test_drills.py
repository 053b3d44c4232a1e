"""Runs of one and two processes that are killed, told to leave, or fed with numbers that are none.

Processes are forked from this one, which has imported everything already, and train together over gloo on the CPU.
"""

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
from accelerate.state import AcceleratorState
from safetensors.torch import load_file

from diffusers_imagen.training import loop as module
from diffusers_imagen.training.checkpoint import checkpoint_steps, load_checkpoint
from diffusers_imagen.training.config import TrainConfig
from diffusers_imagen.training.loop import train
from diffusers_imagen.training.objective import Loss
from diffusers_imagen.training.run_folder import read_lines

MakeConfig = Callable[..., TrainConfig]
STATE_FILES = ("unet", "ema", "optimizer", "ema-0.05", "ema-0.1")
POST_HOC = {"post_hoc": True, "snapshot_every_steps": 7}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


def start(config: TrainConfig, processes: int = 1, prepare: Callable[[int], None] = lambda rank: None) -> list[int]:
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
                train(config)
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
@pytest.mark.parametrize("processes", [1, 2])
def test_twenty_kills_at_random_moments_change_no_bit(
    make_config: MakeConfig, tmp_path: Path, processes: int, workers: int
) -> None:
    changes: dict[str, Any] = {
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
    for step in sorted(moments.sample(range(1, 60), 20)):
        children = start(killed, processes)
        wait_for_step(killed, step)
        time.sleep(moments.uniform(0, 0.05))
        for child in children:
            os.kill(child, signal.SIGKILL)
        kills += sum(code == -signal.SIGKILL for code in end(children))
    run(killed, processes)

    compared = assert_same_bits(whole, killed)
    sys.stdout.write(f"{kills} of {20 * processes} processes killed, {compared} tensors the same to the bit\n")
    assert kills == 20 * processes


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


def test_run_goes_on_with_another_number_of_processes(make_config: MakeConfig, tmp_path: Path) -> None:
    model = {"config": make_config().model.config | {"dropout": 0.0}}
    whole = make_config(max_steps=6, model=model, batch_size=4, log_every=1, output_dir=str(tmp_path / "whole"))
    run(whole)
    folder = str(tmp_path / "changed")
    run(make_config(max_steps=3, model=model, batch_size=4, log_every=1, output_dir=folder))
    changed = make_config(max_steps=6, model=model, batch_size=2, log_every=1, output_dir=folder)
    run(changed, processes=2)
    assert losses(changed) == pytest.approx(losses(whole), rel=1e-5)


def infinite_at(rank: int, guilty: int) -> None:
    """Make the loss of one rank's third step infinite."""
    original, calls = module.diffusion_loss, []

    def sometimes_infinite(*arguments: Any) -> Loss:
        calls.append(1)
        loss = original(*arguments)
        return loss._replace(mean=loss.mean * float("inf")) if rank == guilty and len(calls) == 3 else loss

    module.diffusion_loss = sometimes_infinite


def test_all_processes_skip_a_step_that_one_of_them_spoils(make_config: MakeConfig, tmp_path: Path) -> None:
    configs = []
    for guilty in (0, 1):
        config = make_config(max_steps=5, log_every=1, ema=POST_HOC, output_dir=str(tmp_path / f"{guilty}"))
        run(config, 2, lambda rank, guilty=guilty: infinite_at(rank, guilty))
        assert [line["skipped"] for line in read_lines(tmp_path / f"{guilty}" / "log.jsonl")] == [0, 0, 1, 1, 1]
        configs.append(config)
    # Whoever spoiled it, the step is the only thing that is missing.
    assert_same_bits(*configs)


def test_a_killed_process_ends_the_others_within_a_minute(make_config: MakeConfig) -> None:
    config = make_config(max_steps=100_000, log_every=1)
    children = start(config, processes=2)
    wait_for_step(config, 3)
    os.kill(children[1], signal.SIGKILL)
    killed = time.monotonic()
    codes = end(children)
    seconds = time.monotonic() - killed
    sys.stdout.write(f"the other process ended with {codes[0]} after {seconds:.1f} s\n")
    assert codes == [1, -signal.SIGKILL]
    assert seconds < 60


@pytest.mark.parametrize("told", [(0,), (1,), (0, 1)])
def test_sigterm_to_any_process_saves_and_leaves_all_with_code_0(
    make_config: MakeConfig, tmp_path: Path, told: tuple[int, ...]
) -> None:
    whole = make_config(max_steps=40, log_every=1, output_dir=str(tmp_path / "whole"))
    parts = make_config(max_steps=40, log_every=1, output_dir=str(tmp_path / "parts"))
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
