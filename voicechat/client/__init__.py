"""The Python client: hold a conversation, recognise a stream, or use the HTTP endpoints
(``Api``, ``TranscriptionApi``, ``KnowledgeApi``).

::

    async with connect("http://127.0.0.1:8000", key="vc_...") as conversation:
        await conversation.send_audio(wav_bytes)
        await conversation.complete()
        async for message in conversation:
            match message:
                case ReplyTextMessage(content=text):
                    print(text, end="")
                case ReplyAudioMessage(payload=mp3):
                    file.write(mp3)
                case TurnCompletedMessage():
                    break
"""

from voicechat.client.backoff import Backoff
from voicechat.client.connection import ConnectionLostError
from voicechat.client.conversation import ClientConversation, chat_settings, connect
from voicechat.client.knowledge import FoundPassage, KnowledgeApi, KnownAnswer, UploadedFile
from voicechat.client.messages import (
    CanceledMessage,
    ClearedMessage,
    CompletedMessage,
    CreatedMessage,
    ErrorMessage,
    ForgottenMessage,
    GoingAwayMessage,
    PictureMessage,
    PongMessage,
    ReplyAudioMessage,
    ReplyFinishedMessage,
    ReplyTextMessage,
    ServerMessage,
    SpeechStartedMessage,
    SpeechStoppedMessage,
    StatusMessage,
    ToolCallMessage,
    ToolCallPiece,
    ToolCallPiecesMessage,
    TranscriptMessage,
    TurnCompletedMessage,
    UpdatedMessage,
    parse_message,
)
from voicechat.client.playback import PlaybackBuffer, PlaybackPosition, ReplyPlayer
from voicechat.client.realtime import ClientRealtimeConversation, connect_realtime
from voicechat.client.recognition import ClientRecognitionStream, recognise_stream
from voicechat.client.reconnecting import Reconnected, ReconnectingConversation, stay_connected
from voicechat.client.rest import Api, ApiError, ChatReply, Token, ToolRequest
from voicechat.client.resuming import ResumingRecognition, stay_recognising
from voicechat.client.transcription import Transcription, TranscriptionApi, TranscriptionTask

__all__ = [
    "Api",
    "ApiError",
    "Backoff",
    "CanceledMessage",
    "ChatReply",
    "ClearedMessage",
    "ClientConversation",
    "ClientRealtimeConversation",
    "ClientRecognitionStream",
    "CompletedMessage",
    "ConnectionLostError",
    "CreatedMessage",
    "ErrorMessage",
    "ForgottenMessage",
    "FoundPassage",
    "GoingAwayMessage",
    "KnowledgeApi",
    "KnownAnswer",
    "PictureMessage",
    "PlaybackBuffer",
    "PlaybackPosition",
    "PongMessage",
    "Reconnected",
    "ReconnectingConversation",
    "ReplyAudioMessage",
    "ReplyFinishedMessage",
    "ReplyPlayer",
    "ReplyTextMessage",
    "ResumingRecognition",
    "ServerMessage",
    "SpeechStartedMessage",
    "SpeechStoppedMessage",
    "StatusMessage",
    "Token",
    "ToolCallMessage",
    "ToolCallPiece",
    "ToolCallPiecesMessage",
    "ToolRequest",
    "TranscriptMessage",
    "Transcription",
    "TranscriptionApi",
    "TranscriptionTask",
    "TurnCompletedMessage",
    "UpdatedMessage",
    "UploadedFile",
    "chat_settings",
    "connect",
    "connect_realtime",
    "parse_message",
    "recognise_stream",
    "stay_connected",
    "stay_recognising",
]  # fmt: skip
