from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.web_demo.stage import Network, chromium, serving, wait_ready, write_microphone

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request

WORDS = "go forward ten meters"
INSECURE_HOST = "voicechat.example"
"""This machine under a name that browsers do not trust without https."""

# Whatever the page connects to the loudspeaker is measured here, so that the page's own
# word is not taken for it.
_TAP = """
(() => {
  const connect = AudioNode.prototype.connect;
  let sound; // the context of the loudspeaker
  window.loudness = []; // [ms, level, ms of sound] of what reaches the loudspeaker
  window.spoken = []; // and of what the microphone hears
  window.soundMs = () => sound.currentTime * 1000; // a page that has to wait makes no sound later
  window.stops = []; // when the page told the loudspeaker to stop: [type of the event being handled]
  window.stopped = []; // when the loudspeaker answered: [samples of the reply rendered, ms of sound]
  const postMessage = MessagePort.prototype.postMessage;
  const ports = new Set();
  const noteStopped = ({ data }) => {
    if (data.type === "stopped") window.stopped.push([data.samples, soundMs()]);
  };
  MessagePort.prototype.postMessage = function (message, ...rest) {
    if (message?.type === "stop") {
      window.stops.push([window.event?.type]);
      if (!ports.has(this)) this.addEventListener("message", noteStopped);
      ports.add(this);
    }
    return postMessage.call(this, message, ...rest);
  };
  let taps = 0;
  const record = (node, levels) => {
    const number = taps++;
    const tap = new AnalyserNode(node.context, { fftSize: 256 });
    const samples = new Float32Array(256);
    connect.call(node, tap);
    setInterval(() => {
      tap.getFloatTimeDomainData(samples);
      const level = Math.sqrt(samples.reduce((sum, x) => sum + x * x, 0) / 256);
      levels.push([performance.now(), level, node.context.currentTime * 1000, number]);
      if (levels.length > 60000) levels.splice(0, 30000);
    }, 4);
  };
  AudioNode.prototype.connect = function (to, ...rest) {
    if (this instanceof MediaStreamAudioSourceNode) record(this, window.spoken);
    if (to instanceof AudioDestinationNode) {
      sound = this.context;
      record(this, window.loudness);
    }
    return connect.call(this, to, ...rest);
  };
})();
"""


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """Address and fragment of a server on embedded services."""
    with serving(tmp_path_factory.mktemp("server")) as (url, fragment):
        wait_ready(url)
        yield url, fragment


@pytest.fixture(scope="session")
def speech(recordings: Path) -> Path:
    """A WAV file of a person saying WORDS."""
    return recordings / "goforward.wav"


# Not for the session: playwright's own event loop runs while it is open, and tests
# elsewhere need theirs.
@pytest.fixture(scope="package")
def browser(tmp_path_factory: pytest.TempPathFactory, speech: Path) -> Iterator["Browser"]:
    executable = chromium()
    if executable is None:
        pytest.skip("needs Chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    microphone = tmp_path_factory.mktemp("microphone") / "microphone.wav"
    write_microphone(microphone, speech.read_bytes()[44:])
    with playwright.sync_playwright() as api:
        running = api.chromium.launch(
            executable_path=executable,
            args=[
                "--use-fake-device-for-media-stream",
                "--use-fake-ui-for-media-stream",
                f"--use-file-for-fake-audio-capture={microphone}",
                f"--host-resolver-rules=MAP {INSECURE_HOST} 127.0.0.1",
            ],
        )
        yield running
        running.close()


OpenPage = Callable[..., Any]


@pytest.fixture
def open_page(browser: "Browser", server: tuple[str, str]) -> Iterator[OpenPage]:
    """Open pages; at the end none of them may have logged an error or asked another
    host for anything.
    """
    url, fragment = server
    defaults: dict[str, Any] = {"viewport": {"width": 1280, "height": 800}, "locale": "en"}
    contexts: list[BrowserContext] = []
    complaints: list[str] = []

    def note_error(said: "ConsoleMessage") -> None:
        if said.type in ("error", "warning"):
            complaints.append(said.text)

    def note_foreign(request: "Request", at: str) -> None:
        if not request.url.startswith((at, "data:", "blob:")):
            complaints.append(request.url)

    def open_one(
        path: str = "",
        *,
        at: str = url,
        key: str = fragment,
        script: str = "",
        lenient: bool = False,
        **options: object,
    ) -> "Page":
        context = browser.new_context(**(defaults | options))
        context.set_default_timeout(120_000)
        contexts.append(context)
        page = context.new_page()
        page.add_init_script(_TAP + script)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        if not lenient:
            page.on("console", note_error)
        page.on("request", lambda request: note_foreign(request, at))
        page.goto(f"{at}/{path}{key}")
        return page

    yield open_one
    for context in contexts:
        context.close()
    assert complaints == []


@pytest.fixture
def network(server: tuple[str, str]) -> Iterator[Network]:
    proxy = Network(server[0])
    yield proxy
    proxy.close()


@pytest.fixture(scope="session")
def axe() -> str:
    """The source of axe-core, which checks accessibility, from the package that carries
    it.
    """
    package = pytest.importorskip("axe_playwright_python", reason="needs axe-playwright-python")
    return Path(package.__path__[0], "axe.min.js").read_text("utf-8")
