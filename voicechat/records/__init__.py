"""The record of a conversation: what happened, with its times, and what was heard.

``line_format`` defines the lines of a record, ``writer`` writes them beside the
conversation, ``finishing`` makes the summary and the audio file once it has ended,
``index`` finds records, and ``replay`` repeats one.
"""
