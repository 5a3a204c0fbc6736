"""Reading and writing files so that nothing is lost."""

from __future__ import annotations

import contextlib
import errno
import glob
import hashlib
import json
import os
import re
import secrets
import shutil
import stat
import tempfile
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, Any

import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from torch import Tensor

from .errors import AdainError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
LARGEST_HEADER = 1 << 22  # bytes of what a safetensors file says of its tensors; those of networks have some kilobytes
LONGEST_TEXT = 2000  # characters of a name, source or licence in a file
TEMPORARY_PREFIX = "adain-"  # in the names of temporary files and folders; eight random characters follow it
MOST_BYTES = 255  # of a name on most systems
LONGEST_NAME = 200  # of them in names that are chosen here, since endings are added
# Names that Windows takes for devices, with any ending, and characters that it does not allow in a name.
DEVICES = {"con", "prn", "aux", "nul", "conin$", "conout$", *(f"{p}{n}" for p in ("com", "lpt") for n in "0123456789¹²³")}
FORBIDDEN = frozenset('<>:"|?*/\\')
JOINERS = "\u200c\u200d"  # which Persian, the languages of India and emojis need; they show nothing themselves


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path` to write to; it replaces `path` at the end, or is removed after an error.

    Raises FileNotFoundError if the folder does not exist, and OSError if its files cannot be written.
    """
    path = Path(path)
    temporary = _temporary(path)
    try:
        try:
            yield temporary
        except OSError as error:
            if error.errno not in FULL and temporary.exists():
                raise
            raise not_written(path, error) from None
        try:
            os.replace(temporary, path)
        except OSError as error:
            raise not_written(path, error) from None
    finally:
        temporary.unlink(missing_ok=True)


def write_file(path: str | Path, content: bytes | memoryview | str) -> None:
    """Write a file whole, texts in UTF-8: a temporary file beside `path`, then renamed. Raises the errors of `replacing`."""
    with replacing(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def write_json(path: str | Path, value: object) -> None:
    """Write a value as JSON for people, by `write_file`; what JSON has no type for is written as its `str`."""
    write_file(path, json.dumps(value, indent=1, default=str) + "\n")


def check_is_file(path: str | Path) -> None:
    """Raise FileNotFoundError, or IsADirectoryError, if there is no file `path` to read."""
    if Path(path).is_dir():
        raise IsADirectoryError(f"{path} is a folder; give a file.")
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no file {path}.")


def check_writable(path: str | Path) -> None:
    """Raise the errors of `replacing` before any work is done."""
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; name a file in it.")
    _temporary(path).unlink(missing_ok=True)  # another process may have taken it for a leftover


def check_folder(path: str | Path) -> None:
    """Raise OSError if the folder cannot be made, or a file in it cannot be written."""
    path = Path(path)
    place = next((place for place in (path, *path.parents) if place.exists()), path)
    if place.is_file():
        raise NotADirectoryError(f"{place} is a file; name a folder.")
    check_writable(place / "file")


def make_folder(path: str | Path) -> None:
    """Make a folder, and those above it, if they do not exist. Raises OSError if this fails."""
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise not_written(Path(path), error) from None


def check_not_sources(targets: Iterable[str | Path], sources: Iterable[str | Path]) -> None:
    """Raise AdainError if one of `targets`, files to write, is one of `sources`, files to read, by this name or another.

    Links are followed, and a file is the same under all its names, those that differ in upper and lower case included where the
    disk does not tell them apart. Sources that are not files, such as names of the catalog, are passed over.
    """
    read = {identity: source for source in sources for identity in _identities(source)}
    for target in targets:
        if same := next((read[identity] for identity in _identities(target) if identity in read), None):
            name = f"{target} is" if str(target) == str(same) else f"{target} is {same},"
            advice = "name another place for the result"
            raise AdainError(f"{name} one of the files that are read, and would be replaced; {advice}.")


def remove_leftovers(path: str | Path) -> None:
    """Remove temporary files that killed runs left beside `path`; no other process may be writing to `path` now."""
    path = Path(path)
    start, ending = map(glob.escape, _hidden(path))
    for leftover in path.parent.glob(f"{start}????????{ending}"):
        leftover.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(path: Path, timeout: float = 0) -> Iterator[None]:
    """Hold the lock file `path`; on a disk without locks nothing is held.

    Raises BlockingIOError if another process still holds it after `timeout` seconds.
    """
    lock = FileLock(path)
    try:
        lock.acquire(timeout)
    except Timeout:
        raise BlockingIOError(f"{path} is held by another process.") from None
    except NotImplementedError:
        pass
    try:
        yield
    finally:
        lock.release()


def writing(path: str | Path) -> AbstractContextManager[None]:
    """Hold the output file `path`, so that no other process writes it meanwhile. Its folder must exist.

    Raises BlockingIOError if another process holds it.
    """
    path = Path(path)
    folder = path.parent.resolve()  # a link to the file would be replaced, one to its folder is not
    return _held(folder / f".{TEMPORARY_PREFIX}{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:8]}.lock", path)


def writing_folder(path: str | Path, process: int = 0) -> AbstractContextManager[None]:
    """Hold the output folder `path`, which is made if necessary, for one of the processes of a run; else like `writing`."""
    make_folder(path)
    return _held(Path(path).resolve() / f".{TEMPORARY_PREFIX}{process}.lock", Path(path))


@contextlib.contextmanager
def _held(lock: Path, output: Path) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(lock))
            if not lock.exists():  # the process that held it has removed it, and a third one could lock another
                stack.close()
                stack.enter_context(locked(lock))
        except BlockingIOError:
            raise BlockingIOError(
                f"{output} is being written by another process; wait until it is done, or name another output."
            ) from None
        try:
            yield
        finally:
            if os.name != "nt":
                with contextlib.suppress(OSError):
                    os.remove(lock)
    if os.name == "nt":  # open files cannot be removed there
        with contextlib.suppress(OSError):
            os.remove(lock)


@contextlib.contextmanager
def working_folder(path: str | Path) -> Iterator[Path]:
    """A folder for temporary files beside `path`; it is removed at the end, or by the next run if this one is killed."""
    path = Path(path)
    for lock in path.parent.glob(f".*.{TEMPORARY_PREFIX}????????/lock"):
        try:
            with FileLock(lock, timeout=0):  # a killed process holds no lock
                pass
        except (Timeout, OSError, NotImplementedError):
            continue
        shutil.rmtree(lock.parent, ignore_errors=True)
    try:
        folder = tempfile.TemporaryDirectory(prefix=_hidden(path)[0], dir=path.parent)
    except OSError as error:
        raise not_written(path, error) from None
    with folder as name:
        with locked(Path(name, "lock")):
            yield Path(name)


def is_safe_name(name: str) -> bool:
    """Whether a file or folder can have this name on every system: it is not a path, not hidden, not a device of Windows."""
    return (
        name.isprintable()
        and 0 < len(name.encode()) <= LONGEST_NAME
        and not FORBIDDEN & set(name)
        and name[0] not in ". "
        and name[-1] not in ". "
        and name.partition(".")[0].rstrip().lower() not in DEVICES
    )


def printable(text: str) -> str:
    """The text with what a terminal would obey, such as escape sequences, and what shows no character, as escapes."""

    def shows(character: str) -> bool:
        return character.isprintable() or unicodedata.category(character) == "Zs" or character in JOINERS

    return "".join(c if shows(c) else c.encode("unicode_escape").decode() for c in text)


def new_path(folder: str | Path, name: str, ending: str, what: str = "file") -> Path:
    """The path of a new file `name`, with `ending`, in `folder`; "a/b" is a file in its sub-folder, which need not exist.

    Errors call the file a `what`. Raises AdainError for a name that some system does not allow, for one that leads out of the
    folder by a link, and for one that differs from an existing name in upper and lower case only.
    """
    if not isinstance(name, str):
        raise AdainError(f"{str(name)[:80]!r} is not a name for a {what}; give a text.")
    folder = Path(os.path.realpath(folder))
    parts = name.strip().removesuffix(ending).split("/")
    path = Path(os.path.realpath(folder.joinpath(*parts[:-1], parts[-1] + ending))) if all(map(is_safe_name, parts)) else folder
    if path == folder or not path.is_relative_to(folder):
        raise AdainError(f"{name!r} is not a name for a {what}; use letters and digits, for example waves or sea/waves.")
    place = folder
    for part in path.relative_to(folder).parts:
        there = os.listdir(place) if place.is_dir() else []
        if part not in there and (twin := next((other for other in there if other.casefold() == part.casefold()), None)):
            raise AdainError(f"{name!r} differs only in upper and lower case from {twin!r}, which is there; give another name.")
        place /= part
    return path


def natural_order(path: Path) -> list[list[int | str]]:
    """A key that sorts paths by the numbers in their names: frame2 before frame10."""
    # in each part of a path, texts and numbers alternate; texts that differ in their zeros alone come last in order
    parts = [[int(piece) if piece.isdecimal() else piece for piece in re.split(r"(\d+)", part)] for part in path.parts]
    return [*parts, [str(path)]]


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text from an unknown source. Raises AdainError if it is not JSON."""
    try:
        return json.loads(text)
    except RecursionError:
        raise AdainError("its JSON is nested too deeply.") from None
    except ValueError as error:
        raise AdainError(f"its JSON is damaged ({error}).") from None


def version(path: str | Path) -> tuple[int, int]:
    """The time and size of a file; they differ after a change of the file."""
    status = Path(path).stat()
    return status.st_mtime_ns, status.st_size


def fingerprint(settings: object, *tensors: Mapping[str, Tensor]) -> str:
    """A hash of settings, by what `repr` prints, and of tensors."""
    digest = hashlib.sha256(repr(settings).encode(errors="surrogateescape"))
    for named in tensors:
        for name, tensor in named.items():
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def read_safetensors(path: str | Path, names: Iterable[str] | None = None) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file, copied into memory: a mapped file could not be replaced on Windows.

    `names` are the tensors to read; None takes all. Raises the errors of `check_is_file`, or AdainError if the file is
    not a complete safetensors file, has a description of more than `LARGEST_HEADER` bytes or lacks one of the names.
    """
    check_is_file(path)
    with open(path, "rb") as file:
        if int.from_bytes(file.read(8), "little") > LARGEST_HEADER:
            raise AdainError(f"{path} is not a safetensors file of networks or styles; download or make it again.")
    try:
        with open(path, "rb") as stream, safe_open(_utf8(path, stream), framework="pt") as file:
            names = file.keys() if names is None else names
            return {name: file.get_tensor(name).clone() for name in names}, file.metadata() or {}
    except SafetensorError as error:
        why = printable(str(error))[:200]
        raise AdainError(f"{path} is not a complete safetensors file ({why}); download or make it again.") from None


def text_of(metadata: Mapping[str, str], key: str) -> str:
    """A text of a file's metadata, such as a name or a licence, to be shown; "" if the file lacks it."""
    return printable(metadata.get(key, "")[:LONGEST_TEXT])


def _identities(path: str | Path) -> list[object]:
    """What a file is the same by: its path behind all links, and its number on its disk."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return []
    number = [(status.st_dev, status.st_ino)] if status.st_ino else []  # some disks have no numbers
    return [os.path.realpath(path), *number] if stat.S_ISREG(status.st_mode) else []


def _utf8(path: str | Path, stream: IO[bytes]) -> str | Path:
    """A path to the open file `stream` that is Unicode, as safetensors needs it; on Linux that of `path` may be any bytes."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return f"/dev/fd/{stream.fileno()}"
    return path


def not_written(path: Path, error: OSError) -> OSError:
    """The error of writing `path` as one sentence, of the class of its error number, which it keeps."""
    if error.errno in FULL:
        why = "the disk is full, or the file is larger than allowed; free some space, or choose another disk"
    elif error.errno == errno.ENAMETOOLONG:
        why = "its name is too long; give a shorter one"
    elif not path.parent.is_dir():
        why = f"the folder {path.parent} is gone; create it and start again"
    else:
        why = f"{error.strerror or error}; free it if it is read-only or in use, or choose another place"
    kind = type(OSError(error.errno, why))  # Python has a class for an error number, such as FileNotFoundError
    sentence = kind(f"{path} cannot be written: {why}.")
    sentence.errno = error.errno
    return sentence


def _hidden(path: Path) -> tuple[str, str]:
    """The beginning and the end of the names of temporary files beside `path`; eight characters come between them."""
    start, ending = f".{path.stem}.{TEMPORARY_PREFIX}", path.suffix
    if len(os.fsencode(start + ending)) + 8 > MOST_BYTES:  # the name itself may be as long as the system allows
        digest = hashlib.sha256(os.fsencode(path.stem)).hexdigest()[:16]
        start, ending = f".{digest}.{TEMPORARY_PREFIX}", ending if len(os.fsencode(ending)) < 32 else ""
    return start, ending


def _temporary(path: Path) -> Path:
    """A new empty file beside `path`; `remove_leftovers` finds it by its name."""
    if not path.parent.is_dir():
        raise FileNotFoundError(f"the folder {path.parent} does not exist; create it first.")
    start, ending = _hidden(path)
    temporary = path.with_name(f"{start}{secrets.token_hex(4)}{ending}")
    try:
        temporary.touch(exist_ok=False)  # not by tempfile, which makes private files: a result has the usual mode of a new file
    except OSError as error:
        raise not_written(path, error) from None
    return temporary
