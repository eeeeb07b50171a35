"""Whole conversations with local models: how soon the answer is heard, what was
misheard, and how often there was an answer.

``python -m tools.evaluate_conversation MODELS [--bundle NAME] [--language en|zh]``:
MODELS is the folder into which ``voicechat models pull`` put its models. Of them those
of the bundle are used, by ``voicechat serve`` without a configuration, in a process of
its own, over its socket, hands-free, in real time. Users are recordings of people
(English) and Kokoro's voices, each phrase followed by silence; an answer is interrupted
after ``--hear`` seconds, so that the next turn has a history.

Printed for each language, in milliseconds, median and 90th percentile:

- *first sound*: from the last sound of the phrase, sent by the client, to the first
  audio of the answer, received by it;
- *after the turn*: the same from the decision that the turn is over;
- the stages of ``docs/latency.md``, which add up to the time that the server saw;
- *stopped*: from ``conversation.chat.cancel`` to the answer that the reply is over.

Then follow the largest values that the server's metrics had meanwhile: how late its
event loop was, and for how much of that it had computed itself; how many uses of each
service waited, the real-time factors, the load level, refusals, and how many replies
that began early were used. *Control* is the lag of an idle event loop in a process of
its own (`tools.idle_loop`) on the same cores at the same time.

With ``--sessions N`` users arrive every two seconds. Those whom the server refuses are
counted, with the reason.

*Wrong* are the edits between what was said and what was recognised: words in English,
characters in Chinese, without punctuation, numbers as they are spoken.
``--recognition`` measures these alone, for each voice, with the recogniser of the
bundle in this process.
"""

import argparse
import asyncio
import os
import re
import statistics
import sys
import tempfile
import wave
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import orjson

from tools.neural_speech import NeuralSpeech, trimmed
from voicechat.bench.resource_usage import usage_of
from voicechat.client import (
    CanceledMessage,
    ClientConversation,
    CompletedMessage,
    ErrorMessage,
    ReplyAudioMessage,
    ReplyTextMessage,
    SpeechStartedMessage,
    TranscriptMessage,
    TurnCompletedMessage,
    UpdatedMessage,
    chat_settings,
    connect,
)
from voicechat.client.messages import LatencyMessage
from voicechat.errors import AdmissionError
from voicechat.providers.faster_whisper import BEAM_SIZE, PassOptions, WorkerOptions
from voicechat.providers.interfaces import PCM_RATE_HZ
from voicechat.session.latency_breakdown import Stage
from voicechat.store.model_catalogue import read_catalogue
from voicechat.text.characters import is_han

RECORDINGS = Path("tests/recordings")
"""Of people; what is said stands beside each."""
PHRASES = {
    "en": """What is the capital of France?|Can you tell me a short joke?
How do I make a good cup of tea?|What should I cook for dinner tonight?
My name is Anna and I live in London.|Which planet is the largest one?
How many days are there in a leap year?|Could you explain what a black hole is?
I slept badly last night. What can I do about it?|What is the best way to learn a language?
Why is the sky blue?|Please recommend a book for my holiday.""",
    "zh": """请问最近的地铁站怎么走？|明天上海的天气怎么样？
我想订一张去北京的火车票。|你能给我讲一个笑话吗？
帮我把客厅的灯关掉。|今天晚上我们吃什么好呢？|这个周末你有什么打算？|我的手机坏了，应该怎么办？
请推荐几本好看的小说。|从这里到机场需要多长时间？|我想学做红烧肉，第一步是什么？|图书馆几点关门？
请用简单的话解释什么是人工智能。|昨天的会议开了三个小时。|附近有没有好吃的四川菜？|我妹妹明年要去美国读书。
你觉得学英语最好的方法是什么？|把音量调低一点，谢谢。|这件衣服多少钱？|请明天早上七点叫我起床。""",
}
VOICES = {
    "en": ("af_heart", "am_michael", "bf_emma", "am_puck"),
    "zh": (
        "zf_xiaobei", "zf_xiaoni", "zf_xiaoxiao", "zf_xiaoyi",
        "zm_yunjian", "zm_yunxi", "zm_yunxia", "zm_yunyang",
    ),
}  # fmt: skip
BLOCK_MS = 20
BLOCK_BYTES = PCM_RATE_HZ * 2 * BLOCK_MS // 1000
SILENT_BLOCK = bytes(BLOCK_BYTES)
ANSWER_S = 60.0
"""A turn without an answer after this time counts as not answered."""
BETWEEN_S = 1.0
"""Silence before the user speaks again."""
ARRIVE_S = 2.0
"""The conversations begin one after the other."""
READY_S = 300.0
"""The models are loaded from the disk."""
READY = re.compile(r"ready.*?(http\S+?)/#key=(\S+)")
WATCH_S = 3.0
METRICS = re.compile(
    r"^(voicechat_(?:loop_lag|refused|pressure|early_replies_total|service_waiting|service_real)"
    r"\S*) (\S+)$",
    re.MULTILINE,
)
"""Names and values of the metrics that are shown."""


@dataclass(frozen=True)
class Phrase:
    """What a user says."""

    text: str
    speaker: str
    pcm: bytes
    """s16le mono 16 kHz, without silence at its ends."""


@dataclass
class Turn:
    """What came of a phrase; times are those of the event loop."""

    phrase: Phrase
    said_s: float = 0.0
    decided_s: float | None = None
    heard: str = ""
    answered_s: float | None = None
    answer: str = ""
    stages_ms: dict[str, int] = field(default_factory=dict)
    cancelled_s: float | None = None
    stopped_s: float | None = None
    errors: list[str] = field(default_factory=list)


class User:
    """Speaks phrases into an open microphone, and interrupts the answers."""

    def __init__(self, conversation: ClientConversation, hear_s: float) -> None:
        self._conversation = conversation
        self._hear_s = hear_s
        self._loop = asyncio.get_running_loop()
        self._speech = b""
        self._turn = Turn(Phrase("", "", b""))
        self._said = asyncio.Event()
        self._over = asyncio.Event()
        self._answered = asyncio.Event()

    async def converse(self, phrases: Sequence[Phrase]) -> list[Turn]:
        """Speak the phrases one after the other; returns what came of them."""
        turns: list[Turn] = []
        async with asyncio.TaskGroup() as tasks:
            background = [tasks.create_task(self._send()), tasks.create_task(self._receive())]
            for phrase in phrases:
                await asyncio.sleep(BETWEEN_S)
                turns.append(await self._take_turn(phrase))
            for task in background:
                task.cancel()
        return turns

    async def _take_turn(self, phrase: Phrase) -> Turn:
        turn = self._turn = Turn(phrase)
        for event in (self._said, self._over, self._answered):
            event.clear()
        self._speech = phrase.pcm
        await self._said.wait()
        try:
            async with asyncio.timeout(ANSWER_S):
                await self._answered.wait()
        except TimeoutError:
            turn.errors.append("no answer")
            return turn
        await asyncio.sleep(self._hear_s)
        if not self._over.is_set():
            turn.cancelled_s = self._loop.time()
            await self._conversation.cancel()
            async with asyncio.timeout(ANSWER_S):
                await self._over.wait()
        return turn

    async def _send(self) -> None:
        due_s = self._loop.time()
        while True:
            due_s += BLOCK_MS / 1000
            await asyncio.sleep(due_s - self._loop.time())
            block, self._speech = self._speech[:BLOCK_BYTES], self._speech[BLOCK_BYTES:]
            await self._conversation.send_audio(block.ljust(BLOCK_BYTES, b"\0"))
            if block and not self._speech:
                self._turn.said_s = self._loop.time()
                self._said.set()

    async def _receive(self) -> None:
        async for message in self._conversation:
            turn, now_s = self._turn, self._loop.time()
            match message:
                case UpdatedMessage() if not message.granted:
                    raise SystemExit(f"the server refuses the settings: {message.message}")
                case SpeechStartedMessage():
                    # A turn that was ended too early goes on.
                    turn.decided_s = None
                case CompletedMessage():
                    turn.decided_s = now_s
                case TranscriptMessage() if message.final:
                    turn.heard += " " + message.text
                case ReplyTextMessage():
                    turn.answer += message.content
                case ReplyAudioMessage():
                    if turn.answered_s is None:
                        turn.answered_s = now_s
                        self._answered.set()
                case LatencyMessage():
                    turn.stages_ms = dict(message.stages_ms)
                case CanceledMessage():
                    turn.stopped_s = now_s
                case TurnCompletedMessage():
                    self._over.set()
                case ErrorMessage():
                    turn.errors.append(message.message)
                case _:
                    pass


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("models", type=Path, help="the folder of the pulled models")
    parser.add_argument("--bundle", default="local")
    parser.add_argument("--language", choices=list(PHRASES), action="append")
    parser.add_argument("--turns", type=int, default=12, help="of each conversation")
    parser.add_argument("--sessions", type=int, default=1, help="conversations at once")
    parser.add_argument("--hear", type=float, default=1.5, help="seconds of each answer")
    parser.add_argument("--recognition", action="store_true", help="only the recogniser, whole")
    parser.add_argument("--beam", type=int, default=BEAM_SIZE, help="with --recognition")
    parser.add_argument("--verbose", action="store_true", help="print each turn")
    given = parser.parse_args()
    for language in given.language or list(PHRASES):
        if given.recognition:
            print_recognition(given, language)
        else:
            asyncio.run(print_conversation(given, language))


# --- conversations --------------------------------------------------------------------


async def print_conversation(given: argparse.Namespace, language: str) -> None:
    """Hold the conversations of one language, and print a table."""
    spoken = list(phrases(given.models, language, given.turns * given.sessions))
    largest: dict[str, float] = {}
    async with serving(given.models, given.bundle) as (pid, url, key), control(largest):
        before = usage_of(pid)
        watching = asyncio.create_task(watch(url, key, largest))
        async with asyncio.TaskGroup() as tasks:
            conversations = [
                tasks.create_task(
                    one_conversation(
                        url,
                        key,
                        spoken[number :: given.sessions],
                        given.hear,
                        number * ARRIVE_S,
                    )
                )
                for number in range(given.sessions)
            ]
        after = usage_of(pid)
        watching.cancel()
        keep_largest(largest, await scraped(url, key))
    turns = [turn for conversation in conversations for turn in conversation.result()]
    if given.verbose:
        for turn in turns:
            print(
                f"  {turn.phrase.text} | {turn.heard.strip()} | {turn.answer.strip()[:60]}", end=""
            )
            print(f" | {turn.stages_ms} {turn.errors or ''}")
    print_table(given, language, turns)
    if before is not None and after is not None:
        print(f"CPU {(after.cpu_s - before.cpu_s) / max(len(turns), 1):.2f} s a turn")
    print("largest values of the server's metrics, read every 3 s:")
    print("\n".join(f"{name} {value:g}" for name, value in sorted(largest.items())), flush=True)


@asynccontextmanager
async def control(largest: dict[str, float]) -> AsyncIterator[None]:
    """Measure an idle event loop in a process of its own meanwhile."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tools.idle_loop",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        await process.stdout.readline()  # it measures now
        yield
        answer, _ = await process.communicate(b"")  # ends its input
        largest["control: loop_lag_seconds"] = float(answer)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def watch(url: str, key: str, largest: dict[str, float]) -> None:
    """Keep the largest value of each metric until cancelled. The loop's lag is that of
    the last 10 s, so none is missed.
    """
    while True:
        await asyncio.sleep(WATCH_S)
        keep_largest(largest, await scraped(url, key))


def keep_largest(largest: dict[str, float], metrics: str) -> None:
    """Replace values by larger ones of the same name."""
    for name, value in METRICS.findall(metrics):
        largest[name] = max(largest.get(name, 0.0), float(value))


async def one_conversation(
    url: str, key: str, spoken: Sequence[Phrase], hear_s: float, after_s: float
) -> list[Turn]:
    """Hold one conversation, after a while; no turns if it is refused."""
    settings = chat_settings(
        input_format="pcm",
        sample_rate_hz=PCM_RATE_HZ,
        output_format="PCM_16000HZ_MONO_16BIT",
        turn_detection={},
        binary_audio=True,
    )
    await asyncio.sleep(after_s)
    try:
        async with connect(url, key=key) as conversation:
            await conversation.update(settings | {"report_latency": True})
            return await User(conversation, hear_s).converse(spoken)
    except AdmissionError as refusal:
        print(f"a conversation was refused: {refusal}")
        return []


def phrases(models: Path, language: str, count: int) -> Iterator[Phrase]:
    """So many phrases by different speakers, recordings of people first where there are
    any.
    """
    made = recorded() if language == "en" else []
    yield from made[: count // 2]
    texts = PHRASES[language].replace("\n", "|").split("|")
    speech = NeuralSpeech(models, threads=os.cpu_count() or 1)
    for number in range(count - len(made[: count // 2])):
        text, voice = texts[number % len(texts)], VOICES[language][number % len(VOICES[language])]
        yield Phrase(text, voice, speech.speak(text, voice))


def recorded() -> list[Phrase]:
    """The recordings of people of which it is known what they say."""
    found = []
    for path in sorted(RECORDINGS.glob("*.txt")):
        if path.with_suffix(".wav").is_file():
            with wave.open(str(path.with_suffix(".wav"))) as wav:
                pcm = trimmed(wav.readframes(wav.getnframes()))
            found.append(Phrase(path.read_text("utf-8").strip(), "a person", pcm))
    return found


@asynccontextmanager
async def serving(models: Path, bundle: str) -> AsyncIterator[tuple[int, str, str]]:
    """Run ``voicechat serve`` with the models of a bundle; yield its process id, its
    address and a key.
    """
    wanted = read_catalogue().models_of(bundle)
    if wanted is None:
        raise SystemExit(f"there is no bundle {bundle!r}")
    with tempfile.TemporaryDirectory(prefix="evaluate-") as folder:
        data = Path(folder)
        (data / "models").mkdir()
        for model in wanted:
            (data / "models" / model.name).symlink_to((models / model.name).resolve())
        (data / "voicechat.toml").touch()
        log = data / "serve.log"
        command = [sys.executable, "-m", "voicechat", "serve", "--port", "0"]
        environ = os.environ | {"VOICECHAT_DATA_DIR": folder, "PYTHONPATH": str(Path.cwd())}
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                *command, cwd=folder, env=environ, stdout=output, stderr=output
            )
        try:
            async with asyncio.timeout(READY_S):
                while (ready := READY.search(log.read_text())) is None:
                    if process.returncode is not None:
                        raise SystemExit(log.read_text())
                    await asyncio.sleep(0.1)
            yield process.pid, ready[1], ready[2]
        finally:
            if process.returncode is None:
                process.terminate()
                await process.wait()


async def scraped(url: str, key: str) -> str:
    """The server's metrics."""
    headers = {"Authorization": f"Bearer {key}"}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.get(f"{url}/metrics") as response,
    ):
        return await response.text()


def print_table(given: argparse.Namespace, language: str, turns: Sequence[Turn]) -> None:
    """Print what was measured."""
    answered = [turn for turn in turns if turn.answered_s is not None]
    wrong, of = errors_of((turn.phrase.text, turn.heard) for turn in turns)
    sessions = f", {given.sessions} at once" if given.sessions > 1 else ""
    print(
        f"{given.bundle}, {language}{sessions}: {len(answered)} of {len(turns)} answered, "
        f"{wrong} of {of} wrong ({wrong / max(of, 1):.1%})"
    )
    print("| ms | median | 90 % |\n|---|---|---|")
    rows: dict[str, list[float | None]] = {
        "first sound": [_ms(turn.said_s, turn.answered_s) for turn in answered],
        "after the turn": [_ms(turn.decided_s, turn.answered_s) for turn in answered],
        **{
            stage.value: [turn.stages_ms[stage.value] for turn in answered if turn.stages_ms]
            for stage in Stage
        },
        "stopped": [_ms(turn.cancelled_s, turn.stopped_s) for turn in answered],
    }
    for name, values in rows.items():
        known = sorted(value for value in values if value is not None)
        if known:
            p90 = known[min(len(known) - 1, len(known) * 9 // 10)]
            print(f"| {name} | {statistics.median(known):.0f} | {p90:.0f} |")


def _ms(from_s: float | None, to_s: float | None) -> float | None:
    return None if from_s is None or to_s is None else (to_s - from_s) * 1000


# --- recognition ----------------------------------------------------------------------


def print_recognition(given: argparse.Namespace, language: str) -> None:
    """Recognise each phrase by each voice, and print the errors of each voice."""
    from voicechat.providers.faster_whisper_worker import WhisperTranscriber

    threads = os.cpu_count() or 1
    transcriber = WhisperTranscriber(
        WorkerOptions(
            model=str(given.models / "faster-whisper-base"), languages=("zh", "en"), prompt="",
            simplified=True, compute_type="int8", beam_size=given.beam, threads=threads, niceness=0,
        )
    )  # fmt: skip
    speech = NeuralSpeech(given.models, threads)
    texts = PHRASES[language].replace("\n", "|").split("|")
    spoken: dict[str, Iterable[Phrase]] = {
        voice: (Phrase(text, voice, speech.speak(text, voice)) for text in texts)
        for voice in VOICES[language]
    }
    if language == "en":
        spoken["people"] = recorded()
    pairs: list[tuple[str, str]] = []
    print(f"| {language} | wrong | of | share |\n|---|---|---|---|")
    for voice, said in spoken.items():
        before = len(pairs)
        for phrase in said:
            *_, answer = transcriber.transcribe(phrase.pcm, PassOptions(complete=True))
            heard = orjson.loads(answer)["text"]
            pairs.append((phrase.text, heard))
            if given.verbose and errors_of([pairs[-1]])[0]:
                print(f"  {voice}: {phrase.text} | {heard}")
        print_share(voice, pairs[before:])
    print_share("all", pairs)


def print_share(name: str, pairs: Sequence[tuple[str, str]]) -> None:
    """Print a row of the table."""
    wrong, of = errors_of(pairs)
    print(f"| {name} | {wrong} | {of} | {wrong / of:.1%} |", flush=True)


def errors_of(pairs: Iterable[tuple[str, str]]) -> tuple[int, int]:
    """How many words or characters are wrong of what was said, and of how many."""
    wrong = of = 0
    for said, heard in pairs:
        expected = units(said)
        wrong += edits(expected, units(heard))
        of += len(expected)
    return wrong, of


def units(text: str) -> list[str]:
    """The words of an English text, the characters of a Chinese one, as they are
    spoken.
    """
    if any(map(is_han, text)):
        return [char for char in as_spoken(text, "zh") if char.isalnum()]
    said = as_spoken(text, "en").lower()
    plain = "".join(char if char.isalnum() or char == "'" else " " for char in said)
    return plain.split()


def as_spoken(text: str, language: str) -> str:
    """Numbers and abbreviations as they are spoken: 7点 becomes 七点, Mr. mister."""
    from wetext import Normalizer

    spoken: str = Normalizer(lang=language, operator="tn").normalize(text)
    return spoken


def edits(said: Sequence[str], heard: Sequence[str]) -> int:
    """The least number of insertions, deletions and substitutions (Levenshtein)."""
    row = list(range(len(heard) + 1))
    for place, unit in enumerate(said, 1):
        before, row = row, [place]
        for at, other in enumerate(heard):
            row.append(min(before[at + 1] + 1, row[at] + 1, before[at] + (unit != other)))
    return row[-1]


if __name__ == "__main__":
    main()
