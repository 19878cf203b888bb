"""Training by fused operators: forward and backward passes that keep no tensor of the size of all footprints.

====================== =================================================================================================
``function.py``        the protocol of a step, and the one autograd function of all steps
``norm.py``            a batch norm around fused operators: statistics, running statistics, gradients
``attention.py``       what both attentions have in common, and the step of an attention layer by itself
``pairwise.py``        pairwise attention: its passes over pairs, and the small matrices between them
``patchwise.py``       patchwise attention
``block.py``           the residual block
``transition.py``      norm, ReLU, pooling and linear layer between the blocks of two stages
``stem.py``            the stem and its pooling
``unwritten_layer.py`` a linear layer before a norm whose output is never written
``network.py``         the order of the steps of a network
====================== =================================================================================================
"""
