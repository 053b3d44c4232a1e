from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml

from diffusers_imagen.text.encoding import TextSettings
from diffusers_imagen.training.config import TrainConfig
from diffusers_imagen.training.config_file import load_config
from diffusers_imagen.training.preset_files import preset_path

MakeConfig = Callable[..., TrainConfig]


@pytest.fixture
def write(tmp_path: Path, make_config: MakeConfig) -> Callable[..., Path]:
    """Give a function that writes a valid YAML file, with replaced top-level fields."""

    def write_file(**changes: Any) -> Path:
        values = asdict(make_config()) | changes
        # YAML knows lists only.
        path = tmp_path / "run.yaml"
        path.write_text(yaml.safe_dump(_listed(values)))
        return path

    return write_file


def _listed(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _listed(item) for key, item in value.items()}
    return [_listed(item) for item in value] if isinstance(value, tuple) else value


def test_yaml_file_gives_the_same_configuration(write: Callable[..., Path], make_config: MakeConfig) -> None:
    assert _listed(asdict(load_config(write()))) == _listed(asdict(make_config()))


def test_command_line_wins_over_the_file(write: Callable[..., Path]) -> None:
    config = load_config(write(), ["--optimizer.lr", "2e-4", "--text.layers", "[4, -1]", "--data.split", "all"])

    assert config.optimizer.lr == 2e-4
    assert config.text.layers == (4, -1)
    assert config.data.split == "all"


@pytest.mark.parametrize("part", [{"folder": "p", "size": 8, "sise": 8}, {"size": 8}])
def test_unknown_and_missing_keys_are_refused_with_their_name(write: Callable[..., Path], part: dict) -> None:
    with pytest.raises(ValueError, match=r"run\.yaml.*(sise|folder)"):
        load_config(write(data=part))


def test_value_of_a_wrong_kind_is_refused(write: Callable[..., Path]) -> None:
    with pytest.raises(ValueError, match="batch_size"):
        load_config(write(batch_size="many"))


def test_refused_value_is_explained_through_the_loader(write: Callable[..., Path]) -> None:
    with pytest.raises(ValueError, match=r"`objective\.caption_drop` is 1\.5; give a share in \[0, 1\]"):
        load_config(write(objective={"caption_drop": 1.5}))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--learning_rate", "1"], "`learning_rate`"),
        (["--seed"], "give pairs"),
        (["seed", "1"], "give pairs"),
        (["--optimizer.lr", "fast"], "optimizer.lr"),
    ],
)
def test_unknown_and_incomplete_options_are_refused(
    write: Callable[..., Path], words: list[str], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        load_config(write(), words)


def test_single_argument_of_the_unet_can_be_replaced(write: Callable[..., Path]) -> None:
    config = load_config(write(), ["--model.config.dropout=0.2", "--seed=3"])

    assert config.model.config["dropout"] == 0.2
    assert config.model.config["sample_size"] == 8
    assert config.seed == 3


def test_the_refusal_of_a_missing_key_says_how_to_give_it(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("data: {size: 32}\n")
    with pytest.raises(ValueError, match=r"folder.*--set data\.folder=my_pictures"):
        load_config(tmp_path / "run.yaml")


def test_an_empty_section_is_refused_with_one_of_its_parts(write: Callable[..., Path]) -> None:
    with pytest.raises(ValueError, match=r"`preview` is empty; give its parts, such as preview\.every_steps"):
        load_config(write(preview=None))
    with pytest.raises(ValueError, match="`ema` is empty"):
        load_config(write(), ["--ema", "null"])
    assert load_config(write(lora=None)).lora is None


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"`path` is .*none\.yaml"):
        load_config(tmp_path / "none.yaml")


@pytest.mark.parametrize("content", ["", "- 3", "a: [1"])
def test_file_that_is_no_configuration_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "run.yaml").write_text(content)

    with pytest.raises(ValueError, match=r"run\.yaml"):
        load_config(tmp_path / "run.yaml")


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"data": {"size": 0}}, "data.size"),
        ({"data": {"crop": 9}}, "data.crop"),
        ({"data": {"low_res_factor": 1}}, "data.low_res_factor"),
        ({"data": {"workers": 0}}, "data.workers"),
        ({"data": {"validation_fraction": 1.0}}, "data.validation_fraction"),
        ({"model": {"pretrained": "folder"}}, "model.config"),
        ({"text": {"max_length": 0}}, "max_length"),
        ({"text": {"batch_size": 0}}, "text.batch_size"),
        ({"objective": {"noise_level_min": 0.5, "noise_level_max": 0.2}}, "objective.noise_level_min"),
        ({"objective": {"gamma": 0.0}}, "objective.gamma"),
        ({"optimizer": {"lr": 0.0}}, "optimizer.lr"),
        ({"optimizer": {"betas": (0.9, 1.0)}}, "optimizer.betas"),
        ({"optimizer": {"warmup_steps": -1}}, "optimizer.warmup_steps"),
        ({"optimizer": {"max_grad_norm": 0.0}}, "optimizer.max_grad_norm"),
        ({"ema": {"decay": 1.0}}, "ema.decay"),
        ({"checkpoint": {"every_steps": 0}}, "checkpoint.every_steps"),
        ({"checkpoint": {"keep": 0}}, "checkpoint.keep"),
        ({"preview": {"every_steps": 0}}, "preview.every_steps"),
        ({"checkpoint": {"every_seconds": -1.0}}, "checkpoint.every_seconds"),
        ({"ema": {"sigma_rels": (0.1, 0.05)}}, "ema.sigma_rels"),
        ({"ema": {"snapshot_every_steps": 0}}, "ema.snapshot_every_steps"),
        ({"held_out": {"levels": 0}}, "held_out.levels"),
        ({"time_limit": -1.0}, "time_limit"),
        ({"processes": 0}, "processes"),
        ({"max_steps": 0}, "max_steps"),
        ({"batch_size": 0}, "batch_size"),
        ({"seed": -1}, "seed"),
        ({"enlarges": True, "data": {"crop": 3}}, "data.crop"),
        ({"enlarges": True, "data": {"size": 9, "crop": 4}}, "data.size"),
        ({"precision": "fp8"}, "precision"),
        ({"resume": "yes"}, "resume"),
        ({"model": {"model_class": "big"}}, "model.model_class"),
        ({"optimizer": {"schedule": "linear"}}, "optimizer.schedule"),
        ({"objective": {"weighting": "snr"}}, "objective.weighting"),
        ({"objective": {"times": "beta"}}, "objective.times"),
        ({"objective": {"times_mean": float("inf")}}, "objective.times_mean"),
        ({"objective": {"times_std": 0.0}}, "objective.times_std"),
        ({"data": {"low_res_resize": "lanczos"}}, "low_res_resize"),
    ],
)
def test_impossible_values_are_refused_by_name(make_config: MakeConfig, changes: dict, name: str) -> None:
    with pytest.raises(ValueError, match=f"`{name}"):
        make_config(**changes)


def test_a_value_has_no_parts_to_override(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("max_steps: 3\n")
    with pytest.raises(ValueError, match=r"`overrides` is 'max_steps.a'; `max_steps` has no parts"):
        load_config(path, ["--max_steps.a", "1"])


def test_precision_no_is_no_truth_value(write: Callable[..., Path]) -> None:
    path = write(precision="bf16")
    path.write_text(path.read_text().replace("precision: bf16", "precision: no"))

    assert load_config(path).precision == "no"
    assert load_config(write(precision="bf16"), ["--precision", "no"]).precision == "no"


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"shard_window": 0}, "shard_window"),
        ({"max_bad_fraction": 1.5}, "max_bad_fraction"),
        ({"low_res_blur": -1.0}, "low_res_blur"),
        ({"low_res_jpeg": 100}, "low_res_jpeg"),
        ({"bucket_multiple": 3}, "bucket_multiple"),
        ({"bucket_multiple": 4, "crop": 4}, "crop"),
        ({"source": "tar"}, "source"),
    ],
)
def test_impossible_values_of_the_data_are_refused_by_name(make_config: MakeConfig, change: dict, name: str) -> None:
    with pytest.raises(ValueError, match=f"`(data.)?{name}`"):
        make_config(data=change)


def test_pictures_are_kept_in_memory_up_to_four_gibibytes(make_config: MakeConfig) -> None:
    data = make_config(data={"size": 1024}).data

    assert data.fits_in_memory(1365)
    assert not data.fits_in_memory(1366)
    assert make_config(data={"in_memory": True}).data.fits_in_memory(10**9)
    assert not make_config(data={"in_memory": False}).data.fits_in_memory(1)


def test_settings_of_the_text_reach_the_encoder(write: Callable[..., Path]) -> None:
    text = {"layers": [1, 2], "prefix": "a ", "max_length": 9, "template": "user: {prompt}", "template_tokens": "all"}
    settings = load_config(write(text={"folder": "t", **text})).text.settings
    assert settings == TextSettings((1, 2), "a ", 9, template="user: {prompt}", template_tokens="all")
    with pytest.raises(ValueError, match="`template` is 'user'; give a text that holds"):
        load_config(write(text={"folder": "t", "template": "user"}))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--lora.rank", "0"], "is refused: `lora.rank` is 0; give at least 1"),
        (["--optimizer.lrr", "1"], "not valid for OptimizerConfig. Did you mean `optimizer.lr`?"),
        (["--lr", "1"], "not valid for TrainConfig. Did you mean `optimizer.lr`?"),
        (["--zzz", "1"], "not valid for TrainConfig. It has data, model, text, "),
        (["--data.zzz", "1"], "not valid for DataConfig. It has folder, source, "),
        (["--precision", "fp8"], "`precision`: Cannot convert 'fp8' .* into one of: no, bf16, fp16."),
        (["--text.layers", "a"], "is refused: `text.layers.0`: Couldn't parse 'a' into an int"),
        (["--data.crop", "8"], "`data.crop` is 8; leave it out: a base has none"),
    ],
)
def test_what_is_wrong_is_said_with_its_name(words: list[str], message: str) -> None:
    given = ["--data.folder", "pictures", "--output_dir", "run"]
    with pytest.raises(ValueError, match=message) as error:
        load_config(preset_path("lora"), [*given, *words])
    assert "\n" not in str(error.value)


def test_full_precision_has_several_names(write: Callable[..., Path]) -> None:
    assert load_config(write(), ["--precision", "fp32"]).precision == "no"
