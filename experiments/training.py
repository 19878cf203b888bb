"""The training of a network, which continues after an interruption from the end of its last epoch.

The random numbers of an epoch are determined by the seed and the number of the epoch. So they are the same for every
network, and a resumed training needs no state of a generator.
"""

from __future__ import annotations

import math
import pickle
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from sa_layers.output_file import make_parent, output_file

from .augmentation import crop, draw_crops
from .imagenette import Images
from .plan import Run

EPOCHS_PER_SEED = 1_000_003  # keeps the generators of different seeds apart


class Training:
    """A training with its state: network, optimizer, and the mean loss of each epoch.

    Args:
        run: What to train; its learning rate must be known.
        network: The network, on its device. It is changed.
        images: Training images, on the same device.
        checkpoint: File of the state. If it exists, the training continues from there.
    """

    def __init__(self, run: Run, network: nn.Module, images: Images, checkpoint: Path) -> None:
        assert run.learning_rate is not None
        self.run, self.network, self.images, self.checkpoint = run, network, images, checkpoint
        self.peak_rate = run.learning_rate
        self.losses: list[float | None] = []
        self.seconds = 0.0
        recipe = run.recipe
        self.optimizer = torch.optim.SGD(
            network.parameters(), run.learning_rate, momentum=recipe.momentum, weight_decay=recipe.weight_decay
        )
        self.steps_per_epoch = math.ceil(len(images) / recipe.batch)
        self._load()

    @property
    def finished(self) -> bool:
        """Whether all epochs are done, or the loss was not finite."""
        return len(self.losses) >= self.run.epochs or None in self.losses

    def train_epoch(self, on_step: Callable[[], None] = lambda: None) -> None:
        """Train for an epoch and save the state.

        Args:
            on_step: Called after every step.
        """
        begin = time.perf_counter()
        self.network.train()
        total = torch.zeros((), dtype=torch.float64, device=self.images.pixels.device)
        for step, (pixels, labels) in enumerate(self._batches(), start=len(self.losses) * self.steps_per_epoch):
            self._set_rate(step)
            loss = F.cross_entropy(self.network(pixels), labels, label_smoothing=self.run.recipe.label_smoothing)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            total += loss.detach() * len(labels)
            on_step()
        mean = total.item() / len(self.images)
        self.losses.append(mean if math.isfinite(mean) else None)
        self.seconds += time.perf_counter() - begin
        self._save()

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the augmented batches of the next epoch, with their labels."""
        recipe, count = self.run.recipe, len(self.images)
        generator = Generator().manual_seed(self.run.seed * EPOCHS_PER_SEED + len(self.losses))
        order = torch.randperm(count, generator=generator)
        crops = draw_crops(count, recipe.source_size, generator)
        for indices in order.split(recipe.batch):
            chosen = self.images.take(indices.to(self.images.labels.device))
            yield crop(chosen.pixels, crops.take(indices), recipe.image_size), chosen.labels

    def _set_rate(self, step: int) -> None:
        total = self.run.epochs * self.steps_per_epoch
        for group in self.optimizer.param_groups:
            group["lr"] = self.peak_rate * (1 + math.cos(math.pi * step / total)) / 2

    def _save(self) -> None:
        state = {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "losses": self.losses,
            "seconds": self.seconds,
        }
        make_parent(self.checkpoint)
        with output_file(self.checkpoint) as partial:
            torch.save(state, partial)

    def _load(self) -> None:
        if not self.checkpoint.exists():
            return
        try:
            state: dict[str, Any] = torch.load(self.checkpoint, map_location="cpu", weights_only=True)
        except (RuntimeError, EOFError, pickle.UnpicklingError):
            return  # damaged by something other than this program, which replaces files as a whole
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.losses, self.seconds = state["losses"], state["seconds"]
