from __future__ import annotations

import json
import os
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:  # the processes share the cores; PyTorch asks when it is imported
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import hub_server
import pytest
import torch
from hypothesis import HealthCheck, settings
from PIL import Image

from adain_core import catalog, download, hub
from adain_core.cli import main
from adain_core.devices import available_devices
from adain_core.images import save_image
from adain_core.networks import Encoder, Level, Network
from adain_core.networks.student import StudentDecoder, StudentEncoder
from adain_core.networks.vgg import VGGEncoder
from adain_core.weights import NetworkFile, load_decoder, load_encoder, read_network, write_network

# the same cases each time, however long one takes on a busy machine
settings.register_profile("repeatable", derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))
settings.load_profile("repeatable")


@pytest.fixture(params=available_devices())
def device(request) -> str:
    return request.param


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def served(tmp_path, monkeypatch) -> hub_server.Hub:
    """The Hub on 127.0.0.1, serving nothing yet, with empty caches and no pauses between attempts."""
    hub_server.HUB.reset()
    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path / "hf" / "hub"))
    monkeypatch.setattr(hub.constants, "HF_ASSETS_CACHE", str(tmp_path / "hf" / "assets"))
    monkeypatch.setattr(download, "PAUSES", (0,) * len(download.PAUSES))
    return hub_server.HUB


@pytest.fixture
def listed(tmp_path, monkeypatch):
    """Puts entries, as `catalog.json` has them, in the place of the catalog."""

    def replace(*entries: dict) -> None:
        folder = tmp_path / "weights"
        folder.mkdir(exist_ok=True)
        (folder / "catalog.json").write_text(json.dumps(entries))
        monkeypatch.setattr(catalog, "BUNDLED", folder)

    return replace


@pytest.fixture(scope="session")
def reference() -> Path:
    folder = Path(__file__).resolve().parents[2] / "shared" / "reference"
    if not (folder / "vgg_normalised.safetensors").is_file():
        pytest.skip("the reference weights are not here")
    return folder


class IdentityEncoder(Encoder):
    """Features are the pixels, so that results can be worked out by hand."""

    architecture = "identity"
    levels = (Level("pixels", 3, 1),)
    layers = ("pixels",)
    halo = 0
    values_per_pixel = 3

    def __init__(self):
        super().__init__({})
        self.anchor = torch.nn.Parameter(torch.zeros(1), requires_grad=False)
        self.fingerprint = "identity"

    def activations(self, x, names, arithmetic):
        return {"pixels": x}


@pytest.fixture
def identity(device) -> IdentityEncoder:
    return IdentityEncoder().to(device)


def draw(network: Network, seed: int) -> None:
    """Draw weights as for the beginning of a training, and biases, which set a network apart from others."""
    network.initialize(seed)
    generator = torch.Generator().manual_seed(seed)
    for name, weight in network.named_parameters():
        if name.endswith("bias"):
            weight.data.add_(0.1 * torch.randn(weight.shape, generator=generator))


@pytest.fixture(scope="session")
def small_files(tmp_path_factory) -> tuple[Path, Path]:
    """Files of a small encoder and decoder with random weights."""
    folder = tmp_path_factory.mktemp("networks")
    paths = folder / "small-encoder.safetensors", folder / "small-decoder.safetensors"
    encoder = StudentEncoder({"channels": [4, 6, 8], "blocks": [0, 1, 1]})
    draw(encoder, 0)
    write_network(NetworkFile("encoder", "student", encoder.config, encoder.state_dict(), "small"), paths[0])
    fingerprint = read_network(paths[0]).encoder_fingerprint
    decoder = StudentDecoder({"channels": [4, 6, 8], "blocks": [1, 1, 1]})
    draw(decoder, 1)
    for mix in decoder.mix:
        mix.weight.data.mul_(0.2)  # contents differ by more than the texture
    file = NetworkFile("decoder", "student", decoder.config, decoder.state_dict(), "small", "small", fingerprint)
    write_network(file, paths[1])
    return paths


@pytest.fixture(scope="session")
def vgg(tmp_path_factory) -> Path:
    """The file of a VGG-19 with random weights."""
    network = VGGEncoder({})
    network.initialize(2)
    state = network.state_dict()
    state |= {"preprocess.weight": torch.eye(3)[:, :, None, None], "preprocess.bias": torch.zeros(3)}
    path = tmp_path_factory.mktemp("vgg") / "judge.safetensors"
    write_network(NetworkFile("encoder", "vgg19", {}, state, "judge"), path)
    return path


@pytest.fixture
def small(small_files, device):
    return load_encoder(str(small_files[0]), device, "float32"), load_decoder(str(small_files[1]), device, "float32")


@pytest.fixture
def networks(small_files):
    """The small networks on the CPU."""
    return load_encoder(str(small_files[0]), dtype="float32"), load_decoder(str(small_files[1]), dtype="float32")


@pytest.fixture(scope="session")
def picture_folders(tmp_path_factory) -> Path:
    """A folder with three contents and five styles."""
    folder = tmp_path_factory.mktemp("pictures")
    generator = torch.Generator().manual_seed(3)
    for kind, count in (("contents", 3), ("styles", 5)):
        (folder / kind).mkdir()
        for index in range(count):
            picture = torch.nn.functional.interpolate(torch.rand(1, 3, 5, 6, generator=generator), (40, 48), mode="bilinear")
            save_image(picture, folder / kind / f"{kind[0]}{index}.png")
    return folder


@pytest.fixture
def measure(picture_folders, vgg, small_files, tmp_path):
    """Runs `adain evaluate MEASUREMENT` on the small networks; its status, JSON and figure."""
    folders = ["--contents", picture_folders / "contents", "--styles", picture_folders / "styles"]

    def run(name, *more, models=True, file="found"):
        out = tmp_path / f"{file}.json"
        model = ["--model", *small_files] if models else []
        arguments = [*folders, "--loss-encoder", vgg, "--size", 32, *model, "--device", "cpu", "-o", out, *more]
        status = main(["evaluate", name, *map(str, arguments)])
        if status:
            return status, None, None
        return status, json.loads(out.read_text()), Image.open(out.with_suffix(".png"))

    return run
