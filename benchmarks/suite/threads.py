"""How many processors the benchmarks may use; to be fixed before a library starts its threads."""

from __future__ import annotations

import os

POOLS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")


def fix_threads(wanted: int) -> int:
    """Keep this process, and those that it starts, on the first `wanted` of its processors. Returns: how many it got.

    Where the system knows no affinity, the pools of threads are limited, and OpenVINO is not.
    """
    if hasattr(os, "sched_setaffinity"):
        mine = sorted(os.sched_getaffinity(0))[:wanted]
        os.sched_setaffinity(0, mine)
        wanted = len(mine)
    wanted = min(wanted, os.cpu_count() or 1)
    for name in POOLS:
        os.environ[name] = str(wanted)
    import cv2

    cv2.setNumThreads(wanted)
    return wanted
