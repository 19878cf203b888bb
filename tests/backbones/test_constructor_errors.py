"""Unknown keyword arguments and norms that do not fit, in configs."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("mmcv")

from mmengine.registry import MODELS

import sa_layers.backbones  # noqa: F401 - registers

pytestmark = pytest.mark.openmmlab

SMALL = {"depth": (1,) * 5, "widths": (32,) * 5, "kernel_sizes": (3,) * 5}
MODULES: dict[str, dict[str, Any]] = {
    "SAN": SMALL,
    "SelfAttentionPlugin": {"in_channels": 32, "kernel_size": 3},
    "PairwiseSelfAttention": {"in_channels": 32, "out_channels": 32, "kernel_size": 3},
    "PatchwiseSelfAttention": {"in_channels": 32, "out_channels": 32, "kernel_size": 3},
}


@pytest.mark.parametrize("name", MODULES)
def test_unknown_keyword(name: str) -> None:
    """The class of the config is named, with its own arguments."""
    config = {"type": f"sa_layers.{name}", **MODULES[name]}
    with pytest.raises(TypeError, match=rf"{name} has no argument 'norm_cgf', did you mean 'norm_cfg'\? Its") as caught:
        MODELS.build(config | {"norm_cgf": None})
    listed = str(caught.value).partition(" arguments are ")[2].split(", ")
    assert {"norm_cfg", "act_cfg", "relation", "share", "padding_mode"} <= set(listed)
    assert not {"norm_layer", "act_layer"} & set(listed)
    assert len(listed) == len(set(listed))
    MODELS.build(config | {"share": 4, "norm_cfg": {"type": "GN", "num_groups": 1}})


def test_all_listed_arguments_are_accepted() -> None:
    """Those of SAN, with the values that they have by default."""
    defaults = {"relation": None, "position": None, "position_size": None, "relation_channels": None, "bias": True}
    defaults |= {
        "mapping_layers": 2,
        "share": 8,
        "shared_transforms": None,
        "padding_mode": "reflect",
        "strides": (2,) * 5,
    }
    MODELS.build({"type": "sa_layers.SAN", **SMALL, "position_image_size": None, **defaults})


def test_groups_that_do_not_divide() -> None:
    message = r"the 4 channels of stages\.0\.blocks\.0\.attention\.mapping\.0: .*; 4 is divisible by 1, 2, 4"
    with pytest.raises(ValueError, match=message):
        MODELS.build({"type": "sa_layers.SAN", **SMALL, "norm_cfg": {"type": "GN", "num_groups": 32}})
