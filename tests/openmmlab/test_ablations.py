"""The configs of the paper's ablations, each of which changes one argument of the backbone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mmpretrain")

from mmengine.config import Config

from sa_layers.ops import PAIRWISE_RELATIONS, PATCHWISE_RELATIONS

pytestmark = pytest.mark.openmmlab

FOLDER = Path(__file__).resolve().parents[2] / "mm_configs" / "classification"


def changes(attention: str) -> list[tuple[str, Any]]:
    """Return the argument that each ablation of an attention sets."""
    base = Config.fromfile(FOLDER / f"san10-{attention}_8xb32-coslr-100e_in1k.py")
    found = []
    for path in sorted((FOLDER / "ablations").glob(f"san10-{attention}-*.py")):
        config = Config.fromfile(path)
        different = {
            name: value for name, value in config.model.backbone.items() if base.model.backbone.get(name, "") != value
        }
        ((name, value),) = different.items()
        found.append((name, value))
        del config.model.backbone[name]
        assert config.to_dict() == base.to_dict(), path
    return found


@pytest.mark.parametrize(
    ("attention", "relations", "positions"),
    [("pairwise", PAIRWISE_RELATIONS, {None, "absolute"}), ("patchwise", PATCHWISE_RELATIONS, set())],
)
def test_each_changes_one_argument(attention: str, relations: tuple[str, ...], positions: set[str | None]) -> None:
    """Together the ablations cover all values in the paper except the defaults."""
    found: dict[str, set[Any]] = {}
    for name, value in changes(attention):
        found.setdefault(name, set()).add(tuple(value) if isinstance(value, list) else value)
    assert found.pop("relation") == set(relations[1:])
    assert found.pop("position", set()) == positions
    assert found == {
        "mapping_layers": {1, 3},
        "shared_transforms": {"query_key", "all"},
        "kernel_sizes": {(3, size, size, size, size) for size in (3, 5, 9, 11)},
    }
