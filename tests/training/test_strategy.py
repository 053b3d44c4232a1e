import importlib.util
from collections.abc import Callable
from typing import Any

import pytest
from accelerate.state import AcceleratorState

from diffusers_imagen.training.config import TrainConfig
from diffusers_imagen.training.strategy import make_accelerator, strategy_of

MakeConfig = Callable[..., TrainConfig]


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("WORLD_SIZE", "2", "started 2 processes, but 1 would train together.*ACCELERATE_USE_CPU=true"),
        ("ACCELERATE_USE_FSDP", "true", "FSDP was asked for with FSDP_VERSION=1.*--fsdp_version 2"),
        ("ACCELERATE_USE_DEEPSPEED", "true", "`strategy` is 'deepspeed' or .* there is one process"),
        ("ACCELERATE_USE_MEGATRON_LM", "true", "Megatron-LM was asked for"),
        ("ACCELERATE_MIXED_PRECISION", "bf16", "`precision` is 'no', but the launcher was told 'bf16'"),
        ("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4", "`gradient_accumulation_steps` is 1, but the launcher was"),
    ],
)
def test_what_a_launcher_asks_for_in_vain_is_an_error(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, message: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ValueError, match=message):
        make_accelerator(make_config())


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("FSDP_OFFLOAD_PARAMS", "true", "leave out fsdp_offload_params"),
        ("FSDP_RESHARD_AFTER_FORWARD", "false", "set fsdp_reshard_after_forward to true"),
        ("FSDP_ACTIVATION_CHECKPOINTING", "true", "set `model.gradient_checkpointing`"),
        ("WORLD_SIZE", "1", "there is one process, which has nobody to share with"),
    ],
)
def test_what_fsdp_here_does_not_do_is_an_error(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, message: str
) -> None:
    asked = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "WORLD_SIZE": "2", variable: value}
    for name, setting in asked.items():
        monkeypatch.setenv(name, setting)
    with pytest.raises(ValueError, match=message):
        make_accelerator(make_config())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"precision": "fp16"}, "`precision` is 'fp16', which does not go with FSDP; give bf16 or no"),
        ({"compile": True}, "`compile` is True"),
        ({"optimizer": {"name": "Adafactor"}}, "`optimizer.name` is 'Adafactor'"),
        ({"optimizer": {"name": "AdamW8bit"}}, "`optimizer.name` is 'AdamW8bit'"),
    ],
)
def test_what_does_not_go_with_fsdp_is_an_error(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], message: str
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match=message):
        make_accelerator(make_config(strategy="fsdp", **changes))


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("ACCELERATE_DEEPSPEED_ZERO_STAGE", "3", "give --zero_stage 1 or 2; what 3 does `strategy: fsdp` does"),
        ("ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE", "cpu", "leave out offload_optimizer_device"),
        ("ACCELERATE_DEEPSPEED_OFFLOAD_PARAM_DEVICE", "nvme", "leave out offload_param_device"),
        ("ACCELERATE_DEEPSPEED_CONFIG_FILE", "zero.json", "leave out deepspeed_config_file"),
        ("ACCELERATE_GRADIENT_CLIPPING", "0.5", "`optimizer.max_grad_norm` is 1.0, but the launcher was told 0.5"),
    ],
)
def test_what_deepspeed_here_does_not_do_is_an_error(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, message: str
) -> None:
    asked = {"ACCELERATE_USE_DEEPSPEED": "true", "WORLD_SIZE": "2", variable: value}
    for name, setting in asked.items():
        monkeypatch.setenv(name, setting)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    with pytest.raises(ValueError, match=message):
        make_accelerator(make_config())


def test_deepspeed_that_is_not_installed_is_an_error(make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="it is not installed; run `pip install deepspeed`, or take 'fsdp'"):
        make_accelerator(make_config(strategy="deepspeed"))


def test_launcher_and_configuration_must_ask_for_the_same(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert strategy_of(make_config(strategy="fsdp")) == "fsdp"
    assert strategy_of(make_config()) == "ddp"
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    assert strategy_of(make_config()) == "fsdp"
    for other in ("ddp", "deepspeed"):
        with pytest.raises(ValueError, match=f"`strategy` is '{other}', but the launcher was told to use FSDP"):
            make_accelerator(make_config(strategy=other))
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "false")
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    assert strategy_of(make_config()) == "deepspeed"
    with pytest.raises(ValueError, match="`strategy` is 'fsdp', but the launcher was told to use DeepSpeed"):
        make_accelerator(make_config(strategy="fsdp"))


def test_wrong_number_of_processes_is_an_error(make_config: MakeConfig) -> None:
    with pytest.raises(ValueError, match="`processes` is 2, but there is 1; start with `torchrun"):
        make_accelerator(make_config(processes=2))
    assert make_accelerator(make_config(processes=1)).num_processes == 1


def test_half_precision_on_a_cpu_is_an_error(make_config: MakeConfig) -> None:
    AcceleratorState._reset_state(reset_partial_state=True)
    with pytest.raises(
        ValueError, match="`precision` is 'fp16', but a CPU trains in bf16 or in full precision; give bf16"
    ):
        make_accelerator(make_config(precision="fp16"))
    AcceleratorState._reset_state(reset_partial_state=True)
