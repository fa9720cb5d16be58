"""Parameters, multiply-adds and layer responses."""

from collections.abc import Callable
from functools import cache

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from deepres.analysis.cost import Stage, parameters, stages
from deepres.analysis.responses import layer_responses
from deepres.models import catalog
from deepres.models.catalog import build
from deepres.runtime.errors import InputError

MULTIPLY_ADDS = {
    "resnet18-a": 1_794_805_760,
    "resnet18": 1_814_073_344,
    "resnet34-a": 3_644_493_824,
    "resnet34-b": 3_663_761_408,
    "resnet34-c": 3_830_747_136,
    "resnet50": 3_857_973_248,
    "resnet101": 7_570_194_432,
    "resnet152": 11_282_415_616,
}
PRINTED = {
    "resnet18": 1.8,
    "resnet34": 3.6,
    "resnet50": 3.8,
    "resnet101": 7.6,
    "resnet152": 11.3,
    "plain34": 3.6,
}


@cache
def table(name: str, **how: str) -> list[Stage]:
    with torch.device("meta"):
        return stages(build(name, **how), catalog.input_size(name))


# --- cost ---


@pytest.mark.parametrize(("name", "multiply_adds"), MULTIPLY_ADDS.items())
def test_multiply_adds_are_exactly_the_known_numbers(name, multiply_adds):
    """Convolutions and fc for one 224x224 image."""
    assert table(name)[-1].multiply_adds == multiply_adds


def test_torchvisions_stride_costs_more():
    """4.09e9 in place of the paper's 3.86e9."""
    assert table("resnet50", stride_on="3x3")[-1].multiply_adds == 4_089_184_256


@pytest.mark.parametrize(("name", "printed"), PRINTED.items())
def test_multiply_adds_agree_with_table_1(name, printed):
    """To one unit of the digit that it prints: 3.86 stands there as 3.8, 7.57 as 7.6, so that it neither cuts
    nor rounds our sums."""
    assert abs(table(name)[-1].multiply_adds / 1e9 - printed) < 0.1


def test_a_plain_net_costs_what_option_a_costs():
    """An identity shortcut has neither parameters nor multiply-adds."""
    for plain, residual in (("plain34", "resnet34-a"), ("plain56", "resnet56")):
        assert table(plain) == table(residual)


@pytest.mark.parametrize("name", catalog.names())
def test_weighted_layers_are_the_depth_in_the_name(name):
    """Convolutions and fc, without projections and gates; the total is the sum of its rows."""
    *rows, total = table(name)
    assert total.weighted_layers == catalog.depth(name)
    for field in ("blocks", "parameters", "multiply_adds", "weighted_layers"):
        assert getattr(total, field) == sum(getattr(row, field) for row in rows)


def test_rows_are_those_of_table_1():
    """Names, output sizes and blocks of ResNet-50, and of ResNet-20."""
    columns = [(row.name, row.output_size, row.blocks) for row in table("resnet50")]
    assert columns == [
        ("conv1", "112x112", 0),
        ("conv2_x", "56x56", 3),
        ("conv3_x", "28x28", 4),
        ("conv4_x", "14x14", 6),
        ("conv5_x", "7x7", 3),
        ("fc", "1x1", 0),
        ("total", "", 16),
    ]
    conv1, conv2_x, conv3_x, conv4_x, fc, _ = table("resnet20")
    assert (conv1.output_size, conv2_x.output_size, conv3_x.output_size, conv4_x.output_size) == (
        *("32x32", "32x32"),
        *("16x16", "8x8"),
    )
    assert conv1 == Stage("conv1", "32x32", 0, 3 * 16 * 9 + 32, 3 * 16 * 9 * 32 * 32, 1, 16 * 32 * 32)
    assert conv2_x == Stage(
        "conv2_x", "32x32", 3, 6 * (16 * 16 * 9 + 32), 6 * 16 * 16 * 9 * 32 * 32, 6, 6 * 16 * 32 * 32
    )
    assert fc == Stage("fc", "1x1", 0, 650, 640, 1, 10)


@pytest.mark.parametrize("name", ["resnet8-c", "highway19", "resnet50-32px"])
def test_multiply_adds_are_half_the_flops_that_torch_counts(name):
    """An independent count, projections and gates included."""
    net = build(name).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(torch.zeros(1, 3, 32, 32))
    assert stages(net, 32)[-1].multiply_adds == counter.get_total_flops() // 2


def test_counting_reads_the_input_channels_and_leaves_the_net_as_it_was():
    """Weights, BN statistics, modes and hooks."""
    net = build("resnet8", in_channels=1)
    net.conv1.eval()
    state = {key: value.clone() for key, value in net.state_dict().items()}
    assert stages(net, 28)[-1].parameters == parameters(net)
    assert stages(net, 28)[0].multiply_adds == 16 * 9 * 28 * 28
    assert all(torch.equal(value, state[key]) for key, value in net.state_dict().items())
    assert (net.training, net.conv1.training, net.conv2_x[0].training) == (True, False, True)
    assert not any(module._forward_hooks for module in net.modules())


def test_an_image_without_pixels_is_refused():
    with pytest.raises(InputError, match="1 pixel a side or more, not 0"):
        stages(build("resnet8"), 0)


# --- responses ---


def settled(name: str) -> nn.Module:
    """A net whose BN statistics are not the trivial ones, in training mode."""
    torch.manual_seed(0)
    net = build(name)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.normal_(module.bias, mean=1.0)
    return net


def outputs(net: nn.Module, layer: Callable[[nn.Module], nn.Module], images: Tensor) -> Tensor:
    """What one layer gives, as a copy that later in-place operations cannot touch."""
    kept: list[Tensor] = []
    handle = layer(net).register_forward_hook(lambda _m, _i, y: kept.append(y.clone()))
    net.eval()
    with torch.no_grad():
        net(images)
    handle.remove()
    net.train()
    return kept[0]


@pytest.mark.parametrize(
    ("name", "position", "label", "layer"),
    [
        ("resnet8", 0, "conv1", lambda net: net.conv1.bn),
        ("resnet8", 2, "conv2_x.1.residual.layer2", lambda net: net.conv2_x[0].residual.layer2.bn),
        ("plain8", 3, "conv3_x.1.residual.layer1", lambda net: net.conv3_x[0].residual.layer1.bn),
        ("resnet8-b", 6, "conv4_x.1.residual.layer2", lambda net: net.conv4_x[0].residual.layer2.bn),
    ],
)
def test_response_is_the_deviation_after_bn_over_all_images_at_once(name, position, label, layer):
    """Before ReLU or addition, pooled over batches of unequal sizes, positions and channels."""
    net = settled(name)
    images = torch.randn(5, 3, 32, 32)
    expected = outputs(net, layer, images).double().std(correction=0).item()
    found = layer_responses(net, iter(images.split(2)))
    assert found[position][0] == label
    assert found[position][1] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("name", "layers"),
    [("resnet20", 19), ("plain20", 19), ("resnet8-c", 7), ("highway19", 18), ("resnet50-32px", 17)],
)
def test_responses_are_those_of_the_3x3_layers_in_order(name, layers):
    """conv1 counts; projections, gates, 1x1 layers of bottlenecks and fc do not; each name once."""
    found = [label for label, _ in layer_responses(build(name), [torch.rand(1, 3, 32, 32)])]
    assert len(found) == len(set(found)) == layers
    assert found[0] == "conv1"
    assert found == sorted(found, key=lambda label: [int(n) for n in label if n.isdigit()])


def test_deviation_keeps_its_digits_beside_a_large_mean():
    """Sums are in double precision: a mean of 1000 beside a deviation of 0.1 costs nothing."""
    net = settled("plain8")
    with torch.no_grad():
        net.conv1.bn.weight.fill_(0.1)
        net.conv1.bn.bias.fill_(1000.0)
    images = torch.randn(4, 3, 32, 32)
    expected = outputs(net, lambda net: net.conv1.bn, images).double().std(correction=0).item()
    assert layer_responses(net, [images])[0][1] == pytest.approx(expected, rel=1e-6)


def test_measuring_leaves_the_net_as_it_was_even_after_an_error():
    """Weights, BN statistics, modes and hooks."""
    net = settled("resnet8")
    net.conv1.eval()
    state = {key: value.clone() for key, value in net.state_dict().items()}

    def broken():
        yield torch.rand(2, 3, 32, 32)
        raise OSError("no more")

    with pytest.raises(OSError, match="no more"):
        layer_responses(net, broken())
    layer_responses(net, [torch.rand(2, 3, 32, 32)])
    assert all(torch.equal(value, state[key]) for key, value in net.state_dict().items())
    assert (net.training, net.conv1.training, net.conv2_x[0].training) == (True, False, True)
    assert not any(module._forward_hooks for module in net.modules())


def test_no_images_are_refused():
    for batches in ([], [torch.empty(0, 3, 32, 32)]):
        with pytest.raises(InputError, match="at least one image"):
            layer_responses(build("resnet8"), batches)
