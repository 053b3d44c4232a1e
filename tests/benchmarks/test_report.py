import io
import json

import pytest
from report import best_limits, compare, plain_verdicts, ratio_verdicts, share_of_limit, show
from results import Measurement, Row, Section
from rich.console import Console


def row(paired=True, key="base_b1"):
    return Row(
        key,
        "base forward",
        "s",
        paired,
        [
            Measurement("fast", "plain", "bf16", [0.2, 0.2, 0.2], 40, 10.0),
            Measurement("fast", "packed", "bf16", [0.1, 0.1, 0.2], 40, 10.0),
            Measurement("IF", "fp32", "fp32", [0.6, 0.4, 1.0], 40, 30.0),
        ],
    )


def test_the_best_of_both_sides_are_compared_round_by_round():
    found = compare(row(), "fast", "IF")
    assert found.median == pytest.approx(5.0)  # rounds: 6, 4 and 5, not 0.6 / 0.1
    assert compare(row(), "fast", "imagen-pytorch") is None


def test_unpaired_values_are_compared_by_their_medians():
    found = compare(row(paired=False), "fast", "IF")
    assert found.median == pytest.approx(6.0)
    assert (found.low, found.high) == (pytest.approx(2.0), pytest.approx(10.0))


def test_per_flop_takes_out_that_one_side_does_less():
    assert compare(row(), "fast", "IF", per_flop=True).median == pytest.approx(5.0 / 3)


def test_verdicts_are_met_from_the_target_on():
    verdicts = {verdict.what: verdict for verdict in ratio_verdicts([row()])}
    assert verdicts["base forward"].met  # 5 of 5
    assert not verdicts["the same per FLOP"].met  # 1.67 of 2


def test_seconds_added_are_differences_to_the_first_and_at_most_the_target():
    imports = Row(
        "import",
        "imports",
        "s",
        True,
        [
            Measurement("Diffusers", "diffusers", "fp32", [5.0, 6.0, 7.0]),
            Measurement("ours", "with ours", "fp32", [5.1, 6.3, 7.15]),
        ],
    )
    (verdict,) = plain_verdicts([imports], {})
    assert verdict.found.median == pytest.approx(0.15)
    assert verdict.met


def test_the_share_is_of_the_same_precisions_convolutions():
    limits = best_limits([Section("a", [], {"conv bf16": 380.0}), Section("b", [], {"conv bf16": 400.0})])
    measured = row().measurements[1]
    assert share_of_limit(measured, 0.05, limits) == pytest.approx(0.5)
    assert share_of_limit(row().measurements[2], 0.05, limits) is None


def test_saved_sections_are_shown_and_summed_up(tmp_path):
    Section("forward", [row()], {"conv bf16": 400.0}, {"cores": 2}).save(tmp_path)
    points = [Measurement("fast", str(x), "bf16", [0.1 * x, 0.2 * x]) for x in (1, 2, 4)]
    Section("growth", [Row("growth_batch", "growth with batch", "s", True, points)]).save(tmp_path)
    output = io.StringIO()
    show(tmp_path, Console(file=output, width=150))
    assert "base forward" in output.getvalue()
    assert "1: 150.0, 2: 300.0, 4: 600.0" in output.getvalue()
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["limits"] == {"conv bf16": 400.0}
    assert [verdict["met"] for verdict in summary["verdicts"]] == [True, False]


def test_a_folder_without_results_says_what_makes_them(tmp_path):
    with pytest.raises(SystemExit, match="holds no results"):
        show(tmp_path, Console(file=io.StringIO()))
