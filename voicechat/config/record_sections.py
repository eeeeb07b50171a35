"""The sections of records, of prices and of webhooks."""

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field

from voicechat.config.section import ConfigSection, Network, as_tuple, network

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
    usage: bool = True
    """Whether to store what each session used, also without a record."""
    redact: Annotated[str, Field(pattern=_HOOK)] = ""
    """``package.module:function``, called with each line of a record (a dict; see
    [records](records.md)) before anything of it is stored. It returns what is stored,
    or None to store nothing. It does not get the audio. Such records cannot be
    replayed.
    """


class WebhooksConfig(ConfigSection):
    """``[webhooks]``: where the server reports the start and the end of each session;
    see [records](records.md#webhooks).
    """

    url: Annotated[str, Field(pattern=r"^(https?://\S+)?$")] = ""
    """The address that gets the messages. Empty: none are sent."""
    secret: Annotated[str, Field(repr=False)] = ""
    """The key of the signatures: `whsec_` and at least 24 bytes in base64."""
    allowed_networks: Annotated[
        tuple[Annotated[Network, BeforeValidator(network)], ...], BeforeValidator(as_tuple)
    ] = ()
    """Non-public networks in which the address may be, such as `["127.0.0.0/8"]`."""
    give_up_hours: Annotated[float, Field(gt=0, le=8760)] = 72.0
    """How long a message is tried again that the receiver does not take."""


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
