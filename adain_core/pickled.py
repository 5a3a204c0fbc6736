"""Files of PyTorch (`torch.save`) from anywhere: code in them is not run, and they fill no more memory than they have bytes."""

from __future__ import annotations

import io
import pickle
import pickletools
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from .errors import AdainError
from .files import check_is_file

# What a file of tensors names; PyTorch allows more with `weights_only=True`, some of which takes any amount of memory.
NAMES = re.compile(r"collections OrderedDict|torch._utils _rebuild_(tensor(_v2)?|parameter)|torch(\.cuda)? \w+Storage")
RECORD = re.compile(r"data/[0-9]+")  # the numbers of one tensor in an archive
ARCHIVE, PICKLE = b"PK\x03\x04", b"\x80"  # how files begin: those of PyTorch 1.6 and later, and older ones
PICKLES = 5  # in an older file, before its numbers


def read_pickled(path: str | Path, advice: str = "download it again") -> Any:
    """The content of a PyTorch file, on the CPU, whose tensors are plain ones.

    It is read with `weights_only=True`. Raises the errors of `check_is_file`, OSError for a file that cannot be opened, which
    may still be whole, and AdainError, with this `advice`, for one that is damaged, holds anything but tensors and plain
    values, or would be larger when unpacked.
    """
    check_is_file(path)
    content = Path(path).read_bytes()
    try:
        found = torch.load(_checked(content), map_location="cpu", weights_only=True)
        tensors = list(_tensors(found))
    except pickle.UnpicklingError:
        raise AdainError(f"{path} is not a PyTorch weight file, or holds more than tensors; it is not run.") from None
    except Exception as error:  # for damaged files torch.load raises errors of many types
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise AdainError(f"{path} is damaged or not a file of PyTorch ({reason}); {advice}.") from None
    if not all(map(_is_plain, tensors)):
        raise AdainError(f"{path} holds other than plain tensors; {advice}.")
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
    if sum(storages.values()) > len(content):
        raise AdainError(f"{path} is damaged: its tensors are larger than the file; {advice}.")
    return found


def _checked(content: bytes) -> BinaryIO:
    """A file for `torch.load`. Raises an error if it names anything but tensors, or would be larger when unpacked."""
    if content.startswith(PICKLE):
        file = io.BytesIO(content)  # not a file on the disk, which PyTorch would first take for a tar archive
        for _ in range(PICKLES):
            _check_names(file)
    elif content.startswith(ARCHIVE):
        file = _packed_again(content)
    else:
        raise AdainError("it begins like no such file")
    file.seek(0)
    return file


def _packed_again(content: bytes) -> BinaryIO:
    """The archive `content` packed anew: PyTorch may find other parts in an archive than this check does, but not in this.

    PyTorch compresses nothing, so the parts of its archives are together smaller than the file.
    """
    packed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as source, zipfile.ZipFile(packed, "w") as target:
        parts = source.infolist()
        if any(part.compress_type != zipfile.ZIP_STORED for part in parts) or sum(p.file_size for p in parts) > len(content):
            raise AdainError("it would be larger when unpacked")
        if len({part.filename.casefold() for part in parts}) < len(parts):
            raise AdainError("parts of it have the same name")
        for part in parts:
            bytes_of_part, name = source.read(part), part.filename.partition("/")[2]
            if name == "data.pkl":
                _check_names(io.BytesIO(bytes_of_part))
            # PyTorch ignores upper and lower case: of a name with letters it would make many copies
            elif name.startswith("data/") and not RECORD.fullmatch(name):
                raise AdainError(f"it has a strange part {part.filename!r}")
            target.writestr(part.filename, bytes_of_part)
    return packed


def _check_names(file: BinaryIO) -> None:
    """Raise UnpicklingError if the pickle that begins here, up to whose end is read, names anything but tensors."""
    for opcode, argument, _ in pickletools.genops(file):
        named = opcode.name in ("GLOBAL", "INST", "STACK_GLOBAL", "EXT1", "EXT2", "EXT4")
        if named and not (opcode.name == "GLOBAL" and NAMES.fullmatch(str(argument))):
            raise pickle.UnpicklingError


def _tensors(value: Any) -> Iterator[Tensor]:
    """The tensors in dicts, lists and tuples, each once; what is in itself too ends."""
    seen, left = set(), [value]
    while left:
        value = left.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, dict):
            left += value.values()
        elif isinstance(value, (list, tuple)):
            left += value


def _is_plain(tensor: Tensor) -> bool:
    return (
        tensor.layout is torch.strided
        and tensor.device.type == "cpu"
        and not (tensor.is_nested or tensor.is_quantized)
        and tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()  # an expanded one fills more memory
    )
