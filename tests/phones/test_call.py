"""``voicechat call``, the far end of a telephone line."""

import uuid
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import aiohttp
import numpy as np
import pytest

from tests.phones.service import CONFIG, KEY, phone_server
from voicechat.cli import main
from voicechat.cli.call import CallerAtPhone
from voicechat.cli.phone_lines import PhoneLine, audiosocket_line, twilio_line
from voicechat.session.types import ToolCall
from voicechat.testing.scripted import ScriptedModel

GREETING_MS = len("Hotel Anna, good day. How may I help you?") * 50
TOML = f"""
[dialects.asterisk]
dialect = "voicechat.dialects.audiosocket:open_endpoint"
port = 0
agent = "hotel"
{CONFIG}
"""


@pytest.mark.real_time
@pytest.mark.long
@pytest.mark.parametrize("kind", ["twilio", "audiosocket"])
async def test_a_call_is_greeted_answered_and_saved(tmp_path: Path, kind: str) -> None:
    model = ScriptedModel((("You pressed a key.",),))
    caller = CallerAtPhone(b"", after_ms=500, keys="7#", quiet_ms=1_500)
    async with phone_server(tmp_path, toml=TOML, model=model) as server:
        line: AbstractAsyncContextManager[PhoneLine]
        if kind == "twilio":
            address = f"{server.url.replace('http', 'ws')}/phone/twilio/stream/hotel"
            line = twilio_line(address, {"token": KEY})
        else:
            line = audiosocket_line("127.0.0.1", server.ports["asterisk"], uuid.uuid4())
        async with line as connected:
            await caller.call(connected)
    assert caller.hung_up
    assert caller.first_ms is not None
    assert model.requests[0].messages[-1]["content"] == "DTMF: 7"
    heard = np.frombuffer(bytes(caller.heard), "<i2")
    sounding_ms = np.count_nonzero(heard) / 8
    answer_ms = len("You pressed a key.") * 50
    assert answer_ms + 200 < sounding_ms < answer_ms + GREETING_MS - 500, "interrupted"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--twilio", "localhost"], "--twilio: 'localhost' is not of the form ws://host:port"),
        (["--twilio", "ws://127.0.0.1:9"], "ws://127.0.0.1:9/phone/twilio/stream: does not answer"),
        (["--audiosocket", "127.0.0.1:9"], "127.0.0.1:9: does not answer"),
        (["--audiosocket", "127.0.0.1", "--keys", "1x"], "--keys: '1x' is not of 0-9"),
    ],
)
@pytest.mark.real_time
@pytest.mark.long
def test_what_cannot_be_called_is_named(
    recordings: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    told: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VOICECHAT_API_KEY", KEY)
    assert main(["call", str(recordings / "vad-8k.wav"), *arguments]) != 0
    assert told in capsys.readouterr().err


@pytest.mark.real_time
@pytest.mark.long
async def test_a_call_from_asterisk_is_passed_on(tmp_path: Path) -> None:
    transfer = ToolCall(0, "1", "transfer", '{"to": "desk"}')
    model = ScriptedModel(((transfer,), ("One moment.",)))
    toml = f'{TOML}\ntransfers = {{ desk = "+49301111" }}'
    call_id = uuid.uuid4()
    caller = CallerAtPhone(b"", after_ms=200, keys="7#", quiet_ms=5_000)
    async with phone_server(tmp_path, toml=toml, model=model) as server:
        async with audiosocket_line("127.0.0.1", server.ports["asterisk"], call_id) as line:
            await caller.call(line)
        assert not caller.hung_up, "the server hangs up, and Asterisk asks"
        address = f"{server.url}/phone/transfers/{call_id}?token={KEY}"
        async with aiohttp.ClientSession() as client:
            for told in ("+49301111", ""):
                async with client.get(address) as answer:
                    assert await answer.text() == told
