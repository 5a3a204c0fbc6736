"""Prompts for the tests' ComfyUI, in the API format."""

from __future__ import annotations


def node(kind: str, **inputs) -> dict:
    return {"class_type": kind, "inputs": inputs}


def chain(model: str = "small", **more: dict) -> dict:
    """The full way from photo.png and painting.png to a saved picture."""
    nodes = {
        "photo": node("LoadImage", image="photo.png"),
        "painting": node("LoadImage", image="painting.png"),
        "encoder": node("AdaINLoadEncoder", name=model, dtype="float32"),
        "decoder": node("AdaINLoadDecoder", name=model, dtype="float32"),
        "style": node("AdaINEncodeStyle", encoder=["encoder", 0], image=["painting", 0], size=0, combine="pool"),
        "features": node(
            "AdaINTransfer",
            encoder=["encoder", 0],
            content=["photo", 0],
            style=["style", 0],
            alpha=0.8,
            content_statistics="image",
            half_life=8.0,
            tile=-1,
        ),
        "picture": node("AdaINDecode", decoder=["decoder", 0], features=["features", 0], tile=-1),
        "save": node("SaveImage", images=["picture", 0], filename_prefix="chain"),
    }
    return {**nodes, **more}


def training(**changes) -> dict:
    """A training on the example pictures, and a style learned with what it gives."""
    settings = dict(contents="(built-in examples)", styles="(built-in examples)", steps=12, batch_size=2, crop_size=64)
    settings |= dict(learning_rate=1e-3, style_weight=10.0, content_weight=1.0, seed=0, name="trained", preview_every=4)
    return {
        "encoder": node("AdaINLoadEncoder", name="small", dtype="float32"),
        "train": node("AdaINTrainDecoder", encoder=["encoder", 0], **settings | changes),
        "samples": node("SaveImage", images=["train", 2], filename_prefix="samples"),
        "curve": node("SaveImage", images=["train", 3], filename_prefix="curve"),
    }
