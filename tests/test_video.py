import builtins
import io
import struct
import wave
from fractions import Fraction

import clips
import numpy as np
import pytest
import torch
from PIL import Image

from adain_core.errors import AdainError
from adain_core.images import TooManyPixels, limit_pixels, pixel_limit
from adain_core.video import Frame, Video, VideoWriter, join


def copy(video: Video, target, skip: int = 0):
    """The frames of a video written again, in one part, with its sound."""
    part, sound = target.with_name("part.mp4"), video.sound(target)
    with VideoWriter(part, video.size, video, target.suffix) as writer:
        for frame in video.frames(skip):
            writer.write(frame)
    join([(part, Fraction(0))], sound, target)
    return target


def pictures(video: Video) -> np.ndarray:
    return torch.cat([frame.picture for frame in video.frames()]).permute(0, 2, 3, 1).numpy()


def test_frames_come_one_by_one_as_they_were(tmp_path):
    frames = clips.noise(5)
    video = Video(clips.write_clip(tmp_path / "clip.mp4", frames, lossless=True))
    assert len(video) == 5 and video.size == (32, 48) and video.rate == 10
    found = list(video.frames())
    assert all(frame.picture.shape == (1, 3, 32, 48) and frame.picture.dtype == torch.float32 for frame in found)
    assert np.abs(pictures(video) - frames / 255).max() < 0.03  # of YUV with 8 bits
    assert [frame.time * video.time_base for frame in found] == [Fraction(k, 10) for k in range(5)]
    assert [frame.time for frame in video.frames(3)] == [frame.time for frame in found[3:]]


@pytest.mark.parametrize("ending", [".mp4", ".mov", ".mkv", ".webm"])
def test_a_clip_written_again_has_its_frames_times_and_sound(tmp_path, ending):
    original = clips.write_clip(tmp_path / "clip.mp4", clips.noise(12))
    result = copy(Video(original), tmp_path / f"result{ending}")
    assert np.abs(clips.pixels(result).astype(float) - clips.pixels(original)).mean() < 4
    before = clips.times(original)
    after = clips.times(result)
    first = after[0]  # Matroska has no negative times, and so moves pictures and sound together
    assert all(abs(a - first - b) <= Fraction(1, 1000) for a, b in zip(after, before, strict=True))
    assert Video(result).rate == 10
    sound = [data for _, data in clips.packets(result, "audio")]
    if ending == ".webm":  # which takes no AAC
        assert sum(map(len, sound)) > 0 and abs(clips.packets(result, "audio")[-1][0] - Fraction(12, 10)) < 0.1
    else:
        assert sound == [data for _, data in clips.packets(original, "audio")]
        moved = {a - b for (a, _), (b, _) in zip(*(clips.packets(p, "audio") for p in (result, original)), strict=True)}
        assert all(abs(by - first) <= Fraction(1, 1000) for by in moved)
    if ending in (".mp4", ".mov"):
        assert clips.duration(result) == clips.duration(original)


@pytest.mark.parametrize(("ending", "codec"), [(".avi", "pcm_s16le"), (".wmv", "wmav2")])
def test_sound_that_the_result_cannot_hold_is_encoded_anew(tmp_path, ending, codec):
    original = clips.write_clip(tmp_path / f"clip{ending}", clips.noise(12), sound=codec)
    result = copy(Video(original), tmp_path / "result.mov")
    assert sum(len(data) for _, data in clips.packets(result, "audio")) > 0
    assert abs(clips.packets(result, "audio")[-1][0] - Fraction(12, 10)) < 0.1


@pytest.mark.parametrize(("ending", "layout", "expected"), [
    (".webm", "5.1(side)", 6), (".webm", "2.1", 6), (".webm", "quad(side)", 6), (".webm", "7.1(wide)", 8), (".mp4", "2.1", 3),
    (".m4v", "7.1", 8), (".mkv", "5.1(side)", 6), (".webm", "hexadecagonal", 6),
])  # fmt: skip
def test_sound_in_channels_that_the_encoder_lacks_is_encoded_in_others(tmp_path, caplog, ending, layout, expected):
    original = clips.write_clip(tmp_path / "clip.mkv", clips.noise(12), sound="pcm_s16le", layout=layout)
    result = copy(Video(original), tmp_path / f"result{ending}")
    with clips.av.open(str(result)) as container:
        frames = list(container.decode(audio=0))
        assert ending == ".mkv" or frames[0].layout.nb_channels == expected
        assert sum(frame.samples for frame in frames) == pytest.approx(1.2 * frames[0].sample_rate, rel=0.05)
        to_mono = clips.av.AudioResampler("flt", "mono", 48000)
        assert max(np.abs(mono.to_ndarray()).max() for frame in frames for mono in to_mono.resample(frame)) > 0.1
    assert not caplog.records


@pytest.mark.parametrize("rate", [8000, 11025, 96000])
@pytest.mark.parametrize("ending", [".mp4", ".webm"])
def test_sound_of_any_rate_is_encoded(tmp_path, ending, rate):
    original = clips.write_clip(tmp_path / "clip.mkv", clips.noise(12), sound="pcm_s16le", sound_rate=rate)
    result = copy(Video(original), tmp_path / f"result{ending}")
    assert abs(clips.packets(result, "audio")[-1][0] - Fraction(12, 10)) < 0.1


def test_a_track_that_cannot_be_decoded_is_left_out_before_the_first_frame(tmp_path, caplog):
    original = clips.write_clip(tmp_path / "clip.mov", clips.noise(3), tracks=2)
    content = original.read_bytes()
    place = content.rindex(b"stsd") + 16
    # as phones write beside AAC
    original.write_bytes(content[:place] + b"apac" + content[place + 4 :].replace(b"esds", b"free"))
    video = Video(original)
    sound = video.sound("result.mov")
    assert "track 2 of the sound of" in caplog.text and "clip.mov is left out: this PyAV has no decoder for it" in caplog.text
    assert list(sound.layouts) == [0]
    result = copy(video, tmp_path / "result.mov")
    with clips.av.open(str(result)) as container:
        assert len(container.streams.audio) == 1
    assert [data for _, data in clips.packets(result, "audio")] == [data for _, data in clips.packets(original, "audio")]


def test_pictures_that_cannot_be_decoded_are_refused_in_one_sentence(tmp_path):
    original = clips.write_clip(tmp_path / "clip.mov", clips.noise(3), sound=None)
    original.write_bytes(original.read_bytes().replace(b"avc1", b"zzz9"))
    with pytest.raises(AdainError, match="clip.mov holds pictures that this PyAV cannot decode; convert it to MP4"):
        Video(original)


def test_a_track_of_silence_without_packets_is_left_out(tmp_path, caplog):
    original = clips.write_clip(tmp_path / "clip.mkv", clips.noise(3), sound="pcm_s16le", seconds=0)
    copy(Video(original), tmp_path / "result.mp4")
    assert "track 1 of the sound of" in caplog.text and "holds no sound that can be decoded" in caplog.text


def test_sound_that_changes_its_rate_and_channels_is_encoded_as_one_track(tmp_path):
    one = clips.write_clip(tmp_path / "one.ts", clips.noise(20))
    other = clips.write_clip(tmp_path / "other.ts", clips.noise(20), layout="stereo", sound_rate=22050)
    result = copy(Video(clips.concatenated(tmp_path / "both.ts", one, other)), tmp_path / "result.mp4")
    with clips.av.open(str(result)) as container:
        frames = list(container.decode(audio=0))
    assert sum(frame.samples for frame in frames) == pytest.approx(4 * 48000, rel=0.05)
    quiet = [frame for frame in frames if np.abs(frame.to_ndarray()).mean() < 0.3]
    assert len(quiet) < 10  # where each begins and ends


def test_frames_that_cannot_be_encoded_are_refused_in_one_sentence(tmp_path):
    video = Video(clips.write_clip(tmp_path / "clip.mp4", clips.noise(2, 16, 16)))
    with pytest.raises(AdainError, match=r"frames of 16400x2 pixels cannot be encoded by libx264 .*; make them smaller"):
        with VideoWriter(tmp_path / "part.mp4", (2, 16400), video, ".mp4") as writer:
            writer.write(Frame(torch.rand(1, 3, 2, 16400), 0))


def test_varying_frame_times_are_kept(tmp_path):
    moments = [0, 50, 400, 410, 1000, 1960]
    original = clips.write_clip(tmp_path / "clip.mp4", clips.noise(6), moments)
    assert clips.times(copy(Video(original), tmp_path / "result.mp4")) == [Fraction(t, clips.TICKS) for t in moments]


def test_the_last_frame_is_shown_as_long_as_in_the_original(tmp_path):
    first, *others = (Image.fromarray(frame) for frame in clips.noise(3))
    first.save(tmp_path / "clip.gif", save_all=True, append_images=others, duration=[100, 500, 2000])
    result = copy(Video(tmp_path / "clip.gif"), tmp_path / "result.mp4")
    assert clips.duration(result) == pytest.approx(2.6, abs=0.01)


@pytest.mark.parametrize("ending", [".mp4", ".mkv"])
def test_what_was_cut_away_without_encoding_anew_does_not_come_back(tmp_path, ending):
    original = clips.write_clip(tmp_path / "clip.mp4", clips.noise(20), encoder="mpeg4")
    video = Video(clips.cut_losslessly(original, tmp_path / "cut.mp4", 0.8))
    assert len(video) == len(list(video.frames())) == 12
    result = copy(video, tmp_path / f"result{ending}")
    times, sound = clips.times(result), clips.packets(result, "audio")
    assert len(times) == 12 and times[0] < 0.05
    assert abs(sound[0][0] - times[0]) < 0.05 and abs(sound[-1][0] - times[0] - 1.2) < 0.06


def flat(colour, count: int, height: int, width: int) -> np.ndarray:
    return np.broadcast_to(np.array(colour, np.uint8), (count, height, width, 3))


def test_frames_of_another_size_are_scaled_to_the_first_and_times_count_on(tmp_path, caplog):
    red = clips.write_clip(tmp_path / "red.ts", flat((200, 0, 0), 20, 48, 64), sound="mp2")
    blue = clips.write_clip(tmp_path / "blue.ts", flat((0, 0, 200), 20, 64, 96), sound="mp2")
    video = Video(clips.concatenated(tmp_path / "both.ts", red, blue, red))
    result = copy(video, tmp_path / "result.mp4")
    found = clips.pixels(result)
    assert found.shape == (60, 48, 64, 3) and len(video) == 60
    for first, colour in ((0, (200, 0, 0)), (20, (0, 0, 200)), (40, (200, 0, 0))):
        assert np.abs(found[first : first + 20].astype(int) - colour).max() < 12
    assert np.allclose(np.diff([float(time) for time in clips.times(result)]), 0.1, atol=0.03)
    assert abs(clips.packets(result, "audio")[-1][0] - 6) < 0.2
    assert "both.ts changes its size; later frames are scaled to 64x48 pixels" in caplog.text
    # going on in the second file, as after an interruption
    assert [frame.time for frame in video.frames(30)] == [frame.time for frame in video.frames()][30:]
    assert all(frame.picture.shape == (1, 3, 48, 64) for frame in video.frames(30))


@pytest.mark.parametrize("size", [(33, 48), (32, 47), (33, 47)])
def test_odd_sides_are_kept(tmp_path, size):
    original = clips.write_clip(tmp_path / "clip.mp4", clips.noise(3, *size))
    result = copy(Video(original), tmp_path / "result.mp4")
    assert clips.pixels(result).shape == (3, *size, 3)


def test_colours_come_back_from_a_written_file(tmp_path):
    video = Video(clips.write_clip(tmp_path / "clip.mp4", clips.noise(1)))
    colours = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [0.8, 0.4, 0.2], [0.5, 0.5, 0.5]])
    with VideoWriter(tmp_path / "colours.mp4", video.size, video, ".mp4") as writer:
        for k, colour in enumerate(colours):
            writer.write(Frame(colour[None, :, None, None].expand(1, 3, 32, 48), k))
    means = pictures(Video(tmp_path / "colours.mp4")).mean((1, 2))
    assert np.abs(means - colours.numpy()).max() < 0.02


COLOURS = np.array([[0.9, 0.3, 0.1], [0.1, 0.6, 0.2], [0.2, 0.2, 0.8], [0.5, 0.5, 0.5], [0, 0, 0], [0.85, 0.8, 0.7]])


def bars(colours: np.ndarray, height: int = 16, width: int = 8) -> np.ndarray:
    return colours.repeat(width, 0)[None].repeat(height, 0)


def read_bars(path, width: int = 8) -> np.ndarray:
    return pictures(Video(path))[0, 4, width // 2 :: width]


@pytest.mark.parametrize("height, matrix, tagged", [
    (16, 5, 6), (16, 1, 1), (16, 9, 9), (720, 1, 1), (720, 5, 6), (720, 1, 2), (576, 5, 2), (16, 5, 2),
])  # fmt: skip
@pytest.mark.parametrize("color_range", [0, 1, 2])
def test_colours_are_read_by_the_stated_matrix_and_range_or_by_those_of_the_size(tmp_path, height, matrix, tagged, color_range):
    path, rgb = tmp_path / "bars.mkv", bars(COLOURS, height)
    weights = {1: (0.2126, 0.0722), 5: (0.299, 0.114), 9: (0.2627, 0.0593)}[matrix]
    clips.write_yuv(path, *clips.yuv(rgb, *weights), "yuv444p", tagged, 2, 2, color_range)
    assert np.abs(read_bars(path) - COLOURS).max() < 0.015


def light(rgb: np.ndarray) -> np.ndarray:
    """The linear light of sRGB."""
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def to_2020(linear: np.ndarray) -> np.ndarray:
    return linear @ np.array([[0.627404, 0.329283, 0.043313], [0.069097, 0.919540, 0.011362], [0.016391, 0.088013, 0.895595]]).T


def pq(nits: np.ndarray) -> np.ndarray:
    power = (nits / 10000) ** 0.1593017578125
    return ((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375


def hlg(nits: np.ndarray) -> np.ndarray:
    luminance = (nits / 1000) @ np.array([0.2627, 0.6780, 0.0593])
    scene = nits / 1000 * np.maximum(luminance, 1e-9)[..., None] ** (1 / 1.2 - 1)
    upper = 0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 1e-9)) + 0.55991073
    return np.where(scene <= 1 / 12, np.sqrt(3 * scene), upper)


@pytest.mark.parametrize("color_range", [1, 2])
@pytest.mark.parametrize(("transfer", "matrix", "encode"), [(16, 9, pq), (18, 9, hlg), (16, 2, pq)])
def test_high_dynamic_range_is_read_as_the_picture_it_shows(tmp_path, color_range, transfer, matrix, encode):
    signal = encode(to_2020(light(COLOURS)) * 203)  # ITU-R BT.2408: white paper has 203 candelas per square metre
    weights = 0.2627, 0.0593
    path = tmp_path / "hdr.mkv"
    clips.write_yuv(path, *clips.yuv(bars(signal), *weights), "yuv444p10le", matrix, transfer, 9, color_range)
    assert np.abs(read_bars(path) - COLOURS).max() < 0.02


def test_highlights_keep_their_shapes(tmp_path):
    nits = np.array([203, 300, 500, 800, 1000, 4000.0])
    path = clips.write_colours(tmp_path / "hdr.mkv", bars(pq(nits)[:, None].repeat(3, 1)), matrix=9, transfer=16, primaries=9)
    found = read_bars(path)[:, 0]
    assert found[0] > 0.93 and (np.diff(found[:5]) > 0.002).all() and found[4] > 0.99


@pytest.mark.parametrize("transfer", [1, 14, 2])
def test_a_wide_gamut_is_converted(tmp_path, transfer):
    wide = to_2020(light(COLOURS))
    encoded = np.where(wide <= 0.0031308, wide * 12.92, 1.055 * wide ** (1 / 2.4) - 0.055)
    path = clips.write_colours(tmp_path / "wide.mkv", bars(encoded), matrix=9, transfer=transfer, primaries=9)
    assert np.abs(read_bars(path) - COLOURS).max() < 0.02


@pytest.mark.parametrize("ending", [".mp4", ".mov", ".mkv", ".webm"])
def test_a_result_is_tagged_as_what_it_is(tmp_path, ending):
    video = Video(clips.write_colours(tmp_path / "hdr.mkv", bars(COLOURS), matrix=9, transfer=16, primaries=9, color_range=2))
    sound, part, result = video.sound(f"x{ending}"), tmp_path / "part.mp4", tmp_path / f"result{ending}"
    with VideoWriter(part, (32, 48), video, ending) as writer:
        writer.write(Frame(torch.tensor([1.0, 0, 0])[None, :, None, None].expand(1, 3, 32, 48), 0))
    join([(part, Fraction(0))], sound, result)
    with clips.av.open(str(result)) as container:
        context = container.streams.video[0].codec_context
        assert [context.colorspace, context.color_primaries, context.color_trc, context.color_range] == [1, 1, 1, 1]
        y, cb, cr = (np.frombuffer(bytes(p), np.uint8)[5] for p in next(container.decode(video=0)).planes)
    assert np.abs(np.array([y, cb, cr], int) - [63, 102, 240]).max() < 4  # red by BT.709, in limited range


@pytest.mark.parametrize(("name", "encoder", "pix_fmt"), [
    ("a.webm", "libvpx-vp9", "yuva420p"), ("a.webm", "libvpx", "yuva420p"), ("a.mov", "prores_ks", "yuva444p10le"),
    ("a.mov", "qtrle", "argb"), ("a.mov", "png", "rgba"), ("a.apng", "apng", "rgba"), ("a.mkv", "ffv1", "yuva444p"),
])  # fmt: skip
def test_what_is_transparent_is_put_on_white_with_one_warning(tmp_path, caplog, name, encoder, pix_fmt):
    rgba = np.zeros((48, 64, 4), np.uint8)
    rgba[...] = 255, 0, 255, 0  # magenta that nobody sees
    rgba[:, 16:32] = 0, 128, 0, 255
    rgba[:, 32:48] = 0, 0, 0, 128
    try:
        path = clips.write_transparent(tmp_path / name, encoder, pix_fmt, rgba)
    except ValueError:
        pytest.skip(f"this PyAV has no encoder {encoder}")
    found = pictures(Video(path))
    assert len(found) == 3 and found.shape[3] == 3
    for place, colour in ((8, (1, 1, 1)), (24, (0, 0.5, 0)), (40, (0.5, 0.5, 0.5)), (56, (1, 1, 1))):
        assert np.abs(found[:, 24, place] - colour).max() < 0.04
    assert caplog.text.count(f"{name} is transparent in places; it is put on white") == 1


def test_a_palette_with_a_transparent_colour_is_put_on_white(tmp_path):
    from PIL import Image

    frames = []
    for _ in range(2):
        frame = Image.new("P", (32, 16), 0)
        frame.putpalette([255, 0, 255, 0, 128, 0])
        frame.paste(1, (16, 0, 32, 16))
        frames.append(frame)
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:], transparency=0, disposal=2, duration=100)
    found = pictures(Video(tmp_path / "a.gif"))
    assert np.abs(found[:, 8, 8] - 1).max() == 0 and np.abs(found[:, 8, 24] - np.array([0, 0.5, 0])).max() < 0.01


def test_opaque_frames_of_a_format_with_alpha_are_as_they_are(tmp_path, caplog):
    rgba = np.full((48, 64, 4), 255, np.uint8)
    rgba[..., :3] = 200, 100, 50
    found = pictures(Video(clips.write_transparent(tmp_path / "a.mov", "qtrle", "argb", rgba)))
    assert np.abs(found * 255 - [200, 100, 50]).max() < 0.5 and not caplog.records


def test_a_clip_filmed_on_its_side_is_upright(tmp_path):
    frames = clips.noise(2)
    if not hasattr(clips.av.VideoStream, "set_display_rotation"):
        pytest.skip("this PyAV cannot write such a file")
    upright = pictures(Video(clips.write_clip(tmp_path / "plain.mp4", frames)))
    video = Video(clips.write_clip(tmp_path / "side.mp4", frames, rotation=90))
    assert video.size == (48, 32)
    assert np.array_equal(pictures(video), np.rot90(upright, axes=(1, 2)))


ANGLE = np.radians(2)
ORIENTATIONS = {  # a, b, c, d of the matrix, and what it does to an array of frames
    "upright": ((1, 0, 0, 1), lambda x: x),
    "mirrored": ((-1, 0, 0, 1), lambda x: x[:, :, ::-1]),
    "flipped": ((1, 0, 0, -1), lambda x: x[:, ::-1]),
    "upside down": ((-1, 0, 0, -1), lambda x: x[:, ::-1, ::-1]),
    "turned right": ((0, 1, -1, 0), lambda x: np.rot90(x, -1, (1, 2))),
    "turned left": ((0, -1, 1, 0), lambda x: np.rot90(x, 1, (1, 2))),
    "transposed": ((0, 1, 1, 0), lambda x: x.swapaxes(1, 2)),
    "transposed, turned": ((0, -1, -1, 0), lambda x: x.swapaxes(1, 2)[:, ::-1, ::-1]),
    "nearly turned right": ((np.sin(ANGLE), np.cos(ANGLE), -np.cos(ANGLE), np.sin(ANGLE)), lambda x: np.rot90(x, -1, (1, 2))),
    "nearly turned left": ((np.sin(ANGLE), -np.cos(ANGLE), np.cos(ANGLE), np.sin(ANGLE)), lambda x: np.rot90(x, 1, (1, 2))),
    "nearly upside down": ((-np.cos(ANGLE), np.sin(ANGLE), -np.sin(ANGLE), -np.cos(ANGLE)), lambda x: x[:, ::-1, ::-1]),
}


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_frames_and_the_shape_of_their_pixels_are_turned_as_the_display_matrix_says(tmp_path, name):
    matrix, turn = ORIENTATIONS[name]
    plain = clips.write_clip(tmp_path / "plain.mp4", clips.noise(2), sound=None)
    video = Video(clips.with_matrix(plain, matrix, tmp_path / "turned.mp4", Fraction(2)))
    expected = turn(pictures(Video(plain)))
    assert np.array_equal(pictures(video), expected) and video.size == expected.shape[1:3]
    aspect = 2 if video.size == (32, 48) else Fraction(1, 2)
    assert video.aspect == aspect
    result = Video(copy(video, tmp_path / "result.mp4"))
    assert (result.size, result.aspect) == (video.size, aspect)


def test_a_part_has_its_frames_and_its_sound_from_0(tmp_path):
    original = clips.write_clip(tmp_path / "clip.mp4", clips.noise(30))
    video = Video(original, start=1.0, duration=1.5)
    assert len(video) == 15
    result = copy(video, tmp_path / "result.mp4")
    assert clips.times(result) == [Fraction(k, 10) for k in range(15)]
    assert np.array_equal(pictures(video), pictures(Video(original))[10:25])
    sound = clips.packets(result, "audio")
    assert abs(sound[0][0]) < 0.03 and abs(sound[-1][0] - 1.5) < 0.06
    assert {data for _, data in sound} <= {data for _, data in clips.packets(original, "audio")}


def test_a_video_in_memory_is_read_like_a_file(tmp_path):
    path = clips.write_clip(tmp_path / "clip.mp4", clips.noise(4))
    assert np.array_equal(pictures(Video(io.BytesIO(path.read_bytes()))), pictures(Video(path)))


@pytest.fixture
def few_pixels():
    before = pixel_limit()
    limit_pixels(2000)
    yield
    limit_pixels(before)


MORE = "has frames of more than 2,000 pixels; if you trust it, raise the limit: --max-pixels"


@pytest.mark.parametrize("ending", [".mp4", ".avi", ".ts", ".mkv"])
def test_frames_above_the_limit_of_pixels_are_refused(tmp_path, few_pixels, ending):
    assert Video(clips.write_clip(tmp_path / f"small{ending}", clips.noise(2), sound=None)).size == (32, 48)
    with pytest.raises(TooManyPixels, match=f"large{ending} {MORE}"):
        Video(clips.write_clip(tmp_path / f"large{ending}", clips.noise(2, 48, 64), sound=None))


@pytest.mark.parametrize("encoder", ["mjpeg", "libx264"])
def test_a_header_that_states_few_pixels_is_not_believed(tmp_path, few_pixels, encoder):
    path = clips.write_clip(tmp_path / "lie.avi", clips.noise(2, 480, 640), sound=None, encoder=encoder)
    path.write_bytes(path.read_bytes().replace(struct.pack("<II", 640, 480), struct.pack("<II", 48, 32)))
    with pytest.raises(TooManyPixels, match=f"lie.avi {MORE}"):
        Video(path)


@pytest.mark.parametrize("size", [(48, 64), (480, 640)])
def test_frames_that_grow_above_the_limit_are_refused(tmp_path, few_pixels, size):
    small = clips.write_clip(tmp_path / "small.ts", clips.noise(5), sound=None)
    large = clips.write_clip(tmp_path / "large.ts", clips.noise(5, *size), sound=None)
    video = Video(clips.concatenated(tmp_path / "both.ts", small, large))
    with pytest.raises(TooManyPixels, match=f"both.ts {MORE}"):
        list(video.frames())


def test_what_is_no_video_is_refused(tmp_path):
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(ValueError, match="text.mp4 is not a readable video"):
        Video(tmp_path / "text.mp4")
    with pytest.raises(FileNotFoundError, match="there is no file"):
        Video(tmp_path / "none.mp4")
    path = clips.write_clip(tmp_path / "clip.mp4", clips.noise(4))
    with pytest.raises(ValueError, match="holds no frames"):
        Video(path, start=5)
    with wave.open(str(tmp_path / "sound.wav"), "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes(bytes(1600))
    with pytest.raises(ValueError, match="sound.wav holds no video"):
        Video(tmp_path / "sound.wav")


def test_without_pyav_one_sentence_says_what_to_install(tmp_path, monkeypatch):
    path = clips.write_clip(tmp_path / "clip.mp4", clips.noise(1))
    real = builtins.__import__

    def without(name, *rest):
        if name == "av":
            raise ModuleNotFoundError("No module named 'av'")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ValueError, match="pip install av"):
        Video(path)
