"""The endpoints of all dialects: the built-in ones, and those of the configuration."""

from collections.abc import Callable

from voicechat.config.sections import Config, DialectConfig
from voicechat.dialects.base import Endpoint, Handshake
from voicechat.dialects.media_streams.endpoint import VENDORS, MediaStreamsEndpoint
from voicechat.dialects.openai_realtime.endpoint import OpenAIRealtimeEndpoint
from voicechat.dialects.rtvi.endpoint import RTVIEndpoint
from voicechat.dialects.speech_chat.endpoint import SpeechChatEndpoint
from voicechat.dialects.stream_speech.endpoint import StreamSpeechEndpoint
from voicechat.dialects.xiaozhi import (
    DeviceOptions,
    EmotionSigns,
    Vision,
    XiaozhiEndpoint,
    plain_words,
)
from voicechat.errors import ConfigError
from voicechat.providers.registry import load_factory


def endpoints_of(
    config: Config, vision: Callable[[Handshake], Vision] = lambda _: Vision()
) -> tuple[Endpoint, ...]:
    """Create every endpoint; the server starts them later. Raises ConfigError naming
    the section.

    ``vision`` says where the device of a handshake sends its photos.
    """
    speech_chat = SpeechChatEndpoint(
        update_reply=config.compat.chat_update_reply,
        strict_ping=config.compat.strict_ping,
        most_errors=config.limits.protocol_errors,
    )
    devices = XiaozhiEndpoint(
        DeviceOptions(
            wake_words=frozenset(map(plain_words, config.devices.wake_words)),
            answer_wake_word=config.devices.answer_wake_word,
            alerts=config.devices.show_failures,
            emotions=config.devices.emotions,
            signs=EmotionSigns(config.devices.emotion_signs),
        ),
        vision,
    )
    phones = map(MediaStreamsEndpoint, VENDORS)
    own = (
        speech_chat,
        StreamSpeechEndpoint(),
        devices,
        OpenAIRealtimeEndpoint(),
        RTVIEndpoint(),
        *phones,
    )
    others = (open_endpoint(name, section) for name, section in config.dialects.items())
    return _distinct((*own, *others))


def open_endpoint(name: str, section: DialectConfig) -> Endpoint:
    """Create the endpoint of ``[dialects.NAME]``. Raises ConfigError naming the
    section.
    """
    try:
        endpoint = load_factory(section.dialect, "dialect")(**section.arguments)
    except ConfigError as error:
        raise ConfigError(f"dialects.{name}: {error}") from error
    if not isinstance(endpoint, Endpoint):
        kind = type(endpoint).__name__
        message = (
            f"{section.dialect!r} returned a {kind}, which is no voicechat.dialects.base.Endpoint"
        )
        raise ConfigError(f"dialects.{name}: dialect: {message}")
    if not endpoint.paths and endpoint.port is None:
        raise ConfigError(f"dialects.{name}: the endpoint has neither a path nor a port")
    endpoint.name = name
    return endpoint


def _distinct(endpoints: tuple[Endpoint, ...]) -> tuple[Endpoint, ...]:
    """Check that no two endpoints have the same path."""
    owners: dict[str, Endpoint] = {}
    for endpoint in endpoints:
        for path in endpoint.paths:
            if path in owners:
                raise ConfigError(f"dialects.{endpoint.name}: {path} is served already")
            owners[path] = endpoint
    return endpoints
