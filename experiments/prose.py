"""The text of docs/evidence.md that does not depend on the ledger."""

INTRODUCTION = """
# Evidence

[Exploring Self-attention for Image Recognition](https://arxiv.org/abs/2004.13621) makes three claims about networks
trained on ImageNet:

1. Patchwise SANs are more accurate than the ResNet they replace. Pairwise SANs match or beat it. Both have fewer
   parameters and need fewer multiply-adds.
2. Both are more robust: they lose less accuracy than the ResNet if images are rotated by 90, 180 or 270 degrees,
   although all were trained on upright images, and targeted attacks on them succeed less often.
3. The choices of the paper (relation, position, footprint) are the best of those it compares.

Does this hold on other photographs, with a current PyTorch and the code of this repository? ImageNet is too large for a
small machine, so these are small networks on [Imagenette](https://github.com/fastai/imagenette), ten classes of
ImageNet with 9,469 training and 3,925 validation photographs. The figures below are ours. They say nothing about
ImageNet. With ten classes and a few seeds, they show the order of two networks only where the difference is clear.
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

`DATA=folder` names another folder than `data`. After an interruption, even by SIGKILL, the same command continues from
the last epoch. An interrupted run gives the same results as an uninterrupted one, bit for bit on one machine. Each
finished run is a line of `benchmarks/results/evidence/runs.jsonl` and is not repeated. Several processes of
`python -m experiments run` share the work, even if they are started one by one. `--help` lists the options, such as
`--seeds`, `--networks` and `--ablations`.
"""

METHOD = """
## How it is measured

All networks are trained with the same recipe: the same images and crops in the same order. The learning rate of each is
chosen among the same values. Each value is tried in a short training, and the one with the highest accuracy on a
held-out tenth of the training images is used. The reported accuracy is that of the last epoch, on the validation
images. The expected orders are in `experiments/expectations.py`, written before the first run.

A paired difference is the mean, over seeds, of the difference between two networks with the same seed, with its 95 %
interval by Student's t. An order **holds** if the interval is on the expected side of 0.

*Rotated images* are rotated by 90, 180 and 270 degrees, exactly, without interpolation. The *drop* is the accuracy on
upright images minus the mean accuracy on the three rotations.

The *attack* is targeted projected gradient descent (PGD) within an L-infinity ball around each image, whose values are
from 0 to 1. It starts from the unchanged image. The target is a random class other than the label, the same for all
networks. The step is the larger of 1/255 and 2.5 times the bound divided by the number of steps. Gradients come from
the operators of training, predictions from those of evaluation. An attack *succeeds* if the image is classified as its
target.
"""

LOADING = """
A run saves its weights in `work_dirs/evidence/weights`, in a file whose name ends with the first digits of its SHA-256.
They are trained on Imagenette with the recipe above, not on ImageNet.

```python
from sa_layers.checkpoints import load_checkpoint
from sa_layers.models import SelfAttentionClassifier

model = SelfAttentionClassifier(10, "patchwise", num_classes=10)
load_checkpoint(model, "two-core-san10-patchwise-seed0-01234567.pth")
```

The best run of each network:
"""
