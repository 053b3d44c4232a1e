# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Write a converted cascade's weights as a state dict for the release of imagen-pytorch that they came from.

python scripts/convert/export_imagen_pytorch.py cascade/ imagen.pt

Each tensor keeps the type that it has in the cascade's files. Make an `Imagen` with the same U-Nets there and call `imagen.load_state_dict(torch.load("imagen.pt"))`.
"""

import argparse
import sys
from pathlib import Path

from diffusers_imagen.conversion.archive import write_archive
from diffusers_imagen.conversion.new_folder import check_free
from diffusers_imagen.pipelines.converted_cascade import saved_state_dict


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cascade", type=Path, help="the folder of a converted cascade")
    parser.add_argument("output", type=Path, help="a new file")
    arguments = parser.parse_args()
    try:
        check_free(arguments.output, is_file=True)
        state = saved_state_dict(arguments.cascade)
        write_archive(state, arguments.output)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    print(f"written: {arguments.output}, {len(state)} tensors, named as in the release that the cascade came from")


if __name__ == "__main__":
    main()
