# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""How much memory the conversion of an original DeepFloyd IF checkpoint takes, on a synthetic one of IF-I-XL's shape.

    python benchmarks/convert_deepfloyd_if.py --gigabytes 5 --max-shard-size 2

Writes the checkpoint (half precision, narrower than the real one so that it has the asked size) and its conversion to
a temporary folder, so it needs twice the space on disk; converts in a process of its own, and prints its peak.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
import yaml

from diffusers_imagen.conversion.deepfloyd_files import convert_folders
from diffusers_imagen.conversion.deepfloyd_if import expected_shapes, restore, unet_config

WIDTHS = range(704, 0, -64)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=5.0, help="of the checkpoint, at most (5)")
    parser.add_argument("--max-shard-size", type=float, default=2.0, metavar="GB", help="of the converted files (2)")
    parser.add_argument("--folder", type=Path, help="where there is space; the system's temporary folder by default")
    parser.add_argument("--convert", nargs=3, metavar=("FROM", "TO", "BYTES"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.convert:
        print(json.dumps(converted(Path(arguments.convert[0]), Path(arguments.convert[1]), int(arguments.convert[2]))))
        return
    shard = int(arguments.max_shard_size * 10**9)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        size = write_checkpoint(Path(folder) / "original", arguments.gigabytes * 1e9)
        command = [sys.executable, __file__, "--convert", f"{folder}/original", f"{folder}/cascade", str(shard)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        print(json.dumps({"checkpoint": size} | json.loads(done.stdout.splitlines()[-1]), indent=2))


def xl_params(width: int) -> dict[str, object]:
    """Return the config.yml's `params` of IF-I-XL, of another width."""
    return {
        "in_channels": 3,
        "out_channels": 6,
        "model_channels": width,
        "channel_mult": "1,2,3,4",
        "num_res_blocks": 3,
        "attention_resolutions": "32,16,8",
        "image_size": 64,
        "num_head_channels": 64,
        "encoder_dim": 4096,
        "encoder_channels": 4 * width,
        "att_pool_heads": 64,
        "use_scale_shift_norm": True,
        "resblock_updown": True,
    }


def write_checkpoint(folder: Path, limit: float) -> int:
    """Write the largest checkpoint of at most `limit` bytes and return its size."""
    for width in WIDTHS:
        config = unet_config(xl_params(width))
        shapes = expected_shapes(config)
        size = 2 * sum(shape.numel() for shape in shapes.values())
        if size <= limit:
            break
    else:
        sys.exit(f"the smallest checkpoint of this shape has {size / 1e9:.2f} GB")
    folder.mkdir(parents=True)
    (folder / "config.yml").write_text(yaml.safe_dump({"params": xl_params(width)}))
    weights = {name: torch.zeros(shape, dtype=torch.float16) for name, shape in shapes.items()}
    torch.save(restore(weights, config), folder / "pytorch_model.bin")
    return size


def converted(original: Path, output: Path, shard: int) -> dict[str, float]:
    """Convert and return what it took, in bytes and seconds."""
    before, start = peak_memory(), time.perf_counter()
    convert_folders([original], output, shard)
    files = [file.stat().st_size for file in (output / "unet").glob("*.safetensors")]
    peak = peak_memory()
    return {
        "largest_shard": max(files),
        "shards": len(files),
        "seconds": round(time.perf_counter() - start, 1),
        "memory_of_imports": before,
        "peak_memory": peak,
        "peak_over_largest_shard": round(peak / max(files), 3),
        "added_over_largest_shard": round((peak - before) / max(files), 3),
    }


def peak_memory() -> int:
    """Return the most memory that this process had, mapped files included, in bytes (Linux)."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))


if __name__ == "__main__":
    main()
