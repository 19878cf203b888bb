"""Measurement of the peak memory of a call."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from .measure import Run

PROCESS = Path("/proc/self")


def peak_memory(run: Run, device: torch.device) -> int:
    """Return the peak memory of a call in bytes, including its result and excluding memory allocated before the call.

    On a GPU, torch's allocator reports the peak. On the CPU, the peak is computed from the allocations that torch's
    profiler records. These include all tensors, also inside operators, but not NumPy arrays and not the workspace that
    kernels allocate from the C++ library (kilobytes in ours).

    Example:
        >>> peak_memory(lambda: torch.zeros(1000).neg(), torch.device("cpu"))  # two float32 tensors
        8000
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        run()
        return torch.cuda.max_memory_allocated(device) - before
    cpu = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=cpu, profile_memory=True, acc_events=True) as profile:
        result = run()
    del result
    assert profile.profiler is not None
    assert profile.profiler.kineto_results is not None
    tree = profile.profiler.kineto_results.experimental_event_tree()
    allocations = sorted((event.start_time_ns, event.extra_fields.alloc_size) for event in _allocations(tree))
    allocated = peak = 0
    for _, size in allocations:  # the size of a release is negative
        allocated += size
        peak = max(peak, allocated)
    return peak


def peak_resident_memory(run: Run, device: torch.device) -> int | None:
    """Return by how many bytes a call increases the memory of the process on a CPU at most, or None if unknown.

    This is what the operating system counts: also the workspace of all kernels and libraries, and the gaps between
    tensors, so it differs from run to run and is larger than :func:`peak_memory`. Only Linux resets the peak.

    Example:
        >>> resident = peak_resident_memory(lambda: torch.ones(2_000_000), torch.device("cpu"))
        >>> resident is None or resident > 7_000_000
        True
    """
    if device.type != "cpu":
        return None
    try:
        ctypes.CDLL(None).malloc_trim(0)  # returns free memory, which the call would otherwise use without a trace
        (PROCESS / "clear_refs").write_text("5")  # resets the peak
        before = _status("VmRSS")
        result = run()
        peak = _status("VmHWM")
    except (OSError, AttributeError, StopIteration):
        return None
    del result
    return max(peak - before, 0)


def _status(name: str) -> int:
    lines = (PROCESS / "status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def _allocations(events: Any) -> Iterator[Any]:
    for event in events:
        # torch has no public interface to single allocations in order of time.
        if event.tag == torch._C._profiler._EventType.Allocation:
            yield event
        yield from _allocations(event.children)
