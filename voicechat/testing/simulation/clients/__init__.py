"""Simulated clients, one module for each protocol. Each plays its visit, and watches
that what it receives keeps the rules.
"""
