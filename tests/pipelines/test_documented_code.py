"""The Python of docs/modular.md and docs/text.md runs as it stands there."""

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("name", ["modular.md", "text.md"])
def test_the_code_runs(name, make_cascade, text_models, tmp_path, monkeypatch, capsys):
    make_cascade(2).save_pretrained(tmp_path / "my_cascade")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / name).read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) >= 3
    names = {"tokenizer": text_models("qwen2")[0]}
    for block in blocks:
        exec(block, names)
    if name == "text.md":
        assert "<|im_start|>system\nDescribe the picture:<|im_end|>" in names["text"]["template"]
        assert capsys.readouterr().out == "{'max_length': 12}\n"
    else:
        assert names["large"][0].size == names["images"][0].size == (16, 16)
        assert names["again"].unet is not None
