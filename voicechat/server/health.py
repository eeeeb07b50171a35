"""``/healthz``: the process lives. ``/readyz``: it takes new sessions."""

from enum import Enum

from aiohttp import web


class Phase(Enum):
    """Phases of a server's life."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"


class Health:
    """Serves the phase of this process over HTTP; it stays "starting" while another
    worker starts.
    """

    def __init__(self) -> None:
        self.phase = Phase.STARTING
        self.others_ready = True
        """Whether the server's other processes are ready."""

    def routes(self) -> list[web.RouteDef]:
        """Return the two routes. They need no key and reveal only the phase."""
        return [web.get("/healthz", self._live), web.get("/readyz", self._ready)]

    async def _live(self, _: web.Request) -> web.Response:
        return _answer(200, "ok")

    async def _ready(self, _: web.Request) -> web.Response:
        phase = (
            Phase.STARTING if self.phase is Phase.READY and not self.others_ready else self.phase
        )
        return _answer(200 if phase is Phase.READY else 503, phase.value)


def _answer(http_status: int, status: str) -> web.Response:
    return web.json_response(
        {"status": status}, status=http_status, headers={"Cache-Control": "no-store"}
    )
