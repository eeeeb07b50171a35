"""Where the client's audio goes; see ``Route``."""

from voicechat.session.effects import Route, RouteAudio
from voicechat.session.session_core import SessionCore
from voicechat.session.states import TURN, State
from voicechat.session.types import InputSettings, TurnDetection


class AudioRouting:
    """Remembers the last ``RouteAudio``, so that only a change is sent."""

    def __init__(self, core: SessionCore) -> None:
        self._core = core
        self._routed: tuple[Route, InputSettings, int, TurnDetection | None]
        self._routed = (Route.AWAIT, core.settings.input, 0, None)
        """The audio of a new connection has not begun yet."""

    def settle(self) -> None:
        """Emit ``RouteAudio`` if the route has changed since the last call."""
        route, stream = self.route()
        settings = self._core.settings
        detection = settings.turn_detection if route is Route.LISTEN else None
        wanted = (route, settings.input, stream, detection)
        if wanted != self._routed:
            self._routed = wanted
            self._core.effects.append(RouteAudio(*wanted))

    def route(self) -> tuple[Route, int]:
        """Return where audio goes, and to which recogniser stream."""
        if self._core.state is State.CLOSED:
            return Route.DROP, 0
        if self._core.settings.half_duplex and self._core.state in TURN:
            return Route.SKIP, 0
        if self._core.state is State.OPENED:
            return Route.AWAIT, 0
        if self._core.settings.turn_detection is not None:
            return Route.LISTEN, 0
        return self._core.transcription.route_audio(self._core.now_ms)
