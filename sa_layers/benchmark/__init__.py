"""Benchmarks of sa_layers on this machine: ``python -m sa_layers.benchmark operators``.

Each benchmark first checks that all implementations return the same result. It then times them in alternation, so that
a temporary slowdown of the machine affects all of them. A subcommand is a module with ``add_arguments`` and ``run``.
"""
