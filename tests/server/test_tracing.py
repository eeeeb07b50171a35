from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from voicechat.server.tracing import TURN, trace_turn
from voicechat.session.latency_breakdown import Stage, break_down_latency


def test_a_turn_becomes_a_tree_whose_branches_follow_one_another_without_a_gap() -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    ends_ms = {
        Stage.DECISION: 500,
        Stage.TRANSCRIPT: 580,
        Stage.FIRST_TOKEN: 700,
        Stage.FIRST_SENT: 910,
    }
    trace_turn(provider.get_tracer("test"), break_down_latency(0, dict(ends_ms)))
    *stages, turn = exporter.get_finished_spans()
    assert turn.name == TURN
    assert turn.parent is None
    assert [span.name.removeprefix(f"{TURN}.") for span in stages] == [
        stage.value for stage in ends_ms
    ]
    assert turn.context is not None
    reached_ns = turn.start_time
    for span in stages:
        assert span.parent is not None
        assert span.parent.span_id == turn.context.span_id
        assert span.start_time == reached_ns
        reached_ns = span.end_time
    assert reached_ns == turn.end_time
    assert turn.end_time is not None
    assert turn.start_time is not None
    assert turn.end_time - turn.start_time == 910 * 1_000_000
