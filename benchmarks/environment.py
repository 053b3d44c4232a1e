# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Make the benchmarks' own environment: this package, its pinned dependencies and the peers.

python benchmarks/environment.py .venv-bench

Does nothing where the environment is there already and was made from the same requirements.
"""

import argparse
import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
REQUIREMENTS = HERE / "requirements.txt"
WITHOUT_DEPENDENCIES = HERE / "requirements-no-deps.txt"
CONSTRAINTS = ROOT / "constraints.txt"
INPUTS = (REQUIREMENTS, WITHOUT_DEPENDENCIES, CONSTRAINTS, ROOT / "setup.cfg", ROOT / "pyproject.toml", Path(__file__))


def fingerprint(files: tuple[Path, ...] = INPUTS) -> str:
    """Return a digest of everything that decides what is installed."""
    digest = hashlib.sha256(f"{sys.version_info[:2]}".encode())
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()


def make_environment(folder: Path) -> None:
    """Make the environment in `folder` anew, unless its stamp says that it is this one."""
    stamp = folder / "installed"
    wanted = fingerprint()
    if stamp.is_file() and stamp.read_text() == wanted:
        return
    print(f"Making the benchmarks' environment in {folder}: torch and the peers, about 2 GB.")
    if folder.exists() and not (folder / "pyvenv.cfg").is_file():
        raise SystemExit(f"{folder} is there and is no virtual environment; give another folder.")
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    pip = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", "--constraint", CONSTRAINTS]
    subprocess.run([*pip, "--editable", ROOT, "--requirement", REQUIREMENTS], check=True)
    subprocess.run([*pip, "--no-deps", "--requirement", WITHOUT_DEPENDENCIES], check=True)
    stamp.write_text(wanted)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the environment is")
    make_environment(parser.parse_args().folder.absolute())


if __name__ == "__main__":
    main()
