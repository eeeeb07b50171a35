"""Descriptions of pictures by a chat model that accepts images."""

from base64 import b64encode

from voicechat.pictures.picture import Picture
from voicechat.providers.interfaces import ChatModel, ChatRequest, TextDelta
from voicechat.providers.media import ImageDescriber
from voicechat.providers.wrapping import as_provider
from voicechat.session.types import Message

MAX_ANSWER_CHARACTERS = 16_000


class ChatDescriber(ImageDescriber):
    """An `ImageDescriber` that asks a `ChatModel`."""

    def __init__(self, model: ChatModel, *, max_tokens: int = 1_000) -> None:
        self._model = model
        self._life = as_provider(model)
        self._max_tokens = max_tokens

    async def start(self) -> None:
        """Start the model."""
        await self._life.start()

    async def aclose(self) -> None:
        """Close the model."""
        await self._life.aclose()

    async def describe_image(self, picture: Picture, question: str) -> str:
        """Ask the model. Raises the model's errors."""
        return await describe(self._model, picture, question, {"max_tokens": self._max_tokens})


def message_about(picture: Picture, question: str) -> Message:
    """Return a user's message with a picture, in OpenAI's form."""
    encoded = b64encode(picture.content).decode()
    url = f"data:{picture.content_type};base64,{encoded}"
    return {
        "role": "user",
        "content": [
            {"type": "text", "text": question},
            {"type": "image_url", "image_url": {"url": url}},
        ],
    }


async def describe(
    model: ChatModel, picture: Picture, question: str, options: dict[str, object]
) -> str:
    """Return a model's answer about a picture, cut at ``MAX_ANSWER_CHARACTERS``."""
    answer = ""
    parts = model.reply(ChatRequest(messages=(message_about(picture, question),), options=options))
    try:
        async for part in parts:
            if isinstance(part, TextDelta):
                answer += part.text
            if len(answer) >= MAX_ANSWER_CHARACTERS:
                break
    finally:
        close = getattr(parts, "aclose", None)
        if close is not None:
            await close()
    return answer[:MAX_ANSWER_CHARACTERS].strip()
