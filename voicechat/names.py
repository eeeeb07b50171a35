"""Resolves the service names that clients use: configured names, aliases, or the only
service.

No I/O. Sockets, REST and ``chat.update`` all use this module, so that a name means the
same everywhere.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from voicechat.errors import RemoteProtocolError, Status

DEFAULT = "default"
"""The name of a service that exists for every kind."""
ANY = "*"
"""As an alias: any name that is neither a name nor an alias."""
_SHOWN_CHARACTERS = 60
_LISTED_NAMES = 50


@dataclass(frozen=True, slots=True)
class ResolvedName:
    """The meaning of a name."""

    name: str
    """The configured name."""
    note: str = ""
    """A note to the client when its name was unknown and another service is used."""


@dataclass(frozen=True, slots=True)
class ServiceNames:
    """The names of one kind of service, and their aliases."""

    names: frozenset[str] = frozenset({DEFAULT})
    aliases: Mapping[str, str] = field(default_factory=dict)
    """Service names by alias; ``ANY`` may be an alias."""

    def __contains__(self, name: object) -> bool:
        """Return whether a name or alias exists."""
        return name in self.names or name in self.aliases

    def __iter__(self) -> Iterator[str]:
        """Iterate over names and aliases, sorted, without ``ANY``."""
        return iter(sorted(self.names | self.aliases.keys() - {ANY}))

    def resolve(self, path: str, wanted: str) -> ResolvedName:
        """Return what ``wanted`` means. ``path`` is the parameter that holds it.

        If only ``default`` is configured, every name means that: a stock client has its
        vendor's names compiled in. Raises ``RemoteProtocolError`` (NOT_FOUND) that
        lists the names when there is a choice.
        """
        if wanted in self.names:
            return ResolvedName(wanted)
        if (name := self.aliases.get(wanted, self.aliases.get(ANY))) is not None:
            return ResolvedName(name)
        if len(self.names) == 1:
            (name,) = self.names
            return ResolvedName(
                name, f"{path}: {quoted(wanted)} is not configured here; {name} serves instead"
            )
        message = f"{path}: {quoted(wanted)} is not one of {_listed(self)}"
        raise RemoteProtocolError(Status.NOT_FOUND, message)


def aliases_of(services: Mapping[str, Iterable[str]]) -> dict[str, str]:
    """Invert each service's list of aliases; returns the services by alias.

    Raises ``ValueError`` when an alias is also a service's name, or is in two lists.
    """
    found: dict[str, str] = {}
    for name, also in services.items():
        for alias in also:
            if alias in services:
                raise ValueError(f"{name}.also: {quoted(alias)} is the name of a service")
            if found.setdefault(alias, name) != name:
                raise ValueError(
                    f"{name}.also: {quoted(alias)} is an alias of {found[alias]} already"
                )
    return found


def combined_notes(*resolved: ResolvedName) -> str:
    """Join the notes to the client; empty when every name was known."""
    return "; ".join(each.note for each in resolved if each.note)


def quoted(name: str) -> str:
    """Quote a client's text for a message, cut to 60 characters."""
    text = json.dumps(name[:_SHOWN_CHARACTERS], ensure_ascii=False)
    return text if len(name) <= _SHOWN_CHARACTERS else f"{text}…"


def _listed(names: Iterable[str]) -> str:
    listed = list(names)
    more = f" and {len(listed) - _LISTED_NAMES} more" if len(listed) > _LISTED_NAMES else ""
    return ", ".join(listed[:_LISTED_NAMES]) + more
