"""Clips in constant memory: what a batch of the same frames gives, going on after a kill, and the command line."""

import dataclasses
import gc
import importlib
import shutil
import signal
import subprocess
import sys
import threading
import weakref
from fractions import Fraction
from types import SimpleNamespace

import clips
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save

from adain_core import clip as clip_module
from adain_core import encode_style, keep_colors, mix_styles, stylize, transfer
from adain_core.affine import interpolate_styles
from adain_core.cli import main
from adain_core.clip import CHUNK, ClipState, ClipStylizer, PictureSequence
from adain_core.files import writing, writing_folder
from adain_core.images import load_image, resize, save_image
from adain_core.networks.student import StudentEncoder
from adain_core.progress import showing
from adain_core.stylize import transfer_part
from adain_core.video import Frame, Video, VideoWriter
from adain_core.working import AUTOMATIC

OPTIONS = ["--style-size", "0", "--device", "cpu"]
KILLED_IN_THE_THIRD_PART = """
import glob, os, signal, sys
from adain_core import cli, video
write = video.VideoWriter.write
def write_or_die(self, frame):
    if len(glob.glob("killed.mp4.parts/*/*")) == 3 and frame.time > 1000:  # two parts, the state, and the one at work
        os.kill(os.getpid(), signal.SIGKILL)
    write(self, frame)
video.VideoWriter.write = write_or_die
cli.main(sys.argv[1:])
"""


@pytest.fixture
def style(small):
    return encode_style(small[0], torch.rand(1, 3, 16, 16), size=0)


@pytest.fixture
def other(small):
    return encode_style(small[0], torch.rand(1, 3, 16, 16) ** 4, size=0)


@pytest.fixture
def clip(tmp_path) -> Video:
    return Video(clips.write_clip(tmp_path / "clip.mp4", clips.noise(11)))


@pytest.fixture
def frames(clip) -> torch.Tensor:
    return torch.cat([frame.picture for frame in clip.frames()])


def streamed(small, clip, style, tmp_path, **options) -> torch.Tensor:
    """The stylised frames, before a file's compression."""
    stylizer = ClipStylizer(*small, style, **options)
    chunks = stylizer._stylized(clip, ClipState(tmp_path / "state", ""))
    return torch.cat([frame.picture for chunk in chunks for frame in chunk]).cpu()


@pytest.mark.parametrize("mode", ["image", "batch", "running"])
@pytest.mark.parametrize("tile", [None, 64])
def test_a_stream_is_the_batch(small, clip, frames, style, tmp_path, monkeypatch, mode, tile):
    monkeypatch.setattr(clip_module, "CHUNK", 3)
    options = {"content_statistics": mode, "half_life": 2.0, "alpha": 0.8, "tile": tile}
    if tile:
        frames = resize(frames, 80)
    expected = stylize(*small, frames, style, texture=0.0, **options).cpu()
    result = streamed(small, clip, style, tmp_path, size=80 if tile else 0, **options)
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-5)
    if mode == "running":
        assert not torch.allclose(result, stylize(*small, frames, style, alpha=0.8, texture=0.0).cpu(), atol=0.01)


@pytest.mark.parametrize("mode", ["batch", "running"])
def test_frames_are_worked_on_at_a_smaller_size(small, clip, frames, style, tmp_path, mode):
    options = {"content_statistics": mode, "half_life": 2.0, "alpha": 0.8, "texture": 0.7, "working_size": 24, "detail": 0.6}
    assert min(frames.shape[2:]) > 24
    expected = stylize(*small, frames, style, **options).cpu()
    torch.testing.assert_close(streamed(small, clip, style, tmp_path, **options), expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="detail is -1"):
        ClipStylizer(*small, style, detail=-1.0)


def test_a_part_of_a_clip_goes_on_with_the_statistics_before_it(small, frames, style):
    encoder, whole = small[0], transfer(small[0], frames, style, content_statistics="running")
    first = transfer(encoder, frames[:4], style, content_statistics="running")
    known = [level[3] for level in first.content_statistics]
    second = transfer_part(encoder, frames[4:], style, 1.0, "running", 8.0, None, known)
    for level, expected in zip(second.levels, whole.levels, strict=True):
        torch.testing.assert_close(level, expected[4:], rtol=1e-4, atol=1e-5)


def test_styles_are_spread_along_the_clip(small, clip, frames, style, other, tmp_path):
    share = torch.linspace(0, 1, 11)
    sweep = mix_styles([style, other], [1 - share, share])
    expected = stylize(*small, frames, sweep, texture=0.0).cpu()
    each = streamed(small, clip, sweep, tmp_path, content_statistics="image")
    torch.testing.assert_close(each, expected, rtol=1e-4, atol=1e-5)
    ends = mix_styles([style, other], [torch.tensor([1.0, 0]), torch.tensor([0.0, 1])])
    spread = streamed(small, clip, ends, tmp_path, content_statistics="image")
    torch.testing.assert_close(spread, expected, rtol=1e-4, atol=1e-5)


def test_masked_styles_are_spread_along_the_clip(small, clip, frames, style, other, tmp_path):
    left = torch.zeros(32, 32)
    left[:, :16] = 1
    first, last = style.masked(left), other.masked(1 - left)
    expected = stylize(*small, frames, interpolate_styles(first, last, torch.linspace(0, 1, 11)), texture=0.0).cpu()
    ends = interpolate_styles(first, last, torch.tensor([0.0, 1.0]))
    spread = streamed(small, clip, ends, tmp_path, content_statistics="image")
    torch.testing.assert_close(spread, expected, rtol=1e-4, atol=1e-5)


def test_each_mask_is_of_one_frame_and_the_last_of_those_that_follow(small, clip, frames, style, tmp_path):
    masks = torch.zeros(3, 1, 8, 8)
    masks[0], masks[2, :, :4] = 1, 1
    expected = stylize(*small, frames, style.masked(masks[[0, 1, *[2] * 9]]), texture=0.0).cpu()
    result = streamed(small, clip, style.masked(masks), tmp_path, content_statistics="image")
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-5)
    many = ClipStylizer(*small, style.masked(torch.ones(12, 1, 8, 8)))
    with pytest.raises(ValueError, match="12 masks do not fit 11 frames"):
        many.video(clip, tmp_path / "out.mp4")


def test_colours_are_kept_frame_by_frame(small, clip, frames, style, tmp_path):
    result = streamed(small, clip, style, tmp_path, keep_colors=True, content_statistics="image")
    expected = keep_colors(stylize(*small, frames, style, texture=0.0).cpu(), frames)
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mode", ["batch", "running"])
def test_few_frames_are_in_memory_at_once(small, style, tmp_path, mode):
    alive, most = weakref.WeakSet(), []

    class Endless:
        multiple = 1

        def __len__(self):
            return 60

        def frames(self, skip=0):
            for k in range(skip, 60):
                picture = torch.rand(1, 3, 16, 16)
                alive.add(picture)
                most.append(len(alive))
                yield Frame(picture, k)

    stylizer = ClipStylizer(*small, style, content_statistics=mode)
    gc.collect()
    for chunk in stylizer._stylized(Endless(), ClipState(tmp_path / "state", "")):
        del chunk
    assert len(most) == (120 if mode == "batch" else 60) and max(most) <= clip_module.CHUNK + 6


def test_progress_is_in_frames_and_shows_them(small, clip, style, tmp_path):
    seen = []
    with showing(lambda done, total, pictures=None: seen.append((done, total, pictures is not None))):
        streamed(small, clip, style, tmp_path, content_statistics="batch")
    assert all(total == 11 for _, total, _ in seen)
    measured, shown = [d for d, _, picture in seen if not picture], [d for d, _, picture in seen if picture]
    assert 11 in measured and shown[-1] == 11 and shown == sorted(shown)


def test_what_cannot_be_is_refused_before_any_work(small, style):
    with pytest.raises(ValueError, match="alpha is 2"):
        ClipStylizer(*small, style, alpha=2)
    with pytest.raises(ValueError, match="made by the encoder 'other'"):
        ClipStylizer(*small, dataclasses.replace(style, encoder_fingerprint="other", encoder_name="other"))
    with pytest.raises(ValueError, match="content_statistics is 'clip'"):
        ClipStylizer(*small, style, content_statistics="clip")
    with pytest.raises(ValueError, match="half_life is 0"):
        ClipStylizer(*small, style, half_life=0)


class Stopped(Exception):
    pass


def broken_off(stylizer, clip, path, after: int) -> None:
    """What a run leaves that ends after it has told so often how far it is."""
    calls = iter(range(after))

    def stop(*_):
        if next(calls, None) is None:
            raise Stopped

    with pytest.raises(Stopped), showing(stop):
        stylizer.video(clip, path)


@pytest.mark.parametrize("mode", ["batch", "running"])
@pytest.mark.parametrize("after", [1, 12, 37])
def test_a_broken_clip_goes_on_and_is_the_one_of_one_run(small, clip, style, tmp_path, monkeypatch, mode, after):
    monkeypatch.setattr(clip_module, "PART_FRAMES", 4)
    monkeypatch.setattr(clip_module, "CHUNK", 2)
    stylizer = ClipStylizer(*small, style, content_statistics=mode)
    stylizer.video(clip, tmp_path / "whole.mp4")
    path = tmp_path / "result.mp4"
    broken_off(stylizer, clip, path, after)
    assert not path.exists()
    stylizer.video(clip, path)
    assert path.read_bytes() == (tmp_path / "whole.mp4").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["clip.mp4", "result.mp4", "whole.mp4"]


@pytest.mark.parametrize("mode", ["batch", "running"])
def test_parts_are_kept_whatever_number_of_frames_is_worked_on_at_once(small, clip, style, tmp_path, monkeypatch, mode):
    monkeypatch.setattr(clip_module, "PART_FRAMES", 4)
    monkeypatch.setattr(ClipStylizer, "_at_once", lambda self: 3)
    monkeypatch.setattr(clip_module, "kept_at_once", lambda *_: 3)
    joined, saved = [], []
    monkeypatch.setattr(clip_module, "join", lambda parts, *_: joined.extend(begin for _, begin in parts))
    save = ClipState.save
    monkeypatch.setattr(ClipState, "save", lambda state: (saved.append(state.measured), save(state)))
    ClipStylizer(*small, style, content_statistics=mode).video(clip, tmp_path / "out.mp4")
    assert len(joined) == 2 and saved[0] == (6 if mode == "batch" else 0)


def test_only_what_is_missing_is_done_and_other_settings_start_anew(small, clip, style, tmp_path, monkeypatch):
    monkeypatch.setattr(clip_module, "PART_FRAMES", 4)
    monkeypatch.setattr(clip_module, "CHUNK", 2)
    stylizer, path = ClipStylizer(*small, style), tmp_path / "result.mp4"
    broken_off(stylizer, clip, path, 37)
    state = next(tmp_path.glob("result.mp4.parts/*/state.safetensors"))
    done = ClipState(state, stylizer.digest(clip)).done
    assert done >= 4
    seen = []
    with showing(lambda number, *_: seen.append(number)):
        stylizer.video(clip, path)
    assert min(seen) == done
    broken_off(stylizer, clip, path, 37)
    seen.clear()
    with showing(lambda number, *_: seen.append(number)):
        ClipStylizer(*small, style, alpha=0.5).video(clip, path)
    assert min(seen) == 0
    plain = ClipStylizer(*small, style, alpha=0.5)
    plain.video(clip, tmp_path / "plain.mp4")
    assert path.read_bytes() == (tmp_path / "plain.mp4").read_bytes()


def test_the_parts_of_other_settings_are_kept_and_gone_on_with(small, clip, style, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(clip_module, "PART_FRAMES", 4)
    monkeypatch.setattr(clip_module, "CHUNK", 2)
    stylizer, path = ClipStylizer(*small, style), tmp_path / "result.mp4"
    broken_off(stylizer, clip, path, 37)
    before = {part: part.read_bytes() for part in tmp_path.glob("result.mp4.parts/*/*")}
    assert len(before) >= 2 and not caplog.records
    ClipStylizer(*small, style, alpha=0.5).video(clip, path)  # a mistyped option
    assert {part: part.read_bytes() for part in tmp_path.glob("result.mp4.parts/*/*")} == before
    assert "result.mp4.parts keeps the parts of runs with other settings, which go on with them" in caplog.text
    seen = []
    with showing(lambda number, *_: seen.append(number)):
        stylizer.video(clip, path)
    assert min(seen) >= 4
    assert sorted(p.name for p in tmp_path.iterdir()) == ["clip.mp4", "result.mp4"]


@pytest.mark.parametrize("files", [[], ["000000.mp4", "state.safetensors", "notes/mine.txt"]])
def test_a_folder_of_somebody_elses_with_the_name_of_the_parts_is_left_as_it_is(small, clip, style, tmp_path, files):
    folder = tmp_path / "result.mp4.parts"
    folder.mkdir()
    for name in files:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("mine")
    ClipStylizer(*small, style).video(clip, tmp_path / "result.mp4")
    assert sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()) == sorted(files)
    assert all((folder / name).read_text() == "mine" for name in files) and (tmp_path / "result.mp4").is_file()


def test_a_file_put_among_the_parts_stays(small, clip, style, tmp_path, monkeypatch):
    monkeypatch.setattr(clip_module, "PART_FRAMES", 4)
    monkeypatch.setattr(clip_module, "CHUNK", 2)
    stylizer, path = ClipStylizer(*small, style), tmp_path / "result.mp4"
    broken_off(stylizer, clip, path, 37)
    mine = next(tmp_path.glob("result.mp4.parts/*")) / "mine.txt"
    mine.write_text("mine")
    stylizer.video(clip, path)
    assert mine.read_text() == "mine" and [p for p in tmp_path.rglob("*.parts/*/*") if p.is_file()] == [mine]


def test_a_clip_stopped_before_its_first_part_leaves_nothing(small, clip, style, tmp_path):
    broken_off(ClipStylizer(*small, style), clip, tmp_path / "result.mp4", 1)
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mp4"]


def test_a_clip_whose_parts_are_gone_begins_anew(small, clip, style, tmp_path, monkeypatch):
    monkeypatch.setattr(clip_module, "PART_FRAMES", 4)
    monkeypatch.setattr(clip_module, "CHUNK", 2)
    stylizer, path = ClipStylizer(*small, style), tmp_path / "result.mp4"
    broken_off(stylizer, clip, path, 37)
    next(tmp_path.glob("result.mp4.parts/*/000000.mp4")).unlink()
    stylizer.video(clip, path)
    stylizer.video(clip, tmp_path / "whole.mp4")
    assert path.read_bytes() == (tmp_path / "whole.mp4").read_bytes()


def test_an_output_that_another_process_writes_is_refused(small, clip, style, tmp_path):
    stylizer, path = ClipStylizer(*small, style), tmp_path / "result.mp4"
    (tmp_path / "elsewhere").symlink_to(tmp_path)
    with writing(path):
        unfinished = path.with_name(".result.adain-01234567.mp4")  # as the other process writes it
        unfinished.touch()
        for name in (path, tmp_path / "elsewhere" / "result.mp4"):
            with pytest.raises(BlockingIOError, match=r"result.mp4 is being written by another process; wait until it is done"):
                stylizer.video(clip, name)
        assert unfinished.exists()
        stylizer.video(clip, tmp_path / "other.mp4")
    stylizer.video(clip, path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["clip.mp4", "elsewhere", "other.mp4", "result.mp4"]


@pytest.fixture
def command(tmp_path, small_files, monkeypatch):
    monkeypatch.chdir(tmp_path)
    clips.write_clip(tmp_path / "clip.mp4", clips.noise(11))
    for k in range(5):
        (tmp_path / "frames").mkdir(exist_ok=True)
        save_image(torch.rand(3, 24, 30), tmp_path / "frames" / f"{k}.png")
    for name in ("red.png", "blue.png"):
        save_image(torch.rand(3, 16, 16), tmp_path / name)
    networks = ["--encoder", str(small_files[0]), "--decoder", str(small_files[1]), "--dtype", "float32", *OPTIONS]

    def run(*arguments: str) -> int:
        return main(["stylize", *arguments, *networks])

    run.networks = networks
    return run


def painted(networks, name):
    return encode_style(networks[0], load_image(name), size=0)


def test_a_video_on_the_command_line(command, networks, tmp_path):
    assert command("clip.mp4", "red.png", "-o", "out.mp4", "--half-life", "3", "--keep-colors") == 0
    frames = torch.cat([frame.picture for frame in Video("clip.mp4").frames()])
    options = {"content_statistics": "running", "half_life": 3.0, "texture": 0.0}
    expected = stylize(*networks, frames, painted(networks, "red.png"), **options)
    result = torch.from_numpy(clips.pixels(tmp_path / "out.mp4")).permute(0, 3, 1, 2) / 255
    assert (result - keep_colors(expected, frames)).abs().mean() < 0.03
    assert clips.times(tmp_path / "out.mp4") == [Fraction(k, 10) for k in range(11)]
    assert clips.packets(tmp_path / "out.mp4", "audio") == clips.packets(tmp_path / "clip.mp4", "audio")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows allows no colon in a name")
def test_a_name_with_a_colon_is_no_url(command, tmp_path):
    (tmp_path / "a:b").mkdir()
    (tmp_path / "clip.mp4").rename(tmp_path / "12:30 clip.mp4")
    assert command("12:30 clip.mp4", "red.png", "-o", "a:b/pipe:1.mp4") == 0
    assert clips.packets(tmp_path / "a:b/pipe:1.mp4", "audio") == clips.packets(tmp_path / "12:30 clip.mp4", "audio")


@pytest.mark.parametrize("at", [1, 3, 4, 9, 11])
def test_the_removal_of_the_output_folder_is_named(small, clip, style, tmp_path, monkeypatch, at):
    monkeypatch.setattr(clip_module, "PART_FRAMES", 4)
    folder = tmp_path / "out"
    folder.mkdir()

    def remove(done, *_):
        if done == at:
            shutil.rmtree(folder, ignore_errors=True)

    with pytest.raises(OSError, match=r"out/result.mp4.*(is gone; create it|does not exist; create it)"):
        with showing(remove):
            ClipStylizer(*small, style).video(clip, folder / "result.mp4")


def test_the_removal_of_the_folder_of_a_clip_of_pictures_is_named(networks, command, tmp_path):
    sources, folder = [tmp_path / "frames" / f"{k}.png" for k in range(5)], tmp_path / "out"
    folder.mkdir()

    def remove(done, *_):
        if done == 3:
            shutil.rmtree(folder, ignore_errors=True)

    with pytest.raises(FileNotFoundError, match="the folder .*out (is gone|does not exist); create it"), showing(remove):
        stylizer = ClipStylizer(*networks, painted(networks, "red.png"))
        stylizer.pictures(PictureSequence(sources), [folder / path.name for path in sources], folder / ".clip.safetensors")


def test_pictures_of_8_bits_stay_bytes_until_they_are_on_the_device(tmp_path):
    Image.new("RGBA", (6, 4), (10, 20, 30, 40)).save(tmp_path / "0.png")
    Image.new("I;16", (6, 4), 40000).save(tmp_path / "1.png")
    (tmp_path / "2.png").write_bytes((tmp_path / "0.png").read_bytes()[:40])
    frames = [frame.pixels for frame in PictureSequence([tmp_path / f"{k}.png" for k in range(3)]).frames()]
    assert [x.dtype for x in frames] == [torch.uint8, torch.float32, torch.float32]
    assert frames[0][0, :, 0, 0].tolist() == [10, 20, 30, 40] and frames[1].unique().tolist() == pytest.approx([40000 / 65535])


def test_a_video_resized_into_a_folder_has_even_sides(command, tmp_path):
    (tmp_path / "out").mkdir()
    assert command("clip.mp4", "red.png", "-o", "out", "--size", "18", "--content-statistics", "batch") == 0
    assert clips.pixels(tmp_path / "out" / "clip.mp4").shape == (11, 18, 28, 3)


@pytest.mark.parametrize("mode", ["batch", "running"])
def test_a_folder_of_frames_is_a_clip(command, networks, tmp_path, mode):
    half_life = ["--half-life", "2"] if mode == "running" else []
    options = ["--content-statistics", mode, *half_life, "--style-to", "blue.png"]
    assert command("frames", "red.png", "-o", "out", *options) == 0
    frames = torch.cat([load_image(tmp_path / "frames" / f"{k}.png") for k in range(5)])
    share = torch.linspace(0, 1, 5)
    sweep = mix_styles([painted(networks, name) for name in ("red.png", "blue.png")], [1 - share, share])
    expected = stylize(*networks, frames, sweep, content_statistics=mode, half_life=2.0, texture=0.0)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [f"{k}.png" for k in range(5)]
    for k in range(5):
        assert (load_image(tmp_path / "out" / f"{k}.png") - expected[k]).abs().max() < 0.55 / 255


def test_what_a_mask_protects_stays_the_content_on_the_way_to_another_style(command, tmp_path):
    mask = torch.zeros(3, 20, 24)
    mask[..., :12] = 1
    save_image(mask, tmp_path / "mask.png")
    options = ["--mask", "mask.png", "--style-to", "blue.png", "--content-statistics", "running"]
    assert command("frames", "red.png", "-o", "out", *options) == 0
    for k in range(5):
        change = (load_image(tmp_path / "out" / f"{k}.png") - load_image(tmp_path / "frames" / f"{k}.png")).abs()
        assert change[..., -8:].max() < 1 / 255 < change[..., :8].mean()


def pictures_broken_off(stylizer, sources, targets, state, at: int) -> None:
    """What a run leaves that ends as it has told that frame `at` is done."""

    def stop(done, *_):
        if done == at:
            raise Stopped

    with pytest.raises(Stopped), showing(stop):
        stylizer.pictures(PictureSequence(sources), targets, state)


def test_a_broken_folder_goes_on(command, networks, tmp_path):
    sources = [tmp_path / "frames" / f"{k}.png" for k in range(5)]
    (tmp_path / "out").mkdir()
    targets, state = [tmp_path / "out" / f"{k}.png" for k in range(5)], tmp_path / "out" / ".clip.safetensors"
    stylizer = ClipStylizer(*networks, painted(networks, "red.png"))
    pictures_broken_off(stylizer, sources, targets, state, at=3)
    written = {path: path.stat().st_mtime_ns for path in targets if path.exists()}
    assert len(written) == 2 and state.exists()
    stylizer.pictures(PictureSequence(sources), targets, state)
    assert all(path.stat().st_mtime_ns == time for path, time in written.items()) and not state.exists()
    assert command("frames", "red.png", "-o", "again", "--content-statistics", "running") == 0
    assert all(path.read_bytes() == (tmp_path / "again" / path.name).read_bytes() for path in targets)


def test_a_clip_that_goes_on_names_the_frames_that_could_not_be_read_before(command, networks, tmp_path):
    sources = [tmp_path / "frames" / f"{k}.png" for k in range(5)]
    sources[1].write_bytes(sources[1].read_bytes()[:-600])  # its header is whole
    (tmp_path / "out").mkdir()
    targets, state = [tmp_path / "out" / path.name for path in sources], tmp_path / "out" / ".clip.safetensors"
    stylizer = ClipStylizer(*networks, painted(networks, "red.png"))
    pictures_broken_off(stylizer, sources, targets, state, at=4)
    clip = PictureSequence(sources)
    assert not clip.failures
    stylizer.pictures(clip, targets, state)
    assert list(clip.failures) == [sources[1]] and "1.png" in str(clip.failures[sources[1]])


def test_a_folder_with_an_unfinished_clip_of_other_settings_is_refused(command, networks, tmp_path, capsys):
    sources, out = [tmp_path / "frames" / f"{k}.png" for k in range(5)], tmp_path / "out"
    out.mkdir()
    targets = [out / path.name for path in sources]
    stylizer = ClipStylizer(*networks, painted(networks, "red.png"), working_size=AUTOMATIC)  # as the command
    pictures_broken_off(stylizer, sources, targets, out / ".clip.safetensors", at=3)
    before = {path: path.read_bytes() for path in out.iterdir()}
    again = ["frames", "red.png", "-o", "out", "--content-statistics", "running"]
    assert command(*again, "--alpha", "0.5") == 2
    error = capsys.readouterr().err
    assert ".clip.safetensors belongs to an unfinished clip of other frames or settings" in error and error.count("\n") == 1
    assert {path: path.read_bytes() for path in out.iterdir()} == before
    assert command(*again) == 0 and sorted(path.name for path in out.iterdir()) == [path.name for path in sources]


@pytest.mark.parametrize("mode", [[], ["--content-statistics", "running"], ["--styles", "frames"]])
def test_a_folder_that_another_process_writes_is_refused(command, tmp_path, capsys, mode):
    style = [] if "--styles" in mode else ["red.png"]
    with writing_folder(tmp_path / "out"):
        assert command("frames", *style, "-o", "out", *mode) == 2
        error = capsys.readouterr().err
        assert "out is being written by another process; wait until it is done" in error and error.count("\n") == 1
    assert command("frames", *style, "-o", "out", *mode) == 0
    assert not [path.name for path in (tmp_path / "out").iterdir() if path.name.startswith(".")]


def test_a_damaged_state_begins_anew(tmp_path):
    state = ClipState(tmp_path / "state", "settings")
    state.done = 3
    state.save()
    assert ClipState(tmp_path / "state", "settings").done == 3
    (tmp_path / "state").write_bytes((tmp_path / "state").read_bytes()[:-5])
    assert ClipState(tmp_path / "state", "settings").done == 0
    for place in ("[3", "3", "[3, 3]"):
        (tmp_path / "state").write_bytes(save({}, {"digest": "settings", "place": place}))
        assert ClipState(tmp_path / "state", "settings").done == 0
    (tmp_path / "state").write_bytes(save({}, {"digest": "settings"}))
    assert ClipState(tmp_path / "state", "settings").done == 0


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs a kill that a process cannot see")
def test_a_killed_command_goes_on_and_ends_with_the_same_frames(command, tmp_path):
    clips.write_clip(tmp_path / "long.mp4", clips.noise(150))
    arguments = ["stylize", "long.mp4", "red.png", *command.networks, "-o"]
    killed = subprocess.run([sys.executable, "-c", KILLED_IN_THE_THIRD_PART, *arguments, "killed.mp4"])
    assert killed.returncode == -signal.SIGKILL and not (tmp_path / "killed.mp4").exists()
    assert len(list((tmp_path / "killed.mp4.parts").glob("*/0*.mp4"))) == 2
    assert main([*arguments, "killed.mp4"]) == 0 and main([*arguments, "whole.mp4"]) == 0
    difference = clips.pixels(tmp_path / "killed.mp4").astype(int) - clips.pixels(tmp_path / "whole.mp4")
    assert np.abs(difference).mean() < 1  # a last bit may round to another level, and the codec spreads it
    assert clips.times(tmp_path / "killed.mp4") == clips.times(tmp_path / "long.mp4")
    assert not list(tmp_path.glob("*.parts"))


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["none.mp4", "red.png", "-o", "o.mp4"], "there is no file none.mp4"),
        (["text.mp4", "red.png", "-o", "o.mp4"], "text.mp4 is not a readable video"),
        (["clip.mp4", "red.png", "-o", "o.png"], "videos cannot be written as o.png"),
        (["clip.mp4", "red.png", "-o", "none/o.mp4"], "create it first"),
        (["clip.mp4", "red.png", "-o", "clip.mp4"], "content itself"),
        (["clip.mp4", "red.png", "-o", "o.mp4", "--match-colors"], "--match-colors does not work for a clip"),
        (["clip.mp4", "--styles", ".", "-o", "o"], "not a folder"),
        (["clip.mp4", "red.png", "-o", "o.mp4", "--half-life", "0"], "half_life is 0"),
        (["frames", "red.png", "-o", "o", "--content-statistics", "batch", "--half-life", "2"], "--half-life does nothing"),
        (["clip.mp4", "red.png", "-o", "o.mp4", "--content-statistics", "region"], "mask"),
        (["frames", "red.png", "-o", "o", "--style-to", "blue.png"], "--style-to needs a clip"),
        (["red.png", "red.png", "-o", "o.png", "--content-statistics", "running"], "is one picture"),
        (["clip.mp4", "red.png", "-o", "o.mp4", "--max-pixels", "1000"], "clip.mp4 has frames of more than 1,000 pixels"),
        (["frames", "red.png", "-o", "o", "--max-pixels", "500", "--content-statistics", "running"], "more than 500 pixels"),
        (["mixed", "red.png", "-o", "o", "--content-statistics", "running"], "give frames of one size"),
    ],
)
def test_errors_are_one_line_and_status_2(command, tmp_path, capsys, arguments, reason):
    (tmp_path / "text.mp4").write_text("text")
    (tmp_path / "mixed").mkdir()
    for k in (8, 9):
        save_image(torch.rand(3, k, 8), tmp_path / "mixed" / f"{k}.png")
    assert command(*arguments) == 2
    err = capsys.readouterr().err
    assert reason in err and err.count("\n") == 1
    assert not (tmp_path / "o.mp4").exists()


def test_the_next_two_chunks_are_read_while_a_gpu_works_on_one():
    read = threading.Event()

    class Clip:
        multiple = 1

        def frames(self, skip):
            for number in range(100):
                if number == 3 * CHUNK - 1:
                    read.set()
                yield Frame(torch.zeros(1, 3, 4, 4), number)

    with torch.device("meta"):  # no CPU, which works on single frames
        encoder = StudentEncoder({"channels": [4, 6], "blocks": [0, 0]})
    stylizer = SimpleNamespace(
        encoder=encoder, size=0, working_size=0, _at_once=lambda: ClipStylizer._at_once(stylizer),
        _prepared=lambda pixels, clip: pixels,
    )  # fmt: skip
    chunks = ClipStylizer._chunks(stylizer, Clip(), 0)
    assert len(next(chunks)) == CHUNK
    assert read.wait(30)  # while nobody asks for the next chunks
    chunks.close()


def test_two_chunks_wait_for_the_writer_while_the_next_is_stylised(networks, clip, tmp_path, monkeypatch):
    begun, waited, write = threading.Event(), [], VideoWriter.write

    def late(writer, frame):
        waited.append(begun.wait(30))
        write(writer, frame)

    monkeypatch.setattr(VideoWriter, "write", late)
    monkeypatch.setattr(ClipStylizer, "_at_once", lambda self: 3)  # as on a GPU, but fewer
    style = encode_style(networks[0], torch.rand(1, 3, 16, 16), size=0)
    with showing(lambda done, *_: begun.set() if done > 6 else None):
        ClipStylizer(*networks, style).video(clip, tmp_path / "result.mp4")
    assert waited == [True] * 11


def test_a_chunk_is_no_larger_than_what_is_encoded_once(networks, monkeypatch, tmp_path):
    encoder, decoder = networks
    sources = [tmp_path / f"{index}.png" for index in range(7)]
    for path in sources:
        save_image(torch.rand(3, 40, 48), path)
    style, encoded, encode = encode_style(encoder, torch.rand(1, 3, 40, 40), size=0), [], encoder.encode
    monkeypatch.setattr(ClipStylizer, "_at_once", lambda self: CHUNK)  # as on a GPU
    monkeypatch.setattr(importlib.import_module("adain_core.stylize"), "free_memory", lambda device: 16 * 3.5 * features)
    features = 4 * 40 * 48 * sum(level.channels / level.stride**2 for level in encoder.levels)
    monkeypatch.setattr(encoder, "encode", lambda pictures: encoded.append(len(pictures)) or encode(pictures))
    stylizer = ClipStylizer(encoder, decoder, style)
    stylizer.pictures(PictureSequence(sources), [tmp_path / f"out{index}.png" for index in range(7)], tmp_path / "state")
    assert sum(encoded) == 7
