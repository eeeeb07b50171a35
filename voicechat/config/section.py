"""What the sections of the configuration are made of."""

import ipaddress
from typing import Annotated, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network


class ConfigSection(BaseModel):
    """A table with exactly these keys."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


def as_tuple(value: object) -> object:
    """Return a TOML array as a tuple, and any other value as it is."""
    return tuple(value) if isinstance(value, list) else value


def network(text: object) -> object:
    """Read the address of a network. Raises ``ValueError`` with an example."""
    if not isinstance(text, str):
        raise ValueError("networks such as '10.1.0.0/16'")
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        raise ValueError("a network such as '10.1.0.0/16'") from None


Text: TypeAlias = Annotated[str, Field(min_length=1)]
Texts: TypeAlias = Annotated[tuple[Text, ...], BeforeValidator(as_tuple)]
Names: TypeAlias = Annotated[tuple[Text, ...], Field(min_length=1), BeforeValidator(as_tuple)]
