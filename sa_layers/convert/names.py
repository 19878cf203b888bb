"""What the official checkpoints and ours call the same tensor: one table, read in both directions."""

from __future__ import annotations

import re

# {s} is a stage, {b} one of its blocks, {i} a place in the mapping γ. Ours are the names in mmpretrain's classifier.
MODULES = {
    "conv_in": "backbone.stem.0",
    "bn_in": "backbone.stem.1",
    "conv{s}": "backbone.stages.{s}.transition",
    "layer{s}.{b}.bn1": "backbone.stages.{s}.blocks.{b}.norm1",
    "layer{s}.{b}.sam.conv1": "backbone.stages.{s}.blocks.{b}.attention.query",
    "layer{s}.{b}.sam.conv2": "backbone.stages.{s}.blocks.{b}.attention.key",
    "layer{s}.{b}.sam.conv3": "backbone.stages.{s}.blocks.{b}.attention.value",
    "layer{s}.{b}.sam.conv_w.{i}": "backbone.stages.{s}.blocks.{b}.attention.mapping.{i}",
    "layer{s}.{b}.sam.conv_p": "backbone.stages.{s}.blocks.{b}.attention.position.transform",
    "layer{s}.{b}.bn2": "backbone.stages.{s}.blocks.{b}.norm2",
    "layer{s}.{b}.conv": "backbone.stages.{s}.blocks.{b}.expansion",
    "bn{s}": "backbone.stages.{s}.norm",
    "fc": "head.fc",
}

Rules = list[tuple[re.Pattern[str], str]]


def to_ours(name: str) -> str:
    """Our name of a tensor of an official checkpoint, given without ``module.``.

    Raises:
        ValueError: No official network has a tensor of this name.

    Example:
        >>> to_ours("layer2.0.sam.conv_w.5.bias")
        'backbone.stages.2.blocks.0.attention.mapping.5.bias'
    """
    return _translate(name, _TO_OURS, "an official network")


def to_official(name: str) -> str:
    """The official name, without ``module.``, of a tensor of ours.

    Raises:
        ValueError: No classifier with an official network has a tensor of this name.

    Example:
        >>> to_official("backbone.stages.0.transition.weight"), to_official("head.fc.bias")
        ('conv0.weight', 'fc.bias')
    """
    return _translate(name, _TO_OFFICIAL, "a classifier of ours")


def _translate(name: str, rules: Rules, network: str) -> str:
    module, _, tensor = name.rpartition(".")
    for pattern, target in rules:
        if match := pattern.fullmatch(module):
            return f"{target.format(**match.groupdict())}.{tensor}"
    raise ValueError(f"{name!r} is no tensor of {network}")


def _rules(modules: dict[str, str]) -> Rules:
    numbers = {name: rf"(?P<{name}>\d+)" for name in "sbi"}
    return [(re.compile(source.replace(".", r"\.").format(**numbers)), target) for source, target in modules.items()]


_TO_OURS = _rules(MODULES)
_TO_OFFICIAL = _rules({ours: official for official, ours in MODULES.items()})
