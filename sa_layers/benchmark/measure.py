"""How long a computation takes and how much memory it holds."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch

Run = Callable[[], object]


class Timing(NamedTuple):
    """The time of one call, in seconds.

    Example:
        >>> Timing((1.0, 3.0, 2.0)).median
        2.0
    """

    means: tuple[float, ...]
    """Of the calls of each turn."""

    @property
    def median(self) -> float:
        """That of the turns."""
        return statistics.median(self.means)

    @property
    def fastest(self) -> float:
        """That of the fastest turn."""
        return min(self.means)

    @property
    def turns(self) -> int:
        """How often it was measured."""
        return len(self.means)

    def ratio_to(self, other: Timing) -> float:
        """The median of the rounds' ratios: both had their turns one soon after the other, on a machine as fast.

        Example:
            >>> Timing((1.0, 3.0, 2.0)).ratio_to(Timing((2.0, 6.0, 1.0)))
            0.5
        """
        return statistics.median(mean / others for mean, others in zip(self.means, other.means, strict=True))


def time_in_turn(
    candidates: Mapping[str, Run],
    device: torch.device,
    *,
    seconds: float = 10.0,
    least: int = 5,
    most: int = 200,
    turn: float = 0.01,
) -> dict[str, Timing]:
    """Calls all candidates in turn, round after round: what slows the machine for a while slows them all alike.

    The first call of a turn is not measured: it brings the candidate's own memory back into the caches, out of which
    the others have pushed it.

    Args:
        candidates: What to call, by name; called twice before the first round, to warm up and to size the turns.
        device: Where they compute. On a GPU the time is the GPU's own, from event to event, the launch included.
        seconds: How long all rounds together may take; a started round is finished.
        least: Rounds that are made however long they take.
        most: Rounds at most.
        turn: How long a candidate's turn takes at least, in seconds: as many calls as that needs, one after another.

    Example:
        >>> timings = time_in_turn({"nothing": lambda: None}, torch.device("cpu"), seconds=0, least=3)
        >>> timings["nothing"].turns
        3
    """
    calls = {}
    for name, run in candidates.items():
        run()
        calls[name] = max(1, math.ceil(turn / _seconds(run, device)))
    samples: dict[str, list[float]] = {name: [] for name in candidates}
    begin = time.perf_counter()
    for rounds in range(most):
        if rounds >= least and time.perf_counter() - begin > seconds:
            break
        for name, run in candidates.items():
            run()
            samples[name].append(_seconds(run, device, calls[name]))
    return {name: Timing(tuple(taken)) for name, taken in samples.items()}


def peak_memory(run: Run, device: torch.device) -> int:
    """The bytes that a call holds at once, beyond what was held before it; its result counts.

    On a GPU this is what torch's allocator reports. On the CPU it is the highest sum of the allocations and releases
    that torch's profiler records: all tensors, also those inside an operator, but neither NumPy arrays nor the scratch
    memory that a kernel takes from the C++ library (kilobytes, in ours).

    Example:
        >>> peak_memory(lambda: torch.zeros(1000).neg(), torch.device("cpu"))  # two tensors of 4 bytes a number
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
    held = highest = 0
    for _, size in allocations:  # negative for a release
        held += size
        highest = max(highest, held)
    return highest


def copying(moved: int, device: torch.device) -> Run:
    """Moves as many bytes as ``moved`` by a plain copy, half of them read and half written: the yardstick of bandwidth.

    A copy of the operator's own size is served by the same caches as the operator.
    """
    source = torch.zeros(max(moved // 2, 1), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return lambda: target.copy_(source)


def fastest_product(dtype: torch.dtype, device: torch.device) -> float:
    """FLOP/s of a large matrix product, the ceiling of arithmetic."""
    size = 8192 if device.type == "cuda" else 1024
    matrix = torch.randn(size, size, device=device).to(dtype)
    timing = time_in_turn({"product": lambda: matrix @ matrix}, device, seconds=1, most=20)["product"]
    return 2 * size**3 / timing.fastest


def _seconds(run: Run, device: torch.device, calls: int = 1) -> float:
    """The mean of some calls."""
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
        if event.tag == torch._C._profiler._EventType.Allocation:  # no public interface keeps them apart and in order
            yield event
        yield from _allocations(event.children)
