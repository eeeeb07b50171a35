"""Where Asterisk connects to, and which calls are accepted."""

import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic import ImportString
from typing_extensions import override

from voicechat.audio.formats import Container
from voicechat.dialects.audiosocket.call import LEAD_MS, AudioSocketCall
from voicechat.dialects.audiosocket.frames import (
    HANGUP,
    ID,
    ID_BYTES,
    NARROW,
    RATES_HZ,
    AudioSocketFraming,
)
from voicechat.dialects.base import (
    Caller,
    Connection,
    Endpoint,
    Frame,
    Framing,
    Handshake,
    Opening,
    Refused,
)
from voicechat.dialects.telephony import FRAME_MS, LineFormat, call_settings, caller_of
from voicechat.errors import ConfigError, RemoteProtocolError, Status

PORT = 9092
"""The port in Asterisk's own examples."""
LookUp = Callable[[str], Mapping[str, object] | None]
"""Maps a call's id to its parameters, as a media stream has them, and ``agent``; None
refuses the call. It must not block.
"""


class AudioSocketEndpoint(Endpoint):
    """AudioSocket has no keys: every caller that reaches the port with an accepted id
    may speak.
    """

    trusted = True
    greeting_frames = 1

    def __init__(
        self,
        port: int = PORT,
        host: str = "127.0.0.1",
        *,
        ids: Sequence[str] | None = None,
        look_up: LookUp | None = None,
        agent: str = "",
        rate_hz: int = 8_000,
    ) -> None:
        """See ``open_endpoint``."""
        self.port, self.host = port, host
        self._ids = None if ids is None else frozenset(map(_id, ids))
        self._look_up = look_up
        self._agent = agent
        self._rate_hz = rate_hz

    @override
    def framing(self) -> Framing:
        return AudioSocketFraming()

    @override
    def identify(self, handshake: Handshake, frames: Sequence[Frame]) -> Caller | None:
        if not frames:
            return None
        frame = frames[0]
        if not isinstance(frame, bytes) or len(frame) != 1 + ID_BYTES or frame[0] != ID:
            raise RemoteProtocolError(
                Status.MALFORMED, "the first frame must be of kind 1, with the 16 bytes of a UUID"
            )
        call_id = str(uuid.UUID(bytes=frame[1:]))
        parameters: Mapping[str, object] | None = {}
        if self._look_up is not None:
            try:
                parameters = self._look_up(call_id)
            except Exception as error:
                message = f"look_up: raised {type(error).__name__}"
                raise RemoteProtocolError(Status.INTERNAL, message) from error
        elif self._ids is not None and call_id not in self._ids:
            parameters = None
        if parameters is None:
            raise RemoteProtocolError(Status.NOT_AUTHORISED, f"no call {call_id} is expected")
        known = {str(name): str(value) for name, value in parameters.items()}
        return caller_of({"uuid": call_id, **known}, known.get("agent") or self._agent)

    @override
    def open(self, connection: Connection) -> Opening:
        line = LineFormat(Container.PCM, self._rate_hz)
        settings = call_settings(connection, line, LEAD_MS)
        call = AudioSocketCall(settings, self._rate_hz, connection.apology)
        return Opening(dialect=call, settings=settings)

    @override
    def refuse(self, status: Status, message: str, *, restarting: bool) -> Refused:
        return Refused((bytes((HANGUP,)),))

    @override
    def speak_refusal(
        self, frames: Sequence[Frame], speech: Callable[[int], bytes]
    ) -> Refused | None:
        # Every version of Asterisk accepts the first kind of audio.
        line = LineFormat(Container.PCM, self._rate_hz)
        packets = line.packets(speech(self._rate_hz))
        return Refused(
            frames=(bytes((HANGUP,)),),
            spoken=tuple((bytes((NARROW,)) + packet,) for packet in packets),
            pause_ms=FRAME_MS,
        )


def open_endpoint(
    *,
    port: int = PORT,
    host: str = "127.0.0.1",
    ids: list[str] | None = None,
    look_up: ImportString[Callable[..., Any]] | None = None,
    agent: str = "",
    rate_hz: int = 8_000,
) -> AudioSocketEndpoint:
    """Open the endpoint of ``[dialects.NAME]``.

    ``ids``: UUIDs of the calls that are accepted; unset: any. ``look_up``: instead, a
    function ``package.module:name`` (see ``LookUp``). ``agent`` answers; empty: the
    agent is chosen as for any connection. ``rate_hz``: the rate of audio of kind 0x10,
    for versions of Asterisk that have no other kind. Raises ConfigError.
    """
    if rate_hz not in RATES_HZ.values():
        known = ", ".join(map(str, RATES_HZ.values()))
        raise ConfigError(f"rate_hz: {rate_hz} is not one of {known}")
    if ids is not None and look_up:
        raise ConfigError("ids: with ids or with look_up, not with both")
    try:
        return AudioSocketEndpoint(
            port,
            host,
            ids=ids,
            look_up=look_up,
            agent=agent,
            rate_hz=rate_hz,
        )
    except ValueError as error:
        raise ConfigError(f"ids: {error}") from error


def _id(text: str) -> str:
    try:
        return str(uuid.UUID(text))
    except ValueError:
        raise ValueError(f"{text!r} is no UUID") from None
