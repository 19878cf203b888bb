"""Tests of the reference operators: against an independent NumPy formulation, numbers by hand, and adjoints."""
