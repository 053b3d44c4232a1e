import json
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_make_bench_quick_measures_everything():
    subprocess.run(["make", "bench-quick"], cwd=ROOT, check=True)
    folder = ROOT / "benchmarks" / "results" / "quick"
    verdicts = json.loads((folder / "summary.json").read_text())["verdicts"]
    against = {verdict["against"] for verdict in verdicts}
    assert against == {"IF", "imagen-pytorch", "alone"}
    assert (folder / "growth.png").stat().st_size > 10_000
