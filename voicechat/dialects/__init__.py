"""The wire protocols that clients speak: one folder for each. ``base`` says what a
dialect is.
"""
