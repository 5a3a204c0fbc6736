"""The four normalizations (docs/design.md, section 1) on numbers worked out by hand."""

import pytest
import torch

from adain_core.normalization import AdaptiveInstanceNorm2d, BatchNorm2d, ConditionalInstanceNorm2d, InstanceNorm2d

# two samples of one channel: 1, 3 (mean 2, variance 1) and 5, 11 (mean 8, variance 9); together mean 5, variance 14
X = torch.tensor([[[[1.0, 3.0]]], [[[5.0, 11.0]]]])


def values(x):
    return x.detach().cpu().flatten().tolist()


def test_batch_normalization_in_training_uses_the_batch(device):
    root = 14.00001**0.5
    norm = BatchNorm2d(1).to(device)
    assert values(norm(X.to(device))) == pytest.approx([-4 / root, -2 / root, 0, 6 / root], abs=1e-6)
    # population estimates move by a tenth; the variance is unbiased there, 14 * 4 / 3
    assert norm.running_mean.item() == pytest.approx(0.5)
    assert norm.running_var.item() == pytest.approx(0.9 + 0.1 * 56 / 3)


def test_batch_normalization_at_test_time_uses_the_population(device):
    norm = BatchNorm2d(1).to(device).eval()
    norm.running_mean.fill_(1.0)
    norm.running_var.fill_(4.0)
    assert values(norm(X.to(device))) == pytest.approx([0, 1, 2, 5], abs=1e-4)


def test_instance_normalization_uses_each_sample_always(device):
    norm = InstanceNorm2d(1).to(device)
    for mode in (norm.train(), norm.eval()):
        assert values(mode(X.to(device))) == pytest.approx([-1, 1, -1, 1], abs=1e-4)


def test_conditional_instance_normalization_takes_the_pair_of_the_style(device):
    norm = ConditionalInstanceNorm2d(1, num_styles=2).to(device)
    with torch.no_grad():
        norm.weight[1], norm.bias[1] = 3.0, 10.0
    assert values(norm(X.to(device), torch.tensor([1, 0], device=device))) == pytest.approx([7, 13, -1, 1], abs=1e-4)


def test_adaptive_instance_normalization_takes_the_pair_of_the_other_input(device):
    norm = AdaptiveInstanceNorm2d().to(device)
    assert values(norm(X.to(device), X.flip(0).to(device))) == pytest.approx([5, 11, 1, 3], abs=1e-4)
    assert not list(norm.parameters())
