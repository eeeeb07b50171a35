"""Measure what the search in a knowledge base adds to a spoken turn.

    python -m tools.knowledge_turns --passages 20000

Conversations speak the questions of ``tests/knowledge/questions`` at 300 ms a word,
with a scripted recogniser and model and the real search. Printed is how long replies
waited for it after the last words. The vectors are random, which costs as much as real
ones; ``--embed-ms`` is how long the embedder takes. Run on idle cores.
"""

import argparse
import asyncio
import itertools
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tests.knowledge.questions.material import read_documents, read_questions
from tools.evaluate_knowledge import (
    FILES,
    SCOPE,
    RandomEmbedder,
    fill_with_random,
    lateness,
    open_sqlite,
    percentiles,
    read_all,
    synthetic,
    tune_process,
)
from voicechat.knowledge.retriever import Retriever
from voicechat.providers.interfaces import EmbeddingRequest, Embeddings
from voicechat.runtime.consulting.consultation import Consultation
from voicechat.runtime.consulting.search_ahead import KnowledgeConsulted, Search, SearchAhead
from voicechat.runtime.conversation import SessionProviders
from voicechat.session.commands import CommitTurn
from voicechat.session.notices import TurnCompleted
from voicechat.testing.harness import ConversationHarness
from voicechat.testing.scripted import ScriptedRecognizer

WORD_MS = 300
FINAL_MS = 100
"""How long the recogniser takes for its last result."""
FRAME_MS = 100


class SlowEmbedder(RandomEmbedder):
    """Takes a while for each request."""

    def __init__(self, embed_ms: float) -> None:
        super().__init__()
        self._embed_s = embed_ms / 1000

    async def embed(self, request: EmbeddingRequest) -> Embeddings:
        """Return random vectors."""
        await asyncio.sleep(self._embed_s)
        return await super().embed(request)


@dataclass(kw_only=True)
class KnowingHarness(ConversationHarness):
    """A conversation that notes how long its replies wait."""

    find: Search
    consulted: list[KnowledgeConsulted] = field(default_factory=list)

    def providers(self) -> SessionProviders:
        """Return the scripted services, and the real search."""
        ahead = SearchAhead(self.find, observe=self.consulted.append)
        consultation = Consultation(ahead, url_of=lambda _: "", keeps_marks=False)
        return SessionProviders(
            recognizer=self.recognizer,
            models=lambda _: consultation.inform(self.model),
            synthesizer=self.synthesizer,
            threads=self.encoding_threads,
            knowledge=ahead,
        )


async def converse(find: Search, question: str) -> KnowledgeConsulted:
    """Ask one question in real time; returns what its reply got."""
    recognizer = ScriptedRecognizer(texts=(question,), word_ms=WORD_MS, final_ms=FINAL_MS)
    stage = KnowingHarness(find=find, recognizer=recognizer)
    running = asyncio.get_running_loop().create_task(stage.conversation.run())
    try:
        for _ in range((len(question.split()) * WORD_MS + FRAME_MS) // FRAME_MS):
            stage.send_audio(bytes(FRAME_MS * 32))
            await asyncio.sleep(FRAME_MS / 1000)
        stage.send(CommitTurn())
        await stage.notice(TurnCompleted)
    finally:
        await stage.close()
        await running
    [consulted] = stage.consulted
    return consulted


async def measure(options: argparse.Namespace, folder: Path) -> None:
    """Fill a store, hold the conversations, and print what was waited."""
    text = await read_all(read_documents()[:12])
    own = [passage for read in text for passage in read.text.passages]
    store = open_sqlite(folder)
    await store.start()
    await fill_with_random(store, SCOPE, synthetic(own, options.passages), FILES)
    retriever = Retriever(store, SlowEmbedder(options.embed_ms))
    find = partial(retriever.search, SCOPE.project, [SCOPE.base])
    questions = itertools.islice(
        itertools.cycle(each.question for each in read_questions()), options.turns
    )
    await find(next(questions))  # reads the vectors
    tune_process()
    late: list[float] = []
    free = asyncio.Semaphore(options.at_once)

    async def turn(question: str) -> KnowledgeConsulted:
        async with free:
            return await converse(find, question)

    async with lateness(late):
        consulted = await asyncio.gather(*map(turn, questions))
    await store.aclose()
    waits = percentiles([each.waited_s * 1000 for each in consulted])
    print(f"{len(consulted)} turns, {options.at_once} at once: replies waited {waits}")
    print(f"outcomes: {dict(Counter(each.outcome.value for each in consulted))}")
    print(f"lateness of the event loop: {percentiles(late)}")


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--passages", type=int, default=20_000)
    parser.add_argument("--turns", type=int, default=200)
    parser.add_argument("--at-once", type=int, default=4)
    parser.add_argument("--embed-ms", type=float, default=10.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(measure(options, Path(folder)))


if __name__ == "__main__":
    main()
