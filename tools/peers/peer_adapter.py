"""What the bench's client must know of our protocol: ``peer_adapter:SpeechChat`` and
``peer_adapter:SpeechChatBinary``.

Runs in the bench's own environment, without voicechat: JSON and WebSocket frames only.
Message kinds are the numbers of the WebSocket opcodes (RFC 6455, section 5.2), which
the bench's client uses too.
"""

import json
from typing import Any

TEXT, BINARY = 1, 2
RATE_HZ = 16000
HEADER_BYTES = 16
"""Of an audio frame with ``downlink: binary``."""
ACCEPTING = b'{"status":"accepting"'
FRAME_KEY = b'"audioFrame":"'
PATH = (
    "/api/open-apis/projects/default/chat/speech-chat"
    "?token=bench&model=default&asr_easyllm_id=default&tts_easyllm_id=default"
)


class SpeechChat:
    """Hands-free over speech-chat, raw PCM at 16 kHz both ways, audio down as base64 in
    JSON.
    """

    path = PATH
    downlink = "json"

    def hello(self) -> list[tuple[int, bytes]]:
        """Open the microphone: 200 ms of silence end a turn, 200 ms of speech
        interrupt, as for the others.
        """
        settings: dict[str, Any] = {
            "create_transcription_task_req": {
                "heartbeat": True,
                "speech_recognition_param": {"sample_rate": RATE_HZ, "format": "pcm"},
            },
            "chat_completion_with_voice_output_req": {
                "chat_completion_req": {},
                "speech_synthesis_req": {
                    "synthesis_param": {"format": f"PCM_{RATE_HZ}HZ_MONO_16BIT"}
                },
            },
            "turn_detection": {
                "type": "server_vad",
                "silence_duration_ms": 200,
                "min_interruption_ms": 200,
            },
            "downlink": self.downlink,
        }
        return [(TEXT, json.dumps({"event_type": "chat.update", "message": settings}).encode())]

    def audio(self, pcm: bytes) -> tuple[int, bytes]:
        """Wrap 20 ms of the microphone."""
        return BINARY, pcm

    def parse(self, kind: int, payload: bytes) -> int:
        """How many bytes of reply audio a message carries."""
        if kind != TEXT or not payload.startswith(ACCEPTING):
            return 0
        start = payload.find(FRAME_KEY)
        if start < 0:
            return 0
        start += len(FRAME_KEY)
        end = payload.index(b'"', start)
        return (end - start) // 4 * 3 - payload.count(b"=", end - 2, end)


class SpeechChatBinary(SpeechChat):
    """The same with ``downlink: binary``."""

    downlink = "binary"

    def parse(self, kind: int, payload: bytes) -> int:
        """See ``SpeechChat``."""
        return len(payload) - HEADER_BYTES if kind == BINARY else 0
