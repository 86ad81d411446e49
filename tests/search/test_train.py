from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from search.architecture import Architecture, Builder
from search.data import SearchData, load_data
from search.errors import TrainingError
from search.network import Network
from search.space import get_space, space_names
from search.study import TrainSettings
from search.train import train

FAST = TrainSettings(epochs=2, train_samples=256, validation_samples=100)


@pytest.fixture(scope="module")
def digits() -> SearchData:
    return load_data("digits").search


def small_network() -> Architecture:
    builder = Builder((8, 8, 1))
    x = builder.conv(0, 16, 3)
    x = builder.depthwise(x, 3, stride=2)
    y = builder.conv(x, 16, 1, relu=False)
    return builder.classifier(builder.sum(x, y), 10)


def test_equal_seeds_give_equal_weights_and_others_do_not(digits: SearchData) -> None:
    first, again, other = (train(small_network(), digits, FAST, seed=s) for s in (1, 1, 2))

    for index, layer in first.weights.items():
        assert np.array_equal(layer.weight, again.weights[index].weight)
        assert np.array_equal(layer.bias, again.weights[index].bias)
    assert first.ranges == again.ranges != other.ranges


def test_digits_are_learnt_in_seconds(digits: SearchData) -> None:
    trained = train(small_network(), digits, TrainSettings(epochs=14), seed=0)

    assert trained.accuracy > 0.9
    assert trained.device in ("cpu", "cuda") and 0 < trained.train_s < 60


def test_training_stops_when_validation_gets_no_better(digits: SearchData) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, len(digits.validation))
    noise = dataclasses.replace(digits, validation=dataclasses.replace(digits.validation, y=labels))
    settings = TrainSettings(epochs=30, patience=2, train_samples=256)

    assert train(small_network(), noise, settings, seed=0).epochs < 15


def test_a_budget_of_seconds_ends_training(digits: SearchData) -> None:
    settings = TrainSettings(epochs=10_000, patience=10_000, budget_s=0.2)

    assert train(small_network(), digits, settings, seed=0).train_s < 5


def test_a_training_that_diverges_is_an_error(digits: SearchData) -> None:
    settings = dataclasses.replace(FAST, learning_rate=1e30)

    with pytest.raises(TrainingError, match=r"diverged: validation loss nan .*; lower it"):
        train(small_network(), digits, settings, seed=0)


def test_an_unknown_device_is_an_error(digits: SearchData) -> None:
    with pytest.raises(TrainingError, match="device 'abacus' cannot be used"):
        train(small_network(), digits, dataclasses.replace(FAST, device="abacus"), seed=0)


@pytest.mark.parametrize("key", ["epochs", "batch", "patience", "learning_rate", "deadline_s"])
def test_settings_that_make_no_sense_are_refused(key: str) -> None:
    with pytest.raises(ValueError, match=f"key '{key}' is 0"):
        TrainSettings(**{key: 0})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", space_names())
@pytest.mark.parametrize("shape", [(9, 12, 3), (1, 50, 2)])
def test_folded_weights_compute_what_the_network_does(
    name: str, shape: tuple[int, int, int]
) -> None:
    """Batch normalisation is replaced by identity, weights by folded ones: outputs stay."""
    torch.manual_seed(0)
    space = get_space(name)
    architecture = space.build(space.sample(np.random.default_rng(5)), shape, 4)
    network = Network(architecture)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -1, 1)
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
            torch.nn.init.uniform_(module.weight, 0.5, 2)
            torch.nn.init.uniform_(module.bias, -1, 1)
    network.eval()
    x = torch.rand(2, shape[2], shape[0], shape[1])
    with torch.no_grad():
        expected = network(x)
    folded = network.folded()

    with torch.no_grad():
        for index, layer in enumerate(network.layers):
            if index not in folded or isinstance(layer, torch.nn.Linear):
                continue
            weight = torch.from_numpy(folded[index].weight)
            is_depthwise = layer.conv.groups > 1 or weight.shape[0] == 1 != layer.conv.out_channels
            order = (3, 0, 1, 2) if is_depthwise else (0, 3, 1, 2)
            layer.conv.weight.copy_(weight.permute(order).reshape(layer.conv.weight.shape))
            layer.norm.running_mean.zero_()
            layer.norm.running_var.fill_(1 - layer.norm.eps)
            layer.norm.weight.fill_(1)
            layer.norm.bias.copy_(torch.from_numpy(folded[index].bias))
        found = network(x)

    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
