"""Which configured service a client means by a name.

The service's own, an alias, or whatever there is. No I/O. Sockets, REST and
``chat.update`` all ask here, so that a name means the same everywhere.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from voicechat.errors import RemoteProtocolError, Status

DEFAULT = "default"
"""The service that exists of every kind."""
ANY = "*"
"""As an alias: every name that nothing else is called."""
_SHOWN_CHARACTERS = 60
_LISTED_NAMES = 50


@dataclass(frozen=True, slots=True)
class ResolvedName:
    """What a name means."""

    name: str
    """The configured name."""
    note: str = ""
    """What the client is to be told when its name was not known and something else
    serves.
    """


@dataclass(frozen=True, slots=True)
class ServiceNames:
    """The names of one kind of service: those of the configuration, and the aliases of
    each.
    """

    names: frozenset[str] = frozenset({DEFAULT})
    aliases: Mapping[str, str] = field(default_factory=dict)
    """By alias, the name of the service; ``ANY`` may be one of them."""

    def __contains__(self, name: object) -> bool:
        """Whether something is called or nicknamed so."""
        return name in self.names or name in self.aliases

    def __iter__(self) -> Iterator[str]:
        """Everything that may be asked for by name, sorted: names and aliases, without
        ``ANY``.
        """
        return iter(sorted(self.names | self.aliases.keys() - {ANY}))

    def resolve(self, path: str, wanted: str) -> ResolvedName:
        """Find what ``wanted`` means. ``path`` is the parameter that holds it.

        Where nothing but ``default`` is configured every name means that: a stock
        client has its vendor's names compiled in. Raises ``RemoteProtocolError``
        (NOT_FOUND) that lists the names when there is a choice.
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
    """Turn each service's list of aliases round: by alias, the service.

    Raises ``ValueError`` when an alias is also a service's name, or stands in two
    lists.
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
    """Put together what a client is to be told about its names; empty when each was
    known.
    """
    return "; ".join(each.note for each in resolved if each.note)


def quoted(name: str) -> str:
    """Quote a client's text in a message, cut to a length that no client can inflate."""
    text = json.dumps(name[:_SHOWN_CHARACTERS], ensure_ascii=False)
    return text if len(name) <= _SHOWN_CHARACTERS else f"{text}…"


def _listed(names: Iterable[str]) -> str:
    listed = list(names)
    more = f" and {len(listed) - _LISTED_NAMES} more" if len(listed) > _LISTED_NAMES else ""
    return ", ".join(listed[:_LISTED_NAMES]) + more
