"""Every kind of file that is written, and what becomes of one where the process is killed or the disk is full.

As a program, `writers.py FOLDER MODE ...`, it has each written in FOLDER by processes of their own: an old one, one that meets
its end or a full disk for each mode ("killed", "limited", "filled"), and once more. It prints what it found as JSON.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import clips
import torch

from adain_core import encode_style
from adain_core.clip import ClipState, ClipStylizer
from adain_core.evaluation.bench import BenchConfig, BenchResult, Machine
from adain_core.files import remove_leftovers
from adain_core.images import save_image
from adain_core.large import stylize_file
from adain_core.networks import Decoder, Encoder
from adain_core.networks.student import StudentDecoder, StudentEncoder
from adain_core.statistics import ChannelStatistics
from adain_core.training.checkpoints import save_checkpoint
from adain_core.video import Video
from adain_core.weights import NetworkFile, write_network

LIMIT = 6000  # bytes of a file; each of these has more


def noise(seed: int, *size: int) -> torch.Tensor:
    return torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(seed))


def networks() -> tuple[Encoder, Decoder]:
    config = {"channels": [4, 6, 8], "blocks": [1, 1, 1]}
    drawn = StudentEncoder(config), StudentDecoder(config)
    for seed, network in enumerate(drawn):
        network.initialize(seed)
    encoder = NetworkFile("encoder", "student", config, drawn[0].state_dict(), "small").build()
    state = drawn[1].state_dict()
    return encoder, NetworkFile("decoder", "student", config, state, "small", "small", encoder.fingerprint).build()


def network(path: Path, seed: int) -> None:
    config = {"channels": [8, 16], "blocks": [0, 0]}
    state = {name: torch.full_like(tensor, seed) for name, tensor in StudentEncoder(config).state_dict().items()}
    write_network(NetworkFile("encoder", "student", config, state, "small"), path)


def style(path: Path, seed: int) -> None:
    encode_style(networks()[0], noise(seed, 48, 48)).masked(torch.ones(99, 99)).save(path)


def picture(path: Path, seed: int) -> None:
    save_image(noise(seed, 96, 96), path)


def checkpoint(path: Path, seed: int) -> None:
    save_checkpoint(path, {}, {"step": seed, "parameters": [torch.zeros(5000)]})


def clip_state(path: Path, seed: int) -> None:
    state = ClipState(path, "settings")
    state.done, state.statistics = seed, [ChannelStatistics(torch.ones(1, 1), *torch.rand(2, 1, 2000))]
    state.save()


def video(path: Path, seed: int) -> None:
    content = path.with_name("content.mp4")
    if not content.exists():
        clips.write_clip(content, clips.noise(12, 64, 96))
    encoder, decoder = networks()
    ClipStylizer(encoder, decoder, encode_style(encoder, noise(seed, 48, 48))).video(Video(content), path)


def large_picture(path: Path, seed: int) -> None:
    content = path.with_name("content.png")
    if not content.exists():
        save_image(noise(9, 150, 200), content)
    encoder, decoder = networks()
    stylize_file(encoder, decoder, content, path, encode_style(encoder, noise(seed, 48, 48)), tile=64)


def measurements(path: Path, seed: int) -> None:
    BenchResult(BenchConfig(), Machine("a device", "a processor" * 1000, seed, "torch", 1.0), ()).save(path)


WRITERS: dict[str, Callable[[Path, int], None]] = {
    "network.safetensors": network,
    "style.safetensors": style,
    "picture.png": picture,
    "picture.jpg": picture,
    "picture.webp": picture,
    "picture.tif": picture,
    "checkpoint.pt": checkpoint,
    "state.safetensors": clip_state,
    "video.mp4": video,
    "large.png": large_picture,
    "large.tif": large_picture,
    "speed.json": measurements,
}


def in_child(work: Callable[[], None]) -> tuple[int, str]:
    """What `work` ended by in a process of its own: the signal, or 0, and what it raised."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        text = ""
        try:
            work()
        except BaseException as error:
            text = f"{type(error).__name__}: {error}"
        os.write(writer, text.encode())
        os._exit(0)
    os.close(writer)
    with open(reader, encoding="utf-8") as stream:
        text = stream.read()
    return os.WTERMSIG(os.waitpid(child, 0)[1]), text


def killed(write: Callable[[Path, int], None], target: Path) -> None:
    replace = os.replace

    def die(source: Path, destination: Path) -> None:
        if Path(destination) == target:
            os.kill(os.getpid(), signal.SIGKILL)
        replace(source, destination)

    os.replace = die
    write(target, 2)


def limited(write: Callable[[Path, int], None], target: Path) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, resource.RLIM_INFINITY))
    write(target, 2)


def filled(write: Callable[[Path, int], None], target: Path) -> None:
    ballast = target.with_name("ballast")
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass
    with ballast.open("ab") as file:
        file.truncate(ballast.stat().st_size - 4096)  # room to begin
    try:
        write(target, 2)
    finally:
        ballast.unlink()


def main(folder: Path, modes: list[str]) -> None:
    found = {}
    for name, write in WRITERS.items():
        target = folder / name / name
        target.parent.mkdir()
        first = in_child(lambda write=write, target=target: write(target, 1))
        old, beside = target.read_bytes(), set(os.listdir(target.parent))
        found[name] = {"first": first, "size": len(old)}
        for mode in modes:
            hindered = {"killed": killed, "limited": limited, "filled": filled}[mode]
            ended, sentence = in_child(lambda hindered=hindered, write=write, target=target: hindered(write, target))
            left = sorted(set(os.listdir(target.parent)) - beside)
            found[name][mode] = {"signal": ended, "sentence": sentence, "whole": target.read_bytes() == old, "left": left}
        again = in_child(lambda write=write, target=target: write(target, 2))  # a video keeps the parts of other settings
        remove_leftovers(target)
        left = sorted(set(os.listdir(target.parent)) - beside)
        found[name]["again"] = {"ended": again, "replaced": target.read_bytes() != old, "left": left}
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
