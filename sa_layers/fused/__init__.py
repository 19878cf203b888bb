"""The fused path: how a layer, block, stage or network is computed by fused operators instead of module by module.

**When it is taken.** A module takes the fused path if skipping the calls of its submodules has no observable effect:

- the call needs no gradient and runs on the native backend, outside export, ``torch.func`` transforms and, for blocks
  and larger, autocast;
- norms are batch norms with frozen running statistics or ``nn.Identity``, activations are ReLUs, linear layers are 1x1
  convolutions;
- no forward hook is registered and no method that computes is overridden.

Each module decides for itself. If one block has a hook, its stage runs module by module; the other stages stay fused.
``why_not_fused`` of a layer, block, stage or network answers in a sentence; :func:`sa_layers.ops.fused` is the switch.

**What it computes.** The same function, up to rounding. Maps are channels last, (N, H, W, C). A frozen norm followed by
a ReLU is one scale and shift for each channel: it becomes the prologue or the epilogue of the operator beside it, or a
part of a layer of the mapping. A linear layer is a matrix product. Relation, position, mapping, softmax and aggregation
are one operator, which never writes a tensor of the size of all footprints. A residual block is three operators, and
adds its result in place::

    q, k, v = relu(scale1 * x + shift1) @ transform       # ops.projection with a prologue
    y       = relu(scale2 * attention(q, k, v) + shift2)  # ops.pairwise_attention with an epilogue
    x      += y @ expansion                               # ops.projection that accumulates

**What is kept between calls.** The structure, never a value. A module with a fused path derives from
:class:`FusedModule` and defines two methods, which look at the structure of its modules only: ``why_not_eligible``, and
``plan``, whose result says which operators run, by which kernels, on which parameters. The plan is kept while the
module consists of the same objects. Every call computes the scales and shifts of all norms anew, a few operations for a
whole network, and the kernels fold and pack weights and biases from the tensors of the modules. A write to a parameter
or a buffer therefore has an effect on the next call, whichever way it was written.

===================  ==================================================================================================
``eligibility.py``   whether modules may be skipped: types, modes, hooks, flags; each answer is a sentence or None
``originals.py``     whether a function whose work the fused path does has been replaced
``structure.py``     the objects of which a module consists, and a plan that is kept while they are the same
``parameters.py``    the norms and position encodings of a plan, and their scales, shifts and matrices for one call
``module.py``        :class:`FusedModule`, which asks and plans, and folds the parameters of a plan at every call
``channels_last.py`` maps between the memory formats of modules and of the fused path
``block.py``         the plan of the residual block and of its attention
``stage.py``         the plan of the stage
``network.py``       the plan of the network, with its stem
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
