"""Pictures in memory as a video."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

from torch import Tensor

from .errors import AdainError
from .files import fingerprint
from .frames import OnWhite, SameSize
from .images import check_pictures
from .media import MediaFile
from .sound import Sound, wave_file
from .video import Frame, Video, save_format


class PictureVideo:
    """Pictures in memory as a video, with what a `Video` has.

    `pictures` holds `(1, 3 or 4, H, W)` in [0, 1] for each frame, `rate` of them a second. All get the first one's size, and
    are put on white, each with a warning. `samples` are `(channels, N)` of sound in [-1, 1], `sample_rate` of them a second;
    None is silence. Raises AdainError for no pictures, for a rate that is not positive, and for what `check_pictures` refuses.
    """

    multiple = Video.multiple
    aspect, step = Fraction(1), 1

    def __init__(self, pictures: Sequence[Tensor], rate: float | Fraction, samples: Tensor | None = None, sample_rate: int = 0):
        if not len(pictures) or not rate > 0:
            raise AdainError("the video has no pictures, or a rate that is not positive; give at least one picture.")
        self.pictures, self.rate = pictures, Fraction(rate).limit_denominator(1001)  # as of 30000/1001
        self.time_base = 1 / self.rate
        self.size = tuple(check_pictures(pictures[0], "video").shape[2:])
        if samples is not None and samples.numel():
            samples = samples[:, : math.ceil(len(pictures) / self.rate * sample_rate)]
        else:
            samples = None
        self.samples, self.sample_rate = samples, sample_rate

    @property
    def version(self) -> str:
        """Identifies the pictures and the sound."""
        digests = [fingerprint(tuple(picture.shape), {"": picture}) for picture in self.pictures]
        return fingerprint((self.rate, self.sample_rate, digests), {} if self.samples is None else {"": self.samples})

    def __len__(self) -> int:
        return len(self.pictures)

    def frames(self, skip: int = 0) -> Iterator[Frame]:
        """The frames after the first `skip`; their time is their number."""
        to_size = SameSize("the video", self.size)
        to_white = OnWhite("the video")
        for number in range(skip, len(self)):
            picture = check_pictures(self.pictures[number], "video").detach().cpu().float().clamp(0, 1)
            yield Frame(to_size(to_white(picture)), number)

    def sound(self, path: str | Path) -> Sound:
        """The sound, to be written into a video file `path`."""
        file = None if self.samples is None else MediaFile(wave_file(self.samples, self.sample_rate))
        return Sound(file, save_format(path).muxer)
