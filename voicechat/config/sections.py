"""The schema of the configuration: sections, keys, defaults and bounds. It generates
``docs/configuration.md``.
"""

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    create_model,
    field_validator,
    model_validator,
)

from voicechat.agents import Agents
from voicechat.config.local_models import LocalModels
from voicechat.config.media import MediaServiceConfig
from voicechat.names import ANY, DEFAULT
from voicechat.providers.registry import MediaKind
from voicechat.runtime.fallback.policy import ServicePolicy
from voicechat.session.agent import VARIABLE_NAME, VARIABLES, IdlePrompts, Keypad, references
from voicechat.session.fallback_message import FallbackMessage
from voicechat.session.filler import AFTER_MS, Filler
from voicechat.session.limits import SessionLimits
from voicechat.session.types import DETECTION_BOUNDS, TurnDetection
from voicechat.store.package_registries import RegistrySettings
from voicechat.text.language import LANGUAGES

_POLICY = ServicePolicy()
_APOLOGY = FallbackMessage()
_GIB = 1024**3
SHORTEST_SECRET = 8
_ORIGIN = re.compile(r"[a-z][a-z0-9+.\-]*://[^/?#@\s]+", re.IGNORECASE)

ServiceKind: TypeAlias = Literal["asr", "llm", "tts"]
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network


class ConfigSection(BaseModel):
    """A table with exactly these keys."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


def _as_tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


def _network(text: object) -> object:
    if not isinstance(text, str):
        raise ValueError("networks such as '10.1.0.0/16'")
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        raise ValueError("a network such as '10.1.0.0/16'") from None


def _web_origin(text: str) -> str:
    origin = text.removesuffix("/")
    if origin not in (ANY, "null") and not _ORIGIN.fullmatch(origin):
        raise ValueError("an origin such as https://app.example, null, or *")
    return origin


def _secret(text: str) -> str:
    if text and len(text) < SHORTEST_SECRET:
        raise ValueError(f"{SHORTEST_SECRET} characters long at least")
    return text


_Names: TypeAlias = Annotated[
    tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=1), BeforeValidator(_as_tuple)
]


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
        tuple[Annotated[str, AfterValidator(_web_origin)], ...], BeforeValidator(_as_tuple)
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
        tuple[Annotated[Network, BeforeValidator(_network)], ...], BeforeValidator(_as_tuple)
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
    documents: Annotated[tuple[Document, ...], BeforeValidator(_as_tuple)] = (
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
    """The key that counts for requests to the documents `portal`, `relay` and `spark`
    that hold none, as their own clients send none: whoever reaches the server may then
    use what this key opens. Empty: such requests are refused.
    """


class PlatformConfig(ConfigSection):
    """``[platforms.NAME]``: a group of services, which clients reach at
    ``/NAME/v1/...``. Without any such section every name there means all services.
    """

    llm: _Names | None = None
    """The chat models; unset: all."""
    images: _Names | None = None
    """The services for pictures; unset: all."""
    videos: _Names | None = None
    """The services for videos; unset: all."""


class HandsFreeConfig(ConfigSection):
    """``[hands_free]``: how the server finds the end of a turn by itself."""

    voice_model: str = ""
    """The file of a Silero voice model (ONNX, version 5 or later) that tells speech
    from other sounds; none: that of the installed package.
    """
    turn_model: str = ""
    """The file of a Smart Turn model (ONNX, version 3) that hears whether a turn is
    finished; none: its words say.
    """
    interrupt_by: Literal["words", "voice"] = "words"
    """What interrupts a reply where a client asks for no words
    (``min_interruption_words`` 0). ``words``: what is said must be more than a sign of
    listening, or go on for a second without a recognised word; a cough or "mm-hm" lets
    the reply go on. ``voice``: any sound of ``min_interruption_ms``, at once.
    """
    background_db: Annotated[float, Field(ge=0, le=60)] = 12.0
    """A voice that is fainter than the user's by so many dB is in the background, a
    television or people in the room, and neither interrupts nor keeps a turn open. Who
    moves away from the microphone is heard again after 12 s of speech. 0: every voice
    counts, for several people around one microphone.
    """


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
        tuple[Annotated[str, Field(min_length=1, max_length=100)], ...], BeforeValidator(_as_tuple)
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
        BeforeValidator(_as_tuple),
        Field(min_length=1),
    ] = ("en", "zh")
    """Languages that both are said to know: Home Assistant asks for that of its
    assistant.
    """


class RepliesConfig(ConfigSection):
    """``[replies]``: what of a chat model's text is the reply."""

    hidden_tags: Annotated[
        tuple[Annotated[str, Field(pattern=r"^[^\W\d][\w.\-]{0,47}$")], ...],
        BeforeValidator(_as_tuple),
    ] = ()
    """Names of tags, besides the known ones, that enclose what is neither shown, spoken
    nor remembered.
    """


class ApologyConfig(ConfigSection):
    """``[apology]``: what is said when no chat model answers. An empty text is not
    said.
    """

    enabled: bool = True
    """False: nothing is said."""
    zh: Annotated[str, Field(max_length=200)] = _APOLOGY.zh
    """To a user who spoke Chinese."""
    en: Annotated[str, Field(max_length=200)] = _APOLOGY.en
    """To any other."""

    @property
    def spoken(self) -> FallbackMessage | None:
        """The session's form of this section; None when disabled."""
        return FallbackMessage(zh=self.zh, en=self.en) if self.enabled else None


def _database_url(url: str) -> str:
    if url and urlsplit(url).scheme not in ("postgresql", "postgres"):
        raise ValueError("postgresql://..., or empty for SQLite")
    return url


class TranscriptionConfig(ConfigSection):
    """``[transcription]``: tasks and the recordings that they are about."""

    folder: str = ""
    """For recordings, and for the tasks unless there is a ``database_url``. Empty:
    ``tasks`` in the data directory.
    """
    database_url: Annotated[str, AfterValidator(_database_url), Field(repr=False)] = ""
    """``postgresql://...`` for several machines, which then share ``folder`` too;
    empty: SQLite.
    """
    workers: Annotated[int, Field(ge=1, le=64)] = 2
    """Tasks that this server does at once; each of its processes does one at least."""
    requests: Annotated[int, Field(ge=1, le=4096)] | None = None
    """Recordings of clients that wait for the result, recognised at once by this
    server; the others wait for a place. Unset: twice as many as the machine has cores.
    """
    max_attempts: Annotated[int, Field(ge=1, le=1000)] = 5
    """Attempts that may die with their process before a task fails."""
    keep_hours: Annotated[float, Field(gt=0, le=8760)] = 24.0
    """How long a finished task is kept, and its recording with it."""
    max_recording_bytes: Annotated[int, Field(ge=1)] = _GIB
    """Size of one recording."""
    max_key_bytes: Annotated[int, Field(ge=1)] = 20 * _GIB
    """Recordings of one key on disk."""
    max_key_tasks: Annotated[int, Field(ge=1)] = 10_000
    """Tasks of one key, those that are finished and kept included."""
    max_disk_bytes: Annotated[int, Field(ge=1)] = 100 * _GIB
    """Recordings of all keys on disk."""
    max_task_minutes: Annotated[int, Field(ge=1, le=1440)] = 300
    """Length of a task's recording."""
    max_request_minutes: Annotated[int, Field(ge=1, le=1440)] = 30
    """Length of a recording whose client waits for the result."""
    allowed_networks: Annotated[
        tuple[Annotated[Network, BeforeValidator(_network)], ...], BeforeValidator(_as_tuple)
    ] = ()
    """Networks that ``audio_url``, and MCP servers that clients name, may lead to
    besides the public ones.
    """
    allowed_ports: Annotated[
        tuple[Annotated[int, Field(ge=1, le=65535)], ...],
        Field(min_length=1),
        BeforeValidator(_as_tuple),
    ] = (80, 443)
    """Ports that they may name."""


class MediaConfig(ConfigSection):
    """``[media]``: pictures and videos of clients, and those made for them. Tasks are
    kept as ``[transcription]`` says.
    """

    public_url: Annotated[str, Field(pattern=r"^(https?://[^?#\s]+)?$")] = ""
    """How clients reach this server, for the addresses of results, such as
    `https://voice.example`; empty: as the request says.
    """
    keep_hours: Annotated[float, Field(gt=0, le=8760)] = 24.0
    """How long a result can be fetched."""
    max_key_bytes: Annotated[int, Field(ge=1)] = 5 * _GIB
    """Files of one key on disk."""
    max_disk_bytes: Annotated[int, Field(ge=1)] = 50 * _GIB
    """Files of all keys on disk."""
    image_deadline_s: Annotated[float, Field(gt=0, le=3600)] = 300.0
    """How long a picture may take."""


class FillerConfig(ConfigSection):
    """``[tools.NAME.filler]``, ``[agents.NAME.filler]``: what is said while a tool
    takes long, by the user's language; one alone serves both.
    """

    en: str = ""
    """To a user who spoke English."""
    zh: str = ""
    """To a user who spoke Chinese."""

    @property
    def filler(self) -> Filler:
        """The texts."""
        return Filler(self.en, self.zh)


def _in_both_languages(filler: object) -> object:
    if not isinstance(filler, str | dict):
        raise ValueError("a text, or a table with the keys en and zh")
    return {"en": filler, "zh": filler} if isinstance(filler, str) else filler


class ToolConfig(ConfigSection):
    """``[tools.NAME]``: a Python function that the models may call in conversations, or
    an MCP server with tools of its own.
    """

    function: str = ""
    """``package.module:function``, asynchronous or not."""
    mcp_url: str = ""
    """Instead: the address of an MCP server (streamable HTTP), whose tools are
    offered.
    """
    mcp_command: Annotated[tuple[str, ...], BeforeValidator(_as_tuple)] = ()
    """Instead: what starts an MCP server as a child process (stdio)."""
    mcp_headers: dict[str, str] = {}
    """For ``mcp_url``, such as ``Authorization``."""
    mcp_tools: Annotated[tuple[str, ...], BeforeValidator(_as_tuple)] | None = None
    """The tools of the MCP server that are offered; unset: all."""
    description: str = ""
    """For the model; empty: the function's docstring."""
    parameters: dict[str, Any] | None = None
    """JSON Schema of the arguments; none: from the function's annotations."""
    deadline_s: Annotated[float, Field(gt=0, le=300)] = 10.0
    """After this time the model is told that the tool has not answered."""
    filler: Annotated[FillerConfig, BeforeValidator(_in_both_languages)] = FillerConfig()
    """What is said while the tool runs: a text, or the table below."""
    filler_after_ms: Annotated[int, Field(ge=0, le=60_000)] = AFTER_MS
    """How long the tool may run before the filler is said."""

    @model_validator(mode="after")
    def _is_one_kind(self) -> "ToolConfig":
        kinds = ("function", "mcp_url", "mcp_command")
        named = [kind for kind in kinds if getattr(self, kind)]
        if len(named) != 1:
            raise ValueError(f"a table with exactly one of {', '.join(kinds)}")
        return self

    @property
    def is_mcp(self) -> bool:
        """Whether it is an MCP server."""
        return not self.function


class LanguageVoiceConfig(ConfigSection):
    """A voice of ``[tts.NAME.by_language]``; a text is one of this service."""

    service: str = ""
    """A ``[tts.*]`` service; empty: this one."""
    voice: str = ""
    """One of its voices; empty: its default."""


def _language_voice(value: object) -> object:
    return {"voice": value} if isinstance(value, str) else value


_LanguageVoice = Annotated[LanguageVoiceConfig, BeforeValidator(_language_voice)]


class LanguageVoicesConfig(ConfigSection):
    """``[tts.NAME.by_language]``: which voice speaks the sentences of a language,
    unless the client names one: a voice of this service, or one of another,
    ``{ service = "NAME", voice = "NAME" }``.
    """

    zh: _LanguageVoice | None = None
    """Sentences with Chinese characters, whatever else is in them."""
    ja: _LanguageVoice | None = None
    """Sentences with kana."""
    ko: _LanguageVoice | None = None
    """Sentences with Hangul."""
    en: _LanguageVoice | None = None
    """Sentences in Latin letters, whatever language these write."""

    @property
    def chosen(self) -> dict[str, LanguageVoiceConfig]:
        """The voices that are given, by language."""
        given = {language: getattr(self, language) for language in LANGUAGES}
        return {language: voice for language, voice in given.items() if voice is not None}


class ServiceConfig(BaseModel):
    """``[llm.NAME]``, ``[asr.NAME]`` or ``[tts.NAME]``: a provider, and its keyword
    arguments as the other keys.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="allow", hide_input_in_errors=True)

    provider: Annotated[str, Field(min_length=1)]
    """A provider's name, or ``package.module:factory`` of your own."""
    fallback: Annotated[tuple[str, ...], BeforeValidator(_as_tuple)] = ()
    """Names of fallback services of the same kind, tried in order when this one
    fails.
    """
    also: Annotated[
        tuple[Annotated[str, Field(min_length=1)], ...], BeforeValidator(_as_tuple)
    ] = ()
    """Other names that clients may use for this service, as stock clients have their
    vendor's compiled in; `*`: any name that no other service has.
    """
    by_language: LanguageVoicesConfig = LanguageVoicesConfig()
    """``tts`` only. Voices for languages that this one's does not speak."""
    max_streams: Annotated[int, Field(ge=1)] | None = None
    queue_s: Annotated[float, Field(ge=0, le=600)] = _POLICY.queue_s
    attempt_s: Annotated[float, Field(gt=0, le=600)] | None = None
    first_use_s: Annotated[float, Field(ge=0, le=3600)] = _POLICY.first_use_s
    breaker_failures: Annotated[int, Field(ge=1)] = _POLICY.breaker_failures
    breaker_ratio: Annotated[float, Field(gt=0, le=1)] = _POLICY.breaker_ratio
    breaker_pause_s: Annotated[float, Field(gt=0, le=3600)] = _POLICY.breaker_pause_s
    breaker_max_pause_s: Annotated[float, Field(gt=0, le=86_400)] = _POLICY.breaker_max_pause_s
    _written: dict[tuple[str, ...], str] = PrivateAttr(default_factory=dict)

    def __repr__(self) -> str:
        """Without the keyword arguments: one of them may be a secret."""
        return f"ServiceConfig(provider={self.provider!r})"

    @property
    def written(self) -> dict[tuple[str, ...], str]:
        """Raw text of the keyword arguments, and of keys of tables among them, that
        came from variables and are not strings in TOML; by path.
        """
        return self._written

    @property
    def arguments(self) -> dict[str, object]:
        """The provider's keyword arguments."""
        return dict(self.model_extra or {})

    @property
    def policy(self) -> ServicePolicy:
        """The failure policy; see ``ServicePolicy``."""
        return ServicePolicy(
            **{limit.name: getattr(self, limit.name) for limit in fields(ServicePolicy)}
        )


_LANGUAGE = r"^([A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*)?$"
_DETECTION = TurnDetection()
_IDLE = IdlePrompts(prompts=())
_KEYPAD = Keypad()
_Text = Annotated[str, Field(min_length=1)]
_Texts = Annotated[tuple[_Text, ...], BeforeValidator(_as_tuple)]


def _detected(name: str) -> Any:
    """Return the bounds of a field of ``TurnDetection``, the same as for clients."""
    low, high = DETECTION_BOUNDS[name]
    return Field(ge=low, le=high)


class TurnDetectionConfig(ConfigSection):
    """``[agents.NAME.turn_detection]``: the server ends the user's turns; an empty
    table is enough.
    """

    threshold: Annotated[float, _detected("threshold")] = _DETECTION.threshold
    """Probability from which a sound counts as speech."""
    prefix_padding_ms: Annotated[int, _detected("prefix_padding_ms")] = _DETECTION.prefix_padding_ms
    """Audio before the detected start that belongs to the speech."""
    silence_duration_ms: Annotated[int, _detected("silence_duration_ms")] = (
        _DETECTION.silence_duration_ms
    )
    """Silence that ends a turn."""
    create_response: bool = _DETECTION.create_response
    """False: the end of a turn is reported, and no reply is begun."""
    interrupt_response: bool = _DETECTION.interrupt_response
    """False: a reply is not interrupted, whatever the user says."""
    min_interruption_ms: Annotated[int, _detected("min_interruption_ms")] = (
        _DETECTION.min_interruption_ms
    )
    """Speech needed to interrupt a reply."""
    min_interruption_words: Annotated[int, _detected("min_interruption_words")] = (
        _DETECTION.min_interruption_words
    )
    """Words needed to interrupt a reply; 0: any speech does."""

    @property
    def detection(self) -> TurnDetection:
        """The session's form of this section."""
        return TurnDetection(**dict(self))


class IdlePromptsConfig(ConfigSection):
    """``[agents.NAME.idle_prompts]``: what is said to a user who stays silent; after
    the last one comes the goodbye.
    """

    prompts: Annotated[_Texts, Field(min_length=1)]
    """In order; the last one is repeated."""
    after_s: Annotated[float, Field(ge=1, le=3600)] = _IDLE.after_ms / 1000
    """Silence before each prompt, and before the goodbye, from the end of what was last
    heard.
    """
    times: Annotated[int, Field(ge=1, le=100)] | None = None
    """How many prompts before the goodbye; unset: each of them once. Speech of the user
    restarts the count.
    """

    @property
    def idle_prompts(self) -> IdlePrompts:
        """The session's form of this section."""
        times = self.times or len(self.prompts)
        return IdlePrompts(prompts=self.prompts, after_ms=round(self.after_s * 1000), times=times)


class KeypadConfig(ConfigSection):
    """``[agents.NAME.keypad]``: how keys that a caller presses become an entry, which
    the model reads as `DTMF: 1234`.
    """

    terminator: Annotated[str, Field(pattern=r"^[0-9*#A-D]?$")] = _KEYPAD.terminator
    """The key that completes an entry; empty: none does."""
    timeout_s: Annotated[float, Field(ge=0.5, le=60)] = _KEYPAD.timeout_ms / 1000
    """After this long without a further key an entry is complete."""
    most: Annotated[int, Field(ge=1, le=256)] = _KEYPAD.most
    """An entry of this many keys is complete."""
    tool: str = ""
    """The `[tools.NAME]` that the model is made to call with an entry; empty: the model
    reads it and does as it sees fit.
    """

    @property
    def keypad(self) -> Keypad:
        """The session's form of this section."""
        timeout_ms = round(self.timeout_s * 1000)
        return Keypad(
            terminator=self.terminator, timeout_ms=timeout_ms, most=self.most, tool=self.tool
        )


class ClientToolConfig(ConfigSection):
    """``[agents.NAME.client_tools.NAME]``: a function that a client of RTVI carries
    out.
    """

    description: _Text
    """What it does, for the model."""
    parameters: dict[str, Any] = {"type": "object", "properties": {}}
    """JSON Schema of its arguments."""

    def definition(self, name: str) -> dict[str, object]:
        """Return it in the form of chat completions."""
        function = {"description": self.description, "parameters": self.parameters}
        return {"type": "function", "function": {"name": name, **function}}


class AgentConfig(ConfigSection):
    """``[agents.NAME]``: who answers, where client or telephone cannot say. All texts
    may hold `{variables}`.
    """

    llm: _Text = DEFAULT
    """The chat model, by the name of its section."""
    asr: _Text = DEFAULT
    """The recogniser."""
    tts: _Text = DEFAULT
    """The synthesiser."""
    voice: str = ""
    """One of the synthesiser's voices; empty: its default."""
    instructions: str = ""
    """The system message, before all others."""
    instructions_by_language: dict[Literal["zh", "ja", "ko", "en"], str] = {}
    """In place of `instructions`, by the language of the user's last words, as their
    script shows it: small models answer in the language of their instructions.
    """
    greeting: str = ""
    """Said first; it can be interrupted. Empty: the user speaks first."""
    greeting_prompt: str = ""
    """Instead of `greeting`: a prompt for the chat model, which then greets in its own
    words.
    """
    language: Annotated[str, Field(pattern=_LANGUAGE)] = ""
    """Such as `en` or `zh-CN`: the language until the user has spoken. Empty:
    unknown.
    """
    tools: _Texts | None = None
    """The `[tools.NAME]` that the model may call; unset: all."""
    turn_detection: TurnDetectionConfig | None = None
    """How the ends of the user's turns are detected, the table below; unset: as the
    client requests.
    """
    idle_prompts: IdlePromptsConfig | None = None
    """What is said when the user stays silent, the table below; unset: nothing."""
    goodbye: str = ""
    """Said before the server ends the conversation."""
    max_duration_s: Annotated[float, Field(gt=0, le=86_400)] | None = None
    """The conversation ends after this time, with the goodbye; unset: never."""
    memory: Literal["none", "device"] = "none"
    """``device``: the agent remembers earlier conversations of the same device, as a
    summary that its chat model makes and the last turns. Only devices that were paired
    are remembered.
    """
    end_conversation: bool = False
    """True: the model has a tool `end_conversation`, with which it ends the
    conversation after its last words.
    """
    filler: Annotated[FillerConfig, BeforeValidator(_in_both_languages)] | None = None
    """What is said while a client, such as a device, carries out a tool and nothing of
    the reply has been said: a text, or the table below; unset: `One moment, please.` or
    `请稍等。` on devices, nothing elsewhere.
    """
    filler_after_ms: Annotated[int, Field(ge=0, le=60_000)] = AFTER_MS
    """How long that may take before."""
    keypad: KeypadConfig | None = None
    """How keys that a caller presses become an entry, the table below; unset: with its
    defaults.
    """
    client_tools: dict[
        Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")], ClientToolConfig
    ] = {}
    """`[agents.NAME.client_tools.NAME]`: functions that clients of RTVI carry out."""
    transfers: dict[_Text, _Text] = {}
    """With whom the model may connect the user, by its tool `transfer`: a number or
    address for each name, such as `{ desk = "+493012345" }`.
    """
    variables: dict[str, str] = {}
    """Variables that connections may set besides `{called}`, `{caller}`, `{device}`,
    `{date}`, `{time}` and `{language}`, with their defaults.
    """
    also: _Texts = ()
    """Other names: a `model` that stock clients have compiled in, a number called, a
    device's id, a key's id; `*`: any that nothing else has.
    """

    @model_validator(mode="after")
    def _greets_in_one_way(self) -> "AgentConfig":
        if self.greeting and self.greeting_prompt:
            raise ValueError("with greeting or with greeting_prompt, not with both")
        return self

    @field_validator(
        "instructions", "greeting", "greeting_prompt", "goodbye", "idle_prompts", mode="after"
    )
    @classmethod
    def _braces_are_variables(cls, value: Any) -> Any:
        for text in value.prompts if isinstance(value, IdlePromptsConfig) else (value or "",):
            list(references(text))
        return value

    @field_validator("instructions_by_language", mode="after")
    @classmethod
    def _braces_in_each_are_variables(cls, value: dict[str, str]) -> dict[str, str]:
        for text in value.values():
            list(references(text))
        return value

    @field_validator("variables", mode="after")
    @classmethod
    def _variables_have_names(cls, variables: dict[str, str]) -> dict[str, str]:
        for name in variables:
            if not VARIABLE_NAME.fullmatch(name):
                raise ValueError(f"by names of letters, digits and _ ({name!r} is none)")
            if name in VARIABLES:
                raise ValueError(f"without {name!r}, which every connection brings")
        return variables

    def texts(self) -> dict[str, str]:
        """Return all texts that may contain variables, by their key."""
        keys = ("instructions", "greeting", "greeting_prompt", "goodbye")
        found: dict[str, str] = {key: getattr(self, key) for key in keys}
        for language, text in self.instructions_by_language.items():
            found[f"instructions_by_language.{language}"] = text
        prompts = self.idle_prompts.prompts if self.idle_prompts else ()
        return found | {
            f"idle_prompts.prompts.{number}": text for number, text in enumerate(prompts)
        }


_FROM_ZERO = frozenset({"early_replies_wasted"})
"""Limits that may be 0."""
# Generated from the dataclass, so that no limit can be missing.
_LIMIT_FIELDS: Any = {
    limit.name: (Annotated[int, Field(ge=0 if limit.name in _FROM_ZERO else 1)], limit.default)
    for limit in fields(SessionLimits)
}
LimitsSection = create_model("LimitsSection", __base__=ConfigSection, **_LIMIT_FIELDS)


class DialectConfig(BaseModel):
    """``[dialects.NAME]``: a protocol of your own, and its factory's keyword arguments
    as the other keys.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="allow", hide_input_in_errors=True)

    dialect: Annotated[str, Field(pattern=r"^[\w.]+:\w+$")]
    """``package.module:factory``: what it returns is a
    ``voicechat.dialects.base.Endpoint``.
    """

    def __repr__(self) -> str:
        """Without the keyword arguments: one of them may be a secret."""
        return f"DialectConfig(dialect={self.dialect!r})"

    @property
    def arguments(self) -> dict[str, object]:
        """The factory's keyword arguments."""
        return dict(self.model_extra or {})


class ConfigFile(ConfigSection):
    """The sections of a configuration file."""

    server: ServerConfig = ServerConfig()
    limits: LimitsSection = LimitsSection()  # type: ignore[valid-type]
    admission: AdmissionConfig = AdmissionConfig()
    compat: CompatConfig = CompatConfig()
    replies: RepliesConfig = RepliesConfig()
    apology: ApologyConfig = ApologyConfig()
    transcription: TranscriptionConfig = TranscriptionConfig()
    hands_free: HandsFreeConfig = HandsFreeConfig()
    llm: dict[str, ServiceConfig]
    asr: dict[str, ServiceConfig]
    tts: dict[str, ServiceConfig]
    images: dict[str, MediaServiceConfig] = {}
    videos: dict[str, MediaServiceConfig] = {}
    vision: dict[str, MediaServiceConfig] = {}
    ocr: dict[str, MediaServiceConfig] = {}
    enhancers: dict[str, MediaServiceConfig] = {}
    video_processors: dict[str, MediaServiceConfig] = {}
    media: MediaConfig = MediaConfig()
    platforms: dict[str, PlatformConfig] = {}
    tools: dict[str, ToolConfig] = {}
    devices: DevicesConfig = DevicesConfig()
    wyoming: WyomingConfig = WyomingConfig()
    phone: PhoneConfig = PhoneConfig()
    agents: dict[str, AgentConfig] = {}
    dialects: dict[str, DialectConfig] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """A complete, validated configuration.

    ``llm``, ``asr`` and ``tts`` always contain the name ``default``.
    """

    server: ServerConfig
    limits: SessionLimits
    admission: AdmissionConfig
    compat: CompatConfig
    replies: RepliesConfig
    apology: ApologyConfig
    transcription: TranscriptionConfig
    llm: Mapping[str, ServiceConfig]
    asr: Mapping[str, ServiceConfig]
    tts: Mapping[str, ServiceConfig]
    tools: Mapping[str, ToolConfig]
    media_services: Mapping[MediaKind, Mapping[str, MediaServiceConfig]] = field(
        default_factory=dict
    )
    """The services for pictures and videos, by kind."""
    media: MediaConfig = field(default_factory=MediaConfig)
    platforms: Mapping[str, PlatformConfig] = field(default_factory=dict)
    agents: Agents = field(default_factory=Agents)
    """The agents; the name ``default`` always exists."""
    devices: DevicesConfig = field(default_factory=DevicesConfig)
    wyoming: WyomingConfig = field(default_factory=WyomingConfig)
    phone: PhoneConfig = field(default_factory=PhoneConfig)
    dialects: Mapping[str, DialectConfig] = field(default_factory=dict)
    """Protocols besides the built-in ones."""
    data_dir: Path
    hands_free: HandsFreeConfig = field(default_factory=HandsFreeConfig)
    api_key: str | None = field(default=None, repr=False)
    """The key of the environment, which opens everything."""
    file: Path | None = None
    """The file that was read; None without one."""
    registries: RegistrySettings = field(default_factory=RegistrySettings, repr=False)
    """Package registries that the environment names; their URLs may hold passwords."""
    local_models: LocalModels = field(default_factory=LocalModels)
    """The pulled models, from which the gaps of the file were filled."""
