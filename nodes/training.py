"""Nodes that train: a decoder from folders of pictures, and one style."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io
from torch import Tensor

from ..adain_core import TrainingConfig, TrainingResult, learn_style, train
from ..adain_core.catalog import find_entry, network_file
from ..adain_core.files import replacing
from ..adain_core.images import list_images, load_image
from ..adain_core.networks import ARCHITECTURES, Decoder, Encoder
from ..adain_core.progress import showing
from ..adain_core.training.config import INVERSE
from ..adain_core.training.data import folder_digest
from ..adain_core.training.learn import CONTENT_SIDE
from . import host
from .networks import load_file, load_network, network_names
from .pictures import PICTURES
from .sockets import DecoderSocket, EncoderSocket, Node, StyleSocket, Written, schema, to_image, to_pictures

log = logging.getLogger(__name__)

EXAMPLES = "(built-in examples)"
NOTHING = "(nothing)"
_written = Written()  # of each training, its decoder and its folder
SMOOTHNESS = 0.1  # against stripes of two pixels, to which a small encoder, which sees pixels in pairs, is blind
LOSS_ENCODER = "Whose features the losses compare; the encoder itself when not connected. Best is a VGG-19 (vgg19): slower,"


class TrainDecoder(Node):
    """Trains a decoder for an encoder."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="AdaINTrainDecoder",
            display_name="Train Decoder (AdaIN)",
            category="AdaIN/train",
            description="Trains a decoder for arbitrary style transfer on your pictures, with live previews (content, style,"
            " result). Cancel keeps what was learned; running again with the same name and settings goes on.",
            search_aliases=["train style transfer", "adain training", "fine-tune decoder"],
            is_output_node=True,
            inputs=[
                EncoderSocket.Input("encoder", tooltip="From Load Encoder; it stays as it is, and the decoder belongs to it."),
                _folder("contents", "content_images"),
                _folder("styles", "style_images"),
                io.Int.Input(
                    "steps", default=2000, min=1, max=1_000_000, tooltip="How many in all; a higher number later goes on."
                ),
                io.Int.Input("batch_size", default=4, min=1, max=256, tooltip="Pairs of pictures a step."),
                io.Int.Input(
                    "crop_size",
                    default=256,
                    min=32,
                    max=1024,
                    step=8,
                    tooltip="Side in pixels of the random crops it learns from. Smaller is faster; strokes are finer.",
                ),
                io.Float.Input(
                    "learning_rate",
                    default=1e-4,
                    min=1e-6,
                    max=0.1,
                    step=1e-6,
                    round=False,
                    tooltip="1e-4 to go on from a good decoder; about 1e-3 from nothing.",
                ),
                io.Float.Input(
                    "style_weight", default=10.0, min=0.0, max=1000.0, step=0.1, tooltip="Higher: more of the style."
                ),
                io.Float.Input(
                    "content_weight", default=1.0, min=0.0, max=1000.0, step=0.1, tooltip="Higher: more of the content."
                ),
                _seed("Which pictures meet, which crops are taken, and the first weights."),
                io.String.Input(
                    "name",
                    default="my-network",
                    tooltip="Saved as output/adain/NAME-decoder.safetensors and listed in Load Decoder; what was there under"
                    " this name is replaced. To begin anew, give another name or remove output/adain_training/NAME.",
                ),
                io.Int.Input("preview_every", default=50, min=1, max=100_000, tooltip="Steps between previews."),
                io.Combo.Input(
                    "start_from",
                    options=[NOTHING, *network_names("decoder")],
                    default=NOTHING,
                    optional=True,
                    tooltip="A decoder of the same encoder to begin with, which is much quicker than from nothing.",
                ),
                io.Image.Input("content_images", optional=True, tooltip="Content pictures to use instead of the folder's."),
                io.Image.Input("style_images", optional=True, tooltip="Style pictures to use instead of the folder's."),
                EncoderSocket.Input("loss_encoder", optional=True, tooltip=f"{LOSS_ENCODER} and better strokes."),
            ],
            outputs=[
                DecoderSocket.Output(display_name="decoder", tooltip="The trained decoder, the mean of its last weights."),
                io.LossMap.Output(display_name="loss_map", tooltip="The weighted loss over time, for Plot Loss Graph."),
                io.Image.Output(display_name="samples", tooltip="Pairs of pictures: contents above styles above results."),
                io.Image.Output(display_name="loss_curve", tooltip="The losses over the steps as a picture."),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, contents: str, styles: str, name: str = "", **inputs: object) -> str:
        return f"{_version(contents)} {_version(styles)} {_written.times_removed(str(name))}"

    @classmethod
    def execute(
        cls,
        encoder: ModelPatcher,
        contents: str,
        styles: str,
        steps: int,
        batch_size: int,
        crop_size: int,
        learning_rate: float,
        style_weight: float,
        content_weight: float,
        seed: int,
        name: str,
        preview_every: int,
        start_from: str = NOTHING,
        content_images: Tensor | None = None,
        style_images: Tensor | None = None,
        loss_encoder: ModelPatcher | None = None,
    ) -> io.NodeOutput:
        path, folder = host.new_decoder_path(name)
        if find_entry(name.strip(), "decoder"):
            raise ValueError(f"{name.strip()!r} is the name of a decoder that is there already; give your own another.")
        measure = loss_encoder or encoder
        config = TrainingConfig(
            _source(contents, content_images, "contents"),
            _source(styles, style_images, "styles"),
            folder,
            measure.model,
            path.name.removesuffix(network_file("", "decoder")),
            encoder=encoder.model if loss_encoder else "",
            start_from=_start(start_from, encoder.model),
            steps=steps,
            batch_size=batch_size,
            crop_size=crop_size,
            resize_content=(crop_size, 2 * crop_size),
            resize_style=(crop_size, 2 * crop_size),
            learning_rate=learning_rate,
            clip_norm=10.0,
            ema=0.99,
            style_weight=style_weight,
            content_weight=content_weight,
            variation_weight=0.0 if measure.model.perceptual else SMOOTHNESS,
            layer_weights=(1.0,) * len(measure.model.loss_layers),
            clamp=True,
            seed=seed,
            workers=0,
            device=host.training_device(),
            log_every=max(1, steps // 100),
        )
        with host.training([encoder, measure], batch_size * crop_size**2):
            result = _train(config, preview_every, path)
        samples, curve = (to_image(load_image(folder / file)) for file in ("samples.png", "losses.png"))
        decoder = load_file("decoder", path)
        _written.note(name, path, folder)
        return io.NodeOutput(decoder, _loss_map(result, config), samples, curve, ui=host.final_preview(samples, cls))


class LearnStyle(Node):
    """Refines a style for its networks."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="AdaINLearnStyle",
            display_name="Learn Style (AdaIN)",
            category="AdaIN/train",
            description="Encodes a style picture and refines the style by gradient until results come closer to the picture:"
            " some seconds once, and any content is stylised as fast as before.",
            search_aliases=["train style", "optimize style", "style picture"],
            inputs=[
                EncoderSocket.Input("encoder", tooltip="From Load Encoder."),
                DecoderSocket.Input("decoder", tooltip="From Load Decoder; the one that belongs to the encoder."),
                io.Image.Input("style_image", tooltip="The style picture, for example a painting."),
                io.Image.Input(
                    "content_images", tooltip="Pictures like those to stylise, at best several; at most 16 are used."
                ),
                io.Int.Input("steps", default=100, min=1, max=10_000, tooltip="At most; it ends early when nothing is gained."),
                io.Float.Input(
                    "learning_rate", default=0.02, min=0.0001, max=1.0, step=0.001, round=False, tooltip="Size of a step."
                ),
                _seed("Which contents a step takes."),
                EncoderSocket.Input("loss_encoder", optional=True, tooltip=f"{LOSS_ENCODER} and closer to the picture."),
            ],
            outputs=[StyleSocket.Output(display_name="style", tooltip="For Apply Style, Style Mix, Mask Style or Save Style.")],
        )

    @classmethod
    def execute(
        cls,
        encoder: ModelPatcher,
        decoder: ModelPatcher,
        style_image: Tensor,
        content_images: Tensor,
        steps: int = 100,
        learning_rate: float = 0.02,
        seed: int = 0,
        loss_encoder: ModelPatcher | None = None,
    ) -> io.NodeOutput:
        pictures = to_pictures(style_image, "style_image"), to_pictures(content_images, "content_images")
        measure = loss_encoder or encoder
        with host.training([encoder, decoder, measure], CONTENT_SIDE**2), showing(host.progress()):
            style = learn_style(encoder.model, decoder.model, *pictures, steps, learning_rate, seed, measure.model)
        return io.NodeOutput(style)


def _train(config: TrainingConfig, preview_every: int, path: Path) -> TrainingResult:
    """Train with the node's progress, previews and time left; the decoder is put at `path`, also after cancelling."""
    show, say = host.progress(every_picture=True), _time_left(config)  # as often as a person set
    step = 0

    def progress(done: int, total: int, pictures: Tensor | None) -> None:
        nonlocal step
        step = done
        say(done)
        show(done, total, pictures)

    def publish() -> None:
        with replacing(path) as temporary:
            shutil.copyfile(Path(config.output) / path.name, temporary)

    try:
        with showing(progress):
            result = train(config, preview_every)
    except host.Interrupted:
        if step:
            publish()
            text = f"stopped at step {step}; the decoder so far is {path}, and running again goes on"
            host.say(text)
            log.info(text)
        raise
    publish()
    return result


def _time_left(config: TrainingConfig) -> Callable[[int], None]:
    """What says on the node, about every second, how far it is and, by the pace since its first step, how long it will take.

    Its first call is before that step.
    """
    start, first, begun, said = None, None, 0.0, 0.0

    def say(step: int) -> None:
        nonlocal start, first, begun, said
        if start is None:
            start = step
            return
        now = time.monotonic()
        if first is None:
            first, begun = step, now
        if now - said >= 1 or step == config.steps:
            said, text = now, f"step {step} of {config.steps}"
            if step > first:
                minutes, seconds = divmod(round((now - begun) * (config.steps - step) / (step - first)), 60)
                text += f", {minutes}:{seconds:02} left"
            host.say(text)

    return say


def _loss_map(result: TrainingResult, config: TrainingConfig) -> dict[str, list[float]]:
    pairs = zip(result.losses.get("content", []), result.losses.get("style", []), strict=True)
    weights = config.content_weight, config.style_weight
    return {"loss": [weights[0] * c + weights[1] * s for c, s in pairs if c is not None and s is not None]}


def _folder(identifier: str, images: str) -> io.Combo.Input:
    return io.Combo.Input(
        identifier,
        options=[EXAMPLES, *host.input_folders()],
        default=EXAMPLES,
        tooltip="A folder in ComfyUI's input folder, with its sub-folders; press R to refresh the list. Not used when"
        f" {images} is connected. The built-in examples are for trying out.",
    )


def _start(name: str, encoder: Encoder) -> str | Decoder:
    if name != NOTHING:
        return load_network("decoder", name).model
    return INVERSE if ARCHITECTURES[encoder.architecture].decoder.has_inverse() else ""  # pictures from the first step on


def _seed(tooltip: str) -> io.Int.Input:
    return io.Int.Input("seed", default=0, min=0, max=2**32 - 2, control_after_generate=False, tooltip=tooltip)


def _source(folder: str, images: Tensor | None, what: str) -> Path | Tensor:
    return _path(folder, what) if images is None else to_pictures(images, what)


def _path(folder: str, what: str) -> Path:
    return PICTURES / what if folder == EXAMPLES else host.input_folder(folder)


def _version(folder: str) -> str:
    """Differs where a folder's pictures have changed; of one that cannot be used, the run says why."""
    try:
        path = host.input_folder(folder)
        return folder_digest(path, list_images(path))
    except (OSError, ValueError):
        return folder
