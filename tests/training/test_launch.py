"""The program as launchers start it, and what it said beforehand against what it then took."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
import yaml

from diffusers_imagen.training.config import TrainConfig
from diffusers_imagen.training.run_folder import read_lines

MakeConfig = Callable[..., TrainConfig]
LAUNCH = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "diffusers_imagen", "train"]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def launch(config: TrainConfig, folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(yaml.dump(asdict(config)).replace("!!python/tuple", ""))))
    command = [sys.executable, *arguments, str(path)]
    return subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)


def test_torchrun_trains_with_two_processes(make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config(max_steps=2, processes=2, preview={"prompts": ("a red square",), "num_inference_steps": 1})
    ended = launch(config, tmp_path, *LAUNCH, ACCELERATE_USE_CPU="true")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("2 steps, 0 skipped, finished") == 1
    assert [line["step"] for line in read_lines(Path(config.output_dir) / "log.jsonl")] == [2]


def test_torchrun_whose_processes_would_not_know_of_each_other_is_refused(
    make_config: MakeConfig, tmp_path: Path
) -> None:
    config = make_config(max_steps=2)
    ended = launch(config, tmp_path, *LAUNCH, CUDA_VISIBLE_DEVICES="")
    assert ended.returncode != 0
    assert "The launcher started 2 processes, but 1 would train together" in ended.stderr
    assert not Path(config.output_dir).exists()


# The working memory of single operations is not counted; it shows where little else is kept.
@pytest.mark.parametrize(("batch_size", "checkpointing", "most"), [(32, False, 1.4), (64, True, 1.7)])
def test_memory_is_what_the_dry_run_says(
    make_config: MakeConfig, tmp_path: Path, batch_size: int, checkpointing: bool, most: float
) -> None:
    shape = {"sample_size": 16, "block_out_channels": (128, 256), "norm_num_groups": 16, "attention_head_dim": 64}
    config = make_config(
        data={"size": 16},
        model={"config": make_config().model.config | shape, "gradient_checkpointing": checkpointing},
        batch_size=batch_size,
    )
    code = (
        "import sys; from diffusers_imagen.training.config_file import load_config;"
        "from diffusers_imagen.training.dry_run import dry_run;"
        "found = dry_run(load_config(sys.argv[1])); print(found.memory.total, found.measured)"
    )
    ended = launch(config, tmp_path, "-c", code)
    assert ended.returncode == 0, ended.stderr
    estimated, measured = map(int, ended.stdout.split())
    sys.stdout.write(f"estimated {estimated / 2**20:.0f} MiB, measured {measured / 2**20:.0f} MiB\n")
    assert 0.7 < measured / estimated < most
