"""Folders as they are read before anything is published: whole ones, and what is wrong with others."""

import json
import shutil

import pytest
from PIL import Image

from diffusers_imagen.hub.facts import CardFacts
from diffusers_imagen.hub.publish import plan_upload, stale_weights
from diffusers_imagen.hub.saved_cascade import read_cascade, weights_kind

UNET = "unet/diffusion_pytorch_model.safetensors"


def change_index(folder, **entries):
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | entries))


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "model_index.json").unlink(), r"holds no model_index\.json"),
        (lambda folder: (folder / "model_index.json").write_text("{"), r"model_index\.json' cannot be read"),
        (lambda folder: (folder / "model_index.json").write_text("[]"), r"model_index\.json' is no configuration"),
        (lambda folder: change_index(folder, _class_name="FluxPipeline"), "tells of a 'FluxPipeline'"),
        (lambda folder: change_index(folder, scheduler=[None, None]), "names no `scheduler`"),
        (lambda folder: shutil.rmtree(folder / "sr_unet_1"), "has no folder 'sr_unet_1'"),
        (lambda folder: (folder / "unet/config.json").unlink(), "unet' holds no configuration"),
        (lambda folder: (folder / UNET).unlink(), "unet' holds no safetensors file"),
        (lambda folder: (folder / UNET).write_bytes(b""), "unet/diffusion_pytorch_model.safetensors' is no whole"),
        (lambda folder: cut(folder / UNET), r"unet/diffusion_pytorch_model.safetensors' has \d+ bytes instead of"),
        (lambda folder: (folder / UNET).write_bytes((folder / UNET).read_bytes() + b"x"), "bytes instead of"),
        (lambda folder: (folder / "unet/optimizer.pt").write_bytes(b"x"), r"unet/optimizer\.pt' may run code"),
    ],
)
def test_a_folder_that_nobody_could_load_is_refused_before_any_upload(folder, damage, message):
    read_cascade(folder)
    damage(folder)
    with pytest.raises(ValueError, match=message):
        plan_upload(folder, "me/cats")


def test_parts_that_an_index_names_must_be_there(make_cascade, tmp_path):
    make_cascade(1).save_pretrained(tmp_path, max_shard_size="20KB")
    cascade = read_cascade(tmp_path)
    assert cascade.components["unet"].parameters == sum(p.numel() for p in make_cascade(1).unet.parameters())
    min((tmp_path / "unet").glob("*-of-*.safetensors")).unlink()
    with pytest.raises(ValueError, match="lacks 'diffusion_pytorch_model-00001-of-"):
        read_cascade(tmp_path)


def test_components_of_any_kind_are_read_and_sent(folder):
    (folder / "guider").mkdir()
    (folder / "guider/guider_config.json").write_text('{"guidance_scale": 3.0}')
    change_index(folder, guider=["diffusers", "ClassifierFreeGuidance"])
    upload = plan_upload(folder, "me/cats")
    assert upload.cascade.components["guider"].config == {"guidance_scale": 3.0}
    assert "guider/guider_config.json" in upload.files


def test_a_u_net_of_another_family_is_described_by_the_saved_settings(folder):
    (folder / "unet/config.json").write_text('{"sample_size": 64, "_class_name": "UNet2DConditionModel"}')
    settings = {"noise": {"prediction_type": "epsilon", "noise_schedule": "cosine"}, "num_inference_steps": 9}
    change_index(folder, stages={"base": settings})
    card = plan_upload(folder, "me/cats").card
    (row,) = [line for line in card.splitlines() if line.startswith("| base")]
    assert "| 64 x 64 |" in row
    assert "| noise | cosine | DDIMScheduler, num_inference_steps 9 |" in row


def test_variants_are_counted_once(make_cascade, tmp_path):
    for variant in (None, "small"):
        make_cascade(1).save_pretrained(tmp_path, variant=variant)
    unet = read_cascade(tmp_path).components["unet"]
    assert unet.parameters == sum(p.numel() for p in make_cascade(1).unet.parameters())


def test_an_upload_has_the_folder_s_files_without_hidden_ones(folder):
    (folder / ".cache").mkdir()
    (folder / ".cache/lock").write_text("x")
    upload = plan_upload(folder, "me/cats")
    assert "model_index.json" in upload.files
    assert UNET in upload.files
    assert not [path for path in upload.files if path.startswith(".")]
    assert upload.num_bytes == sum(path.stat().st_size for path in upload.files.values())


def test_a_card_in_the_folder_is_the_one_that_is_sent(folder):
    (folder / "README.md").write_text("# My own")
    upload = plan_upload(folder, "me/cats")
    assert upload.card == "# My own"
    assert "README.md" not in upload.files


def test_facts_renew_a_card_that_nobody_edited_and_bring_their_pictures(folder, tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "grid.png")
    facts = CardFacts(license="mit", pictures=tmp_path / "grid.png")
    (folder / "README.md").write_text(plan_upload(folder, "me/cats").card, encoding="utf-8")
    upload = plan_upload(folder, "me/cats", facts)
    assert "license: mit" in upload.card
    assert upload.files["pictures.png"] == tmp_path / "grid.png"
    (folder / "README.md").write_text("# My own")
    assert plan_upload(folder, "me/cats", facts).card == "# My own"


def test_the_account_of_a_repository_may_be_left_to_the_hub(folder):
    card = plan_upload(folder, "cats").card
    assert "\n# cats\n" in card
    assert 'from_pretrained("ACCOUNT/NAME")' in card


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("diffusion_pytorch_model.safetensors", ("diffusion_pytorch_model", "")),
        ("diffusion_pytorch_model-00002-of-00003.safetensors", ("diffusion_pytorch_model", "")),
        ("diffusion_pytorch_model.safetensors.index.json", ("diffusion_pytorch_model", "")),
        ("diffusion_pytorch_model.fp16.safetensors", ("diffusion_pytorch_model", "fp16")),
        ("diffusion_pytorch_model.fp16-00001-of-00002.safetensors", ("diffusion_pytorch_model", "fp16")),
        ("diffusion_pytorch_model.safetensors.index.fp16.json", ("diffusion_pytorch_model", "fp16")),
        ("model.safetensors", ("model", "")),
        ("config.json", None),
    ],
)
def test_files_of_weights_are_known_by_name_and_variant(name, kind):
    assert weights_kind(name) == kind


def test_only_weights_of_the_same_place_name_and_variant_are_stale():
    there = [
        "README.md",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
        "unet/diffusion_pytorch_model.safetensors.index.json",
        "unet/diffusion_pytorch_model-00001-of-00002.safetensors",
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "sr_unet_1/diffusion_pytorch_model-00001-of-00002.safetensors",
        "lora/pytorch_lora_weights.safetensors",
    ]
    assert stale_weights(["unet/config.json", UNET], there) == [
        "unet/diffusion_pytorch_model-00001-of-00002.safetensors",
        "unet/diffusion_pytorch_model.safetensors.index.json",
    ]
