"""A device's photo, and the chat model that looks at it."""

import io
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.rest.live import Live, serving_live
from voicechat.dialects.base import Handshake
from voicechat.server.devices import vision
from voicechat.server.devices.vision import MAX_PHOTO_BYTES, MAX_QUESTION_BYTES, PATH
from voicechat.store.devices import DeviceStore
from voicechat.testing.scripted import Failure, ScriptedModel

pytestmark = pytest.mark.real_time

MAC = "aa:bb:cc:00:11:22"
JPEG = b"\xff\xd8\xff\xe0 a photo"


def token(live: Live, folder: Path, device: str = MAC) -> str:
    """The token that the server gives the device."""
    from voicechat.config.server_sections import DevicesConfig
    from voicechat.runtime.services import Services

    store = DeviceStore(folder / "data", live.store)
    services = Services({}, live.models, {})
    told = vision.VisionEndpoint(store, DevicesConfig(), services).tell(
        Handshake(headers={"device-id": device, "host": "10.0.0.2:8000"})
    )
    assert told.url == f"http://10.0.0.2:8000{PATH}"
    return told.token


async def explain(
    live: Live, key: str, photo: bytes = JPEG, question: str = "what is it?", device: str = ""
) -> tuple[int, Any]:
    form = aiohttp.FormData()
    form.add_field("question", question)
    form.add_field("file", io.BytesIO(photo), filename="camera.jpg", content_type="image/jpeg")
    sent = {"Authorization": f"Bearer {key}", **({"Device-Id": device} if device else {})}
    async with live.session.post(live.url + PATH, data=form, headers=sent) as response:
        return response.status, await response.json()


async def test_the_model_sees_the_photo(tmp_path: Path) -> None:
    models = {"default": ScriptedModel(replies=[["A cat ", "on a mat."]])}
    async with serving_live(tmp_path, models) as live:
        key = token(live, tmp_path)
        answer = await explain(live, key, device=MAC.upper())
    assert answer == (
        200,
        {"success": True, "action": "RESPONSE", "response": "A cat on a mat."},
    )
    (message,) = live.model.requests[0].messages
    content: Any = message["content"]
    assert content[0] == {"type": "text", "text": "what is it?"}
    assert content[1]["image_url"]["url"].startswith("data:image/jpeg;base64,/9j/4")


async def test_a_token_belongs_to_its_device_and_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving_live(tmp_path) as live:
        key = token(live, tmp_path)
        assert (await explain(live, key, device="another"))[0] == 401
        forged = [key[:-1] + ("A" if key[-1] != "A" else "B"), key.replace(".", ".9", 1), "a.b.c"]
        for other in forged:
            assert (await explain(live, other))[0] == 401
        monkeypatch.setattr(vision, "unix_s", lambda: 10**10)
        assert (await explain(live, key))[0] == 401


async def test_a_revoked_device_sends_no_photos(tmp_path: Path) -> None:
    async with serving_live(tmp_path) as live:
        key = token(live, tmp_path)
        store = DeviceStore(tmp_path / "data", live.store)
        store.accept(MAC, "client", "", 1)
        assert (await explain(live, key))[0] == 200
        store.revoke(MAC, 2)
        assert (await explain(live, key))[0] == 401


@pytest.mark.parametrize(
    ("photo", "question", "status", "about"),
    [
        (b"", "q", 40003, "file"),
        (b"<html>", "q", 41501, "file"),
        (JPEG + bytes(MAX_PHOTO_BYTES), "q", 41301, "file"),
        (JPEG, "q" * (MAX_QUESTION_BYTES + 1), 41301, "question"),
    ],
    ids=["none", "a page", "a large one", "a long question"],
)
async def test_what_is_no_photo_is_named(
    tmp_path: Path, photo: bytes, question: str, status: int, about: str
) -> None:
    async with serving_live(tmp_path) as live:
        _, refused = await explain(live, token(live, tmp_path), photo, question)
    assert refused["status"] == status
    assert refused["message"].startswith(about)


async def test_a_model_that_fails_is_told(tmp_path: Path) -> None:
    models = {"default": ScriptedModel(failure=Failure(calls=9))}
    async with serving_live(tmp_path, models) as live:
        assert (await explain(live, token(live, tmp_path)))[1]["status"] == 50202
