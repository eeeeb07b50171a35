"""Pictures that a chat model has had drawn for its user.

They are made outside the session, which knows nothing of them: the runtime passes each
to the dialect (``Dialect.show_drawing``) as soon as it is finished.
"""

from dataclasses import dataclass

_NO_BRACKETS = str.maketrans("[]\n", "() ")


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """A picture that is finished, or could not be made."""

    id: str
    """Unique on this server."""
    prompt: str
    """What the model asked for."""
    address: str = ""
    """Where a client fetches the picture, without a key; empty: it could not be made.
    """
    content_type: str = ""
    """The picture's media type."""
    width: int = 0
    height: int = 0
    """In pixels; 0: not known."""
    failure: str = ""
    """Why it could not be made, for people; empty: it was made."""


def shown_in_text(drawing: Drawing) -> str:
    """Return a picture as Markdown, for protocols that can only send text."""
    if drawing.failure:
        return f"The picture could not be drawn: {drawing.failure}"
    name = drawing.prompt.translate(_NO_BRACKETS)
    return f"![{name}]({drawing.address})"
