import re
from pathlib import Path

import pytest

from voicechat.agents import Arrival
from voicechat.config import Config, load_config
from voicechat.errors import ConfigError
from voicechat.session.agent import Agent, IdlePrompts, Keypad
from voicechat.session.types import TurnDetection

HOTEL = """
[llm.big]
provider = "builtin"
also = ["gpt-4o"]

[tts.warm]
provider = "espeak"

[tools.book]
function = "json:dumps"

[agents.hotel]
llm = "big"
tts = "warm"
voice = "en-us"
instructions = "You are the hotel's voice. The caller is {caller}, room {room}."
greeting = "Good day!"
language = "en"
tools = ["book"]
turn_detection = { silence_duration_ms = 700 }
goodbye = "Goodbye."
max_duration_s = 600
end_conversation = true
variables = { room = "unknown" }
also = ["+49 30 1234", "AA:BB:CC:DD:EE:FF", "gpt-realtime"]

[agents.hotel.idle_prompts]
after_s = 8
prompts = ["Are you still there?", "Hello?"]
times = 3
"""


@pytest.fixture(autouse=True)
def in_an_empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def load(toml: str = "") -> Config:
    path = Path("given.toml")
    path.write_text(toml, encoding="utf-8")
    return load_config(path, {})


def test_the_default_agent_always_exists_and_is_a_conversation_as_it_was() -> None:
    assert load().agents.agents == {"default": Agent()}
    assert load(HOTEL).agents.agents["default"] == Agent()


def test_an_agent_is_all_that_its_section_says() -> None:
    agents = load(HOTEL).agents
    assert agents.agents["hotel"] == Agent(
        name="hotel",
        llm="big",
        tts="warm",
        voice="en-us",
        instructions="You are the hotel's voice. The caller is {caller}, room {room}.",
        greeting="Good day!",
        language="en",
        tools=("book",),
        turn_detection=TurnDetection(silence_duration_ms=700),
        idle_prompts=IdlePrompts(
            prompts=("Are you still there?", "Hello?"), after_ms=8000, times=3
        ),
        goodbye="Goodbye.",
        max_duration_ms=600_000,
        end_conversation=True,
        variables={"room": "unknown"},
    )
    for arrival in (
        Arrival(called="+49301234"),
        Arrival(device="aa:bb:cc:dd:ee:ff"),
        Arrival(model="gpt-realtime"),
    ):
        assert agents.choose_agent(arrival).agent.name == "hotel"
    assert agents.choose_agent(Arrival(model="gpt-4o")).agent == Agent(llm="big")


def test_each_idle_prompt_is_said_once_unless_told_otherwise() -> None:
    idle = (
        load('[agents.default.idle_prompts]\nprompts = ["a", "b"]\n')
        .agents.agents["default"]
        .idle_prompts
    )
    assert idle == IdlePrompts(prompts=("a", "b"), after_ms=10_000, times=2)


@pytest.mark.parametrize(
    ("section", "complaint"),
    [
        ('llm = "none"', "agents.a.llm: there is no llm 'none' (there are: default)"),
        ('asr = "none"', "agents.a.asr: there is no asr 'none' (there are: default)"),
        ('tts = "none"', "agents.a.tts: there is no tts 'none' (there are: default)"),
        ('tools = ["none"]', "agents.a.tools: there is no tool 'none' (there are: none)"),
        (
            'greeting = "{name}"',
            "agents.a.greeting: there is no variable 'name' (there are: called, caller, device, ",
        ),
        (
            'idle_prompts = { prompts = ["{x}"] }',
            "agents.a.idle_prompts.prompts.0: there is no variable 'x'",
        ),
        ('instructions = "a { b"', "agents.a.instructions: 'a { b' is not allowed; it should be"),
        (
            'greeting = "a"\ngreeting_prompt = "b"',
            "it should be with greeting or with greeting_prompt, not with both",
        ),
        ('greting = "a"', "agents.a.greting: no such key; did you mean greeting?"),
        ("turn_detection = { silence = 1 }", "agents.a.turn_detection.silence: no such key"),
        (
            "turn_detection = { silence_duration_ms = 50 }",
            "agents.a.turn_detection.silence_duration_ms: 50 is not",
        ),
        ("idle_prompts = { prompts = [] }", "agents.a.idle_prompts.prompts: [] is not allowed"),
        ('idle_prompts = { say = ["x"] }', "agents.a.idle_prompts.prompts: missing"),
        ("max_duration_s = 0", "agents.a.max_duration_s: 0 is not allowed"),
        ('language = "English please"', "agents.a.language: 'English please' is not allowed"),
        ('variables = { caller = "x" }', "which every connection brings"),
        ('variables = { "a b" = "x" }', "by names of letters"),
        ('also = ["default"]', 'agents.a.also: "default" is the name of a service'),
        ('also = ["x"]\n[agents.b]\nalso = ["x"]', 'agents.b.also: "x" is an alias of a already'),
        (
            'also = ["big"]\n[llm.big]\nprovider = "builtin"',
            "agents.a: 'big' is the name of a chat model",
        ),
        ('[llm.a]\nprovider = "builtin"', "agents.a: 'a' is the name of a chat model"),
        (
            'also = ["*"]\n[llm.default]\nalso = ["*"]',
            "agents.a: '*' stands for every name already",
        ),
    ],
)
def test_a_mistake_stops_the_start_and_names_its_key(section: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(complaint)):
        load(f"[agents.a]\n{section}\n")


def test_keypads_and_transfers_are_read_and_checked() -> None:
    agent = load(
        HOTEL
        + """
[agents.hotel.keypad]
terminator = "*"
timeout_s = 1.5
most = 6
tool = "book"
[agents.hotel.transfers]
desk = "+49301111"
"""
    ).agents.agents["hotel"]
    assert agent.keypad == Keypad(terminator="*", timeout_ms=1_500, most=6, tool="book")
    assert agent.transfers == {"desk": "+49301111"}
    for wrong, told in {
        '[agents.hotel.keypad]\nterminator = "x"': "terminator",
        "[agents.hotel.keypad]\nmost = 0": "most",
        '[agents.hotel.keypad]\ntool = "pay"': r"agents\.hotel\.keypad\.tool: there is no tool 'pay'",
        '[agents.hotel]\ntransfers = { desk = "" }': "transfers",
    }.items():
        text = HOTEL.replace("[agents.hotel]", wrong) if "transfers" in wrong else HOTEL + wrong
        with pytest.raises(ConfigError, match=told):
            load(text)
