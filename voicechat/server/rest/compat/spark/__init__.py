"""The document of an application on Spark: chat in Spark's frames, recognition of
samples, text in pictures; and accounts, which are disabled unless configured.
"""
