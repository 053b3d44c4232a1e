"""Convert DeepFloyd IF's original files (pytorch_model.bin and config.yml) to a cascade for `ImagenCascadePipeline`.

python scripts/convert/convert_deepfloyd_if.py --stage-1 IF-I-M-v1.0 --stage-2 IF-II-M-v1.0 --output if-medium
"""

import argparse
import sys
from pathlib import Path

from diffusers_imagen.conversion.deepfloyd_files import convert_folders


def _bytes_of(gigabytes: str) -> int:
    found = float(gigabytes)
    if not 1e-9 <= found < 1e9:
        raise ValueError
    return int(found * 10**9)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stage-1", type=Path, required=True, help="folder of the base")
    parser.add_argument("--stage-2", type=Path, help="folder of the first enlargement")
    parser.add_argument("--stage-3", type=Path, help="folder of the second enlargement")
    parser.add_argument("--output", type=Path, required=True, help="a new folder")
    parser.add_argument("--max-shard-size", type=_bytes_of, default="2", metavar="GB", help="of a file of weights (2)")
    parser.add_argument("--dry-run", action="store_true", help="read and check everything, write nothing")
    arguments = parser.parse_args()
    if arguments.stage_3 and not arguments.stage_2:
        parser.error("--stage-3 enlarges the pictures of --stage-2, which is missing")
    stages = [stage for stage in (arguments.stage_1, arguments.stage_2, arguments.stage_3) if stage is not None]
    try:
        print(convert_folders(stages, arguments.output, arguments.max_shard_size, arguments.dry_run))
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
