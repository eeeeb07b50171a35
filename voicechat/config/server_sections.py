"""The sections of the port and of who connects to it."""

import re
from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field

from voicechat.config.section import ConfigSection, Names, Network, as_tuple, network
from voicechat.names import ANY, DEFAULT

SHORTEST_SECRET = 8
_ORIGIN = re.compile(r"[a-z][a-z0-9+.\-]*://[^/?#@\s]+", re.IGNORECASE)


def _web_origin(text: str) -> str:
    origin = text.removesuffix("/")
    if origin not in (ANY, "null") and not _ORIGIN.fullmatch(origin):
        raise ValueError("an origin such as https://app.example, null, or *")
    return origin


def _secret(text: str) -> str:
    if text and len(text) < SHORTEST_SECRET:
        raise ValueError(f"{SHORTEST_SECRET} characters long at least")
    return text


class ServerConfig(ConfigSection):
    """``[server]``: the port and who may come in."""

    host: Annotated[str, Field(min_length=1)] = "127.0.0.1"
    """The address to listen on; addresses that other machines can reach need a key."""
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    """0: any free port."""
    workers: Annotated[int, Field(ge=1, le=256)] | None = None
    """Processes that serve. Unset: one for each core; one for each eight where models
    compute on this machine.
    """
    max_sessions: Annotated[int, Field(ge=1)] = 500
    """Above this number, new sessions are refused with AT_CAPACITY."""
    drain_s: Annotated[float, Field(ge=0, le=3600)] = 30.0
    """How long turns in progress may take to end after SIGTERM."""
    speech_cache_mib: Annotated[int, Field(ge=0, le=65536)] = 8
    """Size of each synthesiser's cache of repeated speech; 0: no cache."""
    allowed_origins: Annotated[
        tuple[Annotated[str, AfterValidator(_web_origin)], ...], BeforeValidator(as_tuple)
    ] = ()
    """Web origins besides the server's own whose pages may connect, to sockets and by
    CORS to REST: `https://app.example`; `null`: pages without one, such as files; `*`:
    all.
    """
    announce: bool = True
    """True: where the package `zeroconf` is installed (the extra `zeroconf`) and others
    reach the server, the local network is told by multicast DNS of the Wyoming port,
    `_wyoming._tcp`, and of the devices' OTA address, `_xiaozhi-ota._tcp`.
    """
    metrics_key: Annotated[str, AfterValidator(_secret), Field(repr=False)] = ""
    """The key that `/metrics` needs, of 8 characters at least; empty: only this machine
    itself may read them.
    """
    trusted_proxies: Annotated[
        tuple[Annotated[Network, BeforeValidator(network)], ...], BeforeValidator(as_tuple)
    ] = ()
    """Networks of the reverse proxies: `X-Forwarded-For` and `X-Forwarded-Host` count
    only from them.
    """


class AdmissionConfig(ConfigSection):
    """``[admission]``: at which load a process begins no reply early, and refuses new
    sessions.
    """

    unquestioned_sessions: Annotated[int, Field(ge=0)] = 4
    """Sessions that a process always admits, whatever its load."""
    busy_shed_percent: Annotated[float, Field(gt=0)] = 65.0
    """CPU load in percent: the time in which the event loop computes or waits for a
    core, or the CPU time of the process on its share of the cores, whichever is more.
    Above 100: never.
    """
    busy_refuse_percent: Annotated[float, Field(gt=0)] = 75.0
    """The same, for refusing."""
    loop_lag_shed_ms: Annotated[float, Field(gt=0)] = 20.0
    """How late the event loop runs its timers."""
    loop_lag_refuse_ms: Annotated[float, Field(gt=0)] = 50.0
    """The same, for refusing."""
    encoding_lag_shed_ms: Annotated[float, Field(gt=0)] = 30.0
    """How long audio waits for an encoder."""
    encoding_lag_refuse_ms: Annotated[float, Field(gt=0)] = 80.0
    """The same, for refusing."""
    detection_lag_shed_ms: Annotated[float, Field(gt=0)] = 60.0
    """How long audio waits for voice detection. A frame is 32 ms, and batches are
    delayed by 10 ms on purpose.
    """
    detection_lag_refuse_ms: Annotated[float, Field(gt=0)] = 150.0
    """The same, for refusing."""
    waiting_streams_shed: Annotated[int, Field(ge=1)] = 1
    """Streams that wait for a slot of a provider."""
    waiting_streams_refuse: Annotated[int, Field(ge=1)] = 2
    """The same, for refusing."""


Document: TypeAlias = Literal["sophnet", "platforms", "portal", "relay", "spark", "accounts"]


class CompatConfig(ConfigSection):
    """``[compat]``: behaviour that clients of the original service may rely on."""

    chat_update_reply: Literal["chat.updated", "chat.update"] = "chat.updated"
    """The event type that answers ``chat.update``."""
    strict_ping: bool = False
    """True: only ``ping`` shows that a client is alive."""
    documents: Annotated[tuple[Document, ...], BeforeValidator(as_tuple)] = (
        "sophnet",
        "platforms",
        "portal",
        "relay",
        "spark",
    )
    """The other documents whose requests are answered; `docs/compat.md` says what each
    has.
    """
    guest_key: Annotated[str, AfterValidator(_secret), Field(repr=False)] = ""
    """The key that counts for requests to the documents `portal` (its chat and pictures
    at OpenAI's paths included), `relay` and `spark` that hold none, as their own
    clients send none: whoever reaches the server may then use what this key opens.
    Empty: such requests are refused.
    """


class PlatformConfig(ConfigSection):
    """``[platforms.NAME]``: a group of services, which clients reach at
    ``/NAME/v1/...``. Without any such section every name there means all services.
    """

    llm: Names | None = None
    """The chat models; unset: all."""
    images: Names | None = None
    """The services for pictures; unset: all."""
    videos: Names | None = None
    """The services for videos; unset: all."""


class DevicesConfig(ConfigSection):
    """``[devices]``: devices with the xiaozhi firmware."""

    accept: Literal["code", "local"] = "code"
    """How a device that the server does not know gets in. ``code``: it says six digits,
    and `voicechat devices pair` lets it in. ``local``: also without, from a private
    network address (10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16, fc00::/7, this machine).
    """
    public_url: Annotated[str, Field(pattern=r"^(https?://[^/?#\s]+)?$")] = ""
    """How devices reach the server, such as `https://voice.example`; empty: as they
    have reached it when they asked.
    """
    frame_version: Literal[1, 2, 3] = 1
    """The version of the audio frames that devices are told to use. 2 has time stamps,
    with which a device can leave its echo to the server.
    """
    wake_words: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=100)], ...], BeforeValidator(as_tuple)
    ] = ()
    """Wake words besides the firmware's usual ones."""
    answer_wake_word: bool = False
    """True: the chat model answers the wake word; else the device just listens."""
    show_failures: bool = True
    """True: a failure of a service is shown on the display."""
    emotions: bool = True
    """True: the chat model is told to begin each answer with an emoji, which the device
    shows as a face and nobody hears.
    """
    emotion_signs: dict[
        Annotated[str, Field(min_length=1, max_length=32)],
        Annotated[str, Field(pattern=r"^[a-z_]{1,32}$")],
    ] = {}
    """Further emoji, and words of marks such as `[grin]` or `【偷笑】`, in any
    language, with the emotion that the device shows for each: `{ grin = "laughing" }`.
    The names of the firmware's 21 emotions and usual Chinese words for them need not be
    named.
    """
    vision: str = ""
    """The chat model that looks at a device's photos; empty: the default one."""


class PhoneConfig(ConfigSection):
    """``[phone]``: the webhooks of telephone providers."""

    public_url: Annotated[str, Field(pattern=r"^(https?://[^?#\s]+)?$")] = ""
    """How providers reach this server, such as `https://voice.example`; empty: as the
    request says, and `server.trusted_proxies` in front of it.
    """
    twilio_auth_token: Annotated[str, AfterValidator(_secret), Field(repr=False)] = ""
    """The account's auth token, which checks the signature of Twilio's webhooks; empty:
    they need a key, as those of the other providers do.
    """
    plivo_auth_token: Annotated[str, AfterValidator(_secret), Field(repr=False)] = ""
    """The account's auth token, which checks the signature of Plivo's webhooks; empty:
    they need a key.
    """
    telnyx_public_key: str = ""
    """The account's public key, as its portal shows it, which checks the signature of
    Telnyx' webhooks; empty: they need a key. Needs `voicechat[phones]`.
    """
    vonage_signature_secret: Annotated[str, AfterValidator(_secret), Field(repr=False)] = ""
    """The account's signature secret, which checks the signature of Vonage's webhooks;
    empty: they need a key. Needs `voicechat[phones]`.
    """


class WyomingConfig(ConfigSection):
    """``[wyoming]``: recognition and speech for Home Assistant, by the Wyoming
    protocol. It has no keys: whoever reaches the port may use it.
    """

    port: Annotated[int, Field(ge=0, le=65535)] | None = None
    """The TCP port; 0: any free one; none: there is none. Usual is 10300."""
    host: Annotated[str, Field(min_length=1)] = "127.0.0.1"
    """The address to listen on."""
    asr: str = DEFAULT
    """The recogniser that is offered."""
    tts: str = DEFAULT
    """The synthesiser that is offered, with its voices."""
    languages: Annotated[
        tuple[Annotated[str, Field(pattern=r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*$")], ...],
        BeforeValidator(as_tuple),
        Field(min_length=1),
    ] = ("en", "zh")
    """Languages that both are said to know: Home Assistant asks for that of its
    assistant.
    """
