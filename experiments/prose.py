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

Do they hold on other photographs, with a current PyTorch and the code of this repository? ImageNet is too large for a
small machine. Here, small networks are trained on [Imagenette](https://github.com/fastai/imagenette), ten classes of
ImageNet with 9,469 training and 3,925 validation photographs. So the figures say nothing about ImageNet, and they show
the order of two networks only where the difference is clear.
"""

RUNNING = """
## Run it

torchvision downloads the photographs: `torchvision.datasets.Imagenette("data", size="160px", download=True)`.

```bash
make evidence                          # on two cores
make evidence DEVICE=cuda MINUTES=8    # on a GPU: what fits into eight minutes; repeat it for the rest
python -m experiments attack           # then: AutoAttack on the saved weights
python -m experiments attention        # then: attention at edges and in flat regions
python -m experiments page             # this page, its figures and the metafile, from the ledger
python -m experiments estimate         # how long a suite takes on this machine
python -m experiments run --quick      # a few steps of everything, on drawn images
```

`DATA=folder` names another folder than `data`; `--help` lists the options, such as `--seeds`, `--networks` and
`--ablations`. Each finished run is a line of `benchmarks/results/evidence/runs.jsonl` and is not repeated. After an
interruption, even by SIGKILL, the same command continues from the last epoch, and on the same machine the results are
those of an uninterrupted run, bit for bit. Several processes of `python -m experiments run` share the work, even if
they are started one by one.
"""

METHOD = """
## How it is measured

- **Training.** All networks have the same recipe, with the same images and crops in the same order. The learning rate
  of each is chosen among the same three values: that of the short training with the highest accuracy on a held-out
  tenth of the training images. What counts is the accuracy of the last epoch on the validation images.
- **Differences.** A paired difference is the mean, over seeds, of the difference between two networks with the same
  seed, with its 95 % interval by Student's t. A claim **holds** if the interval is on the expected side of 0. The
  expected orders are in `experiments/expectations.py`, written before the first run.
- **Rotation.** Validation images are rotated by 90, 180 and 270 degrees, exactly. The *drop* is the accuracy on upright
  images minus the mean accuracy on the three rotations.
- **Attack.** Targeted projected gradient descent (PGD) changes each value of an image, between 0 and 1, by at most a
  bound. It starts from the image itself. The target is a random class other than the label, the same for all networks.
  The step is the larger of 1/255 and 2.5 times the bound divided by the number of steps. An attack *succeeds* if the
  image is then classified as its target.
- **Operators.** Gradients come from the operators of training, predictions from those of evaluation.
"""

LOADING = """
A finished run saves its weights in `work_dirs/evidence/weights`. They are trained on Imagenette, not on ImageNet, and
are not published. `mm_configs/classification/imagenette.yml` lists the best of each network of the two-core suite, with
the command that makes them, their SHA-256 and their accuracy. The name of a file ends with the first digits of the
SHA-256.

```python
from sa_layers.checkpoints import load_checkpoint
from sa_layers.models import SelfAttentionClassifier

model = SelfAttentionClassifier(10, "patchwise", num_classes=10)
load_checkpoint(model, "two-core-san10-patchwise-seed0-01234567.pth")
```

A backbone of OpenMMLab starts from them with `init_cfg=dict(type="Pretrained", checkpoint=FILE)`, and
`python -m sa_layers.visualize` takes them with a config such as
`mm_configs/classification/san10-patchwise_1xb16-15e_imagenette-64px.py`. The best run of each network:
"""
