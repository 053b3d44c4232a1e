"""`card`, `push --dry-run` and `export-remote-code`: what needs no Hub; pushing itself is tested in tests/hub."""

import json
import shutil

import pytest
from PIL import Image


def test_card_prints_the_card(run, folder):
    result = run("card", folder, "--repo", "me/cats")
    assert result.code == 0, result.err
    assert result.out.startswith("---\n")
    assert "\n# cats\n" in result.out


def test_card_writes_a_file_with_its_pictures_and_keeps_an_edited_one(run, folder, tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "grid.png")
    (tmp_path / "facts.yaml").write_text("pictures: grid.png\nlicense: mit\n")
    for _ in range(2):
        result = run("card", folder, "--facts", tmp_path / "facts.yaml", "-o", folder / "README.md")
        assert result.code == 0, result.err
    assert (folder / "pictures.png").read_bytes() == (tmp_path / "grid.png").read_bytes()
    (folder / "README.md").write_text("# Mine")
    result = run("card", folder, "-o", folder / "README.md")
    assert result.code == 2
    assert "was edited and is kept" in result.err
    assert (folder / "README.md").read_text() == "# Mine"
    assert "a folder; give a file name" in run("card", folder, "-o", folder).err


def test_push_lists_what_it_would_send(run, folder):
    result = run("push", folder, "me/cats", "--dry-run")
    assert result.code == 0, result.err
    sent = result.out.splitlines()
    assert sent[-1] == "README.md"
    assert sorted(sent[:-1]) == sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("repo", ["me/too/deep", "", "me/sp ace"])
def test_push_refuses_a_name_that_is_none(run, folder, repo):
    result = run("push", folder, repo)
    assert result.code == 2
    assert result.err.startswith("diffusers-imagen: `repo_id` is ")


def test_push_refuses_exchanged_weights_before_it_sends_anything(run, folder, make_cascade):
    unet = make_cascade(1).unet
    other = type(unet).from_config(unet.config)
    other.save_pretrained(folder.parent / "other")
    name = "diffusion_pytorch_model.safetensors"
    shutil.copyfile(folder.parent / "other" / name, folder / "unet" / name)
    result = run("push", folder, "me/cats")
    assert result.code == 2
    assert f"unet/{name} is not the file that was saved" in result.err


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("tokenizer/tokenizer.json", '{"version": "1.0", "trunc', "tokenizer/tokenizer.json cannot be read"),
        ("tokenizer/tokenizer.json", None, "tokenizer cannot be loaded as transformers."),
        (
            "scheduler/scheduler_config.json",
            '{"num_train_timesteps": "x"}',
            "scheduler cannot be loaded as diffusers.",
        ),
    ],
)
def test_push_refuses_what_no_scheduler_or_tokenizer_can_be_made_of(run, folder, name, content, message):
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_text(content)
    result = run("push", folder, "me/cats", "--dry-run")
    assert result.code == 2
    assert result.err.splitlines()[-1].startswith(f"diffusers-imagen: {message}")


def test_a_built_in_cascade_goes_by_its_name(run, folder, monkeypatch):
    # The name alone is tested; unpacking has tests of its own.
    monkeypatch.setattr("diffusers_imagen.cli.text_folder.builtin_path", {"imagen-emoji": folder}.__getitem__)
    card = run("card", "imagen-emoji", "--repo", "me/emoji")
    assert card.out == run("card", folder, "--repo", "me/emoji").out
    assert "unet/config.json" in run("push", "imagen-emoji", "me/emoji", "--dry-run").out
    assert run("export-remote-code", "imagen-emoji", "-o", folder.parent / "copy").code == 0
    assert (folder.parent / "copy/pipeline.py").is_file()


def test_push_without_the_hub_is_told_in_one_line(run, folder):
    result = run("push", folder, "me/cats")
    assert result.code == 2
    assert result.err.count("\n") == 1
    assert "offline" in result.err.lower()


def test_export_writes_a_copy_with_its_code(run, folder, tmp_path):
    result = run("export-remote-code", folder, "-o", tmp_path / "out" / "copy")
    assert result.code == 0, result.err
    copy = tmp_path / "out" / "copy"
    (code,) = copy.glob("diffusers_imagen_*.py")
    for path in (code, copy / "pipeline.py", copy / "unet/diffusers_imagen_remote.py"):
        head = path.read_text().split("\n\n")[0]
        assert "Licensed under the Apache License, Version 2.0" in head
        assert "Written by `diffusers-imagen export-remote-code`, version " in head
    index = json.loads((copy / "model_index.json").read_text())
    assert index["sr_unet_1"] == ["diffusers_imagen_remote", "EfficientUNet2DConditionModel"]
    assert index["scheduler"] == ["diffusers", "DDIMScheduler"]
    # An export may be exported again, by a newer release.
    assert run("export-remote-code", copy, "-o", tmp_path / "again").code == 0
    assert (tmp_path / "again" / code.name).read_bytes() == code.read_bytes()


def test_export_leaves_an_existing_folder_and_a_broken_one_alone(run, folder, tmp_path):
    assert "which exists" in run("export-remote-code", folder, "-o", folder).err
    (folder / "unet/config.json").unlink()
    assert run("export-remote-code", folder, "-o", tmp_path / "copy").code == 2
    assert not (tmp_path / "copy").exists()
