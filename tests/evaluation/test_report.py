import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from diffusers_imagen.evaluation.assessment import assess
from diffusers_imagen.evaluation.drawing import draw_suite, picture_path
from diffusers_imagen.evaluation.report import write_report
from diffusers_imagen.evaluation.suite import Suite, read_suite


@pytest.fixture
def suite(write_suite: Callable[..., Path]) -> Suite:
    return read_suite(write_suite())


@pytest.fixture
def drawn(suite: Suite, draw_squares: Callable[..., list[Image.Image]], tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    draw_suite(suite, draw_squares, folder)
    return folder


def test_the_report_says_what_was_found(suite: Suite, drawn: Path) -> None:
    path = write_report(suite, drawn, {"checkpoint": "c", "scheduler": None}, assess(suite, drawn, {}))
    text, content = path.read_text(encoding="utf-8"), json.loads((drawn / "report.json").read_text(encoding="utf-8"))
    assert "- checkpoint: c\n" in text
    assert "scheduler" not in text
    assert [score["category"] for score in content["scores"]] == ["single", "count", "all"]
    hits = [row["hits"]["model"] for row in content["pictures"]]
    assert sum(hits) == content["scores"][-1]["drawn"]["hits"]
    for name, file in (("single", "01-single.png"), ("count", "02-count.png")):
        assert f"![{name}](sheets/{file})" in text
        assert Image.open(drawn / "sheets" / file).width > 100
    assert "; 2. 猫0;" in text.replace("1. cat number 0; ", "; ")


def test_real_pictures_are_no_distance_from_themselves(suite: Suite, drawn: Path) -> None:
    for prompt in suite.prompts:
        picture_path(drawn, prompt.id).write_bytes(prompt.reference.read_bytes())
    found = {row.pictures: row for row in assess(suite, drawn, {}).distances}
    # Two languages: each real picture is there twice, which changes the covariance's divisor and nothing else.
    assert found["model"].frechet < 1e-3 * found["model"].count
    assert (found["model"].precision, found["model"].recall) == (1, 1)
    assert (found["other real pictures"].count, found["other real pictures"].real) == (8, 8)


def test_baselines_stand_beside_the_model(suite: Suite, drawn: Path) -> None:
    found = assess(suite, drawn, {"copy": drawn / "pictures"})
    for score in found.scores:
        assert score.baselines["copy"] == score.drawn
    differences = [c.difference.value for c in found.comparisons if c.name == "model less copy"]
    assert differences == [0, 0, 0]


def test_the_report_says_where_pictures_of_other_sizes_are_compared(suite: Suite, drawn: Path, tmp_path: Path) -> None:
    larger = tmp_path / "larger"
    larger.mkdir()
    for prompt in suite.prompts:
        picture = Image.open(picture_path(drawn, prompt.id))
        picture.resize((48, 48)).save(larger / f"{prompt.id}.png")
    side = picture.width
    for name, folder in (("same", drawn / "pictures"), ("larger", larger)):
        found = assess(suite, drawn, {name: folder})
        text = write_report(suite, drawn, {}, found, {name: folder}).read_text(encoding="utf-8")
        assert (f"- sizes: model {side} x {side}, larger 48 x 48\n" in text) == (name == "larger")
        assert ("sizes" in text) == (name == "larger")


def test_sheets_of_categories_that_are_much_alike_are_kept_apart(
    write_suite: Callable[..., Path], draw_squares: Any, tmp_path: Path
) -> None:
    folder = write_suite()
    lines = [json.loads(line) for line in (folder / "prompts.jsonl").read_text(encoding="utf-8").splitlines()]
    renamed = {"single": "a b", "count": "a-b"}
    rows = [json.dumps(row | {"category": renamed[row["category"]]}) for row in lines]
    (folder / "prompts.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    suite = read_suite(folder)
    draw_suite(suite, draw_squares, tmp_path / "out")
    write_report(suite, tmp_path / "out", {}, assess(suite, tmp_path / "out", {}))
    assert len(list((tmp_path / "out" / "sheets").glob("*.png"))) == 2


def test_copies_of_training_pictures_are_found(suite: Suite, drawn: Path, tmp_path: Path) -> None:
    training = tmp_path / "training"
    training.mkdir()
    rows = []
    for prompt in suite.prompts[::2]:
        (training / f"{prompt.id}.png").write_bytes(picture_path(drawn, prompt.id).read_bytes())
        rows.append(json.dumps({"file_name": f"{prompt.id}.png", "text": "a cat"}))
    (training / "metadata.jsonl").write_text("\n".join(rows))
    found = assess(suite, drawn, {}, training_data=training).memorisation
    assert found.num_training == 8
    assert found.by_pixels.generated[0] == 0
    assert found.by_pixels.real[0] > 0
    copied = {identity: by_pixels.stem for identity, _, by_pixels in found.nearest if identity.endswith("en")}
    assert all(identity == name for identity, name in copied.items())


def test_agreement_is_averaged_over_pictures(suite: Suite, drawn: Path) -> None:
    found = assess(suite, drawn, {}, agreement=lambda images, texts: [float(len(text)) for text in texts]).agreement
    lengths = [len(prompt.prompt) for prompt in suite.prompts]
    assert found["model"].value == pytest.approx(sum(lengths) / len(lengths))
    assert found["real pictures"].trials == 16


def test_a_missing_picture_is_named(suite: Suite, drawn: Path) -> None:
    picture_path(drawn, "scene-3-zh").unlink()
    with pytest.raises(ValueError, match=r"scene-3-zh\.png cannot be read"):
        assess(suite, drawn, {})
