"""Whole servers in a simulation: their real endpoints, sessions and admission, with
clients of every protocol, failing services and a bad network, on a virtual clock.

``draw_scenario`` draws what happens from a seed, and ``run_scenario`` plays it and
checks throughout that what clients are promised holds. ``python -m tools.simulate``
runs many, and makes a failing one small. docs/simulation.md tells more.
"""
