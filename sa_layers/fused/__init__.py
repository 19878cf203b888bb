"""The fused path: how a layer, block, stage or network is computed by fused operators instead of module by module.

**When it is taken.** A module takes the fused path if skipping the calls of its submodules has no observable effect:

- the call needs no gradient and runs on the native backend, outside export, ``torch.func`` transforms and, for blocks
  and larger, autocast;
- norms are batch norms with frozen running statistics, activations are ReLUs, linear layers are 1x1 convolutions;
- no forward hook is registered and no method that computes is overridden.

Each module decides for itself. If one block has a hook, its stage runs module by module; the other stages stay fused.
``why_not_fused`` of a layer, block, stage or network answers in a sentence; :func:`sa_layers.ops.fused` is the switch.

**What it computes.** The same function, up to rounding. Maps are channels last, (N, H, W, C). A frozen norm followed by
a ReLU is one scale and shift for each channel: it becomes the prologue or the epilogue of the operator beside it. A
linear layer is a matrix product. Relation, position, mapping, softmax and aggregation are one operator, which never
writes a tensor of the size of all footprints. A residual block is three operators, and adds its result in place::

    q, k, v = relu(scale1 * x + shift1) @ transform       # ops.projection with a prologue
    y       = relu(scale2 * attention(q, k, v) + shift2)  # ops.pairwise_attention with an epilogue
    x      += y @ expansion                               # ops.projection that accumulates

**How it is organised.** A module with a fused path derives from :class:`FusedModule` and defines two methods:
``why_not_eligible`` looks at the structure of its modules only, and ``fold`` computes values from their parameters. The
result of ``fold`` runs without consulting the modules again. Its kernels are already chosen.

===================  ==================================================================================================
``eligibility.py``   whether modules may be folded: types, modes, hooks, flags; each answer is a sentence or None
``parameters.py``    values: norms as scale and shift, mappings and positions in the layout of the operators
``module.py``        :class:`FusedModule`, which asks the one and calls the other
``folding.py``       keeps what ``fold`` returned while ``snapshot.py`` finds the module unchanged
``block.py``         the residual block in evaluation
``stage.py``         the stage in evaluation
``network.py``       the network in evaluation, with its stem
===================  ==================================================================================================

The package imports :mod:`sa_layers.ops` only; :mod:`sa_layers.layers` and :mod:`sa_layers.models` import it.

Example:
    >>> import torch
    >>> from sa_layers.layers import SelfAttentionBlock
    >>> from sa_layers.ops import fused
    >>> block, features = SelfAttentionBlock(64, kernel_size=7), torch.randn(1, 64, 8, 8)
    >>> block.why_not_fused(features)
    'a BatchNorm2d is in training mode'
    >>> block.eval().why_not_fused(features)  # the parameters require gradients
    'a gradient is needed, and the fused operators have none'
    >>> with torch.no_grad():
    ...     output = block(features)  # three operators, where the native kernels are built
    ...     with fused(False):
    ...         torch.allclose(output, block(features), atol=1e-4)
    True
"""

from .module import FusedModule

__all__ = ["FusedModule"]
