"""Benchmarks of sa_layers on the machine at hand: ``python -m sa_layers.benchmark operators``.

Every benchmark checks that all implementations compute the same before it times them, and times them in turn, so that
what slows the machine for a while slows them alike. A subcommand is a module with ``add_arguments`` and ``run``.
"""
