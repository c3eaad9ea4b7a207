"""Memory that a network frees stays with the process.

Each step frees and takes the same large blocks again. Left to itself, glibc hands them back to the
system each time, and every page is faulted in anew: thousands of faults a step.
"""

from __future__ import annotations

import ctypes
import os
import platform

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h
LARGEST = 2**31 - 1  # bytes, of a C int
OWN_SETTINGS = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES", "LD_PRELOAD")


def keep_freed_memory() -> bool:
    """Set this process's allocator so; False where it is not glibc's or the user has set it."""
    if platform.libc_ver()[0] != "glibc" or any(name in os.environ for name in OWN_SETTINGS):
        return False
    libc = ctypes.CDLL(None)
    return bool(libc.mallopt(M_MMAP_THRESHOLD, LARGEST) & libc.mallopt(M_TRIM_THRESHOLD, LARGEST))
