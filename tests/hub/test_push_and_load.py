"""What is pushed to a Hub, what new processes load from it with the package and without, and what damage is called.

Three processes do the work, one for pushing, one for loading, one for loading without the package; each test reads one
of their notes.
"""

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from diffusers import DDIMScheduler, EulerDiscreteScheduler
from safetensors.torch import load_file

from diffusers_imagen.hub.card import is_edited
from diffusers_imagen.hub.remote_code import export_cascade
from diffusers_imagen.pipelines.pipeline_imagen_cascade import ImagenCascadePipeline

UNET = "unet/diffusion_pytorch_model.safetensors"
FILES = {
    "README.md", "model_index.json", "scheduler/scheduler_config.json", "sr_scheduler_1/scheduler_config.json",
    "sr_unet_1/config.json", "sr_unet_1/diffusion_pytorch_model.safetensors", "text_encoder/config.json",
    "text_encoder/model.safetensors", "tokenizer/tokenizer.json", "tokenizer/tokenizer_config.json",
    "unet/config.json", "unet/diffusion_pytorch_model.safetensors",
}  # fmt: skip
# The processes' work counts for the first test that asks for it.
pytestmark = pytest.mark.timeout(600)
ROUTES = ["ours", "theirs", "auto"]
OURS = "diffusers_imagen.pipelines.pipeline_imagen_cascade.ImagenCascadePipeline"


@pytest.fixture(scope="module")
def cascade_folder(tmp_path_factory, make_cascade) -> Path:
    """Give a saved cascade of two stages."""
    folder = tmp_path_factory.mktemp("cascade") / "cat-cascade"
    make_cascade(2).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def exported(tmp_path_factory, cascade_folder) -> Path:
    """Give a copy of it that carries its code."""
    folder = tmp_path_factory.mktemp("exported") / "cat-cascade"
    export_cascade(cascade_folder, folder)
    return folder


@pytest.fixture(scope="module")
def pushed(hub, tmp_path_factory, cascade_folder) -> dict[str, str]:
    """Give what a process that pushes noted."""
    work = tmp_path_factory.mktemp("pushed")
    hub.run("push_in_new_process.py", cascade_folder, work, work / "notes.json")
    return json.loads((work / "notes.json").read_text())


@pytest.fixture(scope="module")
def damaged(hub, pushed) -> list[str]:
    """Give the names of repositories with a damaged file each."""
    good = hub.store.files("me/pushed")
    other = {path: data for path, data in good.items() if path.endswith(".safetensors")}
    encoder = "text_encoder/model.safetensors"
    changed = bytearray(good[UNET])
    changed[-100] ^= 255
    damages = {
        "cut-unet": {UNET: good[UNET][: len(good[UNET]) // 2]},
        "cut-encoder": {encoder: good[encoder][:-9]},
        "empty-unet": {UNET: b""},
        "another-stage": {UNET: other["sr_unet_1/diffusion_pytorch_model.safetensors"]},
        "another-model": {encoder: good[UNET]},
        "another-cascade": {UNET: bytes(changed)},
    }
    for name, files in damages.items():
        copy(hub, f"me/{name}", good | files)
    return list(damages)


@pytest.fixture(scope="module")
def loaded(hub, pushed, damaged, exported, tmp_path_factory) -> dict[str, Any]:
    """Give what a process that loads noted, and its pictures."""
    work = tmp_path_factory.mktemp("loaded")
    for name in ("interrupted", "killed"):
        copy(hub, f"me/{name}", hub.store.files("me/pushed"))
    copy(hub, "me/exported", read(exported))
    commits = {name: pushed[name].rpartition("/")[2] for name in ("parts", "whole over parts")}
    (work / "commits.json").write_text(json.dumps(commits | {"damaged": damaged}))
    hub.run("load_in_new_process.py", "package", exported, work / "commits.json", work)
    return result(work)


@pytest.fixture(scope="module")
def alone(hub, pushed, exported, loaded, tmp_path_factory) -> dict[str, Any]:
    """Give what a process on a machine without the package noted: one with other paths and an empty cache."""
    work = tmp_path_factory.mktemp("alone")
    (work / "commits.json").write_text("{}")
    (work / "site").mkdir()
    for path in Path(transformers.__file__).parents[1].iterdir():
        if "diffusers_imagen" not in path.name:
            (work / "site" / path.name).symlink_to(path)
    hub.run(
        "load_in_new_process.py", "alone", exported, work / "commits.json", work,
        python=("-S",), PYTHONPATH=str(work / "site"), HF_HOME=str(work / "home"),
    )  # fmt: skip
    return result(work) | {"folder": work}


def copy(hub: Any, repo: str, files: dict[str, bytes]) -> None:
    hub.store.create(repo)
    hub.store.commit(repo, "main", files, [], "as given")


def read(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def result(work: Path) -> dict[str, Any]:
    return {
        "notes": json.loads((work / "notes.json").read_text()),
        "pictures": load_file(work / "pictures.safetensors"),
    }


@pytest.fixture(scope="module")
def expected(make_cascade: Callable[..., Any]) -> torch.Tensor:
    """Give the picture that the cascade draws here."""
    generator = torch.Generator().manual_seed(0)
    return make_cascade(2)("a red cat", generator=generator, output_type="latent").images


@pytest.mark.parametrize(("way", "repo"), [("pipeline", "pushed"), ("saved", "saved"), ("program", "program")])
def test_every_way_of_pushing_sends_the_files_and_a_card_in_one_commit(hub, pushed, cascade_folder, way, repo):
    if way == "pipeline":
        assert pushed[way].startswith(f"{hub.url}/me/{repo}/commit/")
    if repo != "saved":  # which is written to again later
        assert hub.store.requests.count(("POST", f"/api/models/me/{repo}/commit/main")) == 1
    files = hub.store.files(f"me/{repo}")
    assert set(files) == FILES
    for path, data in read(cascade_folder).items():
        if "config" not in path and path != "model_index.json":  # there, Diffusers notes what was loaded
            assert files[path] == data, path


def test_the_card_that_is_sent_tells_the_hub_what_it_is(hub, pushed):
    card = hub.store.files("me/pushed")["README.md"].decode()
    assert not is_edited(card)
    for line in ("library_name: diffusers", "pipeline_tag: text-to-image", "license: apache-2.0", "- zh", "- imagen"):
        assert f"\n{line}\n" in card.split("\n---\n")[0] + "\n"
    assert 'DiffusionPipeline.from_pretrained("me/pushed")' in card
    assert "\n# pushed\n" in card


def test_the_card_names_the_account_that_only_the_hub_knew(hub, pushed):
    assert pushed["saved"] == "None"
    assert 'DiffusionPipeline.from_pretrained("me/saved")' in hub.store.files("me/saved")["README.md"].decode()


def test_a_commit_has_the_message_that_was_asked_for(hub, pushed):
    assert hub.store.messages[pushed["pipeline"].rpartition("/")[2]] == "The first"


def test_pickles_and_impossible_names_are_refused_before_anything_is_sent(hub, pushed):
    assert pushed["pickles"].startswith("ValueError: `safe_serialization` is False")
    assert pushed["no name"].startswith("ValueError: `repo_id` is 'me/too/deep'")
    assert "me/pickles" not in hub.store.branches


def test_a_folder_within_a_repository_is_refused(hub, pushed):
    for name in ("subfolder", "saved subfolder"):
        assert pushed[name].startswith("ValueError: `subfolder` is 'x'")
    assert not {"me/subfolder", "me/below"} & set(hub.store.branches)


@pytest.mark.parametrize("repo", ["me/pushed", "me/program"])
def test_no_place_on_this_machine_is_published(hub, pushed, cascade_folder, repo):
    for path, content in hub.store.files(repo).items():
        if path.endswith(".json"):
            assert "_name_or_path" not in json.loads(content), path
        assert str(cascade_folder).encode() not in content, path


def test_a_pull_request_leaves_the_main_branch_and_a_new_repository_may_be_private(hub, pushed):
    assert pushed["request"] == f"{hub.url}/me/request/discussions/1"
    assert hub.store.files("me/request") == {}
    assert set(hub.store.files("me/request", "refs/pr/1")) == FILES
    assert hub.store.private == {"me/request"}


def test_an_interrupted_upload_leaves_the_repository_as_it_was(hub, pushed):
    assert "Error" in pushed["interrupted"]
    assert hub.store.branches["me/pushed"]["main"] == pushed["pipeline"].rpartition("/")[2]
    assert "Error" in pushed["interrupted first"]
    assert pushed["again"].startswith(f"{hub.url}/me/new/commit/")
    assert set(hub.store.files("me/new")) == FILES


def test_an_edited_card_stays(hub, pushed):
    card = hub.store.files("me/saved")["README.md"].decode()
    assert pushed["over edited"].startswith(f"{hub.url}/me/saved/commit/")
    assert "My own words.\n\n## Limits" in card


def test_parts_of_an_earlier_save_go_and_other_variants_stay(hub, pushed):
    parts = hub.store.commits[pushed["parts"].rpartition("/")[2]]
    assert "unet/diffusion_pytorch_model.safetensors.index.json" in parts
    names = {path for path in hub.store.files("me/parts") if path.startswith("unet/")}
    small = "unet/diffusion_pytorch_model.small.safetensors"
    assert names == {"unet/config.json", "unet/diffusion_pytorch_model.safetensors", small}


@pytest.mark.parametrize("route", [*ROUTES, "without asking the Hub", "parts", "fetched again"])
def test_a_new_process_draws_the_same_picture_from_the_hub(loaded, expected, route):
    assert loaded["notes"][route] == f"{OURS}, DDIMScheduler"
    assert torch.equal(loaded["pictures"][route], expected)


@pytest.mark.parametrize("route", ["automodel", "automodel subfolder"])
def test_a_new_process_loads_a_u_net_from_the_hub(loaded, cascade_parts, route):
    assert loaded["notes"][route] == "ImagenUNet2DConditionModel"
    assert torch.equal(loaded["pictures"][route], cascade_parts["unet"].conv_in.weight)


def test_a_revision_is_a_commit_or_a_branch(loaded):
    notes = loaded["notes"]
    assert notes["parts"] == f"{OURS}, {DDIMScheduler.__name__}"
    for name in ("whole over parts", "branch", "variant"):
        assert notes[name] == f"{OURS}, {EulerDiscreteScheduler.__name__}"
    assert torch.equal(loaded["pictures"]["branch"], loaded["pictures"]["variant"])
    assert "v9" in notes["no such revision"]


def test_what_was_never_fetched_is_not_there_without_the_hub(loaded):
    assert loaded["notes"]["never fetched"].startswith("OSError: `pretrained_model_name_or_path` is 'me/program'")
    assert "me/nothing" in loaded["notes"]["no such repository"]


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("damage", ["cut-unet", "empty-unet", "another-stage", "another-cascade", "another-model"])
def test_a_repository_with_a_damaged_file_is_refused_by_its_name(loaded, damage, route):
    name = "text_encoder/model.safetensors" if damage == "another-model" else UNET
    assert name in loaded["notes"][f"{damage} {route}"]
    assert loaded["notes"][f"{damage} {route}"].startswith("OSError")


def test_a_cut_off_text_encoder_is_refused_by_its_name(loaded):
    for route in ("ours", "auto"):
        assert "text_encoder/model.safetensors cannot be read" in loaded["notes"][f"cut-encoder {route}"]
    # Transformers reads it before any code of ours runs, and leaves the name out.
    assert loaded["notes"]["cut-encoder theirs"].startswith("SafetensorError")


def test_an_interrupted_download_is_an_error_and_the_next_one_goes_on(loaded, hub, expected):
    assert "Error" in loaded["notes"]["interrupted"]
    assert torch.equal(loaded["pictures"]["fetched again"], expected)


def test_a_process_killed_while_it_fetches_leaves_nothing_that_breaks_the_next(loaded, expected):
    assert loaded["notes"]["killed"] == signal.SIGKILL
    assert torch.equal(loaded["pictures"]["fetched after a kill"], expected)


@pytest.mark.parametrize("name", ["exported, plainly", "exported, asked for its code", "exported, ours"])
def test_where_the_package_is_installed_an_exported_cascade_runs_the_package(loaded, expected, name):
    assert loaded["notes"][name] == f"{OURS}, DDIMScheduler"
    assert torch.equal(loaded["pictures"][name], expected)


@pytest.mark.parametrize("name", ["from the Hub", "from a folder", "by its folder", "from the Hub again", "still"])
def test_without_the_package_an_exported_cascade_draws_the_same_picture(alone, expected, name):
    if name != "still":
        assert alone["notes"][name].startswith("diffusers_modules.local.")
    assert torch.equal(alone["pictures"][name], expected)


def test_without_the_package_nothing_runs_that_is_not_trusted(alone):
    assert "trust_remote_code=True" in alone["notes"]["without trust"]
    assert "ImagenCascadePipeline" in alone["notes"]["plainly"]


def test_what_is_saved_without_the_package_is_loaded_with_it(alone, expected):
    index = json.loads((alone["folder"] / "saved/model_index.json").read_text())
    assert index["unet"] == ["diffusers_imagen", "ImagenUNet2DConditionModel"]
    pipe = ImagenCascadePipeline.from_pretrained(alone["folder"] / "saved")
    pipe.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(0)
    assert torch.equal(pipe("a red cat", generator=generator, output_type="latent").images, expected)
