from pathlib import Path

import pytest
from accelerate import FullyShardedDataParallelPlugin
from accelerate.commands.config.config_args import ClusterConfig, load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils import DistributedType
from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env

from diffusers_imagen.models.unet_imagen import ImagenUNet2DConditionModel

FOLDER = Path(__file__).parents[2] / "examples" / "accelerate"
TYPES = {"ddp": DistributedType.MULTI_GPU, "fsdp2": DistributedType.FSDP, "deepspeed": DistributedType.DEEPSPEED}


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


def test_launched_processes_shard_block_by_block(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = launch_arguments("fsdp2")
    assert arguments.use_fsdp
    for key, value in prepare_multi_gpu_env(arguments).items():
        monkeypatch.setenv(key, value)
    plugin = FullyShardedDataParallelPlugin()

    assert plugin.fsdp_version == 2
    assert plugin.reshard_after_forward is True
    assert plugin.transformer_cls_names_to_wrap == list(ImagenUNet2DConditionModel._no_split_modules)
    assert plugin.state_dict_type.name == "FULL_STATE_DICT"


def test_launched_processes_are_told_of_zero_two() -> None:
    arguments = launch_arguments("deepspeed")
    assert arguments.use_deepspeed
    # What `accelerate launch` sets besides.
    arguments.deepspeed_fields_from_accelerate_config = ""
    environment = prepare_deepspeed_cmd_env(arguments)[1]

    assert environment["ACCELERATE_USE_DEEPSPEED"] == "true"
    assert environment["ACCELERATE_DEEPSPEED_ZERO_STAGE"] == "2"
    assert environment["ACCELERATE_GRADIENT_CLIPPING"] == "1.0"
