"""What people run by hand: ``python -m tools.NAME``, each with ``--help`` or a word at
its top.

Pages and documents are written anew from the code by ``configuration_page`` and
``write_openapi``. ``hands_free.figures``, ``dialogues.evaluate``, ``voice_figures``,
``codec_costs``, ``sherpa_figures`` and ``count_calls`` measure. ``soak.connects``,
``soak.overload``, ``soak.workers``, ``task_chaos``, ``big_upload``, ``fuzz_decoders``
and ``rest_conformance`` wear the server out. ``real_server`` tries a language model
that really runs, and ``peers`` is our side of a bench of several engines.
"""
