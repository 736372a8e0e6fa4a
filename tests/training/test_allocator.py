"""Freed memory that the process keeps."""

from __future__ import annotations

import platform
import resource
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys, torch
from raptor.training.allocator import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
for i in range(20):
    if i == 10:  # what the first ones took is there
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(2**25)  # 128 MiB
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the allocator is not glibc's")
def test_large_tensors_take_the_memory_of_those_before_them() -> None:
    """Without it each of ten tensors is paid for page by page."""
    faults = {
        how: int(subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True).stdout)
        for how in ("keep", "give back")
    }
    pages = 2**27 // resource.getpagesize()
    assert faults["keep"] < pages
    assert faults["give back"] > 9 * pages
