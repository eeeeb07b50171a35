"""What each agent knows: which knowledge bases it reads, and how it searches them."""

import re
from collections.abc import Callable
from functools import partial
from urllib.parse import quote

from aiohttp import web

from voicechat.agents import Agents
from voicechat.errors import RemoteProtocolError, Status
from voicechat.knowledge.interface import Finding, KnowledgeScope
from voicechat.knowledge.retriever import Retriever
from voicechat.names import quoted
from voicechat.runtime.consulting.consultation import Consultation
from voicechat.runtime.consulting.search_ahead import (
    DEADLINE_S,
    SEARCH_S,
    KnowledgeConsulted,
    Search,
    SearchAhead,
    SearchNow,
)
from voicechat.runtime.consulting.search_tool import KnowledgeTool
from voicechat.session.agent import Agent

REQUEST_DEADLINE_S = 2.0
"""How long a request waits for a search. It cannot begin earlier than the request."""
MOST_FOUND = 5
"""Passages that a model reads for a question: some 1,500 tokens, which a model on this
machine processes while the user speaks.
"""
HALF_DEADLINE_S = 1.5
"""How long each half of a search may take: less than a request waits, so that the
other half is not lost with it.
"""
LISTED_NAMES = 20
BASE_NAME = re.compile(r"[\w.\-]{1,64}")
"""The names of knowledge bases."""
SERVICE_PATH = "/api/open-apis/projects/{project}/service/{serviceId}/kn"
"""The address of an agent's knowledge base. Without the project it is the document's.
"""
FILES_PATH = f"{SERVICE_PATH}/files"
RECORDS_PATH = f"{SERVICE_PATH}/qa-records"


class AgentsKnowledge:
    """The knowledge of the agents of one process."""

    def __init__(
        self,
        retriever: Retriever,
        agents: Agents,
        *,
        public_url: Callable[[web.Request], str] = lambda _: "",
        deadline_s: float = DEADLINE_S,
        may_search: Callable[[], bool] = lambda: True,
        observe: Callable[[KnowledgeConsulted], None] = lambda _: None,
    ) -> None:
        """``public_url`` returns how a client reached the server, without a path.
        ``deadline_s``: how long a spoken reply waits for its search. ``may_search`` and
        ``observe``: see ``SearchAhead``.
        """
        self.retriever = retriever
        self.store = retriever.store
        self._by_words = Retriever(retriever.store)
        """Searches without the embedder, which may be a slow service."""
        self.public_url = public_url
        self._agents = agents
        self._deadline_s = deadline_s
        self._may_search = may_search
        self._observe = observe

    def base_of(self, service_id: str) -> str:
        """Return the knowledge base that a client's ``serviceId`` means: that of an
        agent, by its name or alias, or one that an agent reads.

        Raises ``RemoteProtocolError`` (NOT_FOUND), which lists the names.
        """
        agent = self._agents.find_agent(service_id)
        if agent is not None:
            return agent.name
        names = {name for agent in self._agents.agents.values() for name in agent.knowledge}
        if service_id not in names:
            known = ", ".join(sorted({*names, *self._agents.agents})[:LISTED_NAMES])
            raise RemoteProtocolError(
                Status.NOT_FOUND,
                f"serviceId: there is no agent or knowledge base {quoted(service_id)} (there are: "
                f"{known})",
            )
        return service_id

    def bases_read_by(self, base: str) -> tuple[str, ...]:
        """Return the knowledge bases that the agent of that name reads; the base alone
        if there is no such agent.
        """
        agent = self._agents.agents.get(base)
        return (base,) if agent is None else _bases(agent)

    def for_conversation(self, agent: Agent, project: str, url: str) -> Consultation:
        """Open what a conversation consults. ``url``: how the client reached the
        server, for the addresses of sources.
        """
        search = self._search(agent, project)
        ahead = SearchAhead(
            search,
            quick=self._search(agent, project, self._by_words),
            deadline_s=self._deadline_s,
            may_search=self._may_search,
            observe=self._observe,
        )
        tool = (
            KnowledgeTool(SearchNow(search, deadline_s=SEARCH_S))
            if agent.search_knowledge
            else None
        )
        return Consultation(ahead, url_of=partial(source_url, url), keeps_marks=False, tool=tool)

    def for_request(
        self, agent: Agent, project: str, url: str, *, keeps_marks: bool = True
    ) -> Consultation:
        """Open what one request consults. ``keeps_marks``: see ``InformedModel``."""
        now = SearchNow(
            self._search(agent, project), deadline_s=REQUEST_DEADLINE_S, observe=self._observe
        )
        return Consultation(now, url_of=partial(source_url, url), keeps_marks=keeps_marks)

    def _search(self, agent: Agent, project: str, retriever: Retriever | None = None) -> Search:
        return partial(
            (retriever or self.retriever).search,
            project,
            _bases(agent),
            limit=MOST_FOUND,
            deadline_s=HALF_DEADLINE_S,
        )


def base_name(name: str) -> str:
    """Return a client's name of a knowledge base, or raise ``ValueError`` for one that
    cannot be the name of any.
    """
    if not BASE_NAME.fullmatch(name):
        raise ValueError(f"{quoted(name)} is not 1 to 64 letters, digits, _, - and . long")
    return name


def source_url(url: str, finding: Finding) -> str:
    """Return the address at which a client reads what was found, with its key."""
    if finding.kind == "file":
        return f"{file_url(url, finding.scope, finding.source_id)}/download"
    return f"{_address(url, RECORDS_PATH, finding.scope)}/{finding.source_id}"


def file_url(url: str, scope: KnowledgeScope, file_id: str) -> str:
    """Return the address of a file."""
    return f"{_address(url, FILES_PATH, scope)}/{file_id}"


def _address(url: str, path: str, scope: KnowledgeScope) -> str:
    project, base = quote(scope.project, safe=""), quote(scope.base, safe="")
    return url.rstrip("/") + path.format(project=project, serviceId=base)


def _bases(agent: Agent) -> tuple[str, ...]:
    """Return the knowledge bases that an agent reads, each once."""
    return tuple(dict.fromkeys((agent.name, *agent.knowledge)))
