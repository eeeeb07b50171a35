"""The sections of records, of prices and of webhooks."""

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from voicechat.config.section import ConfigSection

_HOOK = r"^([\w.]+:\w+)?$"


def postgres_url(url: str) -> str:
    """Check the address of a PostgreSQL database. Raises ``ValueError``."""
    if url and urlsplit(url).scheme not in ("postgresql", "postgres"):
        raise ValueError("postgresql://..., or empty for SQLite")
    return url


class RecordsConfig(ConfigSection):
    """``[records]``: where the records of conversations are stored, and for how long.
    `record` of an agent decides whether there are any; see [records](records.md).
    """

    folder: str = ""
    """The folder of the records, and of their index unless ``database_url`` is set.
    Empty: ``records`` in the data directory.
    """
    database_url: Annotated[str, AfterValidator(postgres_url), Field(repr=False)] = ""
    """``postgresql://...``: the index of the records, and what was used, for several
    machines. Empty: SQLite.
    """
    keep_days: Annotated[float, Field(gt=0, le=36_500)] = 30.0
    """How long a record is kept."""
    redact: Annotated[str, Field(pattern=_HOOK)] = ""
    """``package.module:function``, called with each line of a record (a dict; see
    [records](records.md)) before anything of it is stored. It returns what is stored,
    or None to store nothing. It does not get the audio. Such records cannot be
    replayed.
    """


class PricesConfig(ConfigSection):
    """``[prices]``: what usage costs, for the sums of ``/v1/usage`` and ``voicechat
    usage``.
    """

    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")] = "USD"
    """The currency of all prices, as ISO 4217."""
    heard_minute: Annotated[float, Field(ge=0)] = 0.0
    """A minute of audio that was recognised."""
    spoken_minute: Annotated[float, Field(ge=0)] = 0.0
    """A minute of synthesised speech."""
    million_characters: Annotated[float, Field(ge=0)] = 0.0
    """A million characters of text that was synthesised."""
    million_prompt_tokens: Annotated[float, Field(ge=0)] = 0.0
    """A million tokens that chat models read."""
    million_completion_tokens: Annotated[float, Field(ge=0)] = 0.0
    """A million tokens that chat models wrote."""
