# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Make an environment with this package and the peers that its conversions are compared with.

python scripts/convert/peers/environment.py .venv-peers

Every release of a peer lies in a folder of its own, FOLDER/peers/NAME-VERSION, since one Python can import only one of
them. They are installed without their requirements: those ask for torchvision, which may bring another build of torch.
"""

import argparse
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
# One release of each layout of weights, and MinImagen.
PEERS = (
    "imagen-pytorch==2.1.0",
    "imagen-pytorch==2.0.0",
    "imagen-pytorch==1.26.3",
    "imagen-pytorch==1.21.6",
    "imagen-pytorch==1.15.1",
    "imagen-pytorch==1.10.1",
    "imagen-pytorch==1.8.4",
    "imagen-pytorch==1.0.2",
    "minimagen==0.0.9",
)


def make_environment(folder: Path, python: str | None = None) -> None:
    """Make the environment; what is there already is kept.

    Args:
        folder: where it is.
        python: an interpreter with this package and the requirements, instead of a new virtual environment.
    """
    if python is None:
        if not (folder / "pyvenv.cfg").is_file():
            subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        python = str(folder / "bin" / "python")
        pip = [python, "-m", "pip", "install", "--quiet", "--constraint", ROOT / "constraints.txt"]
        subprocess.run([*pip, "--editable", ROOT, "--requirement", HERE / "requirements.txt"], check=True)
    for peer in PEERS:
        target = folder / "peers" / peer.replace("==", "-")
        if not target.is_dir():
            pip = [python, "-m", "pip", "install", "--quiet", "--no-deps", "--target", target, peer]
            subprocess.run(pip, check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the environment is")
    parser.add_argument("--python", help="use this interpreter, which has everything but the peers themselves")
    arguments = parser.parse_args()
    make_environment(arguments.folder.absolute(), arguments.python)


if __name__ == "__main__":
    main()
