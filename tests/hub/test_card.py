"""The model card: what it says, and that an edited one is told from one that nobody touched."""

import ast
import json
import re

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from diffusers_imagen.hub.card import is_edited, model_card, with_repository
from diffusers_imagen.hub.facts import CardFacts, evaluation_rows, read_facts, training_rows
from diffusers_imagen.hub.remote_code import export_cascade
from diffusers_imagen.hub.saved_cascade import read_cascade


@pytest.fixture(scope="module")
def cascade(make_cascade, tmp_path_factory):
    """Give a saved cascade of three stages."""
    folder = tmp_path_factory.mktemp("card") / "three-stages"
    make_cascade(3).save_pretrained(folder)
    return read_cascade(folder)


def test_the_card_describes_every_stage_from_its_files(cascade, cascade_parts):
    card = model_card(cascade, CardFacts())
    for name, stage, size in (("unet", "base", 8), ("sr_unet_1", "sr_1", 16), ("sr_unet_2", "sr_2", 32)):
        weights = sum(parameter.numel() for parameter in cascade_parts[name].parameters())
        assert cascade.components[name].parameters == weights
        (row,) = [line for line in card.splitlines() if line.startswith(f"| {stage} (`{name}`)")]
        assert (
            f"| {size} x {size} | {weights / 1000:.3g} k, F32 | v | cosine, log-SNR -15 to 15 | DDIMScheduler" in row
        )
    assert "guidance_scale 3.0, num_inference_steps 3" in card
    assert "a picture of 8 x 8 pixels, then to 16 x 16 and 32 x 32" in card
    assert "frozen T5EncoderModel" in card
    assert "max_length 12" in card
    assert card.startswith("---\n")
    assert "\n# three-stages\n" in card
    assert 'from_pretrained("ACCOUNT/NAME")' in card


def test_the_card_says_what_the_author_has_not_stated(cascade):
    card = model_card(cascade, CardFacts())
    for section in ("Data", "Training", "Evaluation"):
        assert f"## {section}\n\nNot stated by the author.\n" in card
    assert "| whole | Not stated by the author. |" in card
    assert "license:" not in card


def test_the_card_holds_the_author_s_facts(cascade, tmp_path):
    log = tmp_path / "log.jsonl"
    lines = [{"step": step, "loss": 1 / step, "samples_per_s": 10.0 * step} for step in (1, 2, 4)]
    log.write_text("\n".join(map(json.dumps, lines)))
    info = PngInfo()
    info.add_itxt("prompt", "a red cat\n一只猫")
    Image.new("RGB", (4, 4)).save(tmp_path / "grid.png", pnginfo=info)
    (tmp_path / "measures.json").write_text('{"FID": 12.5}')
    facts_file = tmp_path / "facts.yaml"
    facts_file.write_text(
        "license: mit\nlicenses: {data: CC0 drawings}\nlanguage: [en, zh]\nbase_model: me/before\ndatasets: me/cats\n"
        "data: Drawings of cats.\ntraining: On one laptop.\ntraining_logs: {base: log.jsonl}\n"
        "evaluation: measures.json\npictures: grid.png\nlimits: [It draws cats alone.]\ntags: [cats]\n"
        "description: Cats.\ntitle: Cat | cascade\n",
        encoding="utf-8",
    )
    card = model_card(cascade, read_facts(facts_file), "me/cats")
    for text in (
        "license: mit", "- zh", "base_model: me/before", "- me/cats", "- cats", "# Cat | cascade", "\n\nCats.\n\n",
        "Drawings of cats.", "On one laptop.", "| base | 4 | 1 (step 1), 0.5 (step 2), 0.25 (step 4) | 20 |",
        "| FID | 12.5 |  |", "| data | CC0 drawings |", "| unet | as the whole |", "- It draws cats alone.",
        "](pictures.png)", '"a red cat"; "一只猫"', 'from_pretrained("me/cats")',
    ):  # fmt: skip
        assert text in card, text


def test_a_report_of_an_evaluation_becomes_rows(tmp_path):
    rate = {"hits": 3, "trials": 4, "low": 0.3, "high": 0.95}
    distance = {"features": "judge", "pictures": "model", "count": 4, "real": 8, "frechet": 1.5}
    report = {"suite": "cats", "scores": [{"category": "single", "drawn": rate}], "distances": [distance]}
    (tmp_path / "report.json").write_text(json.dumps(report | {"agreement": {"model": {"value": 0.25}}}))
    assert evaluation_rows(tmp_path / "report.json") == [
        ("hits, single", "75.0% [30.0%, 95.0%] (N = 4)", "cats"),
        ("Frechet distance, judge features", "1.5", "4 model to 8 real pictures"),
        ("agreement with the text, model", "0.250", "cats"),
    ]


def test_an_evaluation_may_be_numbers_by_name(cascade, tmp_path):
    (tmp_path / "facts.yaml").write_text('evaluation: {"FID": 12.3, "CLIP": 0.31}')
    facts = read_facts(tmp_path / "facts.yaml")
    assert facts == CardFacts(evaluation={"FID": 12.3, "CLIP": 0.31})
    assert "| FID | 12.3 |  |\n| CLIP | 0.31 |  |" in model_card(cascade, facts)
    for wrong in ({"FID": "good"}, {"FID": None}):
        with pytest.raises(ValueError, match=r"`evaluation` is .*neither a report"):
            CardFacts(evaluation=wrong)


def test_the_code_for_people_without_the_package_runs_by_itself(make_cascade, tmp_path):
    make_cascade(1).save_pretrained(tmp_path / "plain")
    export_cascade(tmp_path / "plain", tmp_path / "exported")
    card = model_card(read_cascade(tmp_path / "exported"), CardFacts(), "me/cats")
    _, code = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    names = {"DiffusionPipeline", "pipe"}
    assert {node.id for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Name)} == names
    assert "from diffusers import DiffusionPipeline\n" in code


def test_an_edit_is_seen_and_reformatting_is_none(cascade):
    card = model_card(cascade, CardFacts())
    assert not is_edited(card)
    assert not is_edited(card.replace("\n", "\r\n") + "\n")
    assert is_edited(card.replace("## Limits", "## My limits"))
    assert is_edited(card.replace("library_name: diffusers", "library_name: mine"))
    assert is_edited(card + "\nMore.")
    assert is_edited("# My own card\n")


def test_a_card_gets_the_name_of_its_repository_unless_it_was_edited(cascade):
    card = model_card(cascade, CardFacts())
    named = with_repository(card, "me/cats")
    assert 'from_pretrained("me/cats")' in named
    assert not is_edited(named)
    edited = card.replace("## Limits", "## My limits")
    assert with_repository(edited, "me/cats") == edited


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("licence: mit", r"holds \['licence'\]; it may name .*license"),
        ("- mit", "holds list"),
        ("{", "cannot be read"),
        ("evaluation: nowhere.json", "nowhere.json', which is no file"),
        ("pictures: facts.yaml", "give a PNG file"),
        ("licenses: mit", "`licenses` is 'mit'; give a mapping"),
    ],
)
def test_facts_that_cannot_be_used_are_told(tmp_path, text, message):
    (tmp_path / "facts.yaml").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_facts(tmp_path / "facts.yaml")


@pytest.mark.parametrize("content", ["", "no json", '{"step": 1}', "[]"])
def test_a_log_that_is_none_is_told(tmp_path, content):
    (tmp_path / "file").write_text(content)
    with pytest.raises(ValueError, match=r"`training_logs` names .*file', which is no log"):
        training_rows({"base": tmp_path / "file"})


@pytest.mark.parametrize("content", ["", "no json", '{"scores": 1}', '{"FID": "good"}', "[]"])
def test_a_report_that_is_none_is_told(tmp_path, content):
    (tmp_path / "file").write_text(content)
    with pytest.raises(ValueError, match=r"`evaluation` is .*file', which is neither a report"):
        evaluation_rows(tmp_path / "file")
