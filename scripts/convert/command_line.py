# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""What the converters' command lines share: options by name, the text encoder, the report, and writing it all or nothing."""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, T5EncoderModel

from diffusers_imagen.conversion.imagen_pytorch import ConvertedCascade
from diffusers_imagen.conversion.imagen_pytorch_options import ImagenOptions, with_values
from diffusers_imagen.conversion.new_folder import check_free, new_folder
from diffusers_imagen.pipelines.converted_cascade import converted_cascade


def options_of(arguments: argparse.Namespace) -> ImagenOptions:
    """Return the options that were set by name.

    Raises:
        ValueError: a name that there is not, or a value that is no JSON.
    """
    values: dict[str, Any] = {}
    for item in arguments.set:
        name, is_given, text = item.partition("=")
        if not is_given:
            raise ValueError(f"`--set {item}` has no value; give NAME=VALUE.")
        try:
            values[name] = json.loads(text)
        except json.JSONDecodeError:
            # A bare word is a string.
            values[name] = text
    return with_values(ImagenOptions(), values)


def main_of(parser: argparse.ArgumentParser, convert: Callable[[argparse.Namespace], ConvertedCascade]) -> None:
    """Add the shared arguments, convert, report, and write."""
    parser.add_argument("output", type=Path, help="a new folder for the cascade")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="what the weights cannot tell"
    )
    parser.add_argument("--usual", action="store_true", help="take the usual value for what nobody says")
    parser.add_argument("--text-encoder", type=Path, help="a folder with the T5 encoder and its tokenizer")
    parser.add_argument("--dry-run", action="store_true", help="convert and report, but write nothing")
    arguments = parser.parse_args()
    try:
        _run(arguments, convert)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")


def _run(arguments: argparse.Namespace, convert: Callable[[argparse.Namespace], ConvertedCascade]) -> None:
    check_free(arguments.output)
    encoder = arguments.text_encoder
    if encoder is not None and not encoder.is_dir():
        raise ValueError(f"`--text-encoder` is {str(encoder)!r}, and there is no such folder; check the path.")
    converted = convert(arguments)
    tokenizer = text_encoder = None
    if encoder is not None:
        tokenizer = AutoTokenizer.from_pretrained(encoder, local_files_only=True)
        text_encoder = T5EncoderModel.from_pretrained(encoder, local_files_only=True)
    pipeline = converted_cascade(converted, tokenizer, text_encoder)
    print("\n".join(converted.report))
    if arguments.dry_run:
        print("dry run: nothing written")
        return
    with new_folder(arguments.output) as folder:
        pipeline.save_pretrained(folder)
    print(f"written: {arguments.output}")
