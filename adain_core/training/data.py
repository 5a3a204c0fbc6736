"""Random crops from folders or tensors of pictures, as a stream that can be entered at any sample."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from ..devices import is_out_of_memory
from ..errors import AdainError
from ..files import printable
from ..images import damage_named, list_images, load_image, on_white, opened, to_pil, upright
from ..networks.base import check_seed

log = logging.getLogger(__name__)

Augmentation = Callable[[Tensor, np.random.Generator], Tensor]


class RandomCrops(Dataset):
    """Random crops `(3, crop_size, crop_size)`, uint8 RGB, of `count` pictures: the base class for folders and tensors.

    Sample `i` of an endless stream depends on the pictures, the settings and `(seed, i)` alone. Every epoch shows each
    picture once, in an order of its own: the smallest side is resized to `resize` pixels (of a range, a size uniform in
    its logarithm is drawn), never below the crop; a random crop is taken, half of them are flipped, then `augment` is
    applied to the crop as float32 in [0, 1]. Alpha is composited on white. Raises AdainError for seeds out of range, sizes
    below 1 and a range from the larger to the smaller.
    """

    count: int
    broken: Sequence[Path] = ()

    def __init__(
        self,
        crop_size: int,
        resize: int | tuple[int, int] = 512,
        augment: Augmentation | None = None,
        flip: bool = True,
        seed: int = 0,
    ):
        self.crop_size, self.augment, self.flip, self.seed = crop_size, augment, flip, seed
        check_seed(seed)
        smallest, largest = (resize, resize) if isinstance(resize, int) else resize
        if crop_size < 1 or not 1 <= smallest <= largest:
            raise AdainError(
                f"a crop of {crop_size} pixels cannot be taken at sizes {smallest} to {largest}; give positive sizes, the"
                " smaller one first."
            )
        self.sizes = max(smallest, crop_size), max(largest, crop_size)
        self._order: tuple[int, np.ndarray] = -1, np.empty(0)

    def digest(self) -> str:
        """A hash of the pictures, by which a training recognises them."""
        raise NotImplementedError

    def _readable(self, index: int) -> Image.Image:
        """Picture `index`, or another in the place of a damaged one: upright, RGB, the smallest side at most `sizes[1]`."""
        raise NotImplementedError

    def __getitem__(self, sample: int) -> Tensor:
        picture = self._readable(self._index_of(sample))
        rng = np.random.default_rng((self.seed, 1, sample))
        smallest, largest = self.sizes
        side = round(math.exp(rng.uniform(math.log(smallest), math.log(largest))))
        crop = random_crop(picture, side, self.crop_size, rng)
        if self.flip and rng.random() < 0.5:
            crop = ImageOps.mirror(crop)
        pixels = torch.from_numpy(np.array(crop)).permute(2, 0, 1).contiguous()
        if self.augment is None:
            return pixels
        return (self.augment(pixels.float() / 255, rng) * 255).round().to(torch.uint8)

    def _index_of(self, sample: int) -> int:
        epoch, place = divmod(sample, self.count)
        if self._order[0] != epoch:
            self._order = epoch, np.random.default_rng((self.seed, 0, epoch)).permutation(self.count)
        return int(self._order[1][place])


class PictureBatch(RandomCrops):
    """Random crops of `pictures` `(N, 3 or 4, H, W)` in [0, 1]."""

    def __init__(self, pictures: Tensor, crop_size: int, *settings: Any, **more: Any):
        super().__init__(crop_size, *settings, **more)
        self.pictures = [shrink(to_pil(picture), self.sizes[1]) for picture in on_white(pictures)]
        self.count = len(self.pictures)

    def digest(self) -> str:
        return hashlib.sha256(b"".join(picture.tobytes() for picture in self.pictures)).hexdigest()

    def _readable(self, index: int) -> Image.Image:
        return self.pictures[index]


class PictureFolder(RandomCrops):
    """Random crops of the pictures in `folder` and below.

    A file that cannot be read is replaced by the next readable one, and listed in `broken`. Up to `cache_bytes` of decoded
    pictures are kept, shared out among the workers. Raises FileNotFoundError for a folder that does not exist and AdainError
    for one without a readable picture.
    """

    def __init__(self, folder: str | Path, crop_size: int, *settings: Any, cache_bytes: int = 1 << 30, **more: Any):
        super().__init__(crop_size, *settings, **more)
        self.folder = Path(folder)
        self.files = list_images(folder)
        self.count = len(self.files)
        self._cache: dict[int, Image.Image] = {}
        self._cache_left = cache_bytes
        # in shared memory, so that the process that logs sees which files the workers found broken
        self._broken = torch.zeros(self.count, dtype=torch.bool).share_memory_()
        self._readable(0)

    @property
    def broken(self) -> list[Path]:
        """Files that turned out to be unreadable so far, in any worker."""
        # of a copy: nonzero() counts first and then collects, and fails if a worker writes in between
        return [self.files[index] for index in self._broken.clone().nonzero().flatten().tolist()]

    def digest(self) -> str:
        return folder_digest(self.folder, self.files)

    def _readable(self, index: int) -> Image.Image:
        """The picture of file `index`, or of the next readable one."""
        for candidate in (*range(index, len(self.files)), *range(index)):
            picture = self._picture(candidate)
            if picture is not None:
                return picture
        raise AdainError(f"none of the {len(self.files)} pictures in {self.folder} can be read; give another folder.")

    def _picture(self, index: int) -> Image.Image | None:
        if index in self._cache or self._broken[index]:
            return self._cache.get(index)
        try:
            picture = decode(self.files[index], self.sizes[1])
        except Exception as error:  # decoders raise almost anything for a damaged file, which must not end a run of hours
            if is_out_of_memory(error):  # the file may be whole
                raise
            self._broken[index] = True
            return None
        worker = get_worker_info()
        # every picture comes once an epoch, so that the first ones decoded are as good to keep as any
        size = 4 * picture.width * picture.height * (worker.num_workers if worker else 1)
        if size <= self._cache_left:
            self._cache[index] = picture
            self._cache_left -= size
        return picture


def pictures_of(source: str | Path | Tensor, crop_size: int, *settings: Any, **more: Any) -> RandomCrops:
    """Random crops of a folder's pictures or of a tensor of them."""
    if isinstance(source, Tensor):
        return PictureBatch(source, crop_size, *settings, **more)
    return PictureFolder(source, crop_size, *settings, **more)


def folder_digest(folder: Path, files: Sequence[Path]) -> str:
    """A hash of the names and sizes of a folder's files, the same wherever the folder lies."""
    lines = (f"{path.relative_to(folder).as_posix()} {path.stat().st_size}\n" for path in files)
    return hashlib.sha256("".join(lines).encode(errors="surrogateescape")).hexdigest()  # on Linux a name may be any bytes


def decode(path: str | Path, side: int) -> Image.Image:
    """An upright RGB picture on white, its smallest side reduced to `side` pixels if it is larger."""
    with opened(path) as file, damage_named(path):
        plain = file.format == "JPEG" and file.mode == "RGB" and "icc_profile" not in file.info
        if plain:
            file.draft("RGB", (side, side))  # the codec itself halves large pictures, many times faster
            picture = upright(file)
    return shrink(picture if plain else to_pil(on_white(load_image(path))), side)


def shrink(picture: Image.Image, side: int) -> Image.Image:
    """The picture with its smallest side reduced to `side` pixels if it is larger."""
    scale = side / min(picture.size)
    if scale >= 1:
        return picture
    return picture.resize(_scaled(picture, side), Image.Resampling.BICUBIC, reducing_gap=3)


def random_crop(picture: Image.Image, side: int, crop_size: int, rng: np.random.Generator) -> Image.Image:
    """A square of `crop_size` pixels at a random place of `picture` resized so that its smallest side is `side`."""
    width, height = _scaled(picture, side)
    left, top = int(rng.integers(width - crop_size + 1)), int(rng.integers(height - crop_size + 1))
    across, down = picture.width / width, picture.height / height
    right, bottom = min(picture.width, (left + crop_size) * across), min(picture.height, (top + crop_size) * down)
    # the box has only the crop resampled, not the picture
    return picture.resize((crop_size, crop_size), Image.Resampling.BICUBIC, box=(left * across, top * down, right, bottom))


def stream(
    folders: Sequence[RandomCrops],
    batch_size: int,
    position: int = 0,
    rank: int = 0,
    world_size: int = 1,
    workers: int = 1,
    pin_memory: bool = False,
) -> Iterator[list[Tensor]]:
    """Endless batches, one `(batch_size, 3, crop, crop)` uint8 tensor per folder, from sample `position` of all processes on.

    Process `rank` of `world_size` takes every `world_size`-th sample: together they take the samples of one process with
    the sum of their batch sizes, and step k of either starts at `position = k * batch_size * world_size`. `workers`
    processes decode (0: this one). Files found to be broken are logged, a line each time their number has doubled.
    """
    loader = DataLoader(
        _Samples(folders),
        batch_sampler=_Batches(batch_size, position, rank, world_size),
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        pin_memory=pin_memory,
        generator=torch.Generator(),  # or the loader would draw from the global one, which a checkpoint restores
    )
    logged = [0] * len(folders)
    for batch in loader:
        for k, folder in enumerate(folders):
            broken = folder.broken
            if isinstance(folder, PictureFolder) and len(broken) >= max(1, 2 * logged[k]):
                logged[k] = len(broken)
                names = ", ".join(printable(path.name) for path in broken[:5]) + (", ..." if len(broken) > 5 else "")
                log.warning("%d of %d pictures in %s cannot be read and are skipped: %s",
                            len(broken), len(folder.files), folder.folder, names)  # fmt: skip
        yield batch


class _Samples(Dataset):
    def __init__(self, folders: Sequence[RandomCrops]):
        self.folders = folders

    def __getitem__(self, sample: int) -> list[Tensor]:
        return [folder[sample] for folder in self.folders]


class _Batches:
    """Endless lists of one process's sample numbers."""

    def __init__(self, batch_size: int, position: int, rank: int, world_size: int):
        self.batch_size, self.position, self.rank, self.world_size = batch_size, position, rank, world_size

    def __iter__(self) -> Iterator[list[int]]:
        start = self.position
        while True:
            end = start + self.batch_size * self.world_size
            yield list(range(start + self.rank, end, self.world_size))
            start = end


def _scaled(picture: Image.Image, side: int) -> tuple[int, int]:
    width, height = (max(side, round(length * side / min(picture.size))) for length in picture.size)
    return width, height
