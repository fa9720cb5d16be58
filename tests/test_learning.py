"""Real training on real images, through the real command line. Last passed: see docs/testing.md."""

import json

import pytest


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_residual_and_plain_networks_learn_real_images(deepres, real_data, tmp_path):
    """A few hundred steps on CIFAR-10 bring the test error far below chance (90 %), with and without shortcuts."""
    more = ("--data", real_data / "cifar10", "--iterations", 300, "--batch-size", 32, "--lr", 0.05, "--json")
    for network in ("resnet8", "plain8"):
        result = deepres("train", network, *more, "--run", tmp_path / network)
        assert result.returncode == 0, result.stderr
        assert json.loads(result.stdout)["test_error"] < 75
