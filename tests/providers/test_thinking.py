import pytest

from voicechat.providers.thinking import ThinkingForm, in_form

WISHES: list[dict[str, object]] = [
    {"enable_thinking": False},
    {"thinking": {"type": "disabled"}},
    {"chat_template_kwargs": {"enable_thinking": False}},
    {
        "enable_thinking": False,
        "thinking": {"type": "enabled"},
        "chat_template_kwargs": {"enable_thinking": True},
    },
]
FORMS: list[tuple[ThinkingForm, dict[str, object]]] = [
    ("chat_template_kwargs", {"chat_template_kwargs": {"enable_thinking": False}}),
    ("enable_thinking", {"enable_thinking": False}),
    ("thinking", {"thinking": {"type": "disabled"}}),
    ("reasoning_effort", {"reasoning_effort": "none"}),
]


@pytest.mark.parametrize(("form", "sent"), FORMS, ids=[form for form, _ in FORMS])
@pytest.mark.parametrize("wish", WISHES)
def test_the_same_wish_comes_out_in_the_form_that_the_server_knows(
    wish: dict[str, object], form: ThinkingForm, sent: dict[str, object]
) -> None:
    assert in_form(form, {"top_k": 5, **wish}) == {"top_k": 5, **sent}


@pytest.mark.parametrize(
    "options", [{}, {"reasoning_effort": "low"}, {"thinking": None}, {"enable_thinking": None}]
)
def test_options_without_a_wish_stay_as_they_are(options: dict[str, object]) -> None:
    for form, _ in FORMS:
        assert in_form(form, options) == options


def test_what_stands_beside_the_wish_stays() -> None:
    template = {"enable_thinking": True, "x": 1}
    assert in_form("enable_thinking", {"chat_template_kwargs": template}) == {
        "enable_thinking": True,
        "chat_template_kwargs": {"x": 1},
    }
    assert in_form("thinking", {"thinking": {"type": "enabled", "budget_tokens": 9}}) == {
        "thinking": {"type": "enabled", "budget_tokens": 9}
    }
    assert in_form("reasoning_effort", {"enable_thinking": True, "reasoning_effort": "high"}) == {
        "reasoning_effort": "high"
    }
