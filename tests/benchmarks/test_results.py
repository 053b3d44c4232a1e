from results import Measurement, Row, Section, load_section, machine_facts


def test_a_section_reads_back_as_it_was_written(tmp_path):
    measured = Measurement("fast", "bf16", "bf16", [0.1, 0.2], 40_000_000, 12.5)
    section = Section("forward", [Row("base_b1", "base", "s", True, [measured])], {"conv bf16": 400.0}, {"cores": 2})
    section.save(tmp_path / "new")
    assert load_section(tmp_path / "new" / "forward.json") == section


def test_the_best_is_the_sides_own_least_median():
    slow, quick, other = (
        Measurement("IF", "fp32", "fp32", [1.0, 1.0, 9.0]),
        Measurement("IF", "bf16", "bf16", [0.5, 0.9, 9.0]),
        Measurement("fast", "bf16", "bf16", [0.1, 0.1, 0.1]),
    )
    row = Row("base_b1", "base", "s", True, [slow, quick, other])
    assert row.best("IF") is quick
    assert row.best("imagen-pytorch") is None


def test_facts_about_the_machine_name_no_date(monkeypatch):
    monkeypatch.setattr("results.PACKAGES", ("torch",))
    facts = machine_facts(threads=1)
    assert facts["threads"] == 1
    assert facts["cpu"]
    assert "date" not in facts
