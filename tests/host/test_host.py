"""The plugin in a real ComfyUI: set COMFYUI_DIR to a checkout of it and COMFYUI_PYTHON to a Python with its requirements.

With WRITE_THUMBNAILS set as well, the templates' thumbnails are made anew from what their API twins give.
"""

from __future__ import annotations

import io
import json
import os
import urllib.error
import urllib.request
from urllib.parse import quote

import clips
import pytest
import thumbnails
import torch
from comfyui_server import Server, needs_comfyui
from PIL import Image
from prompts import chain, node, training
from root import ROOT

from adain_core import encode_style, load_decoder, load_encoder, load_style, stylize
from adain_core.catalog import BUNDLED
from adain_core.color import luma
from adain_core.images import load_image
from adain_core.weights import read_network

pytestmark = needs_comfyui
WORKFLOWS = {path.stem: json.loads(path.read_text()) for path in sorted((ROOT / "workflows" / "api").glob("*.json"))}


@pytest.fixture(scope="module")
def fresh_install(tmp_path_factory):
    """A server with nothing but the plugin."""
    with Server(tmp_path_factory.mktemp("fresh")) as server:
        yield server


def titled(name: str, title: str) -> list[str]:
    """The numbers of a template's nodes with this title."""
    return [number for number, node in WORKFLOWS[name].items() if node["_meta"]["title"] == title]


def content(name: str) -> torch.Tensor:
    """The photograph that a template stylises, at the size it is stylised at."""
    nodes = WORKFLOWS[name].values()
    examples = [node for node in nodes if node["class_type"] == "AdaINExamplePicture"]
    (picture,) = (node["inputs"]["picture"] for node in examples if node["_meta"]["title"] != "Style picture")
    scale = next((node["inputs"]["scale_by"] for node in nodes if node["class_type"] == "ImageScaleBy"), 1)
    return torch.nn.functional.interpolate(thumbnails.photo(picture), scale_factor=scale)


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_template_runs_on_a_fresh_install(fresh_install, name):
    before = len(fresh_install.log)
    history = fresh_install.run(WORKFLOWS[name])
    saves = any(node["class_type"].startswith("Save") for node in WORKFLOWS[name].values())
    shown = [number for number, node in WORKFLOWS[name].items() if node["class_type"] == "PreviewImage"]
    pictures = fresh_install.pictures(history) if saves else fresh_install.pictures(history, shown)
    example = content(name)
    assert pictures.shape[1:] == example.shape[1:]
    assert all((picture - example[0]).abs().mean() > 0.02 for picture in pictures)
    again = dict(fresh_install.run(WORKFLOWS[name])["status"]["messages"])
    assert set(again["execution_cached"]["nodes"]) == set(WORKFLOWS[name])
    assert not [line for line in fresh_install.log[before:] if "warn" in line.lower()]
    if "WRITE_THUMBNAILS" in os.environ:
        if titled(name, "Refined"):
            pictures = torch.cat([fresh_install.pictures(history, shown), pictures])
        style = [WORKFLOWS[name][number]["inputs"]["picture"] for number in titled(name, "Style picture")]
        thumbnails.write(name, pictures, *style)


@pytest.mark.skipif("WRITE_THUMBNAILS" not in os.environ, reason="WRITE_THUMBNAILS is not set")
@pytest.mark.parametrize("name", thumbnails.STAND_INS)
def test_a_template_that_cannot_run_here_gets_a_thumbnail_of_what_can(name):
    thumbnails.write(name, thumbnails.STAND_INS[name]())


def test_first_steps_gives_the_librarys_picture(fresh_install):
    picture = fresh_install.pictures(fresh_install.run(WORKFLOWS["01 First steps"]))
    inputs = next(node["inputs"] for node in WORKFLOWS["01 First steps"].values() if node["class_type"] == "AdaINStyleTransfer")
    style = load_style(BUNDLED / "styles" / f"{inputs['style']}.safetensors")
    # a host's memory format: 16 bits round by the order of sums
    photo = content("01 First steps").contiguous(memory_format=torch.channels_last)
    expected = stylize(load_encoder(), load_decoder(), photo, style)
    torch.testing.assert_close(picture, expected, atol=1.01 / 255, rtol=0)


def test_every_template_is_listed_with_its_thumbnail(fresh_install):
    names = [path.stem for path in (ROOT / "workflows").glob("*.json")]
    assert sorted(fresh_install.get("/workflow_templates")["comfyui-adain"]) == sorted(names)
    for name in names:
        with urllib.request.urlopen(f"{fresh_install.url}/api/workflow_templates/comfyui-adain/{quote(name)}.jpg") as answer:
            assert answer.headers["Content-Type"] == "image/jpeg"


def test_subgraphs_are_listed(fresh_install):
    try:
        listed = fresh_install.get("/global_subgraphs")
    except urllib.error.HTTPError:
        pytest.skip("this host lists no subgraphs of plugins")
    names = {name["name"] for name in listed.values() if name["info"]["node_pack"] == "custom_nodes.comfyui-adain"}
    assert names == {path.stem for path in (ROOT / "subgraphs").glob("*.json")}


def test_all_nodes_register_and_nothing_failed(server):
    names = {name for name in server.get("/object_info") if name.startswith("AdaIN")}
    assert names == {path.stem for path in (ROOT / "web" / "docs").iterdir()}
    options = server.get("/object_info/AdaINLoadEncoder")["AdaINLoadEncoder"]["input"]["required"]["name"][1]["options"]
    assert {"fresh", "small", "lite"} <= set(options)
    assert not [line for line in server.log if "IMPORT FAILED" in line or "Traceback" in line]


def test_the_help_page_of_every_node_is_served(server):
    for name in (name for name in server.get("/object_info") if name.startswith("AdaIN")):
        with urllib.request.urlopen(f"{server.url}/extensions/comfyui-adain/docs/{name}.md") as answer:
            assert "html" not in answer.headers["Content-Type"]  # which the frontend takes for no page
            assert "\n## Inputs\n" in answer.read().decode()


def test_nodes_and_gallery_are_translated(server):
    texts = server.get("/i18n")
    names = {name for name in server.get("/object_info") if name.startswith("AdaIN")}
    for folder in (ROOT / "locales").iterdir():
        assert names <= texts[folder.name]["nodeDefs"].keys()
    assert texts["ja"]["nodeDefs"]["AdaINStyleTransfer"]["display_name"] == "スタイル変換"
    assert texts["ja"]["AdaIN"]["Choose by picture"] == "画像で選ぶ"


def test_the_chain_gives_the_librarys_picture_and_a_second_run_comes_from_the_cache(server, networks):
    workflow = chain()
    picture = server.pictures(server.run(workflow))
    encoder, decoder = networks
    photo, painting = (load_image(server.base / "input" / name) for name in ("photo.png", "painting.png"))
    expected = stylize(encoder, decoder, photo, encode_style(encoder, painting, size=0), alpha=0.8)
    assert picture.shape == photo.shape
    torch.testing.assert_close(picture, expected, atol=1.01 / 255, rtol=0)
    again = dict(server.run(workflow)["status"]["messages"])
    assert set(again["execution_cached"]["nodes"]) == set(workflow)


def test_a_saved_style_is_offered_at_once_and_serves_the_short_way(server):
    style = ["style", 0]
    server.run(chain(saved=node("AdaINSaveStyle", style=style, name="mine")))
    options = server.get("/object_info/AdaINStyleTransfer")["AdaINStyleTransfer"]["input"]["required"]["style"][1]["options"]
    assert "mine" in options
    content = ["photo", 0]
    workflow = {
        "photo": node("LoadImage", image="photo.png"),
        "short": node("AdaINStyleTransfer", content=content, model="small", style="mine", alpha=0.8, keep_colors=False),
        "save": node("SaveImage", images=["short", 0], filename_prefix="short"),
    }
    found, expected = server.pictures(server.run(workflow)), server.pictures(server.run(chain()))
    torch.testing.assert_close(found, expected, atol=0.02, rtol=0)  # its networks may be of 16 bits


def test_a_replaced_style_file_runs_again(server):
    workflow = {
        "photo": node("LoadImage", image="photo.png"),
        "short": node(
            "AdaINStyleTransfer", content=["photo", 0], model="small", style="changing", alpha=1.0, keep_colors=False
        ),
        "save": node("SaveImage", images=["short", 0], filename_prefix="changing"),
    }
    pictures = []
    for image in ("painting", "photo"):
        save = chain(saved=node("AdaINSaveStyle", style=["style", 0], name="changing"))
        save["style"]["inputs"]["image"] = [image, 0]
        server.run(save)
        pictures.append(server.pictures(server.run(workflow)))
    assert not torch.equal(*pictures)


def test_mixed_masked_and_swept_styles_make_a_clip(server):
    other = node("AdaINEncodeStyle", encoder=["encoder", 0], image=["photo", 0], size=0, combine="pool")
    workflow = chain(
        other=other,
        half=node("SolidMask", value=1.0, width=45, height=20),
        masked=node("AdaINMaskStyle", style=["other", 0], mask=["half", 0]),
        mix=node("AdaINStyleMix", style_1=["style", 0], weight_1=1.0, style_2=["masked", 0], weight_2=0.5),
        sweep=node("AdaINStyleSweep", style_from=["style", 0], style_to=["mix", 0], frames=3, curve="smooth"),
    )
    workflow["features"]["inputs"]["style"] = ["sweep", 0]
    workflow["picture"]["inputs"]["keep_colors_of"] = ["photo", 0]
    clip = server.pictures(server.run(workflow))
    assert clip.shape == (3, 3, 37, 45)
    assert not torch.equal(clip[0], clip[2])


def test_a_video_goes_through_with_its_times_and_sound(server, networks):
    original = clips.write_clip(server.base / "input" / "clip.mp4", clips.noise(20), [0, 60, *range(240, 2400, 120)])
    workflow = chain(
        video=node("LoadVideo", file="clip.mp4"),
        result=node(
            "AdaINStylizeVideo",
            video=["video", 0],
            encoder=["encoder", 0],
            decoder=["decoder", 0],
            style=["style", 0],
            alpha=1.0,
            content_statistics="batch",
            half_life=8.0,
        ),
        save=node("SaveVideo", video=["result", 0], filename_prefix="video", format="auto", codec="auto"),
    )
    file = server.run(workflow)["outputs"]["save"]["images"][0]
    saved = server.base / "output" / file["subfolder"] / file["filename"]
    assert clips.times(saved) == clips.times(original)
    assert clips.packets(saved, "audio") == clips.packets(original, "audio")
    encoder, decoder = networks
    frames = torch.from_numpy(clips.pixels(original)).movedim(-1, 1) / 255
    style = encode_style(encoder, load_image(server.base / "input" / "painting.png"), size=0)
    expected = stylize(encoder, decoder, frames, style, content_statistics="batch", texture=0.0)
    found = torch.from_numpy(clips.pixels(saved)).movedim(-1, 1) / 255
    assert (luma(found) - luma(expected)).abs().mean() < 0.02


def test_a_cut_video_is_stylised_in_that_part(server):
    if "Video Slice" not in server.get("/object_info"):
        pytest.skip("this host does not cut videos")
    clips.write_clip(server.base / "input" / "clip.mp4", clips.noise(20))
    workflow = chain(
        video=node("LoadVideo", file="clip.mp4"),
        part=node("Video Slice", video=["video", 0], start_time=0.5, duration=1.0, strict_duration=False),
        result=node(
            "AdaINStylizeVideo",
            video=["part", 0],
            encoder=["encoder", 0],
            decoder=["decoder", 0],
            style=["style", 0],
            alpha=1.0,
            content_statistics="running",
            half_life=8.0,
        ),
        save=node("SaveVideo", video=["result", 0], filename_prefix="cut", format="auto", codec="auto"),
    )
    assert len(server.pictures(server.run(workflow))) == 10


def test_a_latent_gets_the_colours_of_another(server):
    workflow = {
        "photo": node("LoadImage", image="photo.png"),
        "painting": node("LoadImage", image="painting.png"),
        "vae": node("VAELoader", vae_name="pixel_space"),  # its latents are the pixels: no checkpoint is needed
        "a": node("VAEEncode", pixels=["photo", 0], vae=["vae", 0]),
        "b": node("VAEEncode", pixels=["painting", 0], vae=["vae", 0]),
        "latent": node("AdaINLatent", latent=["a", 0], reference=["b", 0], alpha=1.0, statistics="image"),
        "picture": node("VAEDecode", samples=["latent", 0], vae=["vae", 0]),
        "save": node("SaveImage", images=["picture", 0], filename_prefix="latent"),
    }
    picture, painting = server.pictures(server.run(workflow)), load_image(server.base / "input" / "painting.png")
    assert picture.shape[2:] == (37, 45)
    torch.testing.assert_close(picture.mean((2, 3)), painting.mean((2, 3)), atol=0.01, rtol=0)
    torch.testing.assert_close(picture.std((2, 3)), painting.std((2, 3)), atol=0.01, rtol=0)


def test_a_generation_is_steered_to_the_colours_of_a_reference(server):
    workflow = {
        "painting": node("LoadImage", image="painting.png"),
        "vae": node("VAELoader", vae_name="pixel_space"),
        "reference": node("VAEEncode", pixels=["painting", 0], vae=["vae", 0]),
        "stand-in": node("StandInModel"),
        "model": node(
            "AdaINModel", model=["stand-in", 0], reference=["reference", 0], alpha=1.0, start_percent=0.0, end_percent=1.0
        ),
        "empty": node("EmptyLatentImage", width=128, height=128, batch_size=2),
        "latent": node(
            "KSampler",
            model=["model", 0],
            positive=["stand-in", 1],
            negative=["stand-in", 1],
            latent_image=["empty", 0],
            seed=1,
            steps=4,
            cfg=2.0,
            sampler_name="euler",
            scheduler="normal",
            denoise=1.0,
        ),
        "picture": node("VAEDecode", samples=["latent", 0], vae=["vae", 0]),
        "save": node("SaveImage", images=["picture", 0], filename_prefix="model"),
    }
    pictures, painting = server.pictures(server.run(workflow)), load_image(server.base / "input" / "painting.png")
    mean = painting.mean((2, 3)).expand(2, 3)
    torch.testing.assert_close(pictures.mean((2, 3)), mean, atol=0.02, rtol=0)
    workflow["latent"]["inputs"]["model"] = ["stand-in", 0]
    assert (server.pictures(server.run(workflow)).mean((2, 3)) - mean).abs().max() > 0.1


def test_a_mistake_is_one_sentence(server):
    empty = node("SolidMask", value=0.0, width=45, height=37)
    workflow = chain(empty=empty, masked=node("AdaINMaskStyle", style=["style", 0], mask=["empty", 0]))
    workflow["features"]["inputs"]["style"] = ["masked", 0]
    messages = dict(server.finish(server.start(workflow))["status"]["messages"])
    assert messages["execution_error"]["exception_message"].strip().startswith("the mask is empty (0 everywhere)")


def test_cancelling_is_honoured(server):
    workflow = chain("fresh", many=node("RepeatImageBatch", image=["photo", 0], amount=4000))
    workflow["features"]["inputs"]["content"] = ["many", 0]
    prompt = server.start(workflow)
    server.wait_for("Requested to load")
    server.post("/interrupt", {})
    assert "execution_interrupted" in dict(server.finish(prompt)["status"]["messages"])


PREVIEW, TEXT = 1, 3  # kinds of binary messages


def test_training_shows_previews_and_the_time_left_and_its_decoder_serves(server):
    messages = server.messages("watcher")
    next(messages)
    prompt = server.start(training(), "watcher")
    previews, texts = [], []
    for message in messages:
        kind = int.from_bytes(message[:4], "big")
        if kind == PREVIEW:
            previews.append(message[8:])
        elif kind == TEXT:
            texts.append(message.decode(errors="replace"))
        elif message.startswith(b"{") and (event := json.loads(message))["type"] == "executing" and not event["data"]["node"]:
            break
    assert len(previews) == 4 and all(Image.open(io.BytesIO(preview)).size == (512, 384) for preview in previews)
    assert any("step 12 of 12, 0:00 left" in text for text in texts)
    assert server.finish(prompt)["status"]["status_str"] == "success"
    options = server.get("/object_info/AdaINLoadDecoder")["AdaINLoadDecoder"]["input"]["required"]["name"][1]["options"]
    assert "trained" in options and not [option for option in options if "checkpoint" in option]
    picture = chain(
        decoder=node("AdaINLoadDecoder", name="trained", dtype="float32"),
        style=node(
            "AdaINLearnStyle",
            encoder=["encoder", 0],
            decoder=["decoder", 0],
            style_image=["painting", 0],
            content_images=["photo", 0],
            steps=2,
            learning_rate=0.02,
            seed=0,
        ),
    )
    assert server.pictures(server.run(picture)).shape == (1, 3, 37, 45)


def test_a_cancelled_training_keeps_its_decoder_and_the_same_prompt_goes_on(server):
    workflow = training(steps=500, name="cancelled")
    messages = server.messages("canceller")
    next(messages)
    prompt = server.start(workflow, "canceller")
    next(message for message in messages if b"step 1 of 500" in message)
    server.post("/interrupt", {})
    assert "execution_interrupted" in dict(server.finish(prompt)["status"]["messages"])
    assert [line for line in server.log if "the decoder so far is" in line and "cancelled-decoder.safetensors" in line]
    load_decoder(str(server.base / "output" / "adain" / "cancelled"))
    server.run(workflow)
    assert [line for line in server.log if "going on from step" in line]
    assert read_network(server.base / "output" / "adain" / "cancelled-decoder.safetensors").recipe["steps"] == 500
