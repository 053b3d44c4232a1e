# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Keep the C library from handing memory back to the system between training steps on CPUs.

By default glibc returns large blocks as soon as they are free and gets them again, page by page, in the next step: tens
of thousands of page faults. Called by the training loop.
"""

import ctypes
import sys

# From glibc's malloc.h: free memory at the heap's end that is kept, how much more is asked for at once, and how many
# blocks may lie outside the heap.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4


def keep_freed_memory() -> bool:
    """Let this process keep the memory that it frees, for its next use; its size stays at the peak.

    Returns:
        Whether the C library can be told so: glibc can.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    settings = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, 2**31 - 1), (_M_TOP_PAD, 64 << 20))
    return all(mallopt(name, value) == 1 for name, value in settings)
