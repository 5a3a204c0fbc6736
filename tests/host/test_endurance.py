"""Hundreds of prompts in a real ComfyUI, and two of them at once on one folder; set up as test_host.py says."""

from __future__ import annotations

import itertools
import random
import threading
import time
import urllib.error
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import psutil
import pytest
from comfyui_server import Server, needs_comfyui
from prompts import chain, node, training

from adain_core import load_decoder, load_style
from adain_core.files import TEMPORARY_PREFIX

pytestmark = needs_comfyui

PROMPTS, WARM = 200, 60  # so many, of which the first ones fill caches and pools
GROWTH = 1.05  # of the memory, after that


def short(style: str, alpha: float) -> dict:
    picture = node("AdaINStyleTransfer", content=["photo", 0], model="small", style=style, alpha=alpha, keep_colors=True)
    return {
        "photo": node("LoadImage", image="photo.png"),
        "short": picture,
        "save": node("PreviewImage", images=["short", 0]),
    }


def long(alpha: float, **more: dict) -> dict:
    """The full way, to a preview."""
    workflow = chain(save=node("PreviewImage", images=["picture", 0]), **more)
    workflow["features"]["inputs"]["alpha"] = alpha
    return workflow


def saving(name: str, size: int) -> dict:
    workflow = long(1.0, saved=node("AdaINSaveStyle", style=["style", 0], name=name))
    workflow["style"]["inputs"]["size"] = size
    return workflow


def cancelled(server: Server, workflow: dict) -> str:
    """Press cancel until it has ended; its last message."""
    prompt = server.start(workflow)
    while prompt not in server.get(f"/history/{prompt}"):
        server.post("/interrupt", {})
        time.sleep(0.05)
    return server.finish(prompt)["status"]["messages"][-1][0]


def prompts(server: Server) -> Iterator[str]:
    """Runs one prompt after the other; how each ended."""
    for number in itertools.count():
        alpha = (number % 100) / 100  # no two in a row come from the cache
        kind = number % 10
        if kind == 3:
            wrong = long(alpha, empty=node("SolidMask", value=0.0, width=45, height=37))
            wrong["masked"] = node("AdaINMaskStyle", style=["style", 0], mask=["empty", 0])
            wrong["features"]["inputs"]["style"] = ["masked", 0]
            workflow = wrong
        elif kind == 5:
            many = long(alpha, many=node("RepeatImageBatch", image=["photo", 0], amount=200))
            many["features"]["inputs"]["content"] = ["many", 0]
            yield cancelled(server, many)
            continue
        elif kind == 7:
            workflow = training(name=f"endurance-{number % 20}", steps=1 + number, seed=number % 20, crop_size=32)
            workflow["train"]["inputs"] |= {"contents": "(built-in examples)", "batch_size": 1}
            workflow = workflow if number % 20 == 7 else short("first", alpha)
        elif kind == 9:
            workflow = saving(f"style {number % 3}", 16 + number % 64)
        else:
            workflow = long(alpha) if kind % 2 else short("first", alpha)
        yield server.finish(server.start(workflow))["status"]["messages"][-1][0]


def test_two_hundred_prompts_leave_memory_threads_and_files_as_they_were(server):
    server.run(saving("first", 20))
    process, ends, samples = psutil.Process(server.process.pid), [], []
    for number, end in enumerate(itertools.islice(prompts(server), PROMPTS), 1):
        ends.append(end)
        if number >= WARM and number % 10 == 0:
            handles = process.num_fds() - len(process.net_connections())  # the client's connections come and go
            samples.append((process.memory_info().rss, process.num_threads(), handles))
    assert ends.count("execution_error") == PROMPTS // 10
    assert ends.count("execution_interrupted") > PROMPTS // 20
    assert ends.count("execution_success") >= PROMPTS * 8 // 10
    memory, threads, files = zip(*samples, strict=True)
    print([round(value / 1e6) for value in memory], threads, files)
    assert median(memory[-3:]) < GROWTH * median(memory[:3])
    assert median(threads[-3:]) <= median(threads[:3]) and median(files[-3:]) <= median(files[:3])


ODD = [
    None, True, -1, 0, 0.5, 64, 10**30, float("nan"), float("inf"), "", "../../etc/passwd", "nul", "a\0b", "a\nb", "x" * 3000,
    [], ["photo", 0], ["photo", 9], ["nobody", 0], {}, {"a": 1}, [[]],
]  # fmt: skip


def test_prompts_with_any_values_are_run_or_refused_in_one_sentence(server):
    server.run(saving("first", 20))
    draw, refused, ends = random.Random(0), 0, []
    for number in range(100):
        workflow = (long(0.5), short("first", 0.5), saving("odd", 20))[number % 3]
        for _ in range(draw.randint(1, 2)):
            ours = draw.choice([key for key, value in workflow.items() if value["class_type"].startswith("AdaIN")])
            inputs = workflow[ours]["inputs"]
            widgets = [key for key, value in inputs.items() if not isinstance(value, list)]  # others are connected
            inputs[draw.choice(widgets or ["tile"])] = draw.choice(ODD)
        try:
            prompt = server.start(workflow)
        except urllib.error.HTTPError as error:
            assert error.code == 400
            refused += 1
            continue
        end, details = server.finish(prompt)["status"]["messages"][-1]
        ends.append(end)
        if end == "execution_error":
            text = details["exception_message"].strip()
            if details["node_type"].startswith("AdaIN"):
                assert details["exception_type"] in ("ValueError", "FileNotFoundError", "OSError", "HubError"), details
                assert "\n" not in text, text
    print(refused, "refused,", ends.count("execution_error"), "errors,", ends.count("execution_success"), "run")
    assert refused and ends.count("execution_error") and ends.count("execution_success")
    server.run(short("first", 0.25))


@pytest.fixture
def two_servers(server, tmp_path) -> Iterator[tuple[Server, Server]]:
    """The second has the models, inputs and results of the first."""
    (tmp_path / "custom_nodes").mkdir()
    for folder in ("models", "input", "output"):
        (tmp_path / folder).symlink_to(server.base / folder, target_is_directory=True)
    with Server(tmp_path) as second:
        yield server, second


def test_two_servers_share_the_folders(two_servers):
    """Both save styles under the same names, load each other's, and train decoders under the same name."""
    ends: dict[int, list] = {0: [], 1: []}

    def work(which: int) -> None:
        one = two_servers[which]
        for turn in range(12):
            name = f"shared {turn % 2}"
            ends[which].append(one.finish(one.start(saving(name, 16 + 8 * turn + which))))
            ends[which].append(one.finish(one.start(short(name, turn / 12 + which / 100))))
        ends[which].append(one.finish(one.start(training(name="shared", steps=30, crop_size=32))))

    threads = [threading.Thread(target=work, args=(which,)) for which in ends]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for messages in (end["status"]["messages"] for both in ends.values() for end in both):
        last, details = messages[-1]
        # one of the trainings may come while the other is at work
        assert last == "execution_success" or "another training writes to" in details["exception_message"], details
    output = two_servers[0].base / "output"
    for name in ("shared 0", "shared 1"):
        assert load_style(output / "adain_styles" / f"{name}.safetensors").name == name
    assert load_decoder(str(output / "adain" / "shared")).encoder_name == "small"
    assert not [path for path in Path(output).rglob(f"*{TEMPORARY_PREFIX}*")]
