"""Experiments that test the paper's findings on public photographs: ``python -m experiments``.

Networks are trained with equal recipes on Imagenette (:mod:`.recipes`) and tested on rotated and on attacked images.
Every run is one line of a ledger (:mod:`.ledger`), from which docs/evidence.md is generated (:mod:`.page`). The package
is not installed with sa_layers.
"""
