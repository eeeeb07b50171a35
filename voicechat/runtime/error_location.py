"""How exceptions are logged: by the place that raised them, because their text may
quote a user.
"""


def location_of(error: BaseException) -> str:
    """Return where ``error`` was raised, as ``file:line``, innermost last; for a group,
    the place of each member.
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
