"""The wire protocols that clients use, one folder each. ``base`` defines what a dialect
is.
"""
