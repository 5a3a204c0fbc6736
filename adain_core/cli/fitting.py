"""Which encoder, decoder and styles belong together; it is found out before a network is pulled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ..catalog import PUBLIC_SUFFIXES, ROLES, Entry, catalog, find_entry, network_file
from ..errors import AdainError
from ..networks import ARCHITECTURES
from ..style import Style
from ..weights import NetworkFile, network_path, read_network, stated_fingerprint


def other_name(name: str, role: str) -> str:
    """The name of the network with this role that goes with the network, or the model, `name`.

    Of the file `NAME-encoder.safetensors` it is `NAME-decoder.safetensors`. Raises AdainError for another file, which is one
    network.
    """
    for ending in (network_file("", role) for role in ROLES):
        if name.endswith(ending):
            return network_file(name.removesuffix(ending), role)
    if Path(name).is_file() or (name.startswith("hf:") and name.lower().endswith(PUBLIC_SUFFIXES)):
        pair = _pair(name) or "its encoder by --encoder and its decoder by --decoder"
        raise AdainError(f"{name} is one network, and a picture takes two; give {pair}.")
    return network_file(name, role) if name.startswith("hf:") else name


def missing_network(names: Mapping[str, str]) -> str | None:
    """The role of the network to pull next, None if all are on this machine; the decoder says which encoder it reads."""
    return next((role for role in ("decoder", "encoder") if _entry_to_pull(names[role], role)), None)


def check_fit(names: Mapping[str, str], styles: Sequence[Style] = ()) -> None:
    """Raise AdainError if the networks, by the names of their roles, or the styles do not fit each other.

    Networks that are not on this machine are judged by the catalog, and pass where it does not say enough. Raises
    FileNotFoundError for a name that is not known.
    """
    encoder, decoder = (_known(names[role], role) for role in ("encoder", "decoder"))
    ours = names["encoder"]
    if encoder.role == "decoder":  # loading it says so
        return
    if isinstance(decoder, NetworkFile) and decoder.role == "decoder":
        if not _is_encoder(encoder, decoder.encoder_fingerprint, decoder.encoder_name):
            theirs = _catalog_name(decoder.encoder_fingerprint, decoder.encoder_name)
            models = [f"--model {model}" for model in dict.fromkeys([theirs, ours]) if _is_model(model)]
            fitting = " or ".join(models) if _is_model(names["decoder"]) else other_option(decoder)
            advice = fitting or "--encoder and --decoder that belong together"
            raise AdainError(f"the decoder {names['decoder']!r} reads {_another([theirs], ours)}; give {advice}.")
    for style in styles:
        if not any(_is_encoder(encoder, fingerprint, name) for fingerprint, name in style.encoders.items()):
            theirs = [_catalog_name(fingerprint, name) for fingerprint, name in style.encoders.items()]
            advice = "".join(f"--model {name}, or " for name in theirs if _is_model(name) and name != ours)
            what = f"the style {style.name!r} was made by {_another(theirs, ours)}"
            raise AdainError(f"{what}; give {advice}a picture in place of the style file.")


def _another(theirs: Sequence[str], ours: str) -> str:
    if ours in theirs:
        return f"another encoder that is called {ours!r} too"
    if len(theirs) > 1:
        return f"the encoders {' and '.join(map(repr, theirs))}, none of which is {ours!r}"
    return f"the encoder {theirs[0]!r}, which is not {ours!r}"


def check_textured(decoder_name: str) -> None:
    """Raise AdainError if the decoder is known to paint no texture."""
    decoder = _known(decoder_name, "decoder")
    if isinstance(decoder, NetworkFile) and decoder.role == "decoder":
        if not ARCHITECTURES[decoder.architecture].decoder.textured:
            raise AdainError(f"--texture does nothing: the decoder {decoder_name!r} paints none; leave it out.")


def _entry_to_pull(name: str, role: str) -> Entry | None:
    """The network's entry if it is not on this machine, else None."""
    entry = find_entry(name, role)
    return entry if entry and entry.mirrors and not entry.path.is_file() else None


def _known(name: str, role: str) -> NetworkFile | Entry:
    """The network in its file, or its entry if it has to be pulled. Raises FileNotFoundError for a name that is not known."""
    return _entry_to_pull(name, role) or read_network(network_path(name, role))


def _is_encoder(encoder: NetworkFile | Entry, fingerprint: str, name: str) -> bool:
    """Whether `encoder` has this fingerprint; by the name where its fingerprint is not known, True where neither is."""
    known = encoder.encoder_fingerprint if isinstance(encoder, NetworkFile) else encoder.fingerprint
    if known:
        return known == fingerprint
    return encoder.name.startswith("hf:") or encoder.name == _catalog_name(fingerprint, name)


def _catalog_name(fingerprint: str, name: str) -> str:
    """The encoder's name in the catalog, by its fingerprint, else the `name` that it goes by."""
    encoders = (entry for entry in catalog() if entry.role == "encoder")
    return next((e.name for e in encoders if (e.fingerprint or stated_fingerprint(e.path)) == fingerprint), name)


def _is_model(name: str) -> bool:
    """Whether the catalog has an encoder and a decoder of this name."""
    return {entry.role for entry in catalog() if entry.name == name and entry.available} == set(ROLES)


def _pair(name: str) -> str:
    """The options for the network in the file `name` and the one of the catalog that belongs to it; "" if there is none."""
    if not Path(name).is_file():
        return ""
    network = read_network(name)
    other = other_option(network)
    return other and " ".join(sorted([f"--{network.role} {name}", other], reverse=True))  # the encoder first


def other_option(network: NetworkFile) -> str:
    """The option for the network of the catalog that belongs to this one; "" if there is none."""
    if network.role == "decoder":
        encoder = _catalog_name(network.encoder_fingerprint, "")
        return encoder and f"--encoder {encoder}"
    bundled = [entry for entry in catalog() if entry.role == "decoder" and entry.bundled and entry.available]
    fitting = [e.name for e in bundled if read_network(e.path).encoder_fingerprint == network.encoder_fingerprint]
    return f"--decoder {fitting[0]}" if fitting else ""
