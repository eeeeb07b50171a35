"""What searches of these tests find."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from voicechat.knowledge.interface import Finding, Findings, KnowledgeScope, QaRecord

SCOPE = KnowledgeScope(project="p", base="handbook")


def passage(content: str, title: str = "Handbook", source_id: str = "file_1") -> Finding:
    return Finding(
        kind="file", source_id=source_id, scope=SCOPE, title=title, content=content, page=3, score=1
    )


BREAKFAST = passage("Breakfast is served in the hall from seven to half past ten.")
DOGS = passage("Dogs may stay for 20 euros a night.", "Pets", "file_2")
RECORD = QaRecord(id="qa_1", scope=SCOPE, question="Who are you?", answer="Anna.", created_s=0)


@dataclass
class DirectedSearch:
    """A search whose results, delays and failures the test directs."""

    findings: Findings = field(default_factory=lambda: Findings((BREAKFAST, DOGS)))
    takes_s: float | Mapping[str, float] = 0.0
    """By question, or for all of them."""
    failure: Exception | None = None
    asked: list[tuple[str, float]] = field(default_factory=list)
    """Each question, and when it was asked on the loop's clock."""
    running: int = 0
    most_running: int = 0

    @property
    def questions(self) -> list[str]:
        return [question for question, _ in self.asked]

    async def __call__(self, question: str) -> Findings:
        self.asked.append((question, asyncio.get_running_loop().time()))
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            takes = self.takes_s
            await asyncio.sleep(takes if isinstance(takes, float) else takes.get(question, 0.0))
            if self.failure is not None:
                raise self.failure
            return self.findings
        finally:
            self.running -= 1
