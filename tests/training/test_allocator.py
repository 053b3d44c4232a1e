import subprocess
import sys

FAULTS = """
import resource, sys, torch
from diffusers_imagen.training.allocator import keep_freed_memory
assert keep_freed_memory() if sys.argv[1] == "keep" else True
layers = torch.nn.Sequential(*(torch.nn.Conv2d(4, 4, 3, padding=1) for _ in range(4)))
x = torch.randn(2, 4, 256, 256)
def step():
    layers(x).square().mean().backward()
for _ in range(4):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(mode: str) -> int:
    finished = subprocess.run([sys.executable, "-c", FAULTS, mode], capture_output=True, text=True, check=True)
    return int(finished.stdout)


def test_training_steps_seldom_ask_the_system_for_memory_again() -> None:
    assert page_faults("keep") < page_faults("default") / 4
