import pytest
from diffusers.guiders.adaptive_projected_guidance import AdaptiveProjectedGuidance
from diffusers.guiders.classifier_free_guidance import ClassifierFreeGuidance
from PIL import Image

from diffusers_imagen.cli.guider_option import EXAMPLE, make_guiders, parse_guiders


def test_classes_and_options_become_guiders_by_stage():
    guiders = make_guiders(parse_guiders(EXAMPLE))
    assert {stage: type(guider) for stage, guider in guiders.items()} == {
        "base": AdaptiveProjectedGuidance,
        "sr_1": ClassifierFreeGuidance,
    }
    assert (guiders["base"].guidance_scale, guiders["base"].eta) == (8, 0)
    assert make_guiders(parse_guiders("ClassifierFreeGuidance"))["base"].guidance_scale == 7.5
    assert make_guiders(parse_guiders(None)) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("A,B", "`--guider` is 'A,B'; give a class name or stage=class pairs, such as base=Adaptive"),
        ("DDIMScheduler", "`--guider` is 'DDIMScheduler', which is no guider of Diffusers; choose one of Adaptive"),
        ("ClassifierFreeGuidance:scale=3", "gives ClassifierFreeGuidance the option 'scale'; it has guidance_scale"),
        ("ClassifierFreeGuidance:start=2", "cannot make a ClassifierFreeGuidance with {'start': 2}: Expected `start`"),
        ("SkipLayerGuidance", "cannot make a SkipLayerGuidance with {}: Either `skip_layer_guidance_layers` or"),
        ("FrequencyDecoupledGuidance", "cannot make a FrequencyDecoupledGuidance with {}: .*pip install kornia"),
        ("UNetAutoGuidance", "`--guider` is 'UNetAutoGuidance', which needs a second U-Net; use it from Python"),
    ],
)
def test_what_is_no_guider_is_refused(text, message, monkeypatch):
    monkeypatch.setattr("diffusers.guiders.frequency_decoupled_guidance._CAN_USE_KORNIA", False)
    with pytest.raises(ValueError, match=message):
        make_guiders(parse_guiders(text))


def test_the_program_draws_with_a_guider(run, checkpoint, tmp_path):
    draw = ("generate", "a cat", "--checkpoint", checkpoint, "-o")
    guided = run(
        *draw, "a.png", "--guider", "base=ClassifierFreeGuidance:guidance_scale=9,sr_1=ClassifierFreeGuidance"
    )
    assert guided.code == 0, guided.err
    assert run(*draw, "b.png").code == 0
    pictures = [Image.open(tmp_path / name).tobytes() for name in ("a.png", "b.png")]
    assert pictures[0] != pictures[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--guider", "LTX2Guidance"), "`guider` is a LTX2Guidance for 'base', which weighs passes of LTX-2's own"),
        (
            ("--guider", "sr_2=ClassifierFreeGuidance"),
            "`guider` names the stage 'sr_2', but the stages are base, sr_1",
        ),
        (("--guider", "ClassifierFreeGuidance:guidance_scale=abc"), "'abc' as 'guidance_scale'; give a number"),
        (("--scheduler", "DDIMScheduler:clip_sample=perhaps"), "'perhaps' as 'clip_sample'; give true or false"),
        (("--guider", "ClassifierFreeGuidance", "--guidance", "3"), "`guidance_scale` is 3.0 for 'base', which is"),
    ],
)
def test_the_program_tells_what_cannot_be(run, checkpoint, arguments, message):
    result = run("generate", "a cat", "--checkpoint", checkpoint, *arguments)
    assert result.code == 2
    assert message in result.err
    assert "Traceback" not in result.err
