"""Training of one architecture: seeded, stopping early; on a GPU if there is one."""

from __future__ import annotations

import copy
import math
import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from search.architecture import Architecture
from search.data import Part, SearchData, real
from search.errors import TrainingError
from search.network import Network
from search.quantize import LayerWeights
from search.study import TrainSettings

#: Samples on which the ranges of activations are taken.
CALIBRATION_SAMPLES = 256
#: Samples on which the statistics of batch normalisation are taken after each epoch.
RECALIBRATION_SAMPLES = 1024
#: Samples at once when nothing is learnt.
EVALUATION_BATCH = 256


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """A trained network.

    `ranges` has (low, high) of every value of the architecture over the calibration samples.
    `accuracy` is that of the float network on the validation samples.
    """

    weights: dict[int, LayerWeights]
    ranges: list[tuple[float, float]]
    accuracy: float
    epochs: int
    train_s: float
    device: str


def train(
    architecture: Architecture, data: SearchData, settings: TrainSettings, *, seed: int
) -> Trained:
    """Trains from scratch; equal arguments give equal weights on one machine.

    Raises:
        TrainingError: the loss is not a number, or the device cannot be used.
    """
    started = time.monotonic()
    # Processes share the machine; with one thread, sums have one order.
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True, warn_only=True)
    device = _device(settings.device)
    torch.manual_seed(seed)
    network = Network(architecture).to(device)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    x, y = _tensors(data.train.first(settings.train_samples), device)
    valid_x, valid_y = _tensors(data.validation.first(settings.validation_samples), device)
    batch = min(settings.batch, len(y))
    steps = len(y) // batch  # a short last batch is left out: one sample has no variance
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=settings.learning_rate, total_steps=settings.epochs * steps + 1
    )
    order = np.random.default_rng(seed)

    best_loss, best_epoch, epoch = math.inf, 0, 0
    best_state = copy.deepcopy(network.state_dict())
    best_accuracy = 0.0
    is_over = False
    while epoch < settings.epochs and epoch - best_epoch < settings.patience and not is_over:
        epoch += 1
        network.train()
        for indices in order.permutation(len(y))[: steps * batch].reshape(steps, batch):
            chosen = torch.from_numpy(indices).to(device)
            loss = functional.cross_entropy(network(_planes(x[chosen])), y[chosen])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            is_over = 0 < settings.budget_s < time.monotonic() - started
            if is_over:
                break
        _recalibrate(network, x[:RECALIBRATION_SAMPLES])
        valid_loss, accuracy = _evaluate(network, valid_x, valid_y)
        if not math.isfinite(valid_loss):
            raise TrainingError(
                f"the training diverged: validation loss {valid_loss} in epoch {epoch} with "
                f"learning rate {settings.learning_rate}; lower it"
            )
        if valid_loss < best_loss:
            best_loss, best_epoch, best_accuracy = valid_loss, epoch, accuracy
            best_state = copy.deepcopy(network.state_dict())
    network.load_state_dict(best_state)
    network.eval()
    return Trained(
        weights=network.folded(),
        ranges=_ranges(network, x[:CALIBRATION_SAMPLES]),
        accuracy=best_accuracy,
        epochs=epoch,
        train_s=time.monotonic() - started,
        device=device.type,
    )


@torch.no_grad()
def _recalibrate(network: Network, x: Tensor) -> None:
    """Batch normalisation's statistics anew: the running ones lag behind in a short training."""
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    network.train()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over all batches
    for part in torch.split(x, EVALUATION_BATCH):
        if len(part) > 1:
            network(_planes(part))
    for norm in norms:
        norm.momentum = 0.1


@torch.no_grad()
def _evaluate(network: Network, x: Tensor, y: Tensor) -> tuple[float, float]:
    """(mean loss, accuracy)."""
    network.eval()
    logits = torch.cat([network(_planes(part)) for part in torch.split(x, EVALUATION_BATCH)])
    loss = functional.cross_entropy(logits, y)
    return float(loss), float((logits.argmax(dim=1) == y).double().mean())


@torch.no_grad()
def _ranges(network: Network, x: Tensor) -> list[tuple[float, float]]:
    return [(float(value.min()), float(value.max())) for value in network.values(_planes(x))]


def _tensors(part: Part, device: torch.device) -> tuple[Tensor, Tensor]:
    x = np.ascontiguousarray(real(part.x))
    return torch.from_numpy(x).to(device), torch.from_numpy(np.array(part.y)).to(device)


def _planes(x: Tensor) -> Tensor:
    """(n, h, w, c) as (n, c, h, w), the bytes untouched: the layout that is fastest on CPUs."""
    return x.permute(0, 3, 1, 2)


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise TrainingError(f"device {name!r} cannot be used for training: {reason}") from None
    return device
