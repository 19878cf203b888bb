"""The text of docs/evidence.md that does not depend on the ledger."""

INTRODUCTION = """
# Evidence

[Exploring Self-attention for Image Recognition](https://arxiv.org/abs/2004.13621) says of networks trained on ImageNet:

1. Patchwise SANs are more accurate than the ResNet they replace. Pairwise SANs match or beat it. Both have fewer
   parameters and need fewer multiply-adds.
2. Both are more robust: they lose less accuracy than the ResNet if images are turned by 90, 180 or 270 degrees, which
   training never did, and targeted attacks on them succeed less often.
3. The choices of the paper (relation, position, footprint) are the best of those it compares.

Does this hold on other photographs, with a current PyTorch and the code of this repository? ImageNet is too large for a
small machine, so these are small networks on [Imagenette](https://github.com/fastai/imagenette), ten classes of
ImageNet with 9,469 training and 3,925 validation photographs. The figures below are ours. They say nothing about
ImageNet, and a few seeds on ten classes say something about the order of networks only where a difference is clear.
"""

RUNNING = """
## Run it

torchvision downloads the photographs: `torchvision.datasets.Imagenette("data", size="160px", download=True)`.

```bash
make evidence                          # on two cores
make evidence DEVICE=cuda MINUTES=8    # on a GPU: what fits into eight minutes; repeat it for the rest
python -m experiments estimate         # how long all of it takes on this machine
python -m experiments run --quick      # a few steps of everything, on drawn images
```

`DATA=folder` names another folder than `data`. After an interruption, also by SIGKILL, the same command goes on from
the last epoch, and a run that was interrupted gives the same results, bit for bit on one machine. Each finished run is
a line of `benchmarks/results/evidence/runs.jsonl` and is not run again. Several `python -m experiments run` share the
work, also if they are started one by one. `--help` lists the options, such as `--seeds`, `--networks`, `--ablations`.
"""

METHOD = """
## How it is measured

All networks are trained with the same recipe: the same images and crops in the same order. The learning rate of each is
chosen among the same values. A short training is done with each value, and the one that is most accurate on a tenth of
the training images, which it has not seen, is taken. The accuracy that counts is that of the last epoch, on the
validation images. The expected orders are in `experiments/expectations.py`, written before the first run.

A paired difference is the mean, over seeds, of the difference between two networks with the same seed, with its 95 %
interval by Student's t. An order **holds** if the interval is on the expected side of 0.

*Turned images* are turned by a quarter, a half and three quarters, exactly, without interpolation. The *drop* is the
accuracy on upright images minus the mean of the three.

The *attack* is targeted projected gradient descent (PGD) within an L-infinity ball around each image, whose values are
from 0 to 1. It starts at the image. The target is a random class other than the label, the same for all networks. The
step is the larger of 1/255 and 2.5 times the bound divided by the number of steps. Gradients come from the operators of
training, predictions from those of evaluation. An attack *succeeds* if the image is classified as its target.
"""

LOADING = """
A run leaves its weights in `work_dirs/evidence/weights`, under a name that ends with the first digits of the SHA-256 of
the file. They are trained on Imagenette with the recipe above, not on ImageNet.

```python
from sa_layers.checkpoints import load_checkpoint
from sa_layers.models import SelfAttentionClassifier

model = SelfAttentionClassifier(10, "patchwise", num_classes=10)
load_checkpoint(model, "two-core-san10-patchwise-seed0-01234567.pth")
```

The best run of each network:
"""
