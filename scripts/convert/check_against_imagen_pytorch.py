# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Compare converted U-Nets and cascades with imagen-pytorch's and MinImagen's own, release by release.

python scripts/convert/peers/environment.py .venv-peers
.venv-peers/bin/python scripts/convert/check_against_imagen_pytorch.py .venv-peers

Prints a table for each release and ends with an error if anything differs by more than it may.
"""

import argparse
import math
import subprocess
import sys
from pathlib import Path

import torch

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "peers"))
# Largest difference of predictions over the largest prediction, or twice the peer's own rounding where that is more; and
# of clean pictures in [-1, 1] in one step.
_UNETS = 1e-5
_STEPS = 1e-4


def check_release(folder: Path) -> bool:
    """Compare one release, print its tables, and say whether all agree."""
    from import_peer import import_peer

    torch.set_num_threads(1)
    print(f"\n## {folder.name}\n")
    if folder.name.startswith("minimagen"):
        from compare_minimagen import compare_minimagen

        results = compare_minimagen(folder)
    else:
        from compare_cascades import compare_cascades
        from compare_unets import compare_unets

        peer = import_peer(folder, "imagen_pytorch")
        results = compare_unets(peer)
        _print_unets(results)
        samples = compare_cascades(peer)
        return _unets_agree(results) and _print_samples(samples)
    _print_unets(results[0])
    return _unets_agree(results[0]) and _print_samples(results[1])


def _print_unets(results: dict) -> None:
    print(f"{'U-Net':36} difference (theirs to ours in float64)  way back")
    for name, outcome in results.items():
        if isinstance(outcome, str):
            print(f"{name:36} - {outcome}")
        else:
            print(
                f"{name:36} {outcome.float32:.1e}    ({outcome.rounding:.1e})                    {'same' if outcome.returns else 'DIFFERS'}"
            )
    compared = [outcome for outcome in results.values() if not isinstance(outcome, str)]
    print(f"{len(compared)} compared, largest {max(o.float32 for o in compared):.1e} in float32")


def _unets_agree(results: dict) -> bool:
    compared = [outcome for outcome in results.values() if not isinstance(outcome, str)]
    return all(o.float32 <= max(_UNETS, 2 * o.rounding) and o.returns for o in compared)


def _print_samples(samples: dict) -> bool:
    print(f"\n{'sampling':48} every step's x_0   whole pictures")
    for name, (steps, pictures) in samples.items():
        print(f"{name:48} {steps:.1e}            {'-' if pictures is None else f'{pictures:.1e}'}")
    # MinImagen's steps cannot be looked into (NaN): its pictures count instead.
    return all((pictures if math.isnan(steps) else steps) <= _STEPS for steps, pictures in samples.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("environment", type=Path, help="what peers/environment.py made")
    parser.add_argument("--release", help="only this one, such as imagen-pytorch-2.1.0")
    arguments = parser.parse_args()
    folders = sorted((arguments.environment / "peers").iterdir())
    if arguments.release is not None:
        sys.exit(0 if check_release(arguments.environment / "peers" / arguments.release) else 1)
    # A process for each: one Python can import only one release.
    command = [sys.executable, "-W", "ignore", __file__, arguments.environment]
    failed = [f.name for f in folders if subprocess.run([*command, "--release", f.name], check=False).returncode]
    if failed:
        sys.exit(f"These differ: {', '.join(failed)}")


if __name__ == "__main__":
    main()
