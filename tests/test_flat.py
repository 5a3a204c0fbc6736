import torch

from adain_core.evaluation.flat import flat_area, slope_of


def test_a_mesh_is_told_from_a_texture():
    mesh = torch.zeros(1, 3, 64, 64)
    mesh[:, :, ::2, ::2] = 0.1
    found = flat_area(0.5 + mesh)
    assert abs(found.texture - 255 * 0.1 * (3 / 16) ** 0.5) < 0.2 and found.grid > 0.95
    noise = flat_area((0.5 + 0.1 * torch.randn(1, 1, 256, 256)).expand(1, 3, -1, -1))
    assert 24 < noise.texture < 26 and noise.grid < 0.01
    assert flat_area(torch.full((1, 3, 64, 64), 0.3)).texture < 0.01


def test_a_slope_has_no_detail():
    content = torch.rand(1, 3, 64, 64) * 0.2 + torch.linspace(0, 0.8, 64)
    slope = slope_of(content)
    assert flat_area(slope).texture < 1 < flat_area(content).texture
    assert slope[..., -1].mean() - slope[..., 0].mean() > 0.5
