import pytest

from voicechat.errors import AdmissionError, Status
from voicechat.store import tokens
from voicechat.store.access import ApiEndpoint, Scope
from voicechat.store.ledger import Ledger
from voicechat.store.quotas import QuotaExceededError
from voicechat.store.tokens import TokenGrant, TokenStore

GRANT = TokenGrant(
    key_id="k",
    scope=Scope(projects=("p",), endpoints=(ApiEndpoint.CHAT,)),
    origin="https://app.example",
)


def test_a_token_is_accepted_once() -> None:
    store = TokenStore()
    token = store.issue_token(GRANT, 60, now_s=0)
    assert store.redeem_token(token, now_s=59.9) == GRANT
    assert store.redeem_token(token, now_s=59.9) is None
    assert len(store) == 0


def test_a_token_expires_and_is_then_gone() -> None:
    store = TokenStore()
    token = store.issue_token(GRANT, 60, now_s=0)
    assert store.redeem_token(token, now_s=60) is None
    assert store.redeem_token(token, now_s=1) is None


def test_nothing_else_is_a_token() -> None:
    store = TokenStore()
    token = store.issue_token(GRANT, 60, now_s=0)
    for text in (
        "",
        "vt_",
        token[:-1],
        token + "x",
        token.removeprefix("vt_"),
        "vt_\udcff",
        "vc_" + token[3:],
    ):
        assert store.redeem_token(text, now_s=0) is None
    assert store.redeem_token(token, now_s=0) == GRANT


def test_no_token_is_kept_in_the_clear() -> None:
    ledger = Ledger()
    token = TokenStore(ledger).issue_token(GRANT, 60, now_s=0)
    kept = repr(ledger.fetch_row("SELECT * FROM token"))
    assert GRANT.origin in kept
    assert token not in kept
    assert token[3:] not in kept


def test_one_key_cannot_fill_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "MAX_TOKENS_PER_KEY", 3)
    store = TokenStore()
    first = store.issue_token(GRANT, 10, now_s=0)
    for _ in range(2):
        store.issue_token(GRANT, 60, now_s=0)
    with pytest.raises(QuotaExceededError):
        store.issue_token(GRANT, 60, now_s=0)
    other = TokenGrant(key_id="other", scope=Scope())
    assert store.redeem_token(store.issue_token(other, 60, now_s=0), now_s=0) == other
    store.redeem_token(first, now_s=0)
    store.issue_token(GRANT, 60, now_s=0)


def test_the_table_is_bounded_and_expired_tokens_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "MAX_TOKENS", 4)
    store = TokenStore()
    for number in range(4):
        store.issue_token(TokenGrant(key_id=str(number), scope=Scope()), 60, now_s=number)
    with pytest.raises(AdmissionError) as refused:
        store.issue_token(GRANT, 60, now_s=59)
    assert refused.value.status is Status.AT_CAPACITY
    store.issue_token(GRANT, 60, now_s=61)
    assert len(store) == 3
