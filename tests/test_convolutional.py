"""The dense form: any network of the catalog as one that gives a map of scores."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from deepres.models.convolutional import fully_convolutional
from deepres.runtime.errors import InputError
from networks import assert_same_scores, made


@pytest.mark.parametrize(
    ("name", "crop"),
    [
        ("resnet20", 32),
        ("resnet18", 224),
        ("resnet50", 64),
        ("plain34", 96),
        ("alexnet", 224),
        ("googlenet", 224),
        ("vgg16-bn", 64),
        pytest.param("prelu-net", 224, marks=pytest.mark.long),
    ],
)
def test_the_dense_form_at_the_crops_size_is_the_network(name, crop):
    """One position, the same scores."""
    net, images = made(name), torch.randn(1 if crop == 224 else 2, 3, crop, crop)
    with torch.no_grad():
        maps, expected = fully_convolutional(net, crop)(images), net(images)
    assert maps.shape == (len(images), 5, 1, 1)
    assert_same_scores(maps.flatten(1), expected)


def test_every_position_of_a_resnet_is_its_7x7_average_through_fc():
    """The pooling of the training size at stride 1, and fc as a 1x1 convolution."""
    net, images = made("resnet18"), torch.randn(1, 3, 256, 320)
    with torch.no_grad():
        maps = fully_convolutional(net)(images)
        average = F.avg_pool2d(net.feature_map(images), 7, stride=1)
        expected = F.conv2d(average, net.fc.weight[:, :, None, None], net.fc.bias)
    assert maps.shape == (1, 5, 2, 4)
    assert_same_scores(maps, expected)


def test_vgg_becomes_the_convolutions_of_its_paper():
    """fc6 as 7x7, fc7 and fc8 as 1x1 (Simonyan & Zisserman 2015, Sec. 3.2)."""
    net, features = made("vgg16-bn"), torch.rand(1, 512, 8, 10)
    fc6, fc7, fc8 = (layer for layer in net.classifier if isinstance(layer, nn.Linear))
    x = F.relu(F.conv2d(features, fc6.weight.view(4096, 512, 7, 7), fc6.bias))
    x = F.relu(F.conv2d(x, fc7.weight[:, :, None, None], fc7.bias))
    expected = F.conv2d(x, fc8.weight[:, :, None, None], fc8.bias)
    dense = fully_convolutional(net)
    net.feature_map = lambda images: features  # the layers before are not what is tested, and take long
    try:
        with torch.no_grad():
            maps = dense(torch.empty(1, 3, 256, 320))
    finally:
        del net.feature_map
    assert maps.shape == (1, 5, 2, 4)
    assert_same_scores(maps, expected)


@pytest.mark.long
@pytest.mark.parametrize(("name", "crop", "size"), [("prelu-net", 64, (96, 112)), ("alexnet", 96, (128, 160))])
def test_every_position_is_a_window_of_the_map_pooled_as_a_crop(name, crop, size):
    """Also where the bins do not divide the window, and overlap."""
    net, images = made(name), torch.randn(1, 3, *size)
    with torch.no_grad():
        window = net.feature_map(images[:, :, :crop, :crop]).shape[2]
        features, maps = net.feature_map(images), fully_convolutional(net, crop)(images)
        assert maps.shape[2:] == tuple(length - window + 1 for length in features.shape[2:])
        for y in range(maps.shape[2]):
            for x in range(maps.shape[3]):
                part = features[:, :, y : y + window, x : x + window]
                pool = F.adaptive_max_pool2d if name == "prelu-net" else F.adaptive_avg_pool2d
                values = torch.cat([pool(part, bins).flatten(1) for bins in net.bins], 1)
                assert_same_scores(maps[:, :, y, x], net.classify(values))
    assert maps.std((2, 3)).min() > 0


def test_a_dense_test_needs_images_of_the_crops_size_or_more():
    dense = fully_convolutional(made("resnet18"))
    with pytest.raises(InputError, match="images of 160x320 are smaller than the crop that resnet18 is tested with"):
        dense(torch.zeros(1, 3, 160, 320))
    with pytest.raises(InputError, match="1 pixel a side or more, not 0"):
        fully_convolutional(made("resnet18"), 0)


def test_the_dense_form_shares_its_weights_and_does_not_drop_out():
    """What is trained on shows in it; it is for evaluation."""
    net = made("googlenet").train()
    dense = fully_convolutional(net)
    assert not net.training
    assert {p.data_ptr() for p in dense.parameters()} == {p.data_ptr() for p in net.parameters()}
    images = torch.randn(1, 3, 256, 256)
    with torch.no_grad():
        assert torch.equal(dense(images), dense(images))
