"""The catalog of networks: a data file beside the bundled weights. A new entry needs no code."""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from .errors import AdainError
from .files import is_safe_name, parse_json
from .hub import HubFile, assets

_INSTALLED = Path(__file__).resolve().parent / "weights_data"
# In a checkout the folder stands beside the package, in an installed wheel inside it.
BUNDLED = _INSTALLED if _INSTALLED.is_dir() else _INSTALLED.parents[1] / "weights"
ROLES = ("encoder", "decoder")
PUBLIC_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")


@dataclass(frozen=True)
class Entry:
    """A network of the catalog: bundled as a file of that name, or on the Hub, where all `mirrors` have one file.

    `sha256` is the hash of the whole file, `size` the number of bytes that a pull downloads. If the file holds more than the
    network, `tensors` says which layers to take: by the name in this project, the name in the file; each has a weight and a
    bias. `hashes` are the known SHA-256 of these tensors, by their name in the file. `mean` and `std`: such an encoder
    normalises RGB pictures in [0, 1] by them.
    """

    name: str
    role: str
    architecture: str = ""
    bundled: str = ""
    mirrors: tuple[HubFile, ...] = ()
    size: int = 0
    sha256: str = ""
    fingerprint: str = ""
    tensors: dict[str, str] = field(default_factory=dict)
    hashes: dict[str, str] = field(default_factory=dict)
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    licence: str = ""
    about: str = ""

    def __post_init__(self) -> None:
        texts = ("name", "role", "architecture", "bundled", "sha256", "fingerprint", "licence", "about")
        if wrong := next((name for name in texts if not isinstance(getattr(self, name), str)), None):
            raise AdainError(f"the {wrong} of an entry is not a text; write it as a JSON string.")
        for name in ("tensors", "hashes"):
            pairs = getattr(self, name)
            if not isinstance(pairs, dict) or not all(isinstance(value, str) for value in pairs.values()):
                raise AdainError(f"the {name} of {self.name!r} are not a JSON object of texts.")
        if not all(isinstance(number, (int, float)) for number in (self.size, *self.mean, *self.std)):
            raise AdainError(f"size, mean and std of {self.name!r} are not all numbers.")
        if not (self.bundled or self.mirrors) or (self.bundled and not is_safe_name(self.bundled)):
            raise AdainError(f"{self.name!r} names neither a file beside the catalog nor a file on the Hub.")

    @property
    def path(self) -> Path:
        """Where the network's file is, or will be after a pull. A changed source changes the path."""
        if self.bundled:
            return BUNDLED / self.bundled
        source = (self.role, self.sha256 or self.mirrors, self.tensors, self.mean, self.std)
        return assets() / f"{Path(self.name).stem}-{hashlib.sha256(repr(source).encode()).hexdigest()[:16]}.safetensors"

    @property
    def available(self) -> bool:
        """Whether the network is here or on the Hub; a bundled file can be missing."""
        return bool(self.mirrors) or self.path.is_file()


def network_file(name: str, role: str) -> str:
    """The file name, or path, of an "encoder" or "decoder" of this name, or path."""
    return f"{name}-{role}.safetensors"


def catalog() -> list[Entry]:
    """All entries; nothing is downloaded. Raises AdainError if the file is not a catalog."""
    path = BUNDLED / "catalog.json"
    try:
        return [_entry(described) for described in parse_json(path.read_bytes())]
    except AdainError as error:
        raise AdainError(f"{path} cannot be used: {error}") from None
    except (TypeError, AttributeError) as error:
        raise AdainError(f"{path} is not a catalog of networks ({error}).") from None


def _entry(described: dict) -> Entry:
    """An entry from its JSON object; fields added by a newer version are ignored."""
    values = {field.name: described[field.name] for field in dataclasses.fields(Entry) if field.name in described}
    values["mirrors"] = tuple(map(HubFile.described, described.get("mirrors", ())))
    return Entry(**values)


def find_entry(name: str, role: str) -> Entry | None:
    """The entry of a catalog name, or a new entry for "hf:owner/repo/file"; the role of that is read from the file later.

    None if the catalog lacks the name. Raises AdainError if a name on the Hub is not the name of a weight file.
    """
    if name.startswith("hf:"):
        return hub_entry(name)
    return next((entry for entry in catalog() if (entry.name, entry.role) == (name, role)), None)


def hub_entry(name: str) -> Entry:
    """A new entry for "hf:owner/repo/file". Raises AdainError if this is not the name of a weight file."""
    file = HubFile.parse(name)
    if not name.lower().endswith(PUBLIC_SUFFIXES):
        raise AdainError(f"{name} is not a weight file; give a name that ends in {', '.join(PUBLIC_SUFFIXES)}.")
    return Entry(name, role="", mirrors=(file,))
