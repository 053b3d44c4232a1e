from collections.abc import Callable

import pytest

from diffusers_imagen.training.config import TrainConfig
from diffusers_imagen.training.strategy import make_accelerator

MakeConfig = Callable[..., TrainConfig]


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("WORLD_SIZE", "2", "started 2 processes, but 1 would train together.*ACCELERATE_USE_CPU=true"),
        ("ACCELERATE_USE_FSDP", "true", "FSDP was asked for"),
        ("ACCELERATE_USE_DEEPSPEED", "true", "DeepSpeed was asked for"),
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


def test_wrong_number_of_processes_is_an_error(make_config: MakeConfig) -> None:
    with pytest.raises(ValueError, match="`processes` is 2, but there is 1; start with `torchrun"):
        make_accelerator(make_config(processes=2))
    assert make_accelerator(make_config(processes=1)).num_processes == 1
