r"""Attentions as operators with folded norms, which torch.export records and ONNX files contain as band graphs.

An attention is recorded as one operator that takes the maps of query, key and value, and tables that depend only on the
size of the map. :mod:`sa_layers.export.onnx_graph` translates it into nodes of plain ONNX:

1. the relation of every output pixel with its taps, by ``Gather`` with a table of taps;
2. the mapping, as matrix products of all pixels;
3. the aggregation. The output pixels of a row are cut into segments. The weights of a segment are a band matrix, which
   :class:`.geometry.Band` describes, and their sums are its product with the window of pixels that the segment reads.

=================== ===================================================================================================
``geometry.py``     segments, windows and bands of a footprint
``operators.py``    the operators
``folding.py``      norms and linear layers in double precision; ``pairwise.py`` and ``patchwise.py`` fold an attention
``replacement.py``  which attentions of a model are recorded as operators and how, and why others are not
``sharing.py``      one table for all attentions of a stage
=================== ===================================================================================================
"""

from .replacement import banded, why_not_banded
from .sharing import share_tables

__all__ = ["banded", "share_tables", "why_not_banded"]
