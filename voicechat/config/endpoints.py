"""The endpoints of all dialects: our own, and those that the configuration names."""

from voicechat.config.sections import Config
from voicechat.dialects.base import Endpoint
from voicechat.dialects.speech_chat.endpoint import SpeechChatEndpoint
from voicechat.dialects.stream_speech.endpoint import StreamSpeechEndpoint


def endpoints_of(config: Config) -> tuple[Endpoint, ...]:
    """Open every endpoint; none listens before the server does. Raises ConfigError naming the section."""
    speech_chat = SpeechChatEndpoint(
        update_reply=config.compat.chat_update_reply,
        strict_ping=config.compat.strict_ping,
        most_errors=config.limits.protocol_errors,
    )
    return (speech_chat, StreamSpeechEndpoint())
