"""How a failure is written to the log: by its place, because its text may quote what a
user said.
"""


def location_of(error: BaseException) -> str:
    """Where ``error`` was raised, innermost last, as ``file:line``; of a group, of each
    member.
    """
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(
            f"{type(inner).__name__} at {location_of(inner)}" for inner in error.exceptions
        )
    places = []
    traceback = error.__traceback__
    while traceback is not None:
        places.append(f"{traceback.tb_frame.f_code.co_filename}:{traceback.tb_lineno}")
        traceback = traceback.tb_next
    return " > ".join(places[-6:])
