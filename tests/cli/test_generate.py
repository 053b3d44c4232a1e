import re
from itertools import combinations

import diffusers
import numpy as np
import pytest
import torch
from peft import LoraConfig
from PIL import Image
from typer.testing import CliRunner

from diffusers_imagen._version import __version__
from diffusers_imagen.cli.generate import parse_stage_values, save_images, save_png, set_schedulers
from diffusers_imagen.cli.main import app
from diffusers_imagen.cli.scheduler_option import parse_schedulers
from diffusers_imagen.pipelines.pipeline_imagen_cascade import ImagenCascadePipeline


def pixels(path):
    return np.asarray(Image.open(path))


def test_one_prompt_becomes_one_picture(run, checkpoint, tmp_path):
    result = run("generate", "a red cat", "-o", "cats/cat.png", "--checkpoint", checkpoint, "--seed", "3")
    assert result.code == 0, result.err
    assert [path.name for path in tmp_path.glob("cats/*")] == ["cat.png"]
    assert result.out.splitlines()[0] == "cats/cat.png"
    assert re.search(r"1 picture\(s\) of 16 x 16 pixels: \d+\.\d s to load, \d+\.\d s to draw", result.out)
    assert "base: 100%" in result.err
    assert "sr_1: 100%" in result.err
    # The same picture as the pipeline draws from this seed.
    pipe = ImagenCascadePipeline.from_pretrained(checkpoint)
    expected = pipe("a red cat", generator=[torch.Generator().manual_seed(3)]).images[0]
    np.testing.assert_array_equal(pixels(tmp_path / "cats/cat.png"), np.asarray(expected))


def test_the_runner_of_typer_draws_too(checkpoint, tmp_path):
    arguments = ["generate", "a cat", "-o", str(tmp_path / "cat.png"), "--checkpoint", str(checkpoint)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert Image.open(tmp_path / "cat.png").size == (16, 16)


def test_the_picture_says_what_made_it(run, checkpoint, tmp_path):
    prompt = "一只戴着帽子的猫 – a cat"
    assert run("generate", prompt, "-o", "cat.png", "--checkpoint", checkpoint, "--seed", "5").code == 0
    text = Image.open(tmp_path / "cat.png").text
    assert text["prompt"] == prompt
    assert text["seed"] == "5"
    assert text["checkpoint"] == str(checkpoint)
    for version in (f"diffusers-imagen {__version__}", f"diffusers {diffusers.__version__}", torch.__version__):
        assert version in text["software"]


def test_several_pictures_become_a_grid_and_files_of_their_own(run, checkpoint, tmp_path):
    result = run(
        "generate", "a cat", "狗", "-n", "2", "-o", "pets.png", "--checkpoint", checkpoint, "--seed", "7",
        "--stop-stage", "base",
    )  # fmt: skip
    assert result.code == 0, result.err
    names = ["pets.png", "pets_0.png", "pets_1.png", "pets_2.png", "pets_3.png"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    assert result.out.splitlines()[:5] == names
    each = [Image.open(tmp_path / name) for name in names[1:]]
    assert [(image.text["prompt"], image.text["seed"]) for image in each] == [
        ("a cat", "7"),
        ("a cat", "8"),
        ("狗", "9"),
        ("狗", "10"),
    ]
    grid = np.block([[[np.asarray(each[0])], [np.asarray(each[1])]], [[np.asarray(each[2])], [np.asarray(each[3])]]])
    assert grid.shape == (16, 16, 3)
    np.testing.assert_array_equal(pixels(tmp_path / "pets.png"), grid)
    assert Image.open(tmp_path / "pets.png").text["prompt"] == "a cat\na cat\n狗\n狗"
    # Picture i of a call is the one of seed + i.
    result = run("generate", "狗", "-o", "dog.png", "--checkpoint", checkpoint, "--seed", "9", "--stop-stage", "base")
    assert result.code == 0, result.err
    np.testing.assert_allclose(pixels(tmp_path / "dog.png"), pixels(tmp_path / "pets_2.png"), atol=1)


@pytest.mark.parametrize(
    ("count", "size"), [(2, (8, 4)), (3, (12, 4)), (4, (8, 8)), (5, (20, 4)), (6, (12, 8)), (9, (12, 12))]
)
def test_a_grid_is_as_square_as_its_number_allows(tmp_path, count, size):
    images = [Image.new("RGB", (4, 4), (i, 0, 0)) for i in range(count)]
    paths = save_images(images, tmp_path / "grid.png", ["a"] * count, list(range(count)), "checkpoint")
    assert Image.open(paths[0]).size == size
    assert len(paths) == count + 1


def test_options_by_stage_reach_the_pipeline(run, checkpoint):
    result = run(
        "generate", "a cat", "--checkpoint", checkpoint, "--steps", "base=4,sr_1=3", "--guidance", "2",
        "--scheduler", "base=EulerDiscreteScheduler:use_karras_sigmas=true, sr_1=FlowMatchEulerDiscreteScheduler:shift=3",
    )  # fmt: skip
    assert result.code == 0, result.err
    assert "4/4" in result.err
    assert "3/3" in result.err


@pytest.mark.parametrize(
    "options",
    [
        ("--steps", "6"),
        ("--guidance", "base=9"),
        ("--negative-prompt", "a red dog"),
        ("--scheduler", "DDPMScheduler"),
        ("--seed", "1"),
    ],
)
def test_an_option_changes_the_picture(run, checkpoint, tmp_path, options):
    plain = ("generate", "a cat", "--checkpoint", checkpoint, "--stop-stage", "base", "-o")
    assert run(*plain, "plain.png").code == 0
    assert run(*plain, "changed.png", *options).code == 0
    assert (pixels(tmp_path / "changed.png") != pixels(tmp_path / "plain.png")).any()


@pytest.mark.parametrize(
    ("text", "kind", "expected"),
    [
        (None, int, None),
        ("20", int, {"base": 20}),
        ("base=20,sr_1=8", int, {"base": 20, "sr_1": 8}),
        (" sr_1 = 8", int, {"sr_1": 8}),
        ("2.5", float, {"base": 2.5}),
        ("sr_2=DDIMScheduler", str, {"sr_2": "DDIMScheduler"}),
    ],
)
def test_values_by_stage_are_read(text, kind, expected):
    assert parse_stage_values("steps", text, kind) == expected


@pytest.mark.parametrize("text", ["many", "2.5", "", "base=", "base=2=3", "base=2,3", "base=2,"])
def test_values_that_are_none_are_refused(text):
    with pytest.raises(ValueError, match=rf"`--steps` is '{text}'; give one value for the base, or stage=value"):
        parse_stage_values("steps", text, int)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--steps", "many"), "`--steps` is 'many'"),
        (("--steps", "0"), "`num_inference_steps` is 0"),
        (("--steps", "sr_2=3"), "`num_inference_steps` names the stage 'sr_2'"),
        (("--guidance", "base=high"), "`--guidance` is 'base=high'"),
        (("--scheduler", "QuantumScheduler"), "`--scheduler` is 'QuantumScheduler', which is no scheduler"),
        (("--scheduler", "UNet2DModel"), "`--scheduler` is 'UNet2DModel', which is no scheduler"),
        (("--scheduler", "sr_2=DDIMScheduler"), "`--scheduler` names the stage 'sr_2'"),
        (("--scheduler", "RePaintScheduler"), "RePaintScheduler, which fills holes"),
        (
            ("--scheduler", "DDIMScheduler:steps=3"),
            "gives DDIMScheduler the option 'steps'; it has num_train_timesteps",
        ),
        (("--scheduler", "DDIMScheduler:"), "`--scheduler` is 'DDIMScheduler:'; give a class name or stage=class"),
        (("--scheduler", "DDIMScheduler:beta_schedule=round"), "cannot make a DDIMScheduler with .*round"),
        (("--stop-stage", "refiner"), "`stop_stage` is 'refiner'"),
        (("--device", "toaster"), "`--device` is 'toaster'"),
        (("--device", "meta"), "`--device` is 'meta', which cannot be used here"),
        (("--output", "cat"), "`--output` is 'cat'"),
    ],
)
def test_wrong_options_are_told_in_one_line(run, checkpoint, tmp_path, options, message):
    result = run("generate", "a cat", "--checkpoint", checkpoint, *options)
    assert result.code == 2
    assert re.search(message.replace("(", "\\("), result.err)
    assert result.err.startswith("diffusers-imagen: ")
    assert len(result.err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_folder_as_output_is_refused(run, checkpoint, tmp_path):
    (tmp_path / "cat.png").mkdir()
    assert "`--output` is 'cat.png', a folder" in run("generate", "a", "--checkpoint", checkpoint, "-o", "cat.png").err


def test_a_checkpoint_that_is_none_is_told_in_one_line(run, tmp_path):
    (tmp_path / "empty").mkdir()
    result = run("generate", "a cat", "--checkpoint", "empty")
    assert result.code == 2
    assert result.err.count("\n") == 1
    assert "'empty', which holds no model_index.json" in result.err


def test_a_checkpoint_that_is_nowhere_is_told_without_a_traceback(run):
    result = run("generate", "a cat", "--checkpoint", "me/no-such-cascade")
    assert result.code == 2
    assert "me/no-such-cascade" in result.err.splitlines()[-1]
    assert result.err.splitlines()[-1].startswith("diffusers-imagen: ")
    assert "Traceback" not in result.err


def test_no_picture_at_all_is_refused(run, checkpoint):
    result = run("generate", "a cat", "--checkpoint", checkpoint, "--num-images", "0")
    assert result.code == 2
    assert "num-images" in result.err


def test_a_scheduler_is_made_from_the_config_of_the_one_before(make_cascade):
    pipe = make_cascade(2)
    before = pipe.sr_scheduler_1
    set_schedulers(pipe, {"base": ("DPMSolverMultistepScheduler", {})})
    assert type(pipe.scheduler) is diffusers.DPMSolverMultistepScheduler
    assert pipe.scheduler.config.beta_schedule == "squaredcos_cap_v2"
    assert pipe.sr_scheduler_1 is before


def test_a_picture_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "cat.png"
    save_png(Image.new("RGB", (4, 4), "red"), path, {})
    whole = path.read_bytes()

    class FullDisk(Image.Image):
        def save(self, file, **options):
            file.write_bytes(b"half a pict")
            raise OSError("No space left on device")

    image = Image.new("RGB", (4, 4), "blue")
    image.__class__ = FullDisk
    with pytest.raises(OSError, match="No space left"):
        save_png(image, path, {})
    assert path.read_bytes() == whole
    save_png(Image.new("RGB", (4, 4), "blue"), path, {})
    assert pixels(path)[0, 0].tolist() == [0, 0, 255]
    assert [file.name for file in tmp_path.iterdir()] == ["cat.png"]


def test_an_output_that_cannot_be_written_is_refused_before_anything_is_loaded(run, tmp_path):
    (tmp_path / "file").write_text("no folder")
    result = run("generate", "a", "--checkpoint", "does-not-exist", "-o", "file/cat.png")
    assert result.code == 2
    assert "`--output` is 'file/cat.png', where nothing can be written" in result.err


def test_an_unrelated_scheduler_keeps_its_own_settings_and_a_related_one_takes_them_over(make_cascade):
    scheduler = diffusers.DPMSolverMultistepScheduler(beta_schedule="squaredcos_cap_v2", use_exponential_sigmas=True)
    pipe = make_cascade(2, scheduler=scheduler, sr_scheduler_1=scheduler)
    set_schedulers(pipe, parse_schedulers("FlowMatchEulerDiscreteScheduler,sr_1=EulerDiscreteScheduler"))
    assert not pipe.scheduler.config.use_exponential_sigmas
    assert pipe.sr_scheduler_1.config.use_exponential_sigmas
    assert pipe.sr_scheduler_1.config.beta_schedule == "squaredcos_cap_v2"


def save_adapter(unet, folder):
    """Save an adapter that is not zero, as a run of `train` leaves it."""
    unet.add_adapter(LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights=False))
    unet.save_lora_adapter(folder / "lora")
    return folder


def test_adapters_change_the_stage_that_they_are_for(run, checkpoint, tmp_path):
    torch.manual_seed(0)
    pipe = ImagenCascadePipeline.from_pretrained(checkpoint)
    base, sr = save_adapter(pipe.unet, tmp_path / "base"), save_adapter(pipe.sr_unet_1, tmp_path / "sr")
    drawn = {}
    for name, options in {
        "plain": [],
        "run": ["--lora", base],
        "folder": ["--lora", base / "lora"],
        "enlargement": ["--lora", f"sr_1={sr}"],
        "both": ["--lora", base, "--lora", f"sr_1={sr}"],
    }.items():
        result = run("generate", "a cat", "--checkpoint", checkpoint, *options)
        assert result.code == 0, result.err
        drawn[name] = pixels(tmp_path / "outputs" / "image.png")
    assert (drawn["run"] == drawn["folder"]).all()
    different = [drawn[name] for name in ("plain", "run", "enlargement", "both")]
    assert all((one != other).any() for one, other in combinations(different, 2))


def test_adapters_that_do_not_fit_are_refused(run, checkpoint, tmp_path):
    assert "names the stage 'sr_2'" in run("generate", "a cat", "--checkpoint", checkpoint, "--lora", "sr_2=a").err
    result = run("generate", "a cat", "--checkpoint", checkpoint, "--lora", tmp_path / "nowhere.safetensors")
    assert result.code == 2
    assert "nowhere.safetensors" in result.err
