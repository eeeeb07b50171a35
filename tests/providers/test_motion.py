"""Videos processed by classical methods: what moves is followed, and frames are added."""

import io
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import aiohttp
import av
import numpy as np
import pytest

from tests.rest.live import KEY, serving_live
from voicechat.errors import RequestRefusedError
from voicechat.providers.media import VideoOperation
from voicechat.providers.motion import MotionProcessor, open_video_processor
from voicechat.providers.motion_tracking import Frame, MotionTracker, ObjectBox, background_of
from voicechat.runtime.media_services import MediaServices, ServicesOfKind

WIDTH, HEIGHT = 320, 192


def scene(objects: dict[str, tuple[int, int]]) -> Frame:
    """A frame of a still, uneven background with squares of 32 pixels."""
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    frame = np.stack(
        [(rows // 16 * 7 + columns // 16 * 11 + shift) % 60 + 60 for shift in (0, 20, 40)], 2
    )
    colours = {"red": (230, 20, 20), "blue": (20, 20, 230)}
    for name, (x, y) in objects.items():
        frame[y : y + 32, x : x + 32] = colours[name]
    return frame.astype(np.uint8)


def frames(count: int = 40) -> Iterator[tuple[Frame, dict[str, tuple[int, int]]]]:
    """Two squares on their ways, one to the right and one to the left."""
    for number in range(count):
        at = {"red": (8 + 6 * number, 24), "blue": (272 - 5 * number, 120)}
        yield scene(at), at


def covers(box: ObjectBox, at: tuple[int, int]) -> bool:
    x, y = at
    return (
        box.left - 8 <= x <= box.left + 8
        and box.top - 8 <= y <= box.top + 8
        and abs(box.right - x - 31) <= 8
        and abs(box.bottom - y - 31) <= 8
    )


def tracker(*shown: Frame) -> MotionTracker:
    return MotionTracker(background_of(shown))


def test_each_object_keeps_its_number_in_all_frames() -> None:
    follows = tracker(*(frame for frame, _ in frames()))
    numbers: dict[str, set[int]] = {"red": set(), "blue": set()}
    for place, (frame, at) in enumerate(frames()):
        boxes = follows.boxes(frame)
        if place < 2:
            assert boxes == [], "one frame may be noise"
            continue
        assert len(boxes) == 2
        for name, position in at.items():
            (found,) = [box.number for box in boxes if covers(box, position)]
            numbers[name].add(found)
    assert [len(found) for found in numbers.values()] == [1, 1]
    assert numbers["red"] != numbers["blue"]


def test_what_stands_still_and_noise_are_not_found() -> None:
    still = scene({"red": (40, 40)})
    follows = tracker(still)
    noise = np.random.default_rng(1)
    for _ in range(10):
        shaken = np.clip(still + noise.integers(-25, 25, still.shape), 0, 255).astype(np.uint8)
        assert follows.boxes(shaken) == []


def test_an_object_that_was_hidden_keeps_its_number() -> None:
    empty = scene({})
    follows = tracker(empty)
    seen: list[int] = []
    for number in range(30):
        hidden = 12 <= number < 18
        boxes = follows.boxes(empty if hidden else scene({"red": (8 + 2 * number, 40)}))
        assert bool(boxes) is (number >= 2 and not hidden)
        seen += [box.number for box in boxes]
    assert set(seen) == {1}


# --- in processes ---------------------------------------------------------------------


def video(count: int = 20, size: tuple[int, int] = (WIDTH, HEIGHT), rate: int = 10) -> bytes:
    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=rate)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.bit_rate = 2_000_000
        for frame, _ in frames(count):
            whole = np.zeros((size[1], size[0], 3), np.uint8)
            part = frame[: size[1], : size[0]]
            whole[: part.shape[0], : part.shape[1]] = part
            container.mux(stream.encode(av.VideoFrame.from_ndarray(whole, "rgb24")))
        container.mux(stream.encode(None))
    return out.getvalue()


def shown(content: bytes) -> tuple[list[Frame], float]:
    """The frames of a result, and how many there are in a second."""
    with av.open(io.BytesIO(content), "r") as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "vp9"
        rate = float(stream.average_rate or 0)
        return [_array(frame) for frame in container.decode(stream)], rate


def _array(frame: av.VideoFrame) -> Frame:
    array: Frame = frame.to_ndarray(format="rgb24")  # type: ignore[assignment]
    return array


@pytest.fixture
async def processor() -> AsyncIterator[MotionProcessor]:
    processor = open_video_processor()
    yield processor
    await processor.aclose()


async def processed(
    processor: MotionProcessor, folder: Path, content: bytes, operation: VideoOperation
) -> bytes:
    (folder / "source").write_bytes(content)
    await processor.process_video(folder / "source", folder / "target.mp4", operation)
    return (folder / "target.mp4").read_bytes()


@pytest.mark.long
@pytest.mark.real_time
async def test_frames_are_added_between_the_others(
    processor: MotionProcessor, tmp_path: Path
) -> None:
    made = await processed(processor, tmp_path, video(), VideoOperation.INTERPOLATE)
    found, rate = shown(made)
    assert rate == 20
    assert 2 * 20 - 4 <= len(found) <= 2 * 20
    # The red square moves by 6 pixels a frame, and so by 3 from each frame to the next.
    ways = [float(np.argwhere(_is_red(frame)).mean(axis=0)[1]) for frame in found[4:30]]
    assert (np.diff(ways) > 0.5).all()
    assert (np.diff(ways) < 5.5).all()


def _is_red(frame: Frame) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    red, green, blue = (frame[:, :, channel].astype(int) for channel in range(3))
    return (red > 150) & (green < 90) & (blue < 90)


@pytest.mark.long
@pytest.mark.real_time
async def test_a_client_of_the_portal_gets_marked_videos(
    processor: MotionProcessor, tmp_path: Path
) -> None:
    services = MediaServices(
        video_processors=ServicesOfKind("video_processors", {"default": processor})
    )
    config = "[admission]\nunquestioned_sessions = 1000000\n"
    async with serving_live(tmp_path, config=config, media=services) as live:
        form = aiohttp.FormData()
        form.add_field("file", video(), filename="demo.mp4", content_type="video/mp4")
        headers = {"Authorization": f"Bearer {KEY}"}
        url = f"{live.url}/video/motInference"
        async with live.session.post(url, data=form, headers=headers) as response:
            answer = await response.json()
            assert (response.status, answer["status"]) == (200, "success"), answer
        async with live.session.get(answer["data"]) as response:
            found, rate = shown(await response.read())
        assert (len(found), rate) == (20, 10)
        # The box of the first object is lime, and around the red square.
        lime = (found[15][:, :, 1] > 180) & (found[15][:, :, 0] < 120) & (found[15][:, :, 2] < 120)
        rows, columns = np.nonzero(lime)
        assert abs(int(columns.min()) - (8 + 6 * 15)) <= 9 or abs(int(columns.min()) - 197) <= 9
        assert len(rows) > 100
        form = aiohttp.FormData()
        form.add_field("file", b"no video", filename="demo.mp4", content_type="video/mp4")
        async with live.session.post(url, data=form, headers=headers) as response:
            assert response.status == 400
            assert "no_video" in await response.text()


REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "noise": (lambda: bytes(range(256)) * 400, "no_video"),
    "nothing": (lambda: b"", "no_video"),
    "half a header": (lambda: video()[:200], "no_video"),
    "large frames": (lambda: video(3, (1600, 1200)), "too_large"),
    "too many frames": (lambda: video(910, (64, 64), 30), "too_long"),
}


@pytest.mark.long
@pytest.mark.real_time
@pytest.mark.parametrize("name", REFUSED)
async def test_others_are_refused(processor: MotionProcessor, tmp_path: Path, name: str) -> None:
    make, code = REFUSED[name]
    with pytest.raises(RequestRefusedError) as refused:
        await processed(processor, tmp_path, make(), VideoOperation.TRACK)
    assert refused.value.code == code
