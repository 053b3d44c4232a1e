import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from diffusers_imagen.evaluation.scene_judge import SceneJudge
from diffusers_imagen.pipelines.pipeline_imagen_cascade import ImagenCascadePipeline


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    """Write a suite of four scenes in two languages, for an untrained judge."""
    folder = tmp_path / "suite"
    torch.manual_seed(0)
    judge = SceneJudge(
        ("cat", "dog"), ("red", "blue"), ("hat",), ("white", "black"), ("flat", "round"), sample_size=16
    )
    judge.save_pretrained(folder / "judge")
    lines = []
    for number in range(4):
        Image.new("RGB", (16, 16), (60 * number, 99, 0)).save(folder / f"{number}.png")
        for language, prompt in (("en", "a red cat"), ("zh", "猫 狗")):
            line = {
                "id": f"{number}-{language}",
                "scene": str(number),
                "category": "single",
                "language": language,
                "prompt": prompt,
                "seed": number,
                "claims": {"things": [{"names": ["cat"]}]},
                "reference": f"{number}.png",
            }
            lines.append(json.dumps(line, ensure_ascii=False))
    (folder / "prompts.jsonl").write_text("\n".join(lines), encoding="utf-8")
    (folder / "suite.json").write_text('{"format": 1, "name": "tiny"}')
    return folder


def pictures(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "pictures").iterdir())


def test_a_suite_is_drawn_and_judged(run: Callable[..., Any], checkpoint: Path, suite: Path, tmp_path: Path) -> None:
    result = run("evaluate", checkpoint, "--suite", suite, "--out", "out", "--batch-size", "3")
    assert result.code == 0, result.err
    assert "8 of 8 pictures" in result.err
    assert "| single | 8 |" in result.out
    assert result.out.splitlines()[-1] == "out/report.md"
    assert len(pictures(tmp_path / "out")) == 8
    # The picture that the pipeline draws from the prompt's seed.
    pipe = ImagenCascadePipeline.from_pretrained(checkpoint)
    expected = pipe("猫 狗", generator=[torch.Generator().manual_seed(2)]).images[0]
    drawn = Image.open(tmp_path / "out/pictures/2-zh.png")
    assert max(abs(a - b) for a, b in zip(drawn.tobytes(), expected.tobytes(), strict=True)) <= 1


def test_the_same_command_draws_only_what_is_missing(
    run: Callable[..., Any], checkpoint: Path, suite: Path, tmp_path: Path
) -> None:
    arguments = ("evaluate", checkpoint, "--suite", suite, "--out", "out")
    assert run(*arguments, "--scenes", "1").code == 0
    assert pictures(tmp_path / "out") == ["0-en.png", "0-zh.png"]
    kept = tmp_path / "out/pictures/0-en.png"
    Image.new("RGB", (16, 16), "white").save(kept)
    assert run(*arguments).code == 0
    assert len(pictures(tmp_path / "out")) == 8
    assert Image.open(kept).getpixel((0, 0)) == (255, 255, 255)


def test_few_steps_are_compared_with_an_earlier_evaluation(
    run: Callable[..., Any], checkpoint: Path, suite: Path, tmp_path: Path
) -> None:
    assert run("evaluate", checkpoint, "--suite", suite, "--out", "many").code == 0
    few = ("evaluate", checkpoint, "--suite", suite, "--num-inference-steps", "base=1", "--scheduler", "DDIMScheduler")
    result = run(*few, "--out", "few", "--baseline", "many")
    assert result.code == 0, result.err
    assert "| model less baseline | single |" in result.out
    assert not (tmp_path / "few/baseline").exists()
    result = run(*few, "--out", "many")
    assert result.code == 2
    assert "were drawn with num_inference_steps" in result.err


def test_another_checkpoint_is_drawn_beside(
    run: Callable[..., Any], checkpoint: Path, suite: Path, tmp_path: Path
) -> None:
    result = run("evaluate", checkpoint, "--suite", suite, "--out", "out", "--baseline", checkpoint, "--scenes", "2")
    assert result.code == 0, result.err
    assert len(pictures(tmp_path / "out/baseline")) == 4
    assert "+0.0 [" in next(line for line in result.out.splitlines() if "model less baseline" in line)


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (("--suite", "nowhere"), "`suite` is 'nowhere', which has no suite.json"),
        (("--training-data", "nowhere"), "`folder` is 'nowhere'"),
        (("--features", "inception"), "`features` is 'inception'"),
        (("--agreement", "nobody/nothing"), "'nobody/nothing' cannot be loaded"),
        (("--scheduler", "NoScheduler"), "`--scheduler` is 'NoScheduler'"),
        (("--num-inference-steps", "many"), "`--num-inference-steps` is 'many'"),
    ],
)
def test_bad_input_is_refused_before_anything_is_drawn(
    run: Callable[..., Any], checkpoint: Path, suite: Path, tmp_path: Path, extra: tuple[str, str], message: str
) -> None:
    result = run("evaluate", checkpoint, "--suite", suite, "--out", "out", *extra)
    assert result.code == 2
    assert message in result.err
    assert not (tmp_path / "out").exists()


def test_a_baseline_with_missing_pictures_is_refused(
    run: Callable[..., Any], checkpoint: Path, suite: Path, tmp_path: Path
) -> None:
    (suite / "baselines/paste").mkdir(parents=True)
    result = run("evaluate", checkpoint, "--suite", suite, "--out", "out")
    assert result.code == 2
    assert "the paste in" in result.err
    assert "has no picture 0-en.png" in result.err


def test_an_evaluation_on_another_suite_is_no_baseline(
    run: Callable[..., Any], checkpoint: Path, suite: Path, tmp_path: Path
) -> None:
    arguments = ("evaluate", checkpoint, "--suite", suite, "--scenes", "1", "--stop-stage", "base")
    assert run(*arguments, "--out", "first").code == 0
    lines = (suite / "prompts.jsonl").read_text(encoding="utf-8").replace('"seed": 0', '"seed": 9')
    (suite / "prompts.jsonl").write_text(lines, encoding="utf-8")
    result = run(*arguments, "--out", "second", "--baseline", "first")
    assert result.code == 2
    assert "`--baseline` is 'first', an evaluation on another suite" in result.err
    assert not (tmp_path / "second").exists()
