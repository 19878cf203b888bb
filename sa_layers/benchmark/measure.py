"""Measurement of time, peak memory, copy bandwidth and matrix product throughput."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch

Run = Callable[[], object]


class Timing(NamedTuple):
    """Time of one call in seconds, measured in several rounds.

    Example:
        >>> Timing((1.0, 3.0, 2.0)).median
        2.0
    """

    means: tuple[float, ...]
    """Mean time of the calls of each round."""

    @property
    def median(self) -> float:
        """Median over the rounds."""
        return statistics.median(self.means)

    @property
    def fastest(self) -> float:
        """Minimum over the rounds."""
        return min(self.means)

    @property
    def rounds(self) -> int:
        """Number of rounds."""
        return len(self.means)

    def ratio_to(self, other: Timing) -> float:
        """Return the median over the rounds of the ratio of both times.

        In each round, both were measured shortly after each other, so the machine was about equally fast for both.

        Example:
            >>> Timing((1.0, 3.0, 2.0)).ratio_to(Timing((2.0, 6.0, 1.0)))
            0.5
        """
        return statistics.median(mean / other_mean for mean, other_mean in zip(self.means, other.means, strict=True))


def time_interleaved(
    candidates: Mapping[str, Run],
    device: torch.device,
    *,
    seconds: float = 10.0,
    min_rounds: int = 5,
    max_rounds: int = 200,
    min_seconds: float = 0.01,
) -> dict[str, Timing]:
    """Time all candidates in alternation, round after round, so that a slowdown of the machine affects all of them.

    In each round every candidate is called once without timing, to bring its memory back into the caches, and is then
    timed over enough consecutive calls to take ``min_seconds``.

    Args:
        candidates: Functions to time, by name. Each is called twice before the first round, to warm up and to determine
            the number of calls per round.
        device: Device on which the candidates compute. On a GPU, CUDA events measure the time, including the launches.
        seconds: Time limit for all rounds together. A round that has started is finished.
        min_rounds: Minimum number of rounds, regardless of the time limit.
        max_rounds: Maximum number of rounds.
        min_seconds: Minimum time that the calls of one candidate take in a round.

    Returns:
        The timing of each candidate.

    Example:
        >>> timings = time_interleaved({"nothing": lambda: None}, torch.device("cpu"), seconds=0, min_rounds=3)
        >>> timings["nothing"].rounds
        3
    """
    calls = {}
    for name, run in candidates.items():
        run()
        calls[name] = max(1, math.ceil(min_seconds / _mean_seconds(run, device)))
    samples: dict[str, list[float]] = {name: [] for name in candidates}
    begin = time.perf_counter()
    for rounds in range(max_rounds):
        if rounds >= min_rounds and time.perf_counter() - begin > seconds:
            break
        for name, run in candidates.items():
            run()
            samples[name].append(_mean_seconds(run, device, calls[name]))
    return {name: Timing(tuple(means)) for name, means in samples.items()}


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


def make_copy(num_bytes: int, device: torch.device) -> Run:
    """Return a copy operation with ``num_bytes`` of memory traffic, half read and half written.

    It measures the bandwidth that an operator with this memory traffic can reach: both benefit from the same caches.
    """
    source = torch.zeros(max(num_bytes // 2, 1), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return lambda: target.copy_(source)


def matmul_flops_per_s(dtype: torch.dtype, device: torch.device) -> float:
    """Return the FLOP/s of a large matrix product, the practical peak of arithmetic throughput."""
    size = 8192 if device.type == "cuda" else 1024
    matrix = torch.randn(size, size, device=device).to(dtype)
    timing = time_interleaved({"product": lambda: matrix @ matrix}, device, seconds=1, max_rounds=20)["product"]
    return 2 * size**3 / timing.fastest


def _mean_seconds(run: Run, device: torch.device, calls: int = 1) -> float:
    """Return the mean time of consecutive calls."""
    if device.type != "cuda":
        begin = time.perf_counter()
        for _ in range(calls):
            run()
        return (time.perf_counter() - begin) / calls
    begin_event, end_event = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize(device)
    begin_event.record()
    for _ in range(calls):
        run()
    end_event.record()
    end_event.synchronize()
    return begin_event.elapsed_time(end_event) / 1000 / calls


def _allocations(events: Any) -> Iterator[Any]:
    for event in events:
        # torch has no public interface to single allocations in order of time.
        if event.tag == torch._C._profiler._EventType.Allocation:
            yield event
        yield from _allocations(event.children)
