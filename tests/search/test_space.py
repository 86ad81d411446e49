from __future__ import annotations

import numpy as np
import pytest

from search.architecture import Architecture, Builder, Conv, Depthwise, Sum, same_padding
from search.errors import SpaceError
from search.space import Point, Space, get_space, space_names

SHAPES = [(32, 32, 3), (8, 8, 1), (1, 96, 2), (1, 1, 1), (5, 7, 3)]
SMALL = {
    "mini_nas": {"depth": (3,), "channels": (4, 8), "kernels": (3,)},
    "mbconv": {
        "stages": (1, 2),
        "depth": (1,),
        "widths": (8,),
        "expand": (1, 3),
        "kernels": (3,),
    },
}

every_space = pytest.mark.parametrize("name", space_names())


def points(space: Space, n: int) -> list[Point]:
    rng = np.random.default_rng(3)
    return [space.sample(rng) for _ in range(n)]


@every_space
def test_sampled_points_survive_storing(name: str) -> None:
    space = get_space(name)

    for point in points(space, 30):
        assert space.point(point.to_dict()) == point


@every_space
def test_mutation_changes_one_decision_and_stays_in_the_space(name: str) -> None:
    space = get_space(name)
    rng = np.random.default_rng(0)

    for point in points(space, 60):
        child = space.mutate(point, rng)
        assert space.point(child.to_dict()) == child
        before, after = point.to_dict(), child.to_dict()
        assert sum(before[key] != after[key] for key in before.keys() & after.keys()) == 1


@every_space
@pytest.mark.parametrize("shape", SHAPES)
def test_every_point_is_a_network(name: str, shape: tuple[int, int, int]) -> None:
    space = get_space(name)

    for point in points(space, 10):
        network = space.build(point, shape, 7)
        assert network.input_shape == shape and network.classes == 7
        assert network.macs > 0 and network.weights > 0 and "conv" in network.summary


@every_space
def test_enumeration_gives_every_point_once(name: str) -> None:
    space = get_space(name, SMALL[name])

    every = list(space.points())

    assert len(set(every)) == len(every)
    assert set(points(space, 500)) == set(every)


def test_mini_nas_is_the_example_of_the_paper() -> None:
    """Table 1: layers 3 and 6 have stride 2, channels double behind them, dimensions halve."""
    space = get_space("mini_nas")
    operations = ["sep", "conv", "sep", "conv", "sep", "conv", "sep", "conv"]
    kernels = [5, 5, 3, 3, 5, 7, 7, 3]
    values = {"depth": 8, "channels": 32}
    for layer, (operation, kernel) in enumerate(zip(operations, kernels, strict=True)):
        values |= {f"op_{layer}": operation, f"kernel_{layer}": kernel}

    network = space.build(space.point(values), (32, 32, 3), 10)

    # The first convolution has twice the channels; a separable layer is two nodes.
    assert network.shapes[1] == (32, 32, 64)
    convs = [i for i, node in enumerate(network.nodes) if isinstance(node, Conv)]
    assert [network.shapes[i + 1] for i in convs[1:]] == [
        (32, 32, 32),
        (32, 32, 32),
        (16, 16, 64),
        (16, 16, 64),
        (16, 16, 64),
        (8, 8, 128),
        (8, 8, 128),
        (8, 8, 128),
    ]


def test_the_default_space_has_the_size_that_the_paper_gives() -> None:
    """Equation 1 counts (O x K)^15 x (D x W), an upper bound."""
    space = get_space("mini_nas")
    choices = {parameter.name: len(parameter.choices) for parameter in space.parameters}

    assert choices["depth"] == 13 and choices["channels"] == 4
    assert choices["op_14"] * choices["kernel_14"] == 6


def test_mbconv_adds_where_shapes_allow() -> None:
    space = get_space("mbconv")
    values = {"stem": 16, "stages": 2}
    for stage in range(2):
        values |= {f"depth_{stage}": 2, f"width_{stage}": 16}
        values |= {f"expand_{stage}": 3, f"kernel_{stage}": 3}

    network = space.build(space.point(values), (8, 8, 1), 10)

    assert sum(isinstance(node, Sum) for node in network.nodes) == 3  # not over the stride


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"channels": 16}, "lacks 'depth'"),
        ({"depth": 99, "channels": 16}, "'depth' is 99; the choices are 3"),
        ({"depth": 3, "channels": 16, "op_0": "sep"}, "lacks 'kernel_0'"),
    ],
)
def test_a_point_of_another_space_is_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(SpaceError, match=message):
        get_space("mini_nas").point(values)


def test_a_point_with_decisions_of_layers_that_it_lacks_is_refused() -> None:
    space = get_space("mini_nas")
    values = space.sample(np.random.default_rng(0)).to_dict() | {"depth": 3}
    values |= {
        f"{key}_{layer}": value
        for layer in range(3)
        for key, value in (("op", "sep"), ("kernel", 3))
    } | {"op_7": "sep"}

    with pytest.raises(SpaceError, match="plays no role"):
        space.point(values)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dept": (3,)}, "no option 'dept'; its options are depth, channels, kernels"),
        ({"depth": ()}, "option 'depth' has no choices"),
        ({"depth": (2,)}, "2 is not between 3 and 64"),
        ({"kernels": (4,)}, "4 is even"),
        ({"channels": (0,)}, "0 is not between"),
    ],
)
def test_options_that_make_no_network_are_refused(
    options: dict[str, tuple[int, ...]], message: str
) -> None:
    with pytest.raises(SpaceError, match=message):
        get_space("mini_nas", options)


def test_an_unknown_space_is_refused_with_those_that_exist() -> None:
    with pytest.raises(SpaceError, match="is not known; known spaces are mbconv, mini_nas"):
        get_space("darts")


def one_layer(shape: tuple[int, int, int], kernel: int, stride: int) -> Architecture:
    builder = Builder(shape)
    return builder.classifier(builder.depthwise(0, kernel, stride=stride), 2)


def test_kernels_that_only_see_padding_beyond_some_size_are_one_network() -> None:
    assert one_layer((2, 2, 4), 7, 1).hash == one_layer((2, 2, 4), 3, 1).hash
    assert one_layer((1, 1, 4), 7, 2).hash == one_layer((1, 1, 4), 1, 1).hash
    assert one_layer((4, 4, 4), 7, 1).hash != one_layer((4, 4, 4), 5, 1).hash


def test_different_networks_have_different_hashes() -> None:
    space = get_space("mini_nas")
    every = set(points(space, 200))

    hashes = {space.build(point, (32, 32, 3), 10).hash for point in every}

    assert len(hashes) == len(every)
    assert len({space.build(p, (32, 32, 3), 2).hash for p in every} & hashes) == 0


def test_a_signal_gets_kernels_of_height_one() -> None:
    network = one_layer((1, 64, 3), 5, 2)
    (first, *_) = network.nodes

    assert isinstance(first, Depthwise)
    assert first.kernel == (1, 5) and first.stride == (1, 2)
    assert network.shapes[1] == (1, 32, 3)


@pytest.mark.parametrize("size", range(1, 9))
@pytest.mark.parametrize("kernel", [1, 2, 3, 5, 7])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_same_padding_gives_ceil_of_size_over_stride(size: int, kernel: int, stride: int) -> None:
    pad = same_padding((size, size, 1), (kernel, kernel), (stride, stride))

    assert (size + pad.top + pad.bottom - kernel) // stride + 1 >= -(-size // stride)
    assert 0 <= pad.bottom - pad.top <= 1
