import pytest
import torch

from adain_core.evaluation.losses import layer_features, load_loss_network
from adain_core.experiments.baselines import (
    ChosenNorm2d,
    StyleNetwork,
    gatys,
    optimise,
    style_swap,
    swap_patches,
    train_style_network,
)
from adain_core.images import save_image
from adain_core.normalization import BatchNorm2d, InstanceNorm2d
from adain_core.progress import showing
from adain_core.statistics import channel_statistics


@pytest.fixture(scope="module")
def judge(vgg):
    network = load_loss_network(str(vgg), torch.device("cpu"))
    network.plain = True
    return network


def smooth(*shape):
    return torch.nn.functional.interpolate(torch.rand(*shape, 5, 5), 32, mode="bicubic").clamp(0, 1)


def test_optimisation_lowers_the_loss_from_the_untouched_content(judge):
    content, style = smooth(1, 3), smooth(1, 3)
    steps = []
    with showing(lambda done, total, _: steps.append((done, total))):
        picture, losses = gatys(judge, content, style, 15)
    assert len(losses) == 16 and steps == [(step, 15) for step in range(1, 16)]
    sums = [each.content + 10 * each.style for each in losses]
    assert sums[-1] < 0.5 * sums[0]
    assert 0 <= picture.min() and picture.max() <= 1
    again, other = gatys(judge, content, style, 15)
    assert torch.equal(picture, again) and losses == other


def test_optimisation_finds_a_picture_that_is_known():
    wanted = torch.rand(1, 3, 6, 6)
    found = optimise(torch.rand(1, 3, 6, 6), lambda picture: (picture - wanted).square().sum(), 20)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-3)


def test_patches_swapped_with_their_own_picture_are_the_picture():
    features = torch.rand(1, 5, 7, 9)
    torch.testing.assert_close(swap_patches(features, features), features)


def test_swapped_patches_are_the_styles_most_alike():
    # vertical and horizontal edges of the style take the place of weaker ones
    edge = torch.tensor([-1.0, -1, -1, 1, 1, 1]).expand(1, 1, 6, 6)
    style = torch.cat([10 * edge, 10 * edge.mT], dim=3)
    torch.testing.assert_close(swap_patches(edge, style)[..., 2:4], 10 * edge[..., 2:4])
    torch.testing.assert_close(swap_patches(edge.mT, style)[..., 2:4, :], 10 * edge.mT[..., 2:4, :])


def test_style_swap_inverts_the_features(judge):
    content = smooth(1, 3)
    torch.testing.assert_close(style_swap(judge, content, content, 3), content, rtol=0, atol=0.02)


@pytest.mark.parametrize("layer", [BatchNorm2d, lambda width: InstanceNorm2d(width, affine=True)])
def test_a_network_learns_its_style(judge, tmp_path, layer):
    for index in range(3):
        save_image(smooth(1, 3), tmp_path / f"{index}.png")
    style = [channel_statistics(x) for x in layer_features(judge, smooth(1, 3))]

    def trained():
        network = StyleNetwork(layer, width=4)
        return network, train_style_network(network, judge, [style], tmp_path, 15, 2, 16, 1e-2)

    network, losses = trained()
    assert losses[-1].style < 0.7 * losses[0].style
    assert network(torch.rand(2, 3, 19, 22)).shape == (2, 3, 19, 22)
    assert trained()[1] == losses


def test_instance_normalization_takes_the_contrast_out_and_batch_normalization_does_not():
    picture = torch.rand(1, 3, 20, 20)
    changes = []
    for layer in (InstanceNorm2d, BatchNorm2d):
        network = StyleNetwork(layer, width=4)
        network(torch.rand(4, 3, 20, 20))
        network.eval()
        changes.append((network(picture) - network(0.25 + picture / 2)).abs().mean().item())
    assert changes[0] < 1e-3 < changes[1]


def test_a_conditional_network_draws_each_style_with_its_own_pair():
    network = StyleNetwork(lambda width: ChosenNorm2d(width, 2), width=4)
    picture = torch.rand(1, 3, 16, 16)
    assert torch.equal(network(picture, 0), network(picture, 1))
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, ChosenNorm2d):
                module.bias[1] += 0.5
    assert not torch.allclose(network(picture, 0), network(picture, 1))
