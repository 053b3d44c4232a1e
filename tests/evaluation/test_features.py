from pathlib import Path

import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPVisionConfig,
    Dinov2Config,
    Dinov2Model,
    PreTrainedTokenizerFast,
)

from diffusers_imagen.evaluation.agreement import ClipAgreement
from diffusers_imagen.evaluation.features import (
    ClipFeatures,
    DinoFeatures,
    JudgeFeatures,
    extract_features,
    load_extractor,
)
from diffusers_imagen.evaluation.scene_judge import SceneJudge

PICTURES = [Image.new("RGB", (40, 40), color) for color in ("red", "blue", "white")]
WORDS = ["<pad>", "<eos>", "<unk>", "red", "blue"]


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save a tiny CLIP with random weights and its tokenizer."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = CLIPTextConfig(vocab_size=len(WORDS), max_position_embeddings=6, eos_token_id=1, pad_token_id=0, **sizes)
    vision = CLIPVisionConfig(image_size=16, patch_size=8, **sizes)
    config = CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=8)
    folder = tmp_path_factory.mktemp("clip")
    CLIPModel(config).save_pretrained(folder)
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>", model_max_length=6
    ).save_pretrained(folder)
    return folder


def test_any_callable_is_an_extractor() -> None:
    found = extract_features([PICTURES[:2], PICTURES[2:]], lambda pictures: pictures.float().mean((2, 3)))
    assert found.dtype == torch.float64
    assert found.tolist() == [[255, 0, 0], [0, 0, 255], [255, 255, 255]]


def test_an_extractor_of_maps_is_refused() -> None:
    with pytest.raises(ValueError, match=r"returned shape \(3, 3, 40, 40\) for 3 pictures"):
        extract_features([PICTURES], lambda pictures: pictures)
    with pytest.raises(ValueError, match="`pictures` is empty"):
        extract_features([], lambda pictures: pictures)


def test_clip_features_are_those_of_the_model(clip_folder: Path) -> None:
    extractor = load_extractor(f"clip:{clip_folder}")
    assert isinstance(extractor, ClipFeatures)
    found = extract_features([PICTURES], extractor)
    mean, std = (
        torch.tensor(v)[:, None, None]
        for v in ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
    )
    # A picture of one color stays so when it is resized.
    pixels = torch.stack([(torch.tensor(p.getpixel((0, 0)))[:, None, None] / 255).expand(3, 16, 16) for p in PICTURES])
    with torch.no_grad():
        output = CLIPModel.from_pretrained(clip_folder)(
            input_ids=torch.tensor([[3, 1]]), pixel_values=(pixels - mean) / std
        )
    torch.testing.assert_close(
        torch.nn.functional.normalize(found.float(), dim=1), output.image_embeds, atol=1e-5, rtol=1e-4
    )


def test_agreement_is_the_cosine_that_clip_gives(clip_folder: Path) -> None:
    agreement = ClipAgreement.load(str(clip_folder))
    # A tiny text has its end token as CLIP's own tokenizer would set it.
    scores = agreement(PICTURES[:2], ["red <eos>", "blue red <eos>"])
    model = CLIPModel.from_pretrained(clip_folder)
    images = extract_features([PICTURES[:2]], ClipFeatures(model)).float()
    for picture, ids, score in zip(images, ([3, 1], [4, 3, 1]), scores, strict=True):
        with torch.no_grad():
            pooled = model.text_model(input_ids=torch.tensor([ids])).pooler_output
        expected = torch.nn.functional.cosine_similarity(picture, model.text_projection(pooled)[0], dim=0)
        assert score == pytest.approx(expected.item(), abs=1e-5)
    with pytest.raises(ValueError, match="`images` and `texts` are 3 and 1"):
        agreement(PICTURES, ["red"])


def test_dino_features_are_the_class_token() -> None:
    config = Dinov2Config(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14)
    found = extract_features([PICTURES], DinoFeatures(Dinov2Model(config), side=28))
    assert found.shape == (3, 16)
    assert not torch.allclose(found[0], found[1])


def test_judge_features_do_not_depend_on_the_batch(judge: SceneJudge) -> None:
    extractor = JudgeFeatures(judge)
    together = extract_features([PICTURES], extractor)
    alone = extract_features([[picture] for picture in PICTURES], extractor)
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=1e-5)


def test_models_are_not_fetched_unasked() -> None:
    with pytest.raises(ValueError, match="'nobody/nothing' cannot be loaded; give a folder, or allow the download"):
        load_extractor("clip:nobody/nothing")
    with pytest.raises(ValueError, match="`features` is 'inception'"):
        load_extractor("inception")
