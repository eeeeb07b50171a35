"""Turns as OpenTelemetry spans: one for the user's wait, with a child for each stage
that took time.

Without OpenTelemetry's SDK the API does nothing. With it, its own variables (such as
``OTEL_EXPORTER_OTLP_ENDPOINT``) set where the spans are sent; run the server under
``opentelemetry-instrument``, which reads them.
"""

from opentelemetry import context, trace

from voicechat.runtime.wall_clock import now_ns
from voicechat.session.latency_breakdown import LatencyBreakdown

TURN = "voicechat.turn"
_NS_PER_MS = 1_000_000


def trace_turn(tracer: trace.Tracer, breakdown: LatencyBreakdown) -> None:
    """Record a turn whose first audio has just been sent.

    Spans carry only times: no text and no identity.
    """
    end_ns = now_ns()
    start_ns = end_ns - breakdown.total_ms * _NS_PER_MS
    turn = tracer.start_span(TURN, context=context.Context(), start_time=start_ns)
    below = trace.set_span_in_context(turn)
    for stage, length_ms in breakdown.stages_ms.items():
        stage_end_ns = start_ns + length_ms * _NS_PER_MS
        if length_ms:
            tracer.start_span(f"{TURN}.{stage.value}", context=below, start_time=start_ns).end(
                stage_end_ns
            )
        start_ns = stage_end_ns
    turn.end(end_ns)
