"""The prompt cache of a pipeline."""

import subprocess
import sys

import pytest
import torch

DRAW = """
import sys, torch
from diffusers_imagen import ImagenCascadePipeline
pipe = ImagenCascadePipeline.from_pretrained(sys.argv[1])
pipe.set_progress_bar_config(disable=True)
pipe.enable_prompt_cache(sys.argv[2])
runs = []
pipe.text_encoder.register_forward_pre_hook(lambda *_: runs.append(1))
drawn = pipe("a red cat", negative_prompt="a hat", generator=torch.Generator().manual_seed(0), output_type="pt").images
torch.save(drawn, sys.argv[3])
print(len(runs))
"""


def test_a_cached_prompt_draws_the_same_picture_without_the_encoder(make_cascade, record_calls, seeded, tmp_path):
    pipe = make_cascade(2)
    arguments = {"prompt": "a red cat", "negative_prompt": "a hat", "output_type": "latent"}
    plain = pipe(**arguments, generator=seeded(0)).images
    pipe.enable_prompt_cache(tmp_path)
    calls = record_calls(pipe)
    for expected_runs in (2, 2, 2):
        assert torch.equal(pipe(**arguments, generator=seeded(0)).images, plain)
        assert [name for name, _ in calls].count("text_encoder") == expected_runs
    pipe.clear_prompt_cache()
    assert torch.equal(pipe(**arguments, generator=seeded(0)).images, plain)
    assert [name for name, _ in calls].count("text_encoder") == 4
    pipe.disable_prompt_cache()
    pipe(**arguments)
    assert [name for name, _ in calls].count("text_encoder") == 6
    with pytest.raises(ValueError, match=r"call `enable_prompt_cache\(folder\)` first"):
        pipe.clear_prompt_cache()


def test_on_a_hit_the_encoder_stays_on_the_disk(make_cascade, seeded, tmp_path):
    pipe = make_cascade(1)
    pipe.enable_prompt_cache(tmp_path / "prompts")
    first = pipe("a red cat", generator=seeded(0), output_type="latent").images
    pipe.enable_model_disk_offload(tmp_path / "weights")
    brought = []
    hook = pipe.text_encoder._hf_hook
    hook.bring_in = lambda: brought.append(1)
    assert torch.equal(pipe("a red cat", generator=seeded(0), output_type="latent").images, first)
    assert brought == []
    del hook.bring_in
    pipe.remove_all_hooks()


def test_a_new_process_needs_no_encoder(make_cascade, seeded, tmp_path):
    pipe = make_cascade(1)
    pipe.save_pretrained(tmp_path / "cascade")
    pipe.enable_prompt_cache(tmp_path / "prompts")
    drawn = pipe("a red cat", negative_prompt="a hat", generator=seeded(0), output_type="pt").images
    arguments = map(str, (tmp_path / "cascade", tmp_path / "prompts", tmp_path / "drawn.pt"))
    done = subprocess.run([sys.executable, "-c", DRAW, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == "0"
    # Another number of threads adds in another order.
    torch.testing.assert_close(torch.load(tmp_path / "drawn.pt"), drawn, rtol=0, atol=1e-5)
