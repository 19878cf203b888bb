"""The fused paths: how a layer, block, stage or network is computed by fused operators instead of module by module.

There are two. They compute the same functions as the modules, up to rounding, on maps that are channels last,
(N, H, W, C), and never write a tensor of the size of all footprints.

**When they are taken.** A module takes a fused path if skipping the calls of its submodules has no observable effect:

- the call runs on the native backend, outside export and ``torch.func`` transforms;
- norms are batch norms or ``nn.Identity``, activations are ReLUs, linear layers are 1x1 convolutions;
- no hook is registered and no method that computes is overridden.

Each module decides for itself. If one block has a hook, its stage runs module by module in evaluation; the other stages
stay fused. ``why_not_fused`` of a layer, block, stage or network answers in a sentence; :func:`sa_layers.ops.fused` is
the switch.

**Evaluation**, without gradients, with frozen norms. A frozen norm followed by a ReLU is one scale and shift for each
channel: it becomes the prologue or the epilogue of the operator beside it, or a part of a layer of the mapping. A
residual block is three operators, and adds its result in place::

    q, k, v = relu(scale1 * x + shift1) @ transform       # ops.projection with a prologue
    y       = relu(scale2 * attention(q, k, v) + shift2)  # ops.pairwise_attention with an epilogue
    x      += y @ expansion                               # ops.projection that accumulates

Under autocast on a CPU it computes in the dtype of the parameters, and returns the dtype of autocast. Under
torch.compile it is one operator, which takes the tensors of the modules, and the plan as text: see docs/compile.md.

**Training**, with gradients or batch statistics, on a CPU. A network is a few steps for autograd, each a function with
a backward pass of its own, which keeps the maps between the operators above and nothing else. docs/training.md has the
equations. torch.compile does not trace the steps: it calls the module between two graphs.

**What is kept between calls.** The structure, never a value. A module with a fused path derives from
:class:`FusedModule` and defines ``why_not_eligible``, ``plan`` and ``plan_training``, which look at the structure of
its modules only. A plan says which operators run, by which kernels, on which parameters. It is kept while the module
consists of the same objects. Every call computes the scales and shifts of all norms anew, and the kernels fold and pack
weights and biases from the tensors of the modules. A write to a parameter or a buffer therefore has an effect on the
next call, whichever way it was written.

===================  ==================================================================================================
``module.py``        :class:`FusedModule`, which asks whether a path may be taken, and keeps its plan
``eligibility.py``   whether modules may be skipped: types, modes, hooks, flags; each answer is a sentence or None
``originals.py``     whether a function whose work the fused paths do has been replaced
``structure.py``     the objects of which a module consists, and a plan that is kept while they are the same
``description.py``   a plan as text and tensors, for an operator of torch.compile
``watch.py``         what torch.compile reads of a module, and checks at every call
``channels_last.py`` maps between the memory formats of modules and of the fused paths
``position.py``      position encodings as matrices
``evaluation/``      plans of block, stage and network, and the parameters that are folded for each call
``training/``        steps of block, transition, stem and attention, and the autograd function that runs them
===================  ==================================================================================================

The package imports :mod:`sa_layers.ops` only; :mod:`sa_layers.layers` and :mod:`sa_layers.models` import it.

Example:
    >>> import torch
    >>> from sa_layers.layers import SelfAttentionBlock
    >>> from sa_layers.ops import fused
    >>> block, features = SelfAttentionBlock(64, kernel_size=7), torch.randn(1, 64, 8, 8)
    >>> block.why_not_fused(features)  # None, where the native kernels are built
    >>> block(features).sum().backward()
    >>> _ = block.eval()
    >>> with torch.no_grad():
    ...     output = block(features)  # three operators
    ...     with fused(False):
    ...         torch.allclose(output, block(features), atol=1e-4)
    True
"""

from .module import FusedModule

__all__ = ["FusedModule"]
