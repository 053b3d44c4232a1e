# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Convert imagen-pytorch's checkpoints (1.0 to 2.1) to a cascade that `ImagenCascadePipeline.from_pretrained` loads.

python scripts/convert/convert_imagen_pytorch.py imagen.pt cascade/ --set image_sizes=[64,256] --usual

What the weights cannot tell is asked for by name: give it with `--set NAME=VALUE` (JSON), or take imagen-pytorch's own
defaults with `--usual`. Nothing in the files is run, and nothing is written unless all of it is.
"""

import argparse
from pathlib import Path

from command_line import main_of, options_of

from diffusers_imagen.conversion.archive import read_archive
from diffusers_imagen.conversion.imagen_pytorch import ConvertedCascade, convert_imagen_pytorch
from diffusers_imagen.conversion.imagen_pytorch_checkpoint import find_unets


def arguments_of() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path, help="a checkpoint, or one for each U-Net")
    parser.add_argument(
        "--weights", choices=("auto", "ema", "online"), default="auto", help="averaged or last weights"
    )
    return parser


def convert(arguments: argparse.Namespace) -> ConvertedCascade:
    found = [find_unets(read_archive(file), arguments.weights) for file in arguments.files]
    return convert_imagen_pytorch(found, options_of(arguments), arguments.usual)


if __name__ == "__main__":
    main_of(arguments_of(), convert)
