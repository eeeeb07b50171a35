import pytest

from voicechat.errors import RemoteProtocolError, Status
from voicechat.names import ResolvedName, ServiceNames, aliases_of, combined_notes


def test_a_services_own_name_comes_first_then_an_alias_then_the_star() -> None:
    names = ServiceNames(frozenset({"default", "big"}), {"gpt": "big", "*": "default"})
    assert [names.resolve("model", name).name for name in ("big", "gpt", "other", "*")] == [
        "big",
        "big",
        "default",
        "default",
    ]
    assert not names.resolve("model", "other").note, "the operator wanted it so"
    assert list(names) == ["big", "default", "gpt"]


def test_the_only_service_serves_any_name_and_says_so() -> None:
    resolved = ServiceNames().resolve("model", "Qwen2.5")
    assert resolved == ResolvedName(
        "default", 'model: "Qwen2.5" is not configured here; default serves instead'
    )


def test_where_there_is_a_choice_an_unknown_name_is_refused_with_the_names() -> None:
    with pytest.raises(RemoteProtocolError) as refused:
        ServiceNames(frozenset({"default", "big"}), {"gpt": "big"}).resolve("model", "Qwen2.5")
    assert (refused.value.status, refused.value.message) == (
        Status.NOT_FOUND,
        'model: "Qwen2.5" is not one of big, default, gpt',
    )


def test_what_is_quoted_and_listed_has_a_bound() -> None:
    names = ServiceNames(frozenset(f"service-{number}" for number in range(200)))
    with pytest.raises(RemoteProtocolError, match=r"and 150 more$") as refused:
        names.resolve("model", "\n" * 100_000)
    assert len(refused.value.message) < 1_000


def test_an_alias_belongs_to_one_service() -> None:
    assert aliases_of({"a": ["x", "x"], "b": ["y"]}) == {"x": "a", "y": "b"}
    with pytest.raises(ValueError, match=r'^b\.also: "x" is an alias of a already$'):
        aliases_of({"a": ["x"], "b": ["x"]})
    with pytest.raises(ValueError, match=r'^a\.also: "b" is the name of a service$'):
        aliases_of({"a": ["b"], "b": []})


def test_what_a_client_is_told_about_several_names_is_one_text() -> None:
    assert (
        combined_notes(ResolvedName("a"), ResolvedName("b", "x"), ResolvedName("c", "y")) == "x; y"
    )
