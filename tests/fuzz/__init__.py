"""A differential fuzzer of the native operators: ``python -m tests.fuzz``."""
