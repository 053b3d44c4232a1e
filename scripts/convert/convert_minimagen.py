# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Convert a training folder of MinImagen to a cascade that `ImagenCascadePipeline.from_pretrained` loads.

python scripts/convert/convert_minimagen.py training_20230101_120000/ cascade/

The folder holds `parameters/*.json` and `state_dicts/unet_*.pth`; where a U-Net has several, the newest is taken. Nothing in the files is run, and nothing is written unless all of it is.
"""

import argparse
from pathlib import Path

from command_line import main_of, options_of

from diffusers_imagen.conversion.imagen_pytorch import ConvertedCascade
from diffusers_imagen.conversion.minimagen import convert_minimagen, read_minimagen


def arguments_of() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="MinImagen's training folder")
    return parser


def convert(arguments: argparse.Namespace) -> ConvertedCascade:
    return convert_minimagen(read_minimagen(arguments.folder), options_of(arguments))


if __name__ == "__main__":
    main_of(arguments_of(), convert)
