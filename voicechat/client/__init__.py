"""The Python client: hold a conversation, recognise a stream, or use the HTTP endpoints
(``Api``, ``Transcriptions``).

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

from voicechat.client.backoff import Backoff
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
    SpeechStarted,
    SpeechStopped,
    ToolCalled,
    ToolCallPiece,
    ToolCallPieces,
    TurnCompleted,
    Updated,
    parse_message,
)
from voicechat.client.playback import PlaybackBuffer, Played, ReplyPlayer
from voicechat.client.recognition import RecognitionStream, recognise_stream
from voicechat.client.reconnecting import Reconnected, ReconnectingConversation, stay_connected
from voicechat.client.rest import Api, ApiError, ChatReply, Token, ToolRequest
from voicechat.client.resuming import ResumingRecognition, stay_recognising
from voicechat.client.transcription import Transcription, Transcriptions, TranscriptionTask

__all__ = [
    "Answer",
    "Api",
    "ApiError",
    "Backoff",
    "Canceled",
    "ChatReply",
    "Cleared",
    "Completed",
    "ConnectionLostError",
    "Conversation",
    "Created",
    "Error",
    "Forgotten",
    "PlaybackBuffer",
    "Played",
    "Pong",
    "Recognised",
    "RecognitionStream",
    "Reconnected",
    "ReconnectingConversation",
    "ReplyAudio",
    "ReplyFinished",
    "ReplyPlayer",
    "ReplyText",
    "ResumingRecognition",
    "ServerMessage",
    "SpeechStarted",
    "SpeechStopped",
    "Token",
    "ToolCallPiece",
    "ToolCallPieces",
    "ToolCalled",
    "ToolRequest",
    "Transcription",
    "TranscriptionTask",
    "Transcriptions",
    "TurnCompleted",
    "Updated",
    "chat_settings",
    "connect",
    "parse_message",
    "recognise_stream",
    "stay_connected",
    "stay_recognising",
]  # fmt: skip
