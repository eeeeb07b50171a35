import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voicechat.text.hidden import HiddenText
from voicechat.text.scanning import HELD_CHARACTERS

CALL = '{"name":"get_weather","arguments":{"city":"secret"}}'


def shown(text: str, cut: int, tags: tuple[str, ...] = ()) -> str:
    hidden = HiddenText(tags)
    pieces = [hidden.push_text(text[at : at + cut]) for at in range(0, len(text), cut)]
    return "".join(pieces) + hidden.finish_text()


THOUGHTS = [
    "<think>secret</think>Hello",
    "<thinking>secret</thinking>Hello",
    "<thought>secret</thought>\n\nHello",
    "<THINK>secret</THINK>Hello",
    '<think duration="3">secret</think>Hello',
    "<thinking>secret</think>Hello",
    "<seed:think>secret</seed:think>Hello",
    "<longcat_think>secret</longcat_think>Hello",
    "<思考>secret</思考>Hello",
    "[THINK]secret[/THINK]Hello",
    "◁think▷secret◁/think▷Hello",
    "<|begin_of_thought|>secret<|end_of_thought|><|begin_of_solution|>Hello<|end_of_solution|>",
    "<|START_THINKING|>secret<|END_THINKING|>Hello",
    "<unused94>thought\nsecret<unused95>Hello",
    "<|channel>thought\nsecret<channel|>Hello<turn|>",
    "<|channel|>analysis<|message|>secret<|end|><|start|>assistant<|channel|>final<|message|>Hello<|return|>",
    "<think>I should not write <think> here, secret</think>Hello",
    " \n<think>secret</think> \n Hello",
    "[thinking]\nsecret\n[/thinking]\nHello",
    "Thought: secret\nFinal Answer: Hello",
    "< think >secret< / think >Hello",
    "<think >secret</ think>Hello",
    "< thinking>\nsecret </thinking >\nHello",
    "analysisThe secret is out. assistantfinalHello",
    "analysis用户问 secret。assistantfinal Hello",
    "analysisWe call secret.assistantcommentary to=functions.f json{}assistantfinalHello",
    "finalHello",
]
CALLS = [
    f"Hello<tool_call>\n{CALL}\n</tool_call>",
    f"Hello<function>{CALL}</function>",
    "Hello<tools>\nsecret</tools>",
    "Hello<function=get_weather><parameter=city>secret</parameter></function>",
    f"Hello<tool_calls>[{CALL}]</tool_calls>",
    "Hello<minimax:tool_call>secret</minimax:tool_call>",
    "Hello<｜DSML｜function_calls><｜DSML｜invoke "
    'name="x">secret</｜DSML｜invoke></｜DSML｜function_calls>',
    f"Hello<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>{CALL}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
    f"Hello<|tool_calls_section_begin|>{CALL}<|tool_calls_section_end|>",
    "Hello<|tool_call_start|>[get(city='secret')]<|tool_call_end|>",
    f"Hello<|tool_call|>[{CALL}]",
    "Hello<|tool_call>call:get{secret}<tool_call|>",
    "Hello<|python_tag|>secret<|eom_id|>",
    "Hello<start_function_call>secret<end_function_call>",
    f"Hello[TOOL_CALLS][{CALL}]",
    f"Hello[TOOL_REQUEST]{CALL}[END_TOOL_REQUEST]",
    f"Hello<TOOLCALL>[{CALL}]</TOOLCALL>",
    f"{CALL}Hello",
    f"functools[{CALL}]Hello",
    f"functools[ {CALL}, {CALL} ]Hello",
    'Hello[get_weather(city="secret"), tools.now(zone=1)]',
    f"[{CALL}, {CALL}]Hello",
    'Hello{"type": "function", "name": "f", "parameters": {"a": "} secret"}}',
    'Hello{"tool_calls": [{"secret": 1}]}',
    "Hello<|channel|>commentary to=functions.get_weather "
    f"<|constrain|>json<|message|>{CALL}<|call|>",
    f"Hello<tool_call>{CALL}",
    'Hello✿FUNCTION✿: f\n✿ARGS✿: {"city": "secret"}',
    "✿FUNCTION✿: f\n✿ARGS✿: {}\n✿RESULT✿: secret\n✿RETURN✿: Hello",
    "Thought: secret\nAction: f\nAction Input: {}\nObservation: secret\nThought: secret\nFinal Answer: Hello",
    "\nAction: f\nAction Input: {}\nObservation: secret\nFinal Answer:\nHello",
]
TOKENS = [
    "Hello<|im_end|>",
    "Hello</s>",
    "Hello<end_of_turn>",
    "Hello<｜end▁of▁sentence｜>",
    "<|im_start|>assistant\nHello<|im_end|><|im_start|>user\nsecret<|im_end|>",
    "<|start_header_id|>assistant<|end_header_id|>\n\nHello<|eot_id|>",
    "<start_of_turn>model\nHello<end_of_turn>",
    "<|assistant|>Hello<|user|>secret",
    "<|user|>\nsecret<|assistant|>Hello",
    "[INST]Hello[/INST]",
    "</think>Hello",
    "<|channel|>commentary<|message|>Hello<|end|>",
]


GATEWAYS = [
    '<details type="reasoning" done="true">\n<summary>Thought for 3 s</summary>\n> '
    "secret\n</details>\nHello",
    '<details done="false" type="tool_calls" name="f">secret</details>\nHello',
    '{"tool_uses": [{"recipient_name": "functions.f", "parameters": {"a": 1}}]}Hello',
    "<|start_of_role|>assistant<|end_of_role|>Hello<|end_of_text|>",
    "Hello<|end_of_text|><|start_of_role|>user<|end_of_role|>secret",
    "[|assistant|]Hello[|endofturn|]",
]


@pytest.mark.parametrize("reply", THOUGHTS + CALLS + TOKENS + GATEWAYS)
@pytest.mark.parametrize("cut", [1, 2, 3, 7, 1000])
def test_what_is_no_part_of_a_reply_is_hidden(reply: str, cut: int) -> None:
    assert shown(reply, cut) == "Hello"


@pytest.mark.parametrize("cut", [1, 3, 1000])
def test_a_later_thought_is_hidden_with_the_space_that_would_stand_twice(cut: int) -> None:
    reply = "<think>a</think>Hi <think>secret</think> there.\n\n<think>b</think>\n\nBye"
    assert shown(reply, cut) == "Hi there.\n\nBye"


@pytest.mark.parametrize(
    "text",
    [
        "a < b, 3<5, <3 and <p and q>",
        "List<String> and array[0] and [1, 2]",
        "[f(x)] and [g(a == b)] and [the docs](u) and [max(a, b)]",
        "The `<think>` tag and '<|im_end|>' and “<tool_call>”",
        "```xml\n<tool_call>\nx\n</tool_call>\n```\nDone",
        '{"a": 1} and {"name": "Ann", "age": 3}',
        "<answer>42</answer> <b>bold</b>",
        "<thinking aloud>",
        '<details type="circle">x</details> <details open>y</details>',
        "[|x] and [||] and [|A|]",
        "Take the <tool> and the <function>, <action>",
        "[A], [NOTE], [THIN",
        "  Hello",
        "   ",
        "Thought: life is short. Action: go!",
        "Actions speak. Thoughts:\nFinal Answer: 42",
        "That is it. Thought: x\nAction: y",
        "Use [thinking] and [think] and ✿ and ✿FUN✿",
        "analysis of it, finally",
        "The analysisX and finalY of functools[0] and functools",
        "final",
        "a < think",
        "x < t > y",
        "<thi",
        "x <| y",
        "<|\n|> <| a|> <a| b>",
        "",
    ],
)
@pytest.mark.parametrize("cut", [1, 3, 1000])
def test_everything_else_is_shown_as_it_stands(text: str, cut: int) -> None:
    assert shown(text, cut) == text


def test_a_thought_that_never_ends_hides_the_rest() -> None:
    assert shown("Hi <think>secret and so on", 1) == "Hi "


def test_a_reply_may_begin_within_its_thought() -> None:
    hidden = HiddenText(inside=True)
    assert (
        hidden.push_text("secret</thi") + hidden.push_text("nk>\nYes") + hidden.finish_text()
        == "Yes"
    )


def test_further_tags_can_be_named() -> None:
    text = "<Notes>secret</notes>Hi <plan id='1'>secret</plan>there"
    assert shown(text, 2, ("notes", "plan")) == "Hi there"
    assert "secret" in shown(text, 2)


def test_text_that_cannot_be_a_tag_is_given_at_once() -> None:
    hidden = HiddenText()
    assert hidden.push_text("Hello, a") == "Hello, a"
    assert hidden.push_text(" < b and") == " < b and"


def test_what_is_held_back_is_bounded() -> None:
    hidden = HiddenText()
    hidden.push_text("<think>")
    for _ in range(1000):
        hidden.push_text("x" * 100)
        assert len(hidden._held) <= HELD_CHARACTERS
    hidden.push_text("</think>")
    given = sum(len(hidden.push_text("{" + ' "a" : ' * 10)) for _ in range(1000))
    assert given >= 1000 * 71 - 2 * HELD_CHARACTERS


PARTS = """<think> </think> <| |> < > / = [THINK] [/THINK] ◁think▷ <|channel|> analysis <|message|> <|start|> assistant
<|im_start|> user ` ``` hi { } [ ] "name" : "f" , "arguments" ✿FUNCTION✿ : ✿RETURN✿ Thought: Action: [think] [/think] functools final assistant <tool_call> </tool_call> <|tool_call|> é你 <|im_end|>"""
PART = st.sampled_from(["\n", " ", "\nFinal Answer:", *PARTS.split()])


@settings(max_examples=300)
@given(
    st.lists(PART, max_size=30).map("".join), st.lists(st.integers(1, 9), min_size=1, max_size=8)
)
def test_the_cut_does_not_matter(text: str, cuts: list[int]) -> None:
    hidden = HiddenText(("plan",))
    out, at, turn = "", 0, 0
    while at < len(text):
        step = cuts[turn % len(cuts)]
        out += hidden.push_text(text[at : at + step])
        at, turn = at + step, turn + 1
    assert out + hidden.finish_text() == shown(text, 10_000, ("plan",))
