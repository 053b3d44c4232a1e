import pytest


def test_an_override_without_a_value_is_refused(run):
    result = run("train", "config.yaml", "--set", "max_steps")
    assert result.code == 2
    assert "`--set` is 'max_steps'; give section.field=value" in result.err
    assert len(result.err.splitlines()) == 1


@pytest.mark.parametrize("content", [None, "data: {folder: missing}\nspeed: high\n"])
def test_a_config_that_is_missing_or_wrong_is_told_without_a_traceback(run, tmp_path, content):
    if content is not None:
        (tmp_path / "config.yaml").write_text(content)
    result = run("train", "config.yaml")
    assert result.code == 2
    assert result.err.startswith("diffusers-imagen: ")
    assert "Traceback" not in result.err
