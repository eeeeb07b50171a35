"""The address in a device's portal, and the command that lets devices in."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp.test_utils import TestServer

from voicechat.cli import main
from voicechat.config.server_sections import DevicesConfig
from voicechat.server.app import build_app
from voicechat.server.devices.ota import MAX_BODY_BYTES, OtaEndpoint, base_url_of
from voicechat.server.origins import Origins
from voicechat.store.devices import CODES_OF_ADDRESS, DeviceStore
from voicechat.store.keys import KeyStore

HEADERS = {"Device-Id": "AA:BB:CC:00:11:22", "Client-Id": "client-1"}
SYSTEM = {"application": {"version": "2.0.3"}, "board": {"name": "m5", "type": "x"}}

pytestmark = pytest.mark.real_time


class Portal:
    """What a device does before it talks."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session, self._url = session, url

    async def ask(self, path: str = "", method: str = "POST", **more: Any) -> tuple[int, Any]:
        more = {"headers": HEADERS, **more}
        async with self._session.request(method, self._url + path, **more) as response:
            text = await response.read()
            return response.status, await response.json() if text else None


@asynccontextmanager
async def portal(folder: Path, **config: Any) -> AsyncIterator[Portal]:
    store = DeviceStore(folder, KeyStore(folder / "keys.sqlite3"))
    ota = OtaEndpoint(store, DevicesConfig(**config), Origins())
    async with (
        TestServer(build_app(ota.routes()), host="127.0.0.1") as server,
        aiohttp.ClientSession() as session,
    ):
        yield Portal(session, str(server.make_url("/xiaozhi/ota/")))


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VOICECHAT_DATA_DIR", str(tmp_path / "data"))
    return tmp_path / "data"


async def test_a_new_device_shows_a_code_and_is_let_in_with_it(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with portal(data) as device:
        status, asked = await device.ask(json=SYSTEM)
        assert status == 200
        assert asked["firmware"] == {"version": "2.0.3", "url": ""}
        assert asked["websocket"]["token"] == ""
        code = asked["activation"]["code"]
        assert code in asked["activation"]["message"]
        assert (await device.ask("activate"))[0] == 202

        assert main(["devices", "list"]) == 0
        assert f"aa:bb:cc:00:11:22  waits, code {code}  m5 2.0.3" in capsys.readouterr().out
        assert main(["devices", "pair", "000 000" if code != "000000" else "1"]) == 1
        assert main(["devices", "pair", code, "--agent", "nobody"]) == 1
        assert main(["devices", "pair", f"{code[:3]} {code[3:]}", "--name", "window"]) == 0
        capsys.readouterr()

        assert (await device.ask("activate"))[0] == 200
        _, first = await device.ask(json=SYSTEM)
        _, second = await device.ask(method="GET")
        assert "activation" not in first
        assert first["websocket"] == second["websocket"]
        assert first["websocket"]["token"].startswith("vc_")
        assert first["websocket"]["url"].endswith("/xiaozhi/v1/")
        assert first["server_time"]["timestamp"] > 1_700_000_000_000

        assert main(["devices", "revoke", "AA:BB:CC:00:11:22"]) == 0
        assert main(["devices", "revoke", "AA:BB:CC:00:11:22"]) == 1
        assert main(["devices", "list"]) == 0
        assert "revoked" in capsys.readouterr().out
        assert (await device.ask("activate"))[0] == 202


async def test_a_device_on_the_local_network_may_be_let_in_at_once(tmp_path: Path) -> None:
    async with portal(tmp_path, accept="local", frame_version=2) as device:
        _, asked = await device.ask(json=SYSTEM)
        assert asked["websocket"]["token"].startswith("vc_")
        assert asked["websocket"]["version"] == 2
        another = await device.ask(headers={**HEADERS, "Client-Id": "client-2"})
        assert "activation" in another[1]
        proxied = {**HEADERS, "Device-Id": "other", "X-Forwarded-For": "192.168.0.7"}
        assert "activation" in (await device.ask(headers=proxied))[1]


async def test_who_a_device_is_may_stand_in_headers_query_or_body(tmp_path: Path) -> None:
    body = {"mac_address": "aa:bb:cc:00:11:22", "uuid": "client-1"}
    async with portal(tmp_path) as device:
        codes = {
            (await device.ask(json=SYSTEM))[1]["activation"]["code"],
            (await device.ask(headers={}, json=body))[1]["activation"]["code"],
            (
                await device.ask(
                    "?device-id=aa:bb:cc:00:11:22&client-id=client-1", "GET", headers={}
                )
            )[1]["activation"]["code"],
        }
    assert len(codes) == 1


@pytest.mark.parametrize(
    ("request_", "status", "about"),
    [
        ({"headers": {}}, 40003, "Device-Id"),
        ({"headers": {"Device-Id": "a b", "Client-Id": "c"}}, 40003, "Device-Id"),
        ({"headers": {"Device-Id": "a"}}, 40003, "Client-Id"),
        ({"headers": {**HEADERS, "Client-Id": "c" * 129}}, 40003, "Client-Id"),
        ({"data": b"["}, 40001, "JSON"),
        ({"data": b" " * (MAX_BODY_BYTES + 1)}, 41301, "bytes"),
    ],
)
async def test_what_cannot_be_understood_is_named(
    tmp_path: Path, request_: dict[str, Any], status: int, about: str
) -> None:
    async with portal(tmp_path) as device:
        _, refused = await device.ask(**request_)
    assert refused["status"] == status
    assert about in refused["message"]


async def test_too_many_that_wait_are_refused(tmp_path: Path) -> None:
    async with portal(tmp_path) as device:
        asked = [
            device.ask(headers={**HEADERS, "Device-Id": f"d{number}"})
            for number in range(CODES_OF_ADDRESS + 1)
        ]
        refused = [answer for status, answer in await asyncio.gather(*asked) if status != 200]
    assert [each["status"] for each in refused] == [50301]


async def test_options_are_answered(tmp_path: Path) -> None:
    async with portal(tmp_path) as device:
        assert (await device.ask(method="OPTIONS"))[0] == 204


@pytest.mark.parametrize(
    ("public_url", "headers", "base"),
    [
        ("", {"host": "10.0.0.2:8000"}, "http://10.0.0.2:8000"),
        ("", {"host": "v.example", "x-forwarded-proto": "https, http"}, "https://v.example"),
        ("https://voice.example", {"host": "10.0.0.2"}, "https://voice.example"),
    ],
)
def test_devices_are_told_the_address_that_they_use(
    public_url: str, headers: dict[str, str], base: str
) -> None:
    assert base_url_of(DevicesConfig(public_url=public_url), headers) == base
