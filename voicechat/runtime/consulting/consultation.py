"""The knowledge that one conversation or request consults."""

from collections.abc import Sequence
from dataclasses import dataclass

from voicechat.providers.interfaces import ChatModel
from voicechat.runtime.consulting.informed_model import InformedModel, UrlOf
from voicechat.runtime.consulting.search_ahead import Knowledge, SearchAhead
from voicechat.runtime.consulting.search_tool import KnowledgeTool
from voicechat.runtime.tool_function import ServerTool


@dataclass(frozen=True, slots=True)
class Consultation:
    """The knowledge of an agent, as one conversation or request uses it."""

    knowledge: Knowledge
    url_of: UrlOf
    keeps_marks: bool
    """See ``InformedModel``."""
    tool: KnowledgeTool | None = None
    """The tool with which the model searches by itself; None: it has none."""

    @property
    def ahead(self) -> SearchAhead | None:
        """What begins searches while the user speaks; None for a request."""
        return self.knowledge if isinstance(self.knowledge, SearchAhead) else None

    @property
    def tools(self) -> Sequence[ServerTool]:
        """The tools that the model gets besides its agent's."""
        return () if self.tool is None else (self.tool.tool(),)

    def inform(self, model: ChatModel) -> InformedModel:
        """Return the model with the knowledge."""
        return InformedModel(
            model,
            self.knowledge,
            url_of=self.url_of,
            keeps_marks=self.keeps_marks,
            looked_up=None if self.tool is None else self.tool.found,
        )
