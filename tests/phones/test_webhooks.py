"""The webhooks of telephone providers: who may ask, and what is answered."""

import base64
import hashlib
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit
from xml.etree import ElementTree

import aiohttp
import jwt
import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from twilio.request_validator import RequestValidator
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from tests.phones.service import CONFIG, KEY, phone_server
from voicechat.cli import main
from voicechat.config import PhoneConfig
from voicechat.errors import ConfigError
from voicechat.server.phone.answers import PROVIDERS, Incoming, StreamAddress
from voicechat.server.phone.signatures import (
    FRESH_S,
    SETTINGS,
    SignedRequest,
    checks_of,
    is_from_plivo,
    is_from_twilio,
    telnyx_check,
    vonage_check,
)
from voicechat.server.serve import Running
from voicechat.session.types import ToolCall
from voicechat.store.handovers import LIFE_S, Handovers
from voicechat.testing.scripted import ScriptedModel

SECRET = "0123456789abcdef0123456789abcdef"
PUBLIC = "https://voice.example.org"
CALL = {"CallSid": "CA1", "To": "+49301234", "From": "+4940999", "CallStatus": "ringing"}
URLS = [
    "https://voice.example.org/phone/twilio/voice",
    "https://voice.example.org:8443/phone/twilio/voice/hotel?x=1&y=%20",
    "https://voice.example.org:443/phone/twilio/voice",
    "http://voice.example.org:80/phone/twilio/voice",
    "http://[::1]:8000/phone/twilio/voice",
]
FORMS: list[Mapping[str, str]] = [CALL, {}, {"b": "", "a": "ü ß 中", "A": "1"}]


@pytest.mark.parametrize("url", URLS)
@pytest.mark.parametrize("form", FORMS, ids=["call", "empty", "odd"])
def test_twilios_own_library_agrees_about_signatures(url: str, form: Mapping[str, str]) -> None:
    theirs = RequestValidator(SECRET)
    signature = theirs.compute_signature(url, form)
    assert is_from_twilio(SECRET, url, form.items(), signature)
    for bad_url, bad_form, bad_signature in (
        (url + "x", form, signature),
        (url, {**form, "Extra": "1"}, signature),
        (url, form, f"AAAA{signature[4:]}"),
        (url, form, ""),
        (url, form, "\udcff"),
        (url, form, RequestValidator("another" * 4).compute_signature(url, form)),
    ):
        assert not is_from_twilio(SECRET, bad_url, bad_form.items(), bad_signature)
        if bad_signature.isascii():
            assert not theirs.validate(bad_url, bad_form, bad_signature)


def test_several_values_of_a_field_are_signed_once_each() -> None:
    fields = [("Digits", "1"), ("Digits", "2"), ("Digits", "1")]

    class Several(dict[str, str]):
        def getall(self, name: str) -> list[str]:
            return [value for each, value in fields if each == name]

    signature = RequestValidator(SECRET).compute_signature(URLS[0], Several(Digits="1"))
    assert is_from_twilio(SECRET, URLS[0], fields, signature)


def test_the_port_of_the_scheme_may_be_written_or_not() -> None:
    written, bare = URLS[2], URLS[0]
    signature = RequestValidator(SECRET).compute_signature(written, CALL)
    assert is_from_twilio(SECRET, bare, CALL.items(), signature)
    assert RequestValidator(SECRET).validate(bare, CALL, signature)


PLIVO_FORM = {"CallUUID": "U1", "To": "4930", "From": "4940"}
PLIVO_SIGNED: list[tuple[str, Mapping[str, str], str]] = [
    # Made with the validator of Plivo's own library, with the nonce 12345.
    (
        "https://v.example.org/phone/plivo/voice",
        PLIVO_FORM,
        "wNJWWgPw9hwudYS6jwg3ps22IzR7TVCgkfH9ul2pjiA=",
    ),
    ("https://v.example.org/phone/plivo/voice", {}, "lhjKmD7hkozUIbMy58l27pP0FP7zO/kvqQTCgRO1KRs="),
    (
        "https://v.example.org/phone/plivo/voice?b=2&a=1",
        {"b": "", "a": "ü 1"},
        "cJWFsxVzGjlRVgEU9WbVIaThRfc4ASDgrWKWonk5Qv8=",
    ),
    ("https://v.example.org:8443/x?a=%20y", {}, "ZziOUkzqio/0DnGfXgyG8MFG2nU5mw9Is1A5NSqi7sk="),
]


@pytest.mark.parametrize(("url", "form", "signature"), PLIVO_SIGNED)
def test_plivos_own_library_agrees_about_signatures(
    url: str, form: Mapping[str, str], signature: str
) -> None:
    def signed(**changes: str) -> bool:
        said = {"url": url, "nonce": "12345", "signatures": signature, **changes}
        return is_from_plivo("0123456789abcdef", fields=form.items(), **said)

    assert signed()
    assert signed(signatures=f"another, {signature}")
    assert not signed(url=url.replace("v.example", "w.example"))
    assert not signed(nonce="54321")
    assert not signed(signatures=f"AAAA{signature[4:]}")
    assert not signed(signatures="")
    assert not is_from_plivo("0123456789abcdef", url, [("To", "1")], "12345", signature)


TELNYX_KEY = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
TELNYX_PUBLIC = base64.b64encode(TELNYX_KEY.public_key().public_bytes_raw()).decode()
BODY = b"CallSid=CA1&To=%2B4930&From=%2B4940"
NOW_S = 1_800_000_000


def telnyx_headers(body: bytes = BODY, timestamp: str = str(NOW_S)) -> dict[str, str]:
    signature = TELNYX_KEY.sign(timestamp.encode() + b"|" + body)
    return {
        "Telnyx-Signature-Ed25519": base64.b64encode(signature).decode(),
        "Telnyx-Timestamp": timestamp,
    }


def request_of(headers: Mapping[str, str], body: bytes = BODY, now_s: float = 0) -> SignedRequest:
    return SignedRequest(PUBLIC, (), body, headers, now_s or NOW_S)


def test_telnyx_is_known_by_its_key_and_the_time() -> None:
    check, good = telnyx_check(TELNYX_PUBLIC), telnyx_headers()
    assert check(request_of(good))
    assert check(request_of(good, now_s=NOW_S + FRESH_S))
    assert check(request_of(telnyx_headers(b""), b"")), "a request without a body"
    assert not check(request_of(good, BODY + b"x"))
    assert not check(request_of(good, now_s=NOW_S + FRESH_S + 1)), "stale"
    assert not check(request_of(good, now_s=NOW_S - FRESH_S - 1)), "of the future"
    assert not check(request_of({**good, "Telnyx-Timestamp": str(NOW_S + 1)}))
    for timestamp in ("", "now", "-5", "1" * 5_000, "\u0661\u0662", f"{NOW_S}.0"):
        assert not check(request_of(telnyx_headers(timestamp=timestamp)))
    for signature in ("", "*", "AAAA", "\udcff", good["Telnyx-Signature-Ed25519"][:-4] + "AAA="):
        assert not check(request_of({**good, "Telnyx-Signature-Ed25519": signature}))
    other = Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    assert not telnyx_check(base64.b64encode(other).decode())(request_of(good))
    for wrong in ("short", base64.b64encode(b"x" * 31).decode()):
        with pytest.raises(ConfigError, match=r"phone\.telnyx_public_key"):
            telnyx_check(wrong)


def vonage_headers(
    secret: str = SECRET, algorithm: str = "HS256", **claims: object
) -> dict[str, str]:
    made = {"iat": NOW_S, "iss": "Vonage", "payload_hash": hashlib.sha256(BODY).hexdigest()}
    token = jwt.encode({**made, **claims}, secret, algorithm=algorithm)
    return {"Authorization": f"Bearer {token}"}


def test_vonage_is_known_by_its_token_over_the_body() -> None:
    check = vonage_check(SECRET)
    assert check(request_of(vonage_headers()))
    assert check(request_of(vonage_headers(), now_s=NOW_S + FRESH_S))
    assert check(request_of(vonage_headers(), b"")), "GET has no body"
    assert not check(request_of(vonage_headers(), BODY + b"x"))
    assert not check(request_of(vonage_headers(), now_s=NOW_S + FRESH_S + 1)), "stale"
    assert not check(request_of(vonage_headers("another secret, just as long as it"))), "forged"
    assert not vonage_check(SECRET * 2)(request_of(vonage_headers(SECRET * 2, "HS512")))
    assert not check(request_of(vonage_headers("", "none"))), "not signed"
    for claims in ({"iat": "now"}, {"iat": None}, {"payload_hash": 7}, {"payload_hash": ""}):
        assert not check(request_of(vonage_headers(**claims)))
    good = vonage_headers()["Authorization"]
    for written in ("", "Bearer", "Bearer x.y.z", good.removeprefix("Bearer "), good + "x"):
        assert not check(request_of({"Authorization": written}))


def test_only_providers_with_a_secret_are_known_by_signatures() -> None:
    assert checks_of(PhoneConfig()) == {}
    secrets = {
        "twilio_auth_token": SECRET,
        "plivo_auth_token": SECRET,
        "telnyx_public_key": TELNYX_PUBLIC,
        "vonage_signature_secret": SECRET,
    }
    assert set(secrets) == set(SETTINGS.values())
    checks = checks_of(PhoneConfig(**secrets))
    assert set(checks) == set(SETTINGS)
    assert not any(check(request_of({})) for check in checks.values())
    assert SECRET not in repr(PhoneConfig(**secrets))


HOSTILE = Incoming(call_id='<&"', called='"/><Dial>+1900</Dial>', caller="</Response>")
STREAM = StreamAddress(url="wss://v/s", after_url="https://v/a?call=1&x=2", token="vt_1-_")


@pytest.mark.parametrize("name", PROVIDERS)
def test_what_a_caller_brings_stays_data(name: str) -> None:
    provider = PROVIDERS[name]
    for document in (
        provider.connect(HOSTILE, STREAM),
        provider.transfer("<&sip:"),
        provider.apologise("5 < 6 & 7", "en-US"),
        provider.hang_up(),
    ):
        if provider.content_type == "application/json":
            json.loads(document)
        else:
            verbs = {element.tag for element in ElementTree.fromstring(document).iter()}
            assert verbs <= {
                *("Response", "Connect", "Stream", "Parameter", "Redirect", "Dial", "Number"),
                *("Say", "Speak", "Hangup"),
            }


def test_a_handover_is_told_once_and_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("voicechat.store.handovers.MAX_HANDOVERS", 20)
    handovers = Handovers()
    handovers.add("CA1", "+49301", 0)
    handovers.add("CA2", "+49302", 0)
    handovers.add("", "+49303", 0)
    assert handovers.take("CA1", 1) == "+49301"
    assert handovers.take("CA1", 1) == handovers.take("unknown", 1) == handovers.take("", 1) == ""
    assert handovers.take("CA2", LIFE_S) == ""
    for number in range(25):
        handovers.add(str(number), "+49", number / 1e6)
    assert handovers.take("4", 1) == ""
    assert handovers.take("5", 1) == "+49"


# --- a server -------------------------------------------------------------------------

SIGNED = f"""
[server]
trusted_proxies = ["127.0.0.1/32"]
[phone]
twilio_auth_token = "{SECRET}"
plivo_auth_token = "0123456789abcdef"
{CONFIG}
transfers = {{ desk = "+49301111" }}
"""


@asynccontextmanager
async def asking(server: Running) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(server.url, raise_for_status=False) as client:
        yield client


def signed(url: str, form: Mapping[str, str]) -> dict[str, str]:
    parts = urlsplit(url)
    return {
        "X-Twilio-Signature": RequestValidator(SECRET).compute_signature(url, form),
        "X-Forwarded-Proto": parts.scheme,
        "X-Forwarded-Host": parts.netloc,
    }


def stream_of(twiml: str) -> tuple[str, str, dict[str, str]]:
    """The stream's address, where to ask afterwards, and the parameters."""
    root = ElementTree.fromstring(twiml)
    (dial,) = root.iter("Connect")
    (stream,) = root.iter("Stream")
    parameters = {each.attrib["name"]: each.attrib["value"] for each in root.iter("Parameter")}
    return stream.attrib["url"], dial.attrib["action"], parameters


@pytest.mark.real_time
async def test_a_signed_webhook_connects_the_call_and_its_token_opens_one_stream(
    tmp_path: Path,
) -> None:
    path = "/phone/twilio/voice"
    tool = ToolCall(0, "1", "transfer", '{"to": "desk"}')
    model = ScriptedModel(((tool,), ("One moment.",)))
    async with phone_server(tmp_path, toml=SIGNED, model=model) as server, asking(server) as client:
        headers = signed(PUBLIC + path, CALL)
        async with client.post(path, data=CALL, headers=headers) as answer:
            assert answer.status == 200
            assert answer.content_type == "application/xml"
            url, after, parameters = stream_of(await answer.text())
        assert url == "wss://voice.example.org/phone/twilio/stream"
        assert after == "https://voice.example.org/phone/twilio/after?call=CA1"
        assert parameters["called"] == CALL["To"]
        assert parameters["caller"] == CALL["From"]

        start = {
            "event": "start",
            "start": {"streamSid": "MZ1", "callSid": "CA1", "customParameters": parameters},
            "streamSid": "MZ1",
        }
        address = server.url.replace("http", "ws") + urlsplit(url).path
        async with connect(address) as socket:
            await socket.send(json.dumps(start))
            assert json.loads(await socket.recv())["event"] == "mark"  # the greeting begins
            async with connect(address) as thief:
                await thief.send(json.dumps(start))
                with pytest.raises(ConnectionClosed):
                    await thief.recv()
            # Two keys: the greeting is silenced, and the model passes the call on.
            for key in "1#":
                dtmf = {"event": "dtmf", "streamSid": "MZ1", "dtmf": {"digit": key}}
                await socket.send(json.dumps(dtmf))
            async for _ in socket:  # until the agent has said its last words
                pass
        asked = urlsplit(after)
        ask = f"{asked.path}?{asked.query}"
        async with client.post(ask, data=CALL, headers=signed(after, CALL)) as answer:
            assert "<Dial>+49301111</Dial>" in await answer.text()
        async with client.post(ask, data=CALL, headers=signed(after, CALL)) as answer:
            assert "<Hangup/>" in await answer.text(), "once"
        async with client.post(ask, data=CALL) as answer:
            assert answer.status == 401


@pytest.mark.real_time
async def test_forged_webhooks_are_refused_and_every_other_provider_needs_a_key(
    tmp_path: Path,
) -> None:
    path = "/phone/twilio/voice"
    async with phone_server(tmp_path, toml=SIGNED) as server, asking(server) as client:
        good = signed(PUBLIC + path, CALL)
        forged = {
            "none": {},
            "of another address": signed(PUBLIC + path + "/hotel", CALL),
            "of another form": signed(PUBLIC + path, {**CALL, "To": "+1"}),
            "without the proxy's word": {"X-Twilio-Signature": good["X-Twilio-Signature"]},
        }
        for headers in forged.values():
            async with client.post(path, data=CALL, headers=headers) as answer:
                assert answer.status == 401
                assert "X-Twilio-Signature" in await answer.text()
                assert SECRET not in await answer.text()
        nonce = {"X-Plivo-Signature-V3-Nonce": "12345"}
        plivo = server.url + "/phone/plivo/voice"
        async with client.post(plivo, data=PLIVO_FORM, headers=nonce) as answer:
            assert answer.status == 401
            assert "X-Plivo-Signature-V3" in await answer.text()
        forwarded = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "v.example.org"}
        signature = {"X-Plivo-Signature-V3": PLIVO_SIGNED[0][2]}
        headers = {**nonce, **forwarded, **signature}
        async with client.post(plivo, data=PLIVO_FORM, headers=headers) as answer:
            assert "wss://v.example.org/phone/plivo/stream?token=vt_" in await answer.text()
        async with client.post(path, data={"a": "x" * 70_000}, headers=good) as answer:
            assert answer.status == 413
        async with client.post("/phone/nobody/voice", data=CALL) as answer:
            assert answer.status == 404

        for name, provider in PROVIDERS.items():
            if name in ("twilio", "plivo"):
                continue
            form = dict(zip(provider.fields, ("CA1", "+49301234", "+4940999"), strict=True))
            async with client.post(f"/phone/{name}/voice/hotel", data=form) as answer:
                assert answer.status == 401
            address = f"/phone/{name}/voice/hotel?token={KEY}"
            async with client.post(address, data=form) as answer:
                document = await answer.text()
            assert f"/phone/{name}/stream/hotel" in document
            assert "vt_" in document
            assert KEY not in document
        query = {"token": KEY, "uuid": "U1", "to": "4930", "from": "4940"}
        async with client.get("/phone/vonage/voice", params=query) as answer:
            (stream, _) = json.loads(await answer.text())
            assert stream["endpoint"][0]["headers"]["to"] == "4930"
        async with client.get("/phone/exotel/voice", params=query) as answer:
            token = parse_qs(urlsplit(json.loads(await answer.text())["url"]).query)["token"]
            assert token[0].startswith("vt_")
        async with client.get("/phone/transfers/CA1") as answer:
            assert answer.status == 401
        async with client.get("/phone/transfers/CA1", params={"token": KEY}) as answer:
            assert (answer.status, await answer.text()) == (200, "")


@pytest.mark.real_time
@pytest.mark.long
async def test_telnyx_and_vonage_get_in_by_their_signatures_alone(tmp_path: Path) -> None:
    toml = f"""
    [phone]
    public_url = "{PUBLIC}"
    telnyx_public_key = "{TELNYX_PUBLIC}"
    vonage_signature_secret = "{SECRET}"
    {CONFIG}
    """
    body = b'{"uuid": "U1", "to": "4930", "from": "4940"}'
    now_s = int(time.time())
    as_json = {"Content-Type": "application/json"}
    hashed = hashlib.sha256(body).hexdigest()
    good = {
        "telnyx": telnyx_headers(body, str(now_s)),
        "vonage": vonage_headers(iat=now_s, payload_hash=hashed),
    }
    async with phone_server(tmp_path, toml=toml) as server, asking(server) as client:
        for name, headers in good.items():
            path = f"/phone/{name}/voice/hotel"
            async with client.post(path, data=body, headers={**as_json, **headers}) as answer:
                assert answer.status == 200
                assert f"wss://voice.example.org/phone/{name}/stream/hotel" in await answer.text()
            for forged in ({}, {"Authorization": f"Bearer {KEY}"}):
                async with client.post(path, data=body, headers={**as_json, **forged}) as answer:
                    assert answer.status == 401
                    assert f"phone.{SETTINGS[name]}" in await answer.text()
            changed = body.replace(b"4930", b"1900")
            async with client.post(path, data=changed, headers={**as_json, **headers}) as answer:
                assert answer.status == 401


@pytest.mark.real_time
async def test_a_caller_hears_an_apology_when_there_is_no_place(tmp_path: Path) -> None:
    toml = SIGNED.replace("[server]", "[server]\nmax_sessions = 1").replace(
        "[agents.hotel]", '[agents.hotel]\nlanguage = "zh-CN"'
    )
    path = "/phone/twilio/voice"
    async with phone_server(tmp_path, toml=toml) as server, asking(server) as client:
        address = f"{server.url.replace('http', 'ws')}/phone/vonage/stream/hotel?token={KEY}"
        async with connect(address) as socket:
            await socket.send(json.dumps({"event": "websocket:connected"}))
            await socket.recv()
            headers = signed(PUBLIC + path, CALL)
            async with client.post(path, data=CALL, headers=headers) as answer:
                document = await answer.text()
            socket.transport.abort()
        assert '<Say language="zh-CN">抱歉' in document
        assert "<Hangup/>" in document
        headers = signed(f"{PUBLIC}{path}/nobody", CALL)
        async with client.post(f"{path}/nobody", data=CALL, headers=headers) as answer:
            document = await answer.text()
        assert '<Say language="en-US">Sorry' in document, "there is no such agent"
        assert "<Hangup/>" in document


def test_the_command_prints_what_to_paste_where(capsys: pytest.CaptureFixture[str]) -> None:
    for name in PROVIDERS:
        assert main(["phone", name, "--public-url", PUBLIC + "/", "--agent", "hotel"]) == 0
        printed = capsys.readouterr().out
        key = "" if name in SETTINGS else "?token=KEY"
        assert f"\n{PUBLIC}/phone/{name}/voice/hotel{key}\n" in printed
        assert f'public_url = "{PUBLIC}"' in printed
    assert main(["phone", "audiosocket", "--agent", "hotel"]) == 0
    assert 'agent = "hotel"' in capsys.readouterr().out
    for wrong in ("", "voice.example.org", "ftp://x", "https://x?y=1"):
        assert main(["phone", "twilio", "--public-url", wrong]) == 2
        assert "--public-url" in capsys.readouterr().err


@pytest.mark.real_time
@pytest.mark.long
@pytest.mark.parametrize(
    ("path", "protocol", "start"),
    [
        ("/phone/asterisk/stream/hotel", "media", "MEDIA_START channel_id:17.1 format:slin16"),
        (
            "/phone/jambonz/stream/hotel",
            "audio.jambonz.org",
            '{"callSid": "CA1", "sampleRate": 16000, "mixType": "mono"}',
        ),
    ],
)
async def test_systems_of_ones_own_are_greeted_in_samples(
    tmp_path: Path, path: str, protocol: str, start: str
) -> None:
    async with phone_server(tmp_path) as server:
        address = f"{server.url.replace('http', 'ws')}{path}?token={KEY}"
        async with connect(address, subprotocols=[Subprotocol(protocol)]) as socket:
            assert socket.subprotocol == protocol
            await socket.send(start)
            audio = b""
            while len(audio) < 16_000:
                frame = await socket.recv()
                audio += frame if isinstance(frame, bytes) else b""
            await socket.send(bytes(640))
            socket.transport.abort()
        async with connect(address.replace(KEY, "wrong" * 4)) as socket:
            await socket.send(start)
            with pytest.raises(ConnectionClosed):
                await socket.recv()
    samples = np.frombuffer(audio, "<i2")
    assert np.count_nonzero(samples) > 7_000
