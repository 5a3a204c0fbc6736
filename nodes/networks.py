"""Nodes that load networks."""

from __future__ import annotations

import functools
from pathlib import Path

from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io

from ..adain_core import load_decoder, load_encoder
from ..adain_core.catalog import catalog, find_entry, network_file
from ..adain_core.devices import DTYPES
from ..adain_core.files import version
from ..adain_core.progress import showing
from ..adain_core.weights import pull, stated_fingerprint
from . import host
from .inputs import NOTHING_THERE, names_input
from .sockets import DecoderSocket, EncoderSocket, Node, schema

WHERE = (
    "Bundled networks, networks on the Hugging Face Hub, which are fetched when they run for the first time, and files in"
    " models/adain: NAME-encoder.safetensors and NAME-decoder.safetensors are listed as NAME, public .pth or .safetensors"
    " files by their file name. Press R to refresh the list."
)
_LOADERS = {"encoder": load_encoder, "decoder": load_decoder}


def network_names(role: str) -> list[str]:
    """Names to choose a network of `role` ("encoder" or "decoder") from."""
    other = next(key for key in _LOADERS if key != role)
    files = [file for file in host.list_files(host.NETWORKS) if Path(file).parts[0] != "styles"]
    public = [f for f in files if not f.endswith(network_file("", role)) and not Path(f).stem.lower().endswith(other)]
    return _named(role) + public


def model_names() -> list[str]:
    """Names of which there are both an encoder and a decoder."""
    return [name for name in _named("encoder") if name in _named("decoder")]


def load_network(role: str, name: str, dtype: str = "auto", hub_file: str = "") -> ModelPatcher:
    """A listed network in ComfyUI's care, or where `hub_file` is not empty, owner/repo/file of the Hugging Face Hub.

    What is on the Hub is pulled the first time, with the node's progress bar. Raises FileNotFoundError for a network that
    is not there, and what `weights.pull` raises.
    """
    hub_name = _hub_name(hub_file)
    path = None if hub_name else _find(role, name)
    entry = None if path else find_entry(hub_name or str(name), role)
    if entry and entry.mirrors:
        with showing(host.progress()):
            path = pull(entry)
    if path is None:
        raise FileNotFoundError(
            f"there is no {role} {'yet' if name == NOTHING_THERE else repr(name)}; choose another, or put"
            f" {network_file('NAME', role)} into models/adain and press R."
        )
    return load_file(role, path, dtype)


def known_fingerprint(model: str) -> str:
    """The fingerprint of a model's encoder, as far as it is known before it is loaded or pulled; "" if it is not."""
    if path := _find("encoder", model):
        return stated_fingerprint(path)
    entry = find_entry(str(model), "encoder")
    return entry.fingerprint if entry else ""


def load_file(role: str, path: Path, dtype: str = "auto") -> ModelPatcher:
    """The network of a file in ComfyUI's care."""
    return _load(role, str(path), version(path), host.network_dtype(str(dtype)))


def network_version(role: str, name: str, hub_file: str = "") -> str:
    """Differs when the file behind a name has changed; what was pulled does not change."""
    if not isinstance(hub_file, str):
        return repr(hub_file)  # the run says what is wrong with it
    if hub_name := _hub_name(hub_file):
        return hub_name
    path = _find(role, name)
    return str(name) if path is None else f"{path} {version(path)}"


class LoadEncoder(Node):
    """Loads an encoder."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="AdaINLoadEncoder",
            display_name="Load Encoder (AdaIN)",
            category="AdaIN/networks",
            description="Loads the network that turns pictures into features. Content and styles must use the same encoder.",
            search_aliases=["adain encoder", "vgg", "style transfer model"],
            inputs=_inputs("encoder"),
            outputs=[EncoderSocket.Output(display_name="encoder", tooltip="For Encode Style and Apply Style.")],
        )

    @classmethod
    def fingerprint_inputs(cls, name: str, dtype: str = "auto", hub_file: str = "") -> str:
        return network_version("encoder", name, hub_file)

    @classmethod
    def execute(cls, name: str, dtype: str = "auto", hub_file: str = "") -> io.NodeOutput:
        return io.NodeOutput(load_network("encoder", name, dtype, hub_file))


class LoadDecoder(Node):
    """Loads a decoder."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="AdaINLoadDecoder",
            display_name="Load Decoder (AdaIN)",
            category="AdaIN/networks",
            description="Loads the network that turns features back into a picture. It belongs to the encoder of its name.",
            search_aliases=["adain decoder", "style transfer model"],
            inputs=_inputs("decoder"),
            outputs=[DecoderSocket.Output(display_name="decoder", tooltip="For Decode.")],
        )

    @classmethod
    def fingerprint_inputs(cls, name: str, dtype: str = "auto", hub_file: str = "") -> str:
        return network_version("decoder", name, hub_file)

    @classmethod
    def execute(cls, name: str, dtype: str = "auto", hub_file: str = "") -> io.NodeOutput:
        return io.NodeOutput(load_network("decoder", name, dtype, hub_file))


def _inputs(role: str) -> list[io.Input]:
    return [
        names_input("name", network_names(role), f"Which {role} to load. {_about(role)}{WHERE}", default="lite"),
        io.Combo.Input(
            "dtype",
            options=["auto", *DTYPES],
            default="auto",
            tooltip="Number type to compute in. auto: 16 bits (half the memory, faster) where the device is good at it, else"
            " 32 bits.",
        ),
        io.String.Input(
            "hub_file",
            default="",
            optional=True,
            tooltip=f"Any {role} on the Hugging Face Hub instead of name: owner/repository/file. It is fetched once.",
        ),
    ]


def _about(role: str) -> str:
    entries = [entry for entry in catalog() if entry.role == role and entry.available]
    return "".join(f"{entry.name}: {entry.about}. " for entry in entries)


def _hub_name(hub_file: str) -> str:
    """The name of a file on the Hub, or "" if none is given. Raises ValueError for what is not text."""
    if not isinstance(hub_file, str):
        raise ValueError(f"hub_file is {str(hub_file)[:80]!r}, which is not text; write owner/repository/file, or nothing.")
    return f"hf:{hub_file.strip().removeprefix('hf:')}" if hub_file.strip() else ""


def _named(role: str) -> list[str]:
    """Names of this project's files and of the networks on the Hub."""
    ending = network_file("", role)
    names = {file.removesuffix(ending) for file in host.list_files(host.NETWORKS) if file.endswith(ending)}
    return sorted(names | {entry.name for entry in catalog() if entry.role == role and entry.mirrors})


def _find(role: str, name: str) -> Path | None:
    return host.find_file(host.NETWORKS, network_file(name, role)) or host.find_file(host.NETWORKS, name)


@functools.lru_cache(maxsize=4)
def _load(role: str, path: str, state: tuple[int, int], dtype: str) -> ModelPatcher:
    # shared by all nodes that name the same file, so that it is in memory once
    return host.managed(_LOADERS[role](path, dtype=dtype))
