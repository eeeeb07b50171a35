"""Where each vendor's streams arrive, and how callers are identified."""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

from typing_extensions import override

from voicechat.dialects.base import Caller, Connection, Endpoint, Frame, Handshake, Opening, Refused
from voicechat.dialects.media_streams.call import MediaStreamCall
from voicechat.dialects.media_streams.own_systems import AsteriskWire, JambonzWire
from voicechat.dialects.media_streams.vendors import (
    ExotelWire,
    PlivoWire,
    TelnyxWire,
    TwilioWire,
    VonageWire,
)
from voicechat.dialects.media_streams.wire import StreamStarted, Wire, parameters_of
from voicechat.dialects.telephony import FRAME_MS, call_settings, caller_of
from voicechat.errors import Status

GREETING_FRAMES = 16
"""The most frames before ``start``: Twilio sends one; media that comes early is
ignored.
"""

GROUP_PACKETS = 10
"""Packets of an apology that are sent together: Exotel accepts no fewer."""
AHEAD_PACKETS = 30
"""The packets that are sent first, so that a late group leaves no gap."""


class MediaStreamsEndpoint(Endpoint):
    """The streams of one vendor. The key of a call is its parameter ``token``, or comes
    with the request as every key does. ``call`` in the query is the call's id, where
    the stream's own id is a different one.
    """

    greeting_frames = GREETING_FRAMES

    def __init__(self, vendor: str = "twilio") -> None:
        """``vendor`` is one of ``VENDORS``."""
        self._wire = VENDORS[vendor]
        self.protocols = self._wire.protocols
        self.paths = (f"/phone/{vendor}/stream", f"/phone/{vendor}/stream/{{agent}}")

    @override
    def identify(self, handshake: Handshake, frames: Sequence[Frame]) -> Caller | None:
        if not frames:
            return None
        # The earlier frames have been read before. Parsing all of them again with each
        # further frame would let an unknown caller cause much work.
        said = self._wire().read(frames[-1])
        if not isinstance(said, StreamStarted):
            return None
        parameters = {**parameters_of(dict(handshake.query)), **said.parameters}
        return caller_of(parameters, handshake.variables.get("agent", ""))

    @override
    def open(self, connection: Connection) -> Opening:
        settings = call_settings(connection)
        call_id = connection.handshake.query.get("call", "")[:200]
        dialect = MediaStreamCall(self._wire(), settings, call_id, connection.apology)
        return Opening(dialect=dialect, settings=settings)

    @override
    def refuse(self, status: Status, message: str, *, restarting: bool) -> Refused:
        # No vendor has a message for a refusal: the call continues with whatever
        # follows the stream.
        if status is not Status.AT_CAPACITY:
            return Refused(code=1008)
        return Refused(code=1012 if restarting else 1013)

    @override
    def speak_refusal(
        self, frames: Sequence[Frame], speech: Callable[[int], bytes]
    ) -> Refused | None:
        wire = self._wire()
        started = wire.read(frames[-1])
        if not isinstance(started, StreamStarted):
            return None
        line = started.line
        packets = line.packets(speech(line.rate_hz))
        packets += line.packets(bytes(line.rate_hz * 2))  # its buffer delays it
        starts = (0, *range(AHEAD_PACKETS, len(packets), GROUP_PACKETS))
        groups = [packets[start:end] for start, end in pairwise((*starts, len(packets)))]
        return Refused(
            frames=tuple(wire.hang_up()),
            code=1000,
            spoken=tuple(tuple(wire.audio(group)) for group in groups),
            pause_ms=GROUP_PACKETS * FRAME_MS,
        )


VENDORS: Mapping[str, type[Wire]] = {
    "twilio": TwilioWire,
    "telnyx": TelnyxWire,
    "plivo": PlivoWire,
    "exotel": ExotelWire,
    "vonage": VonageWire,
    "asterisk": AsteriskWire,
    "jambonz": JambonzWire,
}
"""The wires by the names in the paths."""
