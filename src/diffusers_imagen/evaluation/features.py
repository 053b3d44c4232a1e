# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Feature extractors: pictures to vectors that distances compare.

Any callable from uint8 (B, 3, H, W) to (B, D) is one; that is torchmetrics' convention too, so the extractors here go
into its `FrechetInceptionDistance(feature=...)` as they are. Nothing is downloaded unless that is asked for.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from diffusers_imagen.evaluation.pictures import to_tensor
from diffusers_imagen.evaluation.scene_judge import SceneJudge

FeatureExtractor = Callable[[Tensor], Tensor]

_CLIP_MEAN, _CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@torch.no_grad()
def extract_features(pictures: Iterable[Sequence[Image.Image]], extractor: FeatureExtractor) -> Tensor:
    """Extract the features of pictures given in batches.

    Args:
        pictures: Batches of RGB pictures, each batch of one size.
        extractor: Takes uint8 (B, 3, H, W), returns features (B, D).

    Returns:
        Features (N, D), float64, on the CPU.

    Raises:
        ValueError: If there are no pictures, or the extractor returns something else than (B, D).
    """
    collected = []
    for batch in pictures:
        features = extractor(to_tensor(batch))
        if features.ndim != 2 or len(features) != len(batch):
            raise ValueError(
                f"`extractor` returned shape {tuple(features.shape)} for {len(batch)} pictures; it must return (B, D)."
            )
        collected.append(features.double().cpu())
    if not collected:
        raise ValueError("`pictures` is empty; give at least one batch.")
    return torch.cat(collected)


def prepare(pictures: Tensor, side: int, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Resize uint8 pictures (B, 3, H, W) to a square, bicubic and antialiased, and normalize their channels."""
    scaled = F.interpolate(pictures.float() / 255, (side, side), mode="bicubic", antialias=True).clamp(0, 1)
    return (scaled - scaled.new_tensor(mean)[:, None, None]) / scaled.new_tensor(std)[:, None, None]


class JudgeFeatures(nn.Module):
    """Give the features of a scene judge.

    Args:
        judge: The judge.
    """

    def __init__(self, judge: SceneJudge) -> None:
        super().__init__()
        self.judge = judge.eval()

    @torch.no_grad()
    def forward(self, pictures: Tensor) -> Tensor:
        """Return features (B, D) of uint8 pictures (B, 3, H, W)."""
        return self.judge(self.judge.to_input(pictures)).features


class ClipFeatures(nn.Module):
    """Give the projected image embeddings of a CLIP model, not normalized.

    Args:
        model: A `CLIPModel` or `CLIPVisionModelWithProjection` of transformers.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model.eval()
        self.side = getattr(model.config, "vision_config", model.config).image_size

    @torch.no_grad()
    def forward(self, pictures: Tensor) -> Tensor:
        """Return features (B, D) of uint8 pictures (B, 3, H, W)."""
        pixels = prepare(pictures, self.side, _CLIP_MEAN, _CLIP_STD).to(self.model.device, self.model.dtype)
        pooled = self.model.vision_model(pixel_values=pixels).pooler_output
        return self.model.visual_projection(pooled).float()


class DinoFeatures(nn.Module):
    """Give the class token of a DINOv2 or DINOv3 vision transformer.

    Args:
        model: The model of transformers.
        side: Width and height in pixels at which pictures are shown to it, a multiple of its patch.
    """

    def __init__(self, model: Any, side: int = 224) -> None:
        super().__init__()
        self.model = model.eval()
        self.side = side

    @torch.no_grad()
    def forward(self, pictures: Tensor) -> Tensor:
        """Return features (B, D) of uint8 pictures (B, 3, H, W)."""
        pixels = prepare(pictures, self.side, _IMAGENET_MEAN, _IMAGENET_STD).to(self.model.device, self.model.dtype)
        return self.model(pixel_values=pixels).last_hidden_state[:, 0].float()


def load_extractor(name: str, allow_download: bool = False) -> nn.Module:
    """Load a feature extractor by name.

    Args:
        name: `clip:MODEL` or `dino:MODEL`, MODEL being a folder or a Hub repository of transformers' format.
        allow_download: Fetch a repository that is not on this machine. Without it, only local files are read.

    Returns:
        The extractor.

    Raises:
        ValueError: If the kind is unknown, or the model is not here and may not be downloaded.
    """
    kind, _, model = name.partition(":")
    if kind not in ("clip", "dino") or not model:
        raise ValueError(f"`features` is {name!r}; give 'clip:MODEL' or 'dino:MODEL', MODEL a folder or repository.")
    loaded = load_model(model, clip=kind == "clip", allow_download=allow_download)
    return ClipFeatures(loaded) if kind == "clip" else DinoFeatures(loaded)


def load_model(model: str, clip: bool, allow_download: bool) -> Any:
    """Load a CLIP model, or any other of transformers' models, from a folder or a Hub repository.

    Raises:
        ValueError: If it is not here and may not be downloaded, or is no such model.
    """
    from transformers import AutoModel, CLIPModel

    source = Path(model).expanduser()
    model_class: Any = CLIPModel if clip else AutoModel
    try:
        return model_class.from_pretrained(
            str(source) if source.is_dir() else model, local_files_only=not allow_download
        )
    except (OSError, ValueError) as error:
        hint = "check its name" if allow_download else "give a folder, or allow the download"
        raise ValueError(f"the model {model!r} cannot be loaded; {hint}. ({error})") from error
