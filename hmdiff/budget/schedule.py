"""How long jobs take on several GPUs, one GPU each or split over all."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from hmdiff.budget.jobs import Job


def side_by_side(work: Sequence[Job], gpus: int, preparations: int) -> float:
    """Seconds until all is done with a GPU a job; the job with the longest way ahead goes first.

    Args:
        preparations: jobs without a GPU that run beside each other.
    """
    named = {job.name: job for job in work}
    ahead: dict[str, float] = {}
    for job in reversed(work):
        later = (ahead[other.name] for other in work if job.name in other.needs)
        ahead[job.name] = job.seconds() + max(later, default=0.0)
    waiting = {job.name: {name for name in job.needs if name in named} for job in work}
    free = {True: gpus, False: preparations}
    running: list[tuple[float, str]] = []
    now = 0.0
    while waiting or running:
        ready = sorted((name for name, needs in waiting.items() if not needs), key=ahead.get)
        for name in reversed(ready):
            on_gpu = named[name].gpu > 0
            if free[on_gpu]:
                free[on_gpu] -= 1
                heapq.heappush(running, (now + named[name].seconds(), name))
                del waiting[name]
        now, done = heapq.heappop(running)
        free[named[done].gpu > 0] += 1
        for needs in waiting.values():
            needs.discard(done)
    return now


def split(work: Sequence[Job], gpus: int, efficiency: float, preparations: int) -> float:
    """Seconds if every GPU job ran on all GPUs at once, one job after the other."""
    before = [job for job in work if not job.gpu]
    shared = sum(job.seconds(max(1.0, gpus * efficiency)) for job in work if job.gpu)
    return side_by_side(before, gpus, preparations) + shared
