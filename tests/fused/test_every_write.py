"""After any write of any tensor or attribute, an evaluation answers what the modules do, called one by one."""

from __future__ import annotations

import random
from itertools import product

import pytest
import torch

from sa_layers.ops import extension
from tests.fused.conversions import CONVERSIONS
from tests.fused.evaluation import SUBJECTS, answer, check_answer, difference, features_for, subject
from tests.fused.structure_changes import STRUCTURE_CHANGES
from tests.fused.value_writes import VALUE_WRITES
from tests.sampling import sample

pytestmark = pytest.mark.skipif(not extension.is_available(), reason=str(extension.why_not()))
WRITES = VALUE_WRITES | STRUCTURE_CHANGES | CONVERSIONS
INVISIBLE = {
    "momentum of a BatchNorm2d",
    "num_features of a BatchNorm2d",
    "track_running_stats of a BatchNorm2d",
    "dilation of a Conv2d",
    "padding_mode of a Conv2d",
    "inplace of a ReLU",
    "no gradient",
}
ROUNDS = -(-1000 // len(WRITES))  # of --exhaustive


@pytest.mark.parametrize(("name", "number"), sample(product(WRITES, range(ROUNDS)), len(WRITES) + ROUNDS))
def test_write(name: str, number: int) -> None:
    """The answer is that of the modules before and after the write; and it is another one if theirs is."""
    dice = random.Random(f"{name} {number}")
    kind = dice.choice(list(SUBJECTS))
    module, features = subject(kind), features_for(kind)
    torch.manual_seed(number)
    write = WRITES[name](module, dice)
    next(write)
    frozen = dice.random() < 0.5
    if frozen:
        module.requires_grad_(False)
    with torch.set_grad_enabled(dice.random() < 0.5):
        check_answer(module, features)
        for _ in write:
            pass
        for _ in range(2):
            check_answer(module, features)


@pytest.mark.parametrize("name", WRITES)
def test_writes_matter(name: str) -> None:
    """Most writes change the answer of the modules, so that the comparison above shows something."""
    changes = 0
    for number in range(40):
        dice = random.Random(f"{name} {number}")
        kind = dice.choice(list(SUBJECTS))
        module, features = subject(kind), features_for(kind)
        torch.manual_seed(number)
        write = WRITES[name](module, dice)
        next(write)
        before = [tensor.detach() for tensor in answer(module, features, by_modules=True)]
        for _ in write:
            pass
        after = answer(module, features, by_modules=True)
        changes += isinstance(after, str) or len(after) != len(before) or max(map(difference, after, before)) > 2e-4
        if changes and name not in INVISIBLE:
            return
    assert bool(changes) == (name not in INVISIBLE)


@pytest.mark.parametrize("kind", SUBJECTS)
def test_subjects_are_fused(kind: str) -> None:
    with torch.no_grad():
        obstacle = subject(kind).why_not_fused(features_for(kind))
    assert obstacle is None if "unfused" not in kind else "the attention is unfused" in str(obstacle)
