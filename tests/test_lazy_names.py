"""The names of ``import sa_layers``: nothing heavy is imported before one is used."""

from __future__ import annotations

import pytest

import sa_layers
from tests.conftest import RunPython

PROGRAM = """
import sys
import sa_layers
heavy = lambda: sorted({"torch", "numpy", "numba", "timm", "mmengine"} & set(sys.modules))
print(heavy(), sa_layers.__version__)
layer = sa_layers.PairwiseSelfAttention(16, 16, kernel_size=3)
print(heavy(), layer is not None, sa_layers.layers.PairwiseSelfAttention is sa_layers.PairwiseSelfAttention)
from sa_layers import SelfAttentionNetwork, ops
print(ops.aggregation.__name__)
"""


def test_nothing_is_imported_before(run_python: RunPython) -> None:
    lines = run_python(PROGRAM).stdout.splitlines()
    assert lines[-3:] == [f"[] {sa_layers.__version__}", "['numpy', 'torch'] True True", "aggregation"]


def test_every_name() -> None:
    for name in sa_layers.__all__:
        assert getattr(sa_layers, name) is not None
        assert name in dir(sa_layers)
    with pytest.raises(AttributeError, match="module 'sa_layers' has no attribute 'PairwiseSelfAttentoin'"):
        sa_layers.PairwiseSelfAttentoin  # noqa: B018
