import gc

from voicechat.server.gc_tuning import measuring_gc_pauses
from voicechat.server.metrics import Metrics


def test_collections_are_counted_until_the_watch_ends() -> None:
    with measuring_gc_pauses() as pauses:
        gc.collect()
        pauses.reset_totals()
        gc.collect()
        gc.collect()
    gc.collect()
    assert pauses.pauses == 2
    assert pauses.total_us >= pauses.longest_us > 0


def test_the_collectors_pauses_are_shown() -> None:
    metrics = Metrics()
    name = "voicechat_collector_pause_seconds"
    with metrics.measuring_collector():
        gc.collect()
        gc.collect()
        assert metrics.registry.get_sample_value(f"{name}_count") == 2
        total_s, longest_s = (
            metrics.registry.get_sample_value(f"{name}_{what}") for what in ("sum", "max")
        )
    assert total_s is not None
    assert longest_s is not None
    assert total_s >= longest_s > 0
    assert metrics.registry.get_sample_value(f"{name}_count") is None
