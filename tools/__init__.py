"""Programs to run by hand: ``python -m tools.NAME``, each with ``--help`` or a word at
its top.

``configuration_page`` and ``write_openapi`` regenerate documents from the code.
``hands_free.figures``, ``dialogues.evaluate``, ``voice_figures``, ``codec_costs``,
``sherpa_figures``, ``evaluate_turns``, ``evaluate_conversation``, ``evaluate_noise``,
``evaluate_ocr``, ``evaluate_knowledge``, ``knowledge_turns``, ``reading_rate``,
``count_calls``, ``reply_costs``, ``record_figures``, ``flash_crowd`` and
``phone_capacity`` are benchmarks.
``asterisk_calls`` makes calls through a real Asterisk.
``soak.connects``, ``soak.overload``, ``soak.workers``, ``task_chaos``,
``media_chaos``, ``knowledge_chaos``, ``cluster_chaos``, ``big_upload``,
``fuzz_decoders``, ``replay_histories`` and ``rest_conformance`` are soak, stress and
fuzz tests;
``simulate`` runs whole servers in virtual time.
``idle_loop`` is the control of a measurement under load.
``real_server`` tests against a real server of language models, and ``peers`` connects
this engine to a benchmark of several engines.
"""
