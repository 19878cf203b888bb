"""The paper's findings shown again on photographs that anyone can have: ``python -m experiments``.

Networks are trained with equal recipes on Imagenette (:mod:`.recipes`), tested on turned and on attacked images, and
every run is one line of a ledger (:mod:`.ledger`), from which docs/evidence.md is generated (:mod:`.page`). Not
installed with sa_layers.
"""
