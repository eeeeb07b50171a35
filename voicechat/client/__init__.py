"""The Python client: hold a conversation, recognise a stream, or use the HTTP endpoints (``Api``).

::

    async with connect("http://127.0.0.1:8000", key="vc_...") as conversation:
        await conversation.send_audio(wav_bytes)
        await conversation.complete()
        async for message in conversation:
            match message:
                case ReplyText(content=text):
                    print(text, end="")
                case ReplyAudio(payload=mp3):
                    file.write(mp3)
                case TurnCompleted():
                    break
"""

from voicechat.client.connection import ConnectionLostError
from voicechat.client.conversation import Conversation, chat_settings, connect
from voicechat.client.messages import (
    Answer,
    Canceled,
    Cleared,
    Completed,
    Created,
    Error,
    Forgotten,
    Pong,
    Recognised,
    ReplyAudio,
    ReplyFinished,
    ReplyText,
    ServerMessage,
    TurnCompleted,
    Updated,
    parse_message,
)
from voicechat.client.recognition import RecognitionStream, recognise_stream
from voicechat.client.rest import Api, ApiError, ChatReply, Token, ToolRequest

__all__ = [
    "Answer", "Api", "ApiError", "Canceled", "ChatReply", "Cleared", "Completed", "ConnectionLostError",
    "Conversation", "Created", "Error", "Forgotten", "Pong", "Recognised", "RecognitionStream", "ReplyAudio",
    "ReplyFinished", "ReplyText", "ServerMessage", "Token", "ToolRequest", "TurnCompleted", "Updated", "chat_settings",
    "connect", "parse_message", "recognise_stream",
]  # fmt: skip
