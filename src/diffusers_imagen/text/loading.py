# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Load a tokenizer and a text encoder from a folder that holds both, as a saved pipeline does.

Called by the training loop; pipelines load their own components.
"""

from pathlib import Path

import transformers
from transformers import AutoConfig, AutoModel, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase


def load_text_encoder(folder: str | Path) -> tuple[PreTrainedTokenizerBase, PreTrainedModel]:
    """Load `folder/tokenizer` and `folder/text_encoder`, frozen and in evaluation mode.

    The encoder is loaded as the class that saved it, so that of a T5 only the encoder's half is made.

    Args:
        folder: A folder with the two subfolders, such as a saved pipeline.

    Returns:
        The tokenizer and the encoder, on the CPU.

    Raises:
        ValueError: If one of the subfolders is missing.
    """
    folder = Path(folder)
    for part in ("tokenizer", "text_encoder"):
        if not (folder / part).is_dir():
            raise ValueError(f"`folder` is {str(folder)!r}, which has no subfolder {part!r}; save the {part} there.")
    config = AutoConfig.from_pretrained(folder / "text_encoder")
    architecture = (config.architectures or ["AutoModel"])[0]
    model_class = getattr(transformers, architecture, AutoModel)
    text_encoder = model_class.from_pretrained(folder / "text_encoder").eval().requires_grad_(False)
    return AutoTokenizer.from_pretrained(folder / "tokenizer"), text_encoder
