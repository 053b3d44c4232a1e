# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Write a converted cascade's weights as a state dict for the release of imagen-pytorch that they came from.

python scripts/convert/export_imagen_pytorch.py cascade/ imagen.pt

Make an `Imagen` with the same U-Nets there and call `imagen.load_state_dict(torch.load("imagen.pt"))`.
"""

import argparse
import sys
from pathlib import Path

import torch

from diffusers_imagen.pipelines.converted_cascade import exported_state_dict
from diffusers_imagen.pipelines.pipeline_imagen_cascade import ImagenCascadePipeline


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cascade", type=Path, help="the folder of a converted cascade")
    parser.add_argument("output", type=Path, help="a new file")
    arguments = parser.parse_args()
    if arguments.output.exists():
        sys.exit(f"error: {arguments.output} is there already; give a new file.")
    pipeline = ImagenCascadePipeline.from_pretrained(arguments.cascade, tokenizer=None, text_encoder=None)
    try:
        state = exported_state_dict(pipeline)
    except ValueError as error:
        sys.exit(f"error: {error}")
    temporary = arguments.output.with_name(f".{arguments.output.name}.tmp")
    torch.save(state, temporary)
    temporary.replace(arguments.output)
    release = pipeline.unet.config.source_release
    print(f"written: {arguments.output}, {len(state)} tensors, for releases from {release} on with its layout")


if __name__ == "__main__":
    main()
