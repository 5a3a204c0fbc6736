"""Commands that are killed at random moments, and begun again; two of them that write the same file.

As a program, `killers.py FOLDER COMMAND` prints what it found as JSON. A moment is a number of calls of Python functions, so
that the same ones come each time, however fast the machine is.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import random
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import hub_server
import torch
from writers import in_child, network, networks, noise

from adain_core import hub
from adain_core.cli import main
from adain_core.cli import style as style_command
from adain_core.files import TEMPORARY_PREFIX
from adain_core.images import load_image, save_image
from adain_core.style import load_style
from adain_core.training import learn as learning
from adain_core.training.checkpoints import load_checkpoint
from adain_core.weights import NetworkFile, read_network, write_network

KILLS = 20


def prepare(folder: Path) -> None:
    """Pictures and small networks in `folder`, which becomes the current one."""
    os.chdir(folder)
    importlib.import_module("torch._dynamo")  # which optimizers import: now, and not in each of the processes
    learning.CONTENT_SIDE = style_command.CONTENT_SIDE = learning.STYLE_SIDE = 32  # or it would take a while
    encoder, decoder = networks()
    for built, name in ((encoder, ""), (decoder, "small")):
        file = NetworkFile(built.role, built.architecture, built.config, built.state_dict(), "small", name, encoder.fingerprint)
        write_network(file, f"small-{built.role}.safetensors")
    for kind in ("contents", "styles"):
        Path(kind).mkdir()
        for index in range(2):
            save_image(noise(index, 40, 48), f"{kind}/{index}.png")
    network(Path("served.safetensors"), 3)


def train(run: int) -> list[str]:
    sizes = ["--crop-size", "16", "--resize-content", "16", "--resize-style", "16", "--batch-size", "1", "--workers", "0"]
    often = ["--save-minutes", "0", "--results-minutes", "0", "--log-every", "1", "--layer-weights", "1", "1"]
    folders = ["--contents", "contents", "--styles", "styles", "--output", "out", "--name", "tiny", "--device", "cpu"]
    return ["train", *folders, "--loss-encoder", "small", *sizes, *often, "--steps", str(2 + run)]


def learn(run: int) -> list[str]:
    options = ["--encoder", "small", "--decoder", "small", "--steps", "2", "--device", "cpu", "--source", str(run)]
    return ["style", "learn", "styles/0.png", "--contents", "contents", *options, "-o", "out/style.safetensors"]


def convert(run: int) -> list[str]:
    return ["convert", "small-decoder.safetensors", "-o", "out/network.safetensors", "--licence", str(run)]


def pull(run: int) -> list[str]:
    return ["pull", "hf:me/model/served.safetensors", "--again"]


COMMANDS: dict[str, Callable[[int], list[str]]] = {"train": train, "learn": learn, "convert": convert, "pull": pull}
READERS: dict[str, Callable[[Path], object]] = {
    "style.safetensors": load_style,
    "checkpoint.pt": lambda path: load_checkpoint(path, torch.load(path, weights_only=True)["recipe"]),
    ".safetensors": read_network,
    ".png": load_image,
}


def quietly(words: list[str]) -> None:
    """Run a command; raises its exit status if that is not 0."""
    with open(os.devnull, "w") as nothing, contextlib.redirect_stderr(nothing), contextlib.redirect_stdout(nothing):
        if status := main(words):
            raise SystemExit(status)


def counted(words: list[str], last: int = sys.maxsize) -> None:
    """Run a command, and raise how many calls of functions it had, or kill this process at the call with the number `last`."""
    calls = 0

    def count(frame: object, event: str, argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")
        if calls == last:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.setprofile(count)
    try:
        quietly(words)
    finally:
        sys.setprofile(None)
    raise RuntimeError(calls)


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def left(folder: Path) -> list[str]:
    """Temporary files of this project."""
    return [path.name for path in files(folder) if path.name.startswith(".") and f".{TEMPORARY_PREFIX}" in path.name]


def damaged(folder: Path) -> list[str]:
    """Files that look finished and are not."""
    found = []
    for path in files(folder):
        reader = READERS.get(path.name) or READERS.get(path.suffix)
        if reader is None or path.name.startswith("."):
            continue
        try:
            reader(path)
        except (ValueError, OSError) as error:
            found.append(str(error))
    return found


def kill_again_and_again(command: str) -> dict:
    words, rng = COMMANDS[command], random.Random(0)
    out = hub.assets() if command == "pull" else Path("out").resolve()
    out.mkdir(parents=True)
    _, text = in_child(lambda: counted(words(0)))
    calls, whole, found = int(text.removeprefix("RuntimeError: ")), [], {"signals": [], "damaged": []}
    first = {path.name for path in files(out) if path.suffix != ".lock"}
    if command == "train":
        shutil.rmtree(out)  # the first one would be done with
        out.mkdir()
    if command == "pull":  # as of a run that was killed while it wrote
        (out / f".{next(iter(first))[: -len('.safetensors')]}.{TEMPORARY_PREFIX}01234567.safetensors").touch()
    for run in range(KILLS):
        moment = rng.randrange(1, calls)
        ended, _ = in_child(lambda run=run, moment=moment: counted(words(run), moment))
        found["signals"].append(ended)
        found["damaged"] += damaged(out)
        whole.append(len(files(out)))
    found["again"] = in_child(lambda: quietly(words(KILLS)))
    found |= {"left": left(out), "damaged": found["damaged"] + damaged(out), "names": first <= {p.name for p in files(out)}}
    if command == "train":
        killed = load_checkpoint_losses(out)
        shutil.rmtree(out)
        found["plain"] = in_child(lambda: quietly(words(KILLS)))
        found["equal"] = killed == load_checkpoint_losses(out)
    return found


def load_checkpoint_losses(out: Path) -> dict:
    state = torch.load(out / "checkpoint.pt", weights_only=True)
    return {"step": state["step"], "losses": state["losses"]}


def two_at_once(command: str) -> dict:
    """Two processes that write the same file: what they end by, and what is there afterwards."""
    words = COMMANDS[command]
    out = hub.assets() if command == "pull" else Path("out").resolve()
    children = []
    for run in (1, 2):
        child = os.fork()
        if child == 0:
            status = 0
            try:
                quietly(words(run))
            except SystemExit as stopped:
                status = int(str(stopped.code))
            except BaseException:
                status = 99
            os._exit(status)
        children.append(child)
    ended = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    return {"ended": ended, "left": left(out), "damaged": damaged(out)}


if __name__ == "__main__":
    prepare(Path(sys.argv[1]))
    hub.constants.HF_HUB_CACHE, hub.constants.HF_ASSETS_CACHE = (str(Path("hf", name).resolve()) for name in ("hub", "assets"))
    hub_server.HUB.serve("me/model/served.safetensors", Path("served.safetensors").resolve())
    command = sys.argv[2]
    print(json.dumps({"killed": kill_again_and_again(command), "two": two_at_once(command)}))
