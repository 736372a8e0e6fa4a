"""Memory of the process on the CPU."""

from __future__ import annotations

import ctypes
import logging
import platform

log = logging.getLogger(__name__)
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h


def keep_freed_memory() -> bool:
    """Have the allocator keep what large tensors free, for the next ones.

    glibc gives every large tensor back to the system as it is freed, so that each step takes its memory anew, page by
    page, zeroed by the kernel: a tenth of a training step at ViT-B shape (``python -m benchmarks step``). The process
    then holds its peak until it ends.

    Returns
    -------
    bool
        Whether the allocator can be set so: only glibc's can.
    """
    if platform.libc_ver()[0] != "glibc":
        log.debug("the allocator of this system is not glibc's: it gives memory back as it likes")
        return False
    libc = ctypes.CDLL(None)
    return bool(libc.mallopt(M_MMAP_MAX, 0) and libc.mallopt(M_TRIM_THRESHOLD, -1))
