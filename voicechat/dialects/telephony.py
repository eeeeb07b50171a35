"""What the dialects of telephone lines share: how a line carries audio, and how a
call's session begins.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from voicechat.agents import Arrival
from voicechat.audio import g711
from voicechat.audio.formats import Container, packet_format
from voicechat.dialects.base import Caller, Connection, with_agent
from voicechat.errors import RemoteProtocolError, Status
from voicechat.session import notices as nt
from voicechat.session.types import (
    InputSettings,
    Settings,
    TurnDetection,
    VoiceSettings,
)

FRAME_MS = 20
"""The length of a telephone's frames: that of RTP (RFC 3551, section 4.2)."""
LEAD_MS = 1_000
"""How far ahead of playback audio is sent to a far end that buffers it. It bridges a
second of a bad network, and an interruption has to discard no more than that.
"""
LEVEL_DBOV = -26.0
"""The active speech level of telephony (ITU-T P.830, 7.2.2, and G.191)."""
SECRETS = ("token", "apikey")
"""Parameters of a call that hold a key: they never become variables of an agent."""
_CALLED = ("called", "to", "To", "to_number")
_CALLER = ("caller", "from", "From", "from_number")
"""The names of the parameters that hold the called and the calling number."""
MAX_VARIABLES = 50
"""The most parameters of one call; further ones are ignored. The vendors allow far
fewer.
"""


@dataclass(frozen=True, slots=True)
class LineFormat:
    """How a line carries audio, both ways: G.711 or 16-bit little-endian samples."""

    container: Container
    """MU_LAW, A_LAW or PCM."""
    rate_hz: int = 8_000

    @property
    def input(self) -> InputSettings:
        """How the caller's audio is read. A caller may stay silent: the agent handles
        silence.
        """
        return InputSettings(
            format=self.container.value, sample_rate_hz=self.rate_hz, silence_allowed=True
        )

    @property
    def output(self) -> str:
        """The name of the reply's format: packets of ``FRAME_MS``."""
        return packet_format(self.container, self.rate_hz, FRAME_MS).name

    @property
    def frame_bytes(self) -> int:
        """The size of a frame of ``FRAME_MS``."""
        sample_bytes = 2 if self.container is Container.PCM else 1
        return self.rate_hz * FRAME_MS // 1000 * sample_bytes

    def packets(self, pcm: bytes) -> list[bytes]:
        """Cut s16le mono at ``rate_hz`` into frames in the line's encoding; silence
        fills the last one.
        """
        size = self.rate_hz * FRAME_MS // 1000 * 2
        frames = [pcm[at : at + size].ljust(size, b"\0") for at in range(0, len(pcm), size)]
        codes = _CODES.get(self.container)
        return frames if codes is None else [g711.encoded(frame, codes) for frame in frames]


_CODES = {Container.MU_LAW: g711.MU_LAW_CODES, Container.A_LAW: g711.A_LAW_CODES}
MU_LAW = LineFormat(Container.MU_LAW)


def line_format(encoding: str, rate_hz: object = 8_000) -> LineFormat:
    """Return the line for a vendor's name of an encoding.

    Raises ``RemoteProtocolError`` (UNSUPPORTED_FORMAT) for another encoding or rate.
    """
    name = encoding.lower().removeprefix("audio/")
    container = _CONTAINERS.get(name.removeprefix("x-"))
    try:
        rate = int(str(rate_hz))
    except ValueError:
        rate = 0
    rates = (8_000,) if container in (Container.MU_LAW, Container.A_LAW) else _LINEAR_HZ
    if container is None or rate not in rates:
        raise RemoteProtocolError(
            Status.UNSUPPORTED_FORMAT,
            f"media of {encoding[:40]!r} at {str(rate_hz)[:10]} Hz cannot be carried; set the "
            "stream to mu-law or A-law at 8000 Hz, or to 16-bit samples, such as L16 or "
            "slin16, at 8000, 16000 or 24000 Hz",
        )
    return LineFormat(container, rate)


_CONTAINERS = {
    **dict.fromkeys(("mulaw", "ulaw", "pcmu"), Container.MU_LAW),
    **dict.fromkeys(("alaw", "pcma"), Container.A_LAW),
    **dict.fromkeys(("l16", "linear16", "slin", "raw/slin", "raw", "pcm"), Container.PCM),
}
_LINEAR_HZ = (8_000, 12_000, 16_000, 24_000, 32_000, 44_100, 48_000, 96_000, 192_000)


class SilentFailures:
    """Detects that a turn has failed and its caller has heard nothing, not even the
    session's own apology.
    """

    def __init__(self) -> None:
        self._audible = False

    def happens(self, notice: nt.Notice) -> bool:
        """Whether such a failure happens with this notice. Call it for every notice."""
        match notice:
            case nt.ReplyAudio(_, packets) if packets:
                self._audible = True
            case nt.TurnCompleted(outcome):
                silent, self._audible = not self._audible, False
                return silent and outcome is nt.Outcome.FAILED
            case _:
                pass
        return False


def call_settings(
    connection: Connection, line: LineFormat = MU_LAW, lead_ms: int = LEAD_MS
) -> Settings:
    """Return the settings of a call. A telephone has no button that ends a turn, so the
    server detects the end.

    Raises ``RemoteProtocolError`` (NOT_ALLOWED_NOW) if the server cannot detect voice.
    """
    if not connection.hands_free:
        raise RemoteProtocolError(
            Status.NOT_ALLOWED_NOW,
            "this server detects no voice, and a call needs that; see [hands_free]",
        )
    agent = connection.agent
    settings = Settings(
        input=line.input,
        voice=VoiceSettings(
            voice=connection.pick_voice(agent.voice),
            format=line.output,
            piece_ms=5 * FRAME_MS,
            level_dbov=LEVEL_DBOV,
        ),
        lead_ms=lead_ms,
        turn_detection=agent.turn_detection or TurnDetection(),
    )
    return with_agent(settings, agent)


def caller_of(parameters: Mapping[str, str], agent: str = "") -> Caller:
    """Return the caller for the parameters of a call; ``agent`` is the one that the
    address names. All parameters but the keys become variables for the agent.
    """
    open_parameters = {name: value for name, value in parameters.items() if name not in SECRETS}
    return Caller(
        arrival=Arrival(
            agent=agent,
            called=_first(parameters, _CALLED),
            caller=_first(parameters, _CALLER),
            variables=dict(list(open_parameters.items())[:MAX_VARIABLES]),
        ),
        key=_first(parameters, SECRETS),
    )


def _first(parameters: Mapping[str, str], names: tuple[str, ...]) -> str:
    return next((parameters[name] for name in names if parameters.get(name)), "")
