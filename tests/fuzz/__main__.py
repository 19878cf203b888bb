"""Compare the native operators with an oracle in float64 on random problems, for every instruction set.

    python -m tests.fuzz --minutes 10 [--seed SEED] [--sanitize]
    python -m tests.fuzz --problem SEED [--capability avx2] [--sanitize]

``--sanitize`` compiles the kernels with AddressSanitizer and UndefinedBehaviorSanitizer, and fills their scratch memory
with 0xff, into ``build/sanitized``. The exit status is 1 if anything was wrong.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from . import sanitizers
from .workers import CAPABILITIES, REPOSITORY, Report, run


def main(argv: list[str] | None = None) -> int:
    """Run the command; the result is the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--minutes", type=float, default=1, help="for how long; the default is 1")
    parser.add_argument("--seed", type=int, help="seed of the first problem, by default any; the next ones count up")
    parser.add_argument("--problem", type=int, metavar="SEED", help="solve one problem only")
    parser.add_argument("--capability", choices=CAPABILITIES, help="one instruction set; the default is all")
    parser.add_argument("--sanitize", action="store_true", help="use kernels with sanitizers")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="processes at a time")
    options = parser.parse_args(argv)
    seed = options.seed if options.problem is None else options.problem
    if seed is None:
        seed = random.SystemRandom().randrange(10**9)
    capabilities = [options.capability] if options.capability else list(CAPABILITIES)
    jobs = max(1, min(options.jobs, len(capabilities)))
    folder, environment = REPOSITORY, dict[str, str]()
    if options.sanitize:
        folder, environment = sanitizers.build(), sanitizers.environment()
    seconds = 0 if options.problem is not None else options.minutes * 60 * jobs / len(capabilities)
    print(f"seed {seed}, {seconds:.0f} s for each instruction set", flush=True)

    def solve(capability: str) -> tuple[str, Report]:
        return capability, run(capability, seed, seconds, folder, **environment)

    wrong, solved = 0, Counter[str]()
    with ThreadPoolExecutor(jobs) as pool:
        for capability, report in pool.map(solve, capabilities):
            show(capability, report, options.sanitize)
            wrong += len(report.failures)
            solved += report.problems
    if not solved and not wrong:
        print("nothing was solved: the native kernels are not available, or the processor lacks the instruction set")
    return 1 if wrong or not solved else 0


def show(capability: str, report: Report, sanitize: bool) -> None:
    """Print what one instruction set gave, and how to see each failure again."""
    if report.lacking:
        print(f"{capability}: skipped, this processor has no more than {report.lacking}")
        return
    numbers = ", ".join(f"{count} {name}" for name, count in sorted(report.problems.items()))
    print(f"{capability}: {report.problems.total()} problems ({numbers}), {len(report.failures)} wrong", flush=True)
    for failure in report.failures:
        again = f"python -m tests.fuzz --problem {failure.seed} --capability {capability}"
        print(f"\n{failure.operator}: {again}{' --sanitize' * sanitize}\n{failure.text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
