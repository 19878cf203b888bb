"""Measurement of time, copy bandwidth and matrix product throughput."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
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
    def quartiles(self) -> tuple[float, float]:
        """The lower and the upper quartile over the rounds.

        Example:
            >>> Timing((1.0, 2.0, 3.0, 4.0, 5.0)).quartiles
            (2.0, 4.0)
        """
        lower, _, upper = statistics.quantiles(self.means, n=4, method="inclusive")
        return lower, upper

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


def time_interleaved(candidates: Mapping[str, Run], device: torch.device, **options: Any) -> dict[str, Timing]:
    """Time all candidates in alternation, round after round, so that a slowdown of the machine affects all of them.

    In each round every candidate is called once without timing, to bring its memory back into the caches, and is then
    timed over enough consecutive calls to take ``min_seconds``.

    Args:
        candidates: Functions to time, by name. Each is called twice before the first round, to warm up and to determine
            the number of calls per round.
        device: Device on which the candidates compute. On a GPU, CUDA events measure the time, including the launches.
        **options: Further arguments of :func:`time_phases`.

    Returns:
        The timing of each candidate.

    Example:
        >>> timings = time_interleaved({"nothing": lambda: None}, torch.device("cpu"), seconds=0, min_rounds=3)
        >>> timings["nothing"].rounds
        3
    """
    phases = {name: (run,) for name, run in candidates.items()}
    return {name: timing for name, (timing,) in time_phases(phases, device, **options).items()}


def time_phases(
    candidates: Mapping[str, Sequence[Run]],
    device: torch.device,
    *,
    seconds: float = 10.0,
    min_rounds: int = 5,
    max_rounds: int = 200,
    min_seconds: float = 0.01,
) -> dict[str, tuple[Timing, ...]]:
    """Time candidates that consist of phases, as :func:`time_interleaved` does, and each phase apart.

    Args:
        candidates: For each name the phases of a call, which follow one another, such as a forward and a backward pass.
        device: Device on which the candidates compute.
        seconds: Time limit for all rounds together. A round that has started is finished.
        min_rounds: Minimum number of rounds, regardless of the time limit.
        max_rounds: Maximum number of rounds.
        min_seconds: Minimum time that the calls of one candidate take in a round.

    Returns:
        The timing of each phase of each candidate, over the same rounds.

    Example:
        >>> phases = {"step": (lambda: None, lambda: time.sleep(1e-3))}
        >>> first, second = time_phases(phases, torch.device("cpu"), seconds=0)["step"]
        >>> first.median < second.median
        True
    """
    calls = {}
    for name, phases in candidates.items():
        _mean_seconds(phases, device)
        calls[name] = max(1, math.ceil(min_seconds / sum(_mean_seconds(phases, device))))
    samples: dict[str, list[tuple[float, ...]]] = {name: [] for name in candidates}
    begin = time.perf_counter()
    for rounds in range(max_rounds):
        if rounds >= min_rounds and time.perf_counter() - begin > seconds:
            break
        for name, phases in candidates.items():
            _mean_seconds(phases, device)
            samples[name].append(_mean_seconds(phases, device, calls[name]))
    return {name: tuple(map(Timing, zip(*means, strict=True))) for name, means in samples.items()}


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


def _mean_seconds(phases: Sequence[Run], device: torch.device, calls: int = 1) -> tuple[float, ...]:
    """Return the mean time of each phase over consecutive calls."""
    stamp = _stamp_event if device.type == "cuda" else time.perf_counter
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    stamps: list[Any] = [stamp()]
    for _ in range(calls):
        for run in phases:
            run()
            if len(phases) > 1:  # a single phase may be so short that a stamp after every call would count
                stamps.append(stamp())
    if len(phases) == 1:
        stamps.append(stamp())
    if device.type == "cuda":
        stamps[-1].synchronize()
        times = [earlier.elapsed_time(later) / 1000 for earlier, later in pairwise(stamps)]
    else:
        times = [later - earlier for earlier, later in pairwise(stamps)]
    return tuple(sum(times[index :: len(phases)]) / calls for index in range(len(phases)))


def _stamp_event() -> torch.cuda.Event:
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event
