"""The allocator's habits, where they cost more than the computation."""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of <malloc.h>


def keep_freed_memory() -> None:
    """Ask the C library to keep freed memory for the process instead of giving it back to the system at once.

    A pass over a model frees and asks for the same megabytes hundreds of times; with glibc's defaults each time the
    system has to find, clear and map their pages anew, which takes longer than many a layer. What the process holds is
    from now on the most that it has needed. Without glibc this does nothing.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return
    if not mallopt(_M_MMAP_THRESHOLD, 1 << 30):
        mallopt(_M_MMAP_THRESHOLD, 1 << 25)  # the most that older versions of glibc take
    mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)
