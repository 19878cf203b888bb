"""Translation of tensor names between official checkpoints and those of OpenMMLab's classifiers with a SAN."""

from __future__ import annotations

import re

# {s} is a stage, {b} one of its blocks, {i} an index in the mapping. Our names are those in an mmpretrain classifier.
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
    """Translate the name of a tensor in an official checkpoint, without the prefix 'module.', to ours.

    Raises:
        ValueError: If an official network has no tensor of this name.

    Example:
        >>> to_ours("layer2.0.sam.conv_w.5.bias")
        'backbone.stages.2.blocks.0.attention.mapping.5.bias'
    """
    return _translate(name, _TO_OURS, "an official network")


def to_official(name: str) -> str:
    """Translate our name of a tensor to the official name, without the prefix 'module.'.

    Raises:
        ValueError: If an sa_layers classifier with a published network has no tensor of this name.

    Example:
        >>> to_official("backbone.stages.0.transition.weight"), to_official("head.fc.bias")
        ('conv0.weight', 'fc.bias')
    """
    return _translate(name, _TO_OFFICIAL, "an sa_layers classifier")


def _translate(name: str, rules: Rules, network: str) -> str:
    module, _, tensor = name.rpartition(".")
    for pattern, target in rules:
        if match := pattern.fullmatch(module):
            return f"{target.format(**match.groupdict())}.{tensor}"
    raise ValueError(f"{name!r} is not a tensor of {network}")


def _rules(modules: dict[str, str]) -> Rules:
    numbers = {name: rf"(?P<{name}>\d+)" for name in "sbi"}
    return [(re.compile(source.replace(".", r"\.").format(**numbers)), target) for source, target in modules.items()]


_TO_OURS = _rules(MODULES)
_TO_OFFICIAL = _rules({ours: official for official, ours in MODULES.items()})
