"""Errors reach the interface as built-in ones: it shows an error's type with the path of its module."""

from __future__ import annotations

import av
import PIL
import pytest

from adain_core.errors import AdainError, DivergedError
from adain_core.hub import HubError
from adain_core.images import TooManyPixels

RAISED = [
    (AdainError("too wide."), ValueError),
    (TooManyPixels("too wide."), ValueError),
    (DivergedError("too wide."), ValueError),
    (HubError("too wide."), OSError),
    (FileNotFoundError("too wide."), FileNotFoundError),
    (PIL.UnidentifiedImageError("too wide."), OSError),
    (TypeError("too wide."), TypeError),
    (RuntimeError("too wide."), RuntimeError),
]


@pytest.fixture
def raising(part):
    class Raising(part("nodes.sockets").Node):
        @classmethod
        def execute(cls, error):
            raise error

    return Raising.execute


@pytest.mark.parametrize(("error", "kind"), RAISED)
def test_errors_are_of_a_built_in_type_with_their_text(raising, error, kind):
    with pytest.raises(kind) as raised:
        raising(error)
    assert type(raised.value) is kind and str(raised.value) == "too wide."


def test_errors_of_the_video_library_are_built_in_ones_too(raising):
    with pytest.raises(FileNotFoundError) as raised:
        raising(av.error.FileNotFoundError(2, "No such file", "a.mp4"))
    assert type(raised.value) is FileNotFoundError and "No such file" in str(raised.value)


def test_cancelling_stays_what_the_host_knows(raising, part):
    interrupted = part("nodes.host").Interrupted
    with pytest.raises(interrupted):
        raising(interrupted())
