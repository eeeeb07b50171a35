"""Search, read, delete: the records of conversations, and what sessions have used."""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
from aiohttp import hdrs, web

from voicechat.errors import RemoteProtocolError, Status
from voicechat.names import quoted
from voicechat.records.finishing import erase, read_record
from voicechat.records.folder import AUDIO, EVENTS, ID, SUMMARY, record_folder
from voicechat.records.index import MAX_PAGE, RecordQuery, RecordRow, RecordState
from voicechat.records.usage import COUNTS, GROUPS, Prices, Used, total
from voicechat.server.auth import Principal, holder_of_user
from voicechat.server.record_keeping import RecordKeeper
from voicechat.server.rest.backend import Backend
from voicechat.server.rest.event_stream import JSON_LINES
from voicechat.server.rest.operation import (
    FIND_ERRORS,
    JSON,
    PROJECT,
    Body,
    Operation,
    Parameter,
    Shape,
)
from voicechat.server.rest.records.schemas import (
    ErasedRecords,
    RecordDetails,
    RecordItem,
    RecordPage,
    UsageAnswer,
    UsageCounts,
    UsageGroup,
)
from voicechat.store.access import ApiEndpoint

RECORDS_PATH = "/v1/records"
RECORD_PATH = RECORDS_PATH + "/{record}"
USAGE_PATH = "/v1/usage"
_BY_PROJECT = f"/api/open-apis{PROJECT}"
"""Under this path the same endpoints serve a project that the key opens; under ``/v1``
the key's own.
"""
PAGE_SIZE = 20
MAX_TEXT = 500
"""Characters of a parameter."""
ERASED_AT_ONCE = 100
_HEADERS = {hdrs.CACHE_CONTROL: "private, no-store", "X-Content-Type-Options": "nosniff"}
_CURSOR = re.compile(rf"(\d{{1,15}})-({ID.pattern})")
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
_TEXT: Mapping[str, object] = {"type": "string", "maxLength": MAX_TEXT}
_TIME: Mapping[str, object] = {"type": "integer", "minimum": 0, "maximum": 10**15 - 1}
_DAY_SCHEMA: Mapping[str, object] = {"type": "string", "format": "date"}
_PEOPLE = (
    Parameter("query", "user", "The `user` with whom tokens were made.", _TEXT),
    Parameter("query", "caller", "The number that called.", _TEXT),
    Parameter("query", "device", "The id of the device.", _TEXT),
)
_SEARCH = (
    Parameter("query", "q", "Words that were said, by either side: all of them.", _TEXT),
    Parameter("query", "agent", "The name of the agent.", _TEXT),
    Parameter("query", "key", "The id of the key.", _TEXT),
    *_PEOPLE,
    Parameter("query", "state", "How far it is.", {"enum": [state.value for state in RecordState]}),
    Parameter("query", "from", "Begun at this Unix time or later, in ms.", _TIME),
    Parameter("query", "before", "Begun before this Unix time, in ms.", _TIME),
    Parameter("query", "failed", "`true`: only where something failed.", {"type": "boolean"}),
    Parameter(
        "query",
        "limit",
        "Records of a page.",
        {"type": "integer", "minimum": 1, "maximum": MAX_PAGE, "default": PAGE_SIZE},
    ),
    Parameter("query", "after", "`next` of the page before.", _TEXT),
)
_QUERY_ERRORS = (400, *FIND_ERRORS)
_CHANGE_ERRORS = (400, 401, 404, 409, 429, 500, 503)


class RecordEndpoints:
    """The records and the usage of the key's project."""

    def __init__(self, backend: Backend, keeper: RecordKeeper | None) -> None:
        """``keeper`` None: this server has no records."""
        self._backend = backend
        self._maybe_keeper = keeper

    @property
    def _keeper(self) -> RecordKeeper:
        if self._maybe_keeper is None:
            raise RemoteProtocolError(Status.NOT_FOUND, "this server keeps no records")
        return self._maybe_keeper

    def operations(self) -> list[Operation]:
        """List the endpoints."""

        def operation(
            method: str, path: str, summary: str, handle: Any, answer: Body, **more: Any
        ) -> Operation:
            return Operation(
                method=method,
                paths=(path, path.replace("/v1", _BY_PROJECT)),
                tag="records",
                summary=summary,
                handle=handle,
                answers={200: (answer,)},
                shape=Shape.OPENAI,
                **{"errors": _QUERY_ERRORS, **more},
            )

        return [
            operation(
                "GET",
                RECORDS_PATH,
                "Search the records of conversations",
                self._search,
                Body(JSON, RecordPage),
                details="The newest first. Needs a key whose scope names `records`. A token "
                "of a user sees only that user's records.",
                parameters=_SEARCH,
            ),
            operation(
                "DELETE",
                RECORDS_PATH,
                "Delete all records of a person",
                self._erase_person,
                Body(JSON, ErasedRecords),
                details="Of exactly one of `user`, `caller` and `device`.",
                parameters=_PEOPLE,
            ),
            operation("GET", RECORD_PATH, "Read a record", self._read, Body(JSON, RecordDetails)),
            operation(
                "DELETE",
                RECORD_PATH,
                "Delete a record",
                self._erase,
                Body(JSON, ErasedRecords),
                details="Not while the conversation goes on.",
                errors=_CHANGE_ERRORS,
            ),
            operation(
                "GET",
                f"{RECORD_PATH}/events",
                "Fetch everything that happened, with its times",
                self._events,
                Body(JSON_LINES),
                details="One line of JSON for each event. `voicechat replay` repeats them.",
                errors=_CHANGE_ERRORS,
            ),
            operation(
                "GET",
                f"{RECORD_PATH}/audio",
                "Fetch the audio",
                self._audio,
                Body("audio/ogg"),
                details="Ogg Opus in stereo: the user left, the replies right, as they were heard.",
                errors=_CHANGE_ERRORS,
            ),
            operation(
                "GET",
                USAGE_PATH,
                "Read what sessions have used",
                self._usage,
                Body(JSON, UsageAnswer),
                details="Of the key's project. A session counts for the day, in UTC, on "
                "which it began.",
                parameters=(
                    Parameter(
                        "query",
                        "by",
                        "What it is summed by.",
                        {"enum": list(GROUPS), "default": "day"},
                    ),
                    Parameter("query", "from", "The first day.", _DAY_SCHEMA),
                    Parameter("query", "to", "The last day.", _DAY_SCHEMA),
                    Parameter("query", "key", "The id of the key.", _TEXT),
                    Parameter("query", "agent", "The name of the agent.", _TEXT),
                ),
            ),
        ]

    # --- records ----------------------------------------------------------------------

    async def _search(self, request: web.Request) -> web.Response:
        async with self._backend.admitted(request, ApiEndpoint.RECORDS) as principal:
            query, given = _record_query(request, principal), request.query
            limit = _number(given, "limit", 1, MAX_PAGE) or PAGE_SIZE
            after = _cursor(given)
            keeper = self._keeper
            rows = await keeper.call(
                lambda: keeper.index.search(principal.project, query, limit=limit + 1, after=after)
            )
        more, rows = len(rows) > limit, rows[:limit]
        page = RecordPage(
            data=[RecordItem(**_item(row)) for row in rows],
            has_more=more,
            next=f"{rows[-1].began_ms}-{rows[-1].id}" if more else None,
        )
        return _answer(page.model_dump_json())

    async def _read(self, request: web.Request) -> web.Response:
        async with self._backend.admitted(request, ApiEndpoint.RECORDS) as principal:
            row = await self._find(request, principal)
            keeper = self._keeper
            summary = await keeper.call(lambda: _summary(self._folder(row)))
            used = await keeper.call(lambda: keeper.usage.of_session(row.project, row.id))
        details = RecordDetails(
            **_item(row),
            summary=summary,
            usage=None if used is None else UsageCounts(**_counts(used, keeper.prices)),
            currency=keeper.prices.currency,
        )
        return _answer(details.model_dump_json())

    async def _events(self, request: web.Request) -> web.StreamResponse:
        async with self._backend.admitted(request, ApiEndpoint.RECORDS) as principal:
            row = await self._find(request, principal)
            return await self._file(row, EVENTS, JSON_LINES)

    async def _audio(self, request: web.Request) -> web.StreamResponse:
        async with self._backend.admitted(request, ApiEndpoint.RECORDS) as principal:
            row = await self._find(request, principal)
            if row.mode != "audio":
                raise RemoteProtocolError(Status.NOT_FOUND, "record: it has no audio")
            if row.state in (RecordState.LIVE.value, RecordState.ENDED.value):
                raise RemoteProtocolError(
                    Status.NOT_ALLOWED_NOW,
                    "record: its audio is made once the conversation has ended; try again",
                )
            return await self._file(row, AUDIO, "audio/ogg")

    async def _erase(self, request: web.Request) -> web.Response:
        async with self._backend.admitted(request, ApiEndpoint.RECORDS) as principal:
            row = await self._find(request, principal)
            if row.state == RecordState.LIVE.value:
                raise RemoteProtocolError(
                    Status.NOT_ALLOWED_NOW, "record: the conversation goes on; delete it afterwards"
                )
            deleted = await self._erase_rows([row])
        return _answer(ErasedRecords(deleted=deleted, in_progress=0).model_dump_json())

    async def _erase_person(self, request: web.Request) -> web.Response:
        async with self._backend.admitted(request, ApiEndpoint.RECORDS) as principal:
            given = [name for name in ("user", "caller", "device") if request.query.get(name)]
            if len(given) != 1:
                raise RemoteProtocolError(
                    Status.INVALID_PARAMETER, "exactly one of user, caller and device must be given"
                )
            query, keeper = _record_query(request, principal, given), self._keeper
            deleted, live, after = 0, 0, None
            while rows := await keeper.call(
                lambda after=after: keeper.index.search(  # type: ignore[misc]
                    principal.project, query, limit=ERASED_AT_ONCE, after=after
                )
            ):
                ended = [row for row in rows if row.state != RecordState.LIVE.value]
                live += len(rows) - len(ended)
                deleted += await self._erase_rows(ended)
                after = (rows[-1].began_ms, rows[-1].id)
        return _answer(ErasedRecords(deleted=deleted, in_progress=live).model_dump_json())

    async def _erase_rows(self, rows: list[RecordRow]) -> int:
        keeper = self._keeper

        def erase_all() -> int:
            deleted = sum(erase(keeper.root, keeper.index, row) for row in rows)
            keeper.index.forget_traces()
            return deleted

        return await keeper.call(erase_all)

    async def _find(self, request: web.Request, principal: Principal) -> RecordRow:
        """Return the record that a request names. One of another project, or of another
        user, does not exist.
        """
        name, keeper = request.match_info["record"], self._keeper
        row = None
        if ID.fullmatch(name):
            row = await keeper.call(lambda: keeper.index.find(principal.project, name))
        if row is None or principal.holder not in ("", row.person):
            raise RemoteProtocolError(Status.NOT_FOUND, "record: there is no such record")
        return row

    def _folder(self, row: RecordRow) -> Path:
        return record_folder(self._keeper.root, row.project, row.id)

    async def _file(self, row: RecordRow, name: str, content_type: str) -> web.StreamResponse:
        path = self._folder(row) / name
        if not await self._keeper.call(path.is_file):
            raise RemoteProtocolError(
                Status.NOT_FOUND, "record: it has no such file, or another machine has it"
            )
        return web.FileResponse(path, headers={**_HEADERS, hdrs.CONTENT_TYPE: content_type})

    # --- usage ------------------------------------------------------------------------

    async def _usage(self, request: web.Request) -> web.Response:
        async with self._backend.admitted(request, ApiEndpoint.RECORDS) as principal:
            given, keeper = request.query, self._keeper
            if principal.holder:
                raise RemoteProtocolError(
                    Status.NOT_FOUND, "usage is counted by keys, and not for a token"
                )
            by = given.get("by") or "day"
            if by not in GROUPS:
                raise RemoteProtocolError(
                    Status.INVALID_PARAMETER, f"by: {quoted(by)} is not one of {', '.join(GROUPS)}"
                )
            from_day, to_day = _day(given, "from"), _day(given, "to")
            key_id, agent = _text(given, "key"), _text(given, "agent")
            sums = await keeper.call(
                lambda: keeper.usage.sums(
                    principal.project,
                    by,
                    from_day=from_day,
                    to_day=to_day,
                    key_id=key_id,
                    agent=agent,
                )
            )
        prices = keeper.prices
        answer = UsageAnswer(
            by=by,  # type: ignore[arg-type]
            currency=prices.currency,
            data=[
                UsageGroup(group=each.group, sessions=each.sessions, **_counts(each.used, prices))
                for each in sums
            ],
            total=UsageCounts(**_counts(total(sums), prices)),
        )
        return _answer(answer.model_dump_json())


def _answer(text: str) -> web.Response:
    return web.json_response(text=text, headers=_HEADERS)


def _item(row: RecordRow) -> dict[str, Any]:
    kept: tuple[str, ...] = ("id", "state", "agent", "dialect", "caller", "device", "mode")
    kept += ("duration_ms", "turns", "interruptions", "failures", "gaps", "slowest_ms")
    kept += ("opening", "ending", "audio_bytes")
    item = {name: getattr(row, name) for name in kept}
    item |= {"key": row.key_id, "user": row.person}
    return {**item, "began_at": row.began_ms, "expires_at": row.expires_ms}


def _counts(used: Used, prices: Prices) -> dict[str, Any]:
    return {**{name: getattr(used, name) for name in COUNTS}, "cost": prices.cost_of(used)}


def _summary(folder: Path) -> dict[str, Any]:
    """Return the summary of a record, made now if the conversation goes on."""
    try:
        summary: dict[str, Any] = orjson.loads((folder / SUMMARY).read_bytes())
    except FileNotFoundError:
        try:
            return read_record(folder / EVENTS).summary.written()
        except FileNotFoundError:
            return {}
    return summary


def _record_query(
    request: web.Request, principal: Principal, only: list[str] | None = None
) -> RecordQuery:
    given = request.query
    user = _text(given, "user")
    query = RecordQuery(
        person=holder_of_user(user) if user else "",
        caller=_text(given, "caller"),
        device=_text(given, "device"),
    )
    if only is None:
        state = _text(given, "state")
        if state and state not in {each.value for each in RecordState}:
            raise RemoteProtocolError(
                Status.INVALID_PARAMETER, f"state: {quoted(state)} is no state of a record"
            )
        failed = given.get("failed", "false")
        if failed not in ("true", "false"):
            raise RemoteProtocolError(
                Status.INVALID_PARAMETER, f"failed: {quoted(failed)} is not true or false"
            )
        query = replace(
            query,
            words=_text(given, "q"),
            agent=_text(given, "agent"),
            key_id=_text(given, "key"),
            state=state,
            from_ms=_number(given, "from", 0, 10**15 - 1),
            before_ms=_number(given, "before", 0, 10**15 - 1),
            failed=failed == "true",
        )
    if principal.holder:  # a user's token sees nothing else
        if query.person not in ("", principal.holder):
            raise RemoteProtocolError(Status.NOT_FOUND, "user: it is not the user of this token")
        query = replace(query, person=principal.holder)
    return query


def _text(given: Mapping[str, str], name: str) -> str:
    text = given.get(name, "")
    if len(text) > MAX_TEXT or "\0" in text:
        raise RemoteProtocolError(
            Status.INVALID_PARAMETER, f"{name}: at most {MAX_TEXT} characters without NUL"
        )
    return text


def _number(given: Mapping[str, str], name: str, least: int, most: int) -> int | None:
    text = given.get(name, "")
    if not text:
        return None
    number = int(text) if re.fullmatch(r"[0-9]{1,15}", text) else -1
    if not least <= number <= most:
        raise RemoteProtocolError(
            Status.INVALID_PARAMETER,
            f"{name}: {quoted(text)} is not a whole number from {least} to {most}",
        )
    return number


def _day(given: Mapping[str, str], name: str) -> str:
    text = given.get(name, "")
    if text and not _DAY.fullmatch(text):
        raise RemoteProtocolError(
            Status.INVALID_PARAMETER, f"{name}: {quoted(text)} is no day such as 2026-01-31"
        )
    return text


def _cursor(given: Mapping[str, str]) -> tuple[int, str] | None:
    text = given.get("after", "")
    if not text:
        return None
    found = _CURSOR.fullmatch(text)
    if found is None:
        raise RemoteProtocolError(
            Status.INVALID_PARAMETER, f"after: {quoted(text)} is not the next of a page"
        )
    return int(found[1]), found[2]
