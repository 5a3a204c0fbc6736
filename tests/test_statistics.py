"""Statistics and AdaIN as docs/design.md, section 1, has them, on numbers worked out by hand."""

import pytest
import torch

from adain_core.statistics import ChannelStatistics, adain, channel_statistics


def test_statistics_of_four_numbers(device):
    s = channel_statistics(torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]], device=device))
    assert (s.count.item(), s.mean.item(), s.m2.item()) == (4, 2.5, 5)
    assert s.std.item() == pytest.approx((1.25 + 1e-5) ** 0.5)


def test_weights_count_positions(device):
    x = torch.tensor([[[[1.0, 2.0, 9.0]]]], device=device)
    s = channel_statistics(x, torch.tensor([[[[1.0, 3.0, 0.0]]]]))
    assert (s.count.item(), s.mean.item(), s.m2.item()) == (4, 1.75, 0.75)


def test_statistics_of_half_precision_are_float32(device):
    # the sum, 40000 * 300, is far beyond float16
    x = torch.full((1, 2, 200, 200), 300.0, dtype=torch.float16, device=device)
    s = channel_statistics(x)
    assert s.mean.dtype == torch.float32 and s.mean.tolist() == [[300.0, 300.0]] and s.m2.tolist() == [[0.0, 0.0]]


def test_merged_parts_equal_the_whole(device):
    x = torch.randn(2, 5, 12, 7, device=device) * 3 + 100
    whole = channel_statistics(x)
    parts = [channel_statistics(part) for part in (x[:, :, :5], x[:, :, 5:6], x[:, :, 6:])]
    merged = parts[0].merge(parts[1]).merge(parts[2])
    for name in ("count", "mean", "m2"):
        torch.testing.assert_close(getattr(merged, name), getattr(whole, name), rtol=1e-4, atol=0)


def test_merging_an_empty_part_changes_nothing(device):
    s = channel_statistics(torch.rand(1, 3, 4, 4, device=device))
    empty = s.map(torch.zeros_like)
    for merged in (s.merge(empty), empty.merge(s)):
        torch.testing.assert_close(merged.mean, s.mean)
        torch.testing.assert_close(merged.m2, s.m2)
    assert empty.merge(empty).count.item() == 0 and empty.merge(empty).mean.isfinite().all()


def test_pool_is_the_statistics_of_all_pixels(device):
    x = torch.rand(3, 4, 6, 5, device=device)
    together = channel_statistics(x.transpose(0, 1).reshape(1, 4, 18, 5))
    pooled = channel_statistics(x).pool()
    torch.testing.assert_close(pooled.mean, together.mean)
    torch.testing.assert_close(pooled.m2, together.m2)


def test_running_statistics_halve_the_past(device):
    one = torch.ones(3, 1, device=device)
    s = ChannelStatistics(one, torch.tensor([[0.0], [1.0], [1.0]], device=device), one * 0).running(half_life=1.0)
    # (0.5 * 0 + 1) / 1.5, then (0.75 * 2/3 + 1) / 1.75
    assert s.mean.flatten().tolist() == pytest.approx([0, 2 / 3, 6 / 7])
    assert s.m2[1].item() == pytest.approx(1 * 0.5 / 1.5)
    with pytest.raises(ValueError, match="half_life"):
        s.running(0)


def test_adain_by_hand(device):
    x = torch.tensor([[[[1.0, 3.0]]]], device=device)  # mean 2, variance 1
    y = channel_statistics(torch.tensor([[[[8.0, 12.0]]]], device=device))  # mean 10, variance 4
    ratio = ((4 + 1e-5) / (1 + 1e-5)) ** 0.5
    assert adain(x, y).flatten().tolist() == pytest.approx([10 - ratio, 10 + ratio], rel=1e-6)
    assert adain(x, y, alpha=0.5).flatten().tolist() == pytest.approx([5.5 - ratio / 2, 6.5 + ratio / 2], rel=1e-6)
    assert adain(x, y, alpha=0.0).equal(x)


def test_adain_of_a_flat_channel_is_the_style_mean(device):
    y = channel_statistics(torch.tensor([[[[8.0, 12.0]]]], device=device))
    assert adain(torch.full((1, 1, 2, 2), 7.0, device=device), y).flatten().tolist() == pytest.approx([10.0] * 4, abs=1e-3)


def test_adain_keeps_the_type_of_its_features(device):
    y = channel_statistics(torch.rand(1, 3, 4, 4, device=device))
    assert adain(torch.rand(1, 3, 4, 4, device=device).bfloat16(), y).dtype == torch.bfloat16
