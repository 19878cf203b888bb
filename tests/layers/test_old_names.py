"""Old public names, pickles and state dicts still work."""

from __future__ import annotations

import io
import pickle
import subprocess
import sys

import pytest
import torch

import sa_layers.layers
import sa_layers.models
import sa_layers.ops
from sa_layers.layers import PairwiseSelfAttention, PatchwiseSelfAttention, SelfAttentionBlock

RENAMED = {"Epilogue": "AffineReLU"}
REPLACED = ["Mapping", "PairwiseMapping", "PatchwiseMapping"]  # by a list of MappingLayer
# The state of a block as earlier releases saved it.
BLOCK = {
    "norm1": ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"),
    "attention.query": ("weight", "bias"),
    "attention.key": ("weight", "bias"),
    "attention.value": ("weight", "bias"),
    "attention.position.transform": ("weight", "bias"),
    "attention.mapping.0": ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"),
    "attention.mapping.2": ("weight",),
    "attention.mapping.3": ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"),
    "attention.mapping.5": ("weight", "bias"),
    "norm2": ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"),
    "expansion": ("weight", "bias"),
}


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_renamed_classes_warn(old: str, new: str) -> None:
    with pytest.warns(DeprecationWarning, match=f"sa_layers.ops.{old} was renamed to sa_layers.ops.{new}"):
        assert getattr(sa_layers.ops, old) is getattr(sa_layers.ops, new)


def test_import_statement_warns() -> None:
    code = "from sa_layers.ops import Epilogue; print(Epilogue.__name__)"
    process = subprocess.run([sys.executable, "-W", "always", "-c", code], capture_output=True, text=True, check=True)
    assert process.stdout.split() == ["AffineReLU"]
    for old, new in RENAMED.items():
        assert f"DeprecationWarning: sa_layers.ops.{old} was renamed to sa_layers.ops.{new}" in process.stderr


@pytest.mark.parametrize("name", REPLACED)
def test_replaced_classes_are_errors_that_name_what_to_use(name: str) -> None:
    message = f"sa_layers.ops.{name} was replaced by a list of sa_layers.ops.MappingLayer"
    with pytest.raises(AttributeError, match=message):
        getattr(sa_layers.ops, name)


def test_unknown_names_are_errors() -> None:
    with pytest.raises(AttributeError, match=r"module 'sa_layers.ops' has no attribute 'Unknown'"):
        _ = sa_layers.ops.Unknown


@pytest.mark.parametrize("package", [sa_layers.ops, sa_layers.layers, sa_layers.models])
def test_every_public_name_exists(package: object) -> None:
    for name in package.__all__:
        assert hasattr(package, name)


def test_state_dict_has_the_same_names() -> None:
    state = SelfAttentionBlock(64, 7).state_dict()
    assert list(state) == [f"{module}.{name}" for module, names in BLOCK.items() for name in names]


@pytest.mark.parametrize("weights_only", [True, False])
@pytest.mark.parametrize("layer", [PairwiseSelfAttention, PatchwiseSelfAttention])
def test_saved_and_pickled_state_dicts_load(layer: type, weights_only: bool) -> None:
    torch.manual_seed(0)
    saved, loaded = layer(8, 16, 3).eval(), layer(8, 16, 3).eval()
    file = io.BytesIO()
    torch.save(saved.state_dict(), file)
    file.seek(0)
    features = torch.randn(1, 8, 5, 5)
    for state in (torch.load(file, weights_only=weights_only), pickle.loads(pickle.dumps(saved.state_dict()))):
        assert loaded.load_state_dict(state).missing_keys == []
        with torch.no_grad():
            torch.testing.assert_close(loaded(features), saved(features))
