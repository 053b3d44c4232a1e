"""Original files of DeepFloyd IF to a saved cascade: whole, safe, or not at all."""

import importlib
import io
import json
import os
import pickle
import runpy
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from diffusers_imagen.conversion.deepfloyd_files import convert_folders, load_weights
from diffusers_imagen.models.unet_deepfloyd import DeepFloydUNet2DConditionModel
from diffusers_imagen.pipelines.pipeline_imagen_cascade import ImagenCascadePipeline

SCRIPT = Path(__file__).parents[2] / "scripts/convert/convert_deepfloyd_if.py"


def test_two_stages_become_a_cascade_that_draws(original, original_folder, tmp_path):
    report = convert_folders([original_folder("small"), original_folder("small II")], tmp_path / "cascade")
    pipe = ImagenCascadePipeline.from_pretrained(tmp_path / "cascade")
    for unet, name in ((pipe.unet, "small"), (pipe.sr_unet_1, "small II")):
        assert type(unet) is DeepFloydUNet2DConditionModel
        weights = original(name)[0].state_dict()
        found = unet.state_dict()
        assert found.keys() == weights.keys()
        assert all(torch.equal(found[key], weights[key]) for key in weights)
    pipe.set_progress_bar_config(disable=True)
    text = torch.randn(2, 1, 4, 32, generator=torch.Generator().manual_seed(0))
    drawn = pipe(
        prompt_embeds=text[0],
        negative_prompt_embeds=text[1],
        num_inference_steps={"base": 2, "sr_1": 2},
        output_type="latent",
    )
    assert drawn.images.shape == (1, 3, 16, 16)
    assert drawn.images.isfinite().all()
    lines = str(report).splitlines()
    assert any(line.startswith("read: ") and "pytorch_model.bin" in line for line in lines)
    assert "inferred: sr_1: block_out_channels = (32, 64)" in lines
    assert any(line.startswith("written: cascade/sr_unet_1: ") for line in lines)


def test_small_shards_hold_the_same_weights(original, original_folder, tmp_path):
    convert_folders([original_folder("small")], tmp_path / "cascade", max_shard_size=200_000)
    files = sorted((tmp_path / "cascade/unet").glob("*.safetensors"))
    assert len(files) > 3
    found = {name: weight for file in files for name, weight in load_file(file).items()}
    weights = original("small")[0].state_dict()
    assert found.keys() == weights.keys()
    assert all(torch.equal(found[name], weights[name]) for name in weights)
    loaded = ImagenCascadePipeline.from_pretrained(tmp_path / "cascade").unet
    assert torch.equal(loaded.conv_out.weight, weights["conv_out.weight"])


def test_half_precision_stays_half(original_folder, tmp_path):
    def halve(weights):
        for name in weights:
            weights[name] = weights[name].to(torch.bfloat16 if "norm" in name else torch.float16)

    convert_folders([original_folder("small", halve)], tmp_path / "cascade")
    found = load_file(tmp_path / "cascade/unet/diffusion_pytorch_model.safetensors")
    assert {weight.dtype for weight in found.values()} == {torch.float16, torch.bfloat16}


def test_a_dry_run_writes_nothing_and_says_the_same(original_folder, tmp_path):
    folder = original_folder("small")
    report = convert_folders([folder], tmp_path / "cascade", dry_run=True)
    assert report.written == ["nothing (dry run)"]
    assert not (tmp_path / "cascade").exists()
    assert report.read == convert_folders([folder], tmp_path / "cascade").read


def test_the_script_converts_and_refuses_in_one_line(original_folder, tmp_path, monkeypatch, capsys):
    folder = original_folder("small")
    command = [str(SCRIPT), "--stage-1", str(folder), "--output", str(tmp_path / "cascade")]
    monkeypatch.setattr(sys, "argv", [*command, "--dry-run"])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    assert "written: nothing (dry run)" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", command)
    runpy.run_path(str(SCRIPT), run_name="__main__")
    assert (tmp_path / "cascade/model_index.json").is_file()
    (folder / "pytorch_model.bin").unlink()
    monkeypatch.setattr(sys, "argv", [*command[:-1], str(tmp_path / "other")])
    with pytest.raises(
        SystemExit, match=r"error: .* is no file; give the folder with pytorch_model.bin and config.yml"
    ):
        runpy.run_path(str(SCRIPT), run_name="__main__")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weights: weights.pop("out.2.bias"), "lacks 1 weights that `config.yml` asks for: out.2.bias"),
        (lambda weights: weights.update(extra=torch.zeros(1)), "has 1 weights .* does not ask for: extra"),
        (lambda weights: weights.update(step=7), "holds 'step', a int and no tensor"),
        (
            lambda weights: weights.update({"out.2.bias": torch.zeros(6, dtype=torch.int64)}),
            "'out.2.bias' as torch.int64",
        ),
        (lambda weights: weights.update({"out.2.bias": torch.zeros(7)}), "1 weights have another shape"),
    ],
)
def test_files_that_do_not_fit_are_refused_and_nothing_is_written(original_folder, tmp_path, change, message):
    folder = original_folder("small", change)
    with pytest.raises(ValueError, match=message):
        convert_folders([folder], tmp_path / "out" / "cascade")
    assert not (tmp_path / "out").exists()


def test_stages_in_the_wrong_order_and_none_are_refused(original_folder, tmp_path):
    base, enlargement = original_folder("small"), original_folder("small II")
    with pytest.raises(ValueError, match="is an enlargement; give the base first"):
        convert_folders([enlargement, base], tmp_path / "cascade")
    with pytest.raises(ValueError, match="is a base; give the base first"):
        convert_folders([base, base], tmp_path / "cascade")
    with pytest.raises(ValueError, match="`stages` holds 0 folders"):
        convert_folders([], tmp_path / "cascade")


def test_a_folder_that_holds_something_is_left_alone(original_folder, tmp_path):
    (tmp_path / "cascade").mkdir()
    (tmp_path / "cascade" / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds something already; give a new or an empty folder"):
        convert_folders([original_folder("small")], tmp_path / "cascade")
    assert [path.name for path in (tmp_path / "cascade").iterdir()] == ["mine.txt"]


def test_a_disk_that_fails_half_way_leaves_nothing(original_folder, tmp_path, monkeypatch):
    def full(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr("diffusers_imagen.conversion.deepfloyd_files._index", full)
    with pytest.raises(OSError, match="no space left"):
        convert_folders([original_folder("small")], tmp_path / "out" / "cascade")
    assert not (tmp_path / "out").exists()


class Runs:
    """Pickles as a call of a function."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def legacy(content):
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=False)
    return file.getvalue()


def in_zip(pickled):
    """Return a file as torch.save lays it out, with this pickle as its data."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/version", "3\n")
    return file.getvalue()


def malicious(mark):
    """Return files by name that try to make the file `mark`, or to do other harm, when they are read."""
    touch = f"open({str(mark)!r}, 'w').close()"
    shell = f"touch {mark}"
    return {
        "os.system": in_zip(pickle.dumps(Runs(os.system, shell), 2)),
        "os.popen": in_zip(pickle.dumps(Runs(os.popen, shell), 2)),
        "subprocess.run": in_zip(pickle.dumps(Runs(subprocess.run, ["touch", str(mark)]), 2)),
        "exec": in_zip(pickle.dumps(Runs(exec, touch), 2)),
        "eval": in_zip(pickle.dumps(Runs(eval, touch.removesuffix(".close()")), 2)),
        "open": in_zip(pickle.dumps(Runs(open, str(mark), "w"), 2)),
        "getattr": in_zip(pickle.dumps(Runs(getattr, "", "join"), 2)),
        "importlib": in_zip(pickle.dumps(Runs(importlib.import_module, "antigravity"), 2)),
        "runpy": in_zip(pickle.dumps(Runs(runpy.run_path, str(mark)), 2)),
        "shutil.rmtree": in_zip(pickle.dumps(Runs(shutil.rmtree, str(mark.parent / "precious")), 2)),
        "torch.load": in_zip(pickle.dumps(Runs(torch.load, str(mark)), 2)),
        "hidden among weights": in_zip(pickle.dumps({"out.2.bias": 1, "later": Runs(os.system, shell)}, 2)),
        "old layout": legacy({"a": torch.zeros(1), "b": Runs(os.system, shell)}),
        "bare pickle": pickle.dumps(Runs(os.system, shell)),
        "protocol 0": pickle.dumps(Runs(os.system, shell), protocol=0),
        "hand-made stack global": in_zip(
            b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c" + bytes([len(shell)]) + shell.encode() + b"\x85R."
        ),
    }


@pytest.mark.parametrize("name", malicious(Path("mark")))
def test_a_malicious_pickle_is_refused_and_nothing_of_it_runs(original_folder, tmp_path, name):
    folder = original_folder("small")
    mark, precious = folder / "mark", folder / "precious"
    precious.mkdir()
    (folder / "pytorch_model.bin").write_bytes(malicious(mark)[name])
    with pytest.raises(ValueError, match=r"pytorch_model.bin' cannot be read as a file of weights and nothing else"):
        convert_folders([folder], tmp_path / "out" / "cascade")
    assert not mark.exists()
    assert precious.exists()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("share", [0.0, 0.3, 0.999])
def test_a_file_that_is_cut_off_is_refused(original_folder, tmp_path, share):
    folder = original_folder("small")
    path = folder / "pytorch_model.bin"
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match="cannot be read as a file of weights"):
        convert_folders([folder], tmp_path / "cascade")
    assert not (tmp_path / "cascade").exists()


def test_a_config_that_runs_code_or_is_none_is_refused(original_folder, tmp_path):
    folder = original_folder("small")
    for content in (
        "params: !!python/object/apply:os.system ['touch mark']",
        "{",
        "other: 1",
        "params: 3",
        "[" * 5000,
    ):
        (folder / "config.yml").write_text(content)
        with pytest.raises(ValueError, match=r"config.yml' (cannot be read as plain YAML|has no `params`)"):
            convert_folders([folder], tmp_path / "cascade")


def test_weights_are_mapped_not_read(original_folder):
    weights = load_weights(original_folder("small") / "pytorch_model.bin")
    # All tensors of a mapped file lie in the one piece of memory that is the file.
    places = [weight.untyped_storage().data_ptr() for weight in weights.values()]
    assert max(places) - min(places) < (sum(weight.nbytes for weight in weights.values()) * 1.5)


def test_the_index_names_every_component(original_folder, tmp_path):
    convert_folders([original_folder("small")], tmp_path / "cascade")
    index = json.loads((tmp_path / "cascade/model_index.json").read_text())
    assert index["unet"] == ["diffusers_imagen", "DeepFloydUNet2DConditionModel"]
    assert index["sr_unet_1"] == index["text_encoder"] == [None, None]
    assert index["stages"]["base"]["threshold_max"] == 1.5


def test_a_file_that_does_not_fit_its_check_sums_is_refused(original_folder, tmp_path):
    folder = original_folder("small")
    whole = bytearray((folder / "pytorch_model.bin").read_bytes())
    whole[len(whole) // 2] ^= 0x40
    (folder / "pytorch_model.bin").write_bytes(whole)
    with pytest.raises(ValueError, match="the check sum of"):
        convert_folders([folder], tmp_path / "cascade", dry_run=True)


@pytest.mark.parametrize("size", ["nan", "inf", "0", "-1", "abc"])
def test_a_shard_of_no_size_is_refused_in_a_line(original_folder, tmp_path, monkeypatch, capsys, size):
    command = [str(SCRIPT), "--stage-1", str(tmp_path), "--output", str(tmp_path / "cascade")]
    monkeypatch.setattr(sys, "argv", [*command, f"--max-shard-size={size}"])
    with pytest.raises(SystemExit):
        runpy.run_path(str(SCRIPT), run_name="__main__")
    assert "argument --max-shard-size: invalid" in capsys.readouterr().err
