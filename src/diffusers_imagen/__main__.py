# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""`python -m diffusers_imagen`: the program for launchers that start modules, `torchrun -m` and `accelerate launch -m`."""

from diffusers_imagen.cli.main import main

if __name__ == "__main__":
    main()
