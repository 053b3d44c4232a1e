from pathlib import Path

import pytest
from accelerate import FullyShardedDataParallelPlugin
from accelerate.commands.config.config_args import ClusterConfig, load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils import DistributedType
from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env

from diffusers_imagen.training.config import DataConfig, ModelConfig, TextConfig, TrainConfig
from diffusers_imagen.training.strategy import make_accelerator, strategy_of

FOLDER = Path(__file__).parents[2] / "examples" / "accelerate"
TYPES = {"ddp": DistributedType.MULTI_GPU, "fsdp2": DistributedType.FSDP, "deepspeed": DistributedType.DEEPSPEED}
CONFIG = TrainConfig(
    data=DataConfig(folder="pictures", size=64),
    model=ModelConfig(model_class="base"),
    text=TextConfig(folder="text"),
    output_dir="run",
    max_steps=1,
    precision="bf16",
)


def launch_arguments(name: str, *words: str):
    """Read a configuration as `accelerate launch` does."""
    path = FOLDER / f"{name}.yaml"
    arguments = launch_command_parser().parse_args(["--config_file", str(path), *words, "train.py"])
    return _validate_launch_command(arguments)[0]


def test_each_configuration_is_tested() -> None:
    assert {path.stem for path in FOLDER.glob("*.yaml")} == set(TYPES)


@pytest.mark.parametrize("name", TYPES)
def test_accelerate_knows_all_keys_and_takes_the_strategy(name: str) -> None:
    config = load_config_from_file(str(FOLDER / f"{name}.yaml"))

    assert isinstance(config, ClusterConfig)
    assert config.distributed_type == TYPES[name]
    assert config.num_processes == 8


def test_launching_on_several_gpus_asks_for_all_processes() -> None:
    arguments = launch_arguments("ddp")

    assert arguments.multi_gpu
    prepare_multi_gpu_env(arguments)
    assert int(arguments.nproc_per_node) == 8


def test_launched_processes_shard_as_the_training_loop_does(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = launch_arguments("fsdp2")
    assert arguments.use_fsdp
    for key, value in prepare_multi_gpu_env(arguments).items():
        monkeypatch.setenv(key, value)

    assert FullyShardedDataParallelPlugin().fsdp_version == 2
    assert strategy_of(CONFIG) == "fsdp"
    # Nothing in the file is refused, but that here is one process alone.
    with pytest.raises(ValueError, match="there is one process"):
        make_accelerator(CONFIG)
    monkeypatch.setenv("FSDP_OFFLOAD_PARAMS", "true")
    with pytest.raises(ValueError, match="FSDP_OFFLOAD_PARAMS=true, which is not done"):
        make_accelerator(CONFIG)


def test_launched_processes_use_zero_as_the_training_loop_does(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = launch_arguments("deepspeed")
    assert arguments.use_deepspeed
    # As `accelerate launch` does.
    arguments.deepspeed_fields_from_accelerate_config = ""
    _, environment = prepare_deepspeed_cmd_env(arguments)
    for key, value in environment.items():
        monkeypatch.setenv(key, value)

    assert environment["ACCELERATE_DEEPSPEED_ZERO_STAGE"] == "2"
    assert strategy_of(CONFIG) == "deepspeed"
    # Nothing in the file is refused, but that here is one process alone.
    with pytest.raises(ValueError, match="there is one process"):
        make_accelerator(CONFIG)
    monkeypatch.setenv("ACCELERATE_DEEPSPEED_ZERO_STAGE", "3")
    with pytest.raises(ValueError, match="ACCELERATE_DEEPSPEED_ZERO_STAGE=3, which is not done"):
        make_accelerator(CONFIG)
