"""What the networks are made of: blocks, shortcuts, highway units, start values."""

from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from deepres.models import shortcuts
from deepres.models.blocks import Block, ConvBN, Shortcut, basic, bottleneck
from deepres.models.catalog import build
from deepres.models.cifar import highway_units
from deepres.weights.state import load_state


def count(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def randomise_batch_norm(net: nn.Module) -> None:
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.0)
            nn.init.normal_(module.bias, std=0.1)


def block(shortcut: Shortcut, in_channels: int = 4, out_channels: int = 4, stride: int = 1) -> Block:
    made = Block(in_channels, out_channels, stride, basic, shortcut)
    randomise_batch_norm(made)
    return made.eval()


def test_without_a_shortcut_a_block_is_relu_of_f():
    """A plain network."""
    plain, x = block(shortcuts.none), torch.rand(2, 4, 6, 6)
    assert torch.equal(plain(x), F.relu(plain.residual(x)))


def test_an_identity_shortcut_adds_the_input_which_stays_as_it_was():
    """Equation (1)."""
    for option in (shortcuts.option_a, shortcuts.option_b):
        residual, x = block(option), torch.randn(2, 4, 6, 6)
        before = x.clone()
        assert torch.allclose(residual(x), F.relu(residual.residual(x) + before))
        assert torch.equal(x, before)
        assert not list(residual.shortcut.parameters())


def test_option_a_takes_every_second_position_and_pads_channels_with_zeros():
    """Sec. 3.3 (A), also where the map has an odd size."""
    residual, x = block(shortcuts.option_a, 4, 10, 2), torch.randn(2, 4, 7, 7)
    expected = residual.residual(x)
    expected[:, :4] += x[:, :, ::2, ::2]
    assert torch.allclose(residual(x), F.relu(expected))
    assert not list(residual.shortcut.parameters())


@pytest.mark.parametrize(
    ("option", "shape", "projects"),
    [
        ("a", (4, 8, 2), False),
        ("b", (4, 8, 2), True),
        ("b", (4, 8, 1), True),
        ("b", (4, 4, 1), False),
        ("c", (4, 4, 1), True),
    ],
)
def test_options_project_where_the_paper_says(option, shape, projects):
    """A never, B where the shape changes, C everywhere; a projection is 1x1 with BN and no ReLU of its own."""
    residual = block(shortcuts.OPTIONS[option], *shape)
    found = [m for m in residual.shortcut.modules() if isinstance(m, ConvBN)]
    assert len(found) == projects
    if projects:
        x = torch.randn(2, 4, 6, 6)
        assert found[0].conv.kernel_size == (1, 1)
        assert torch.allclose(residual(x), F.relu(residual.residual(x) + found[0](x)))


def test_option_c_of_34_layers_has_13_more_projections_than_b():
    """Sec. 4.1: B has 3 of the 16 blocks."""
    nets = build("resnet34"), build("resnet34-c")
    assert [sum(isinstance(m, shortcuts.Projection) for m in net.modules()) for net in nets] == [3, 16]


def test_plain_and_residual_nets_share_f():
    """The same F with the same weights: only the shortcut differs."""
    plain, residual = build("plain8"), build("resnet8")
    load_state(plain, residual.state_dict())
    assert plain.state_dict().keys() == residual.state_dict().keys()


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_f_may_have_one_two_or_three_layers_at_the_same_depth(layers):
    """Sec. 3.2: 6n layers are cut into blocks of that many; the plain layers stay the same."""
    net = build("resnet20", residual_layers=layers)
    blocks = [m for m in net.modules() if isinstance(m, Block)]
    assert len(blocks) == 18 // layers
    assert all(sum(isinstance(m, nn.Conv2d) for m in b.residual.modules()) == layers for b in blocks)
    assert count(net) == count(build("resnet20"))
    assert net(torch.rand(1, 3, 32, 32)).shape == (1, 10)


def test_a_block_of_one_layer_is_affine_before_its_relu():
    """Sec. 3.2: y = W x + x gains nothing over a linear layer; a block of two layers is not affine."""
    torch.manual_seed(0)
    x, y = torch.randn(2, 1, 16, 8, 8)
    zero = torch.zeros_like(x)
    for layers, affine in ((1, True), (2, False)):
        net = build("resnet8", residual_layers=layers)
        randomise_batch_norm(net)
        b = net.eval().conv2_x[0]

        def joined(v: torch.Tensor, b: nn.Module = b) -> torch.Tensor:
            return b.shortcut(v, b.residual(v))

        assert torch.allclose(joined(x + y) + joined(zero), joined(x) + joined(y), atol=1e-4) is affine


@pytest.mark.parametrize(("where", "strides"), [("1x1", [2, 1, 1]), ("3x3", [1, 2, 1])])
def test_stride_of_a_bottleneck_stands_on_the_chosen_layer(where, strides):
    """The paper's first 1x1, or torchvision's 3x3."""
    net = build("resnet50", stride_on=where)
    convs = [m for m in net.conv3_x[0].residual.modules() if isinstance(m, nn.Conv2d)]
    assert [m.stride[0] for m in convs] == strides
    assert [m.kernel_size[0] for m in convs] == [1, 3, 1]
    assert [m.stride[0] for m in bottleneck(64, 256, 2).modules() if isinstance(m, nn.Conv2d)] == [2, 1, 1]


def test_32_pixel_nets_have_a_small_stem_and_no_pool():
    """conv2_x sees all 32x32 positions."""
    net = build("resnet18-32px")
    sizes = {}
    for name, child in net.named_children():
        child.register_forward_hook(lambda _m, _i, y, name=name: sizes.update({name: y.shape[-1]}))
    net(torch.rand(2, 3, 32, 32))
    assert net.conv1.conv.kernel_size == (3, 3)
    assert net.conv1.conv.out_channels == 64
    assert sizes == {"conv1": 32, "conv2_x": 32, "conv3_x": 16, "conv4_x": 8, "conv5_x": 4, "fc": 10}


# --- highway ---


def test_highway_units_are_spread_evenly_with_the_rest_in_later_stages():
    """19 -> 5, 6, 6 and 32 -> 10, 10, 10; always depth - 2 in all."""
    assert highway_units(19) == (5, 6, 6)
    assert highway_units(32) == (10, 10, 10)
    for depth in range(5, 40):
        units = highway_units(depth)
        assert sum(units) == depth - 2
        assert all(0 <= later - earlier <= 1 for earlier, later in pairwise(units))


def test_a_highway_unit_mixes_its_input_and_its_layer_by_the_gate():
    """y = T H + (1 - T) x; where the shape changes, a plain layer."""
    torch.manual_seed(0)
    net = build("highway19").eval()
    x = torch.rand(2, 16, 8, 8)
    unit = net.conv2_x[0]
    t, h = torch.sigmoid(unit.shortcut.gate(x)), F.relu(unit.residual(x))
    assert torch.allclose(unit(x), t * h + (1 - t) * x, atol=1e-6)
    assert (x >= 0).all()
    assert [isinstance(b.shortcut, shortcuts.NoShortcut) for b in net.conv3_x] == [True, *[False] * 5]
    assert [isinstance(b.shortcut, shortcuts.Gated) for b in net.conv2_x] == [True] * 5


def test_gates_start_with_a_negative_bias():
    """It survives the initialisation of the whole net: at first a unit carries its input."""
    gates = [m for m in build("highway19").modules() if isinstance(m, shortcuts.GateConv)]
    assert len(gates) == 15
    assert all((gate.bias == -2).all() for gate in gates)


# --- start values ---


def test_start_values_are_those_of_he():
    """Gaussian, mean 0, std sqrt(2 / fan_in), for convolutions and fc; biases 0; BN 1 and 0."""
    torch.manual_seed(0)
    net = build("resnet50-32px", num_classes=100)
    checked = 0
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            weight = module.weight.detach()
            fan_in, n = weight[0].numel(), weight.numel()
            std = (2 / fan_in) ** 0.5
            assert abs(weight.mean().item()) < 5 * std / n**0.5
            assert weight.std().item() == pytest.approx(std, rel=5 / (2 * n) ** 0.5)
            if n > 100_000:  # a Gaussian has 4.55 % beyond two deviations, a uniform of the same std none
                assert (weight.abs() > 2 * std).float().mean().item() == pytest.approx(0.0455, abs=0.005)
            checked += 1
        if isinstance(module, nn.Linear):
            assert (module.bias == 0).all()
        if isinstance(module, nn.BatchNorm2d):
            assert (module.weight == 1).all()
            assert (module.bias == 0).all()
    assert checked == 54


def test_the_same_seed_gives_the_same_net():
    """Start values come from torch's global random state alone."""
    states = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        states.append(build("resnet8").state_dict())
    one, same, other = (torch.cat([v.flatten().float() for v in s.values()]) for s in states)
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
