"""Raises a clear error for a torch that is too old, before the import of something that it does not have."""

import re

import torch

TORCH_FLOOR = (2, 10)  # as in pyproject.toml
release = tuple(int(number) for number in re.findall(r"\d+", torch.__version__)[:2])

if release < TORCH_FLOOR:
    raise ImportError(
        f"sa_layers needs torch >= {'.'.join(map(str, TORCH_FLOOR))}, and {torch.__version__} is installed: "
        "pip install --upgrade torch"
    )
