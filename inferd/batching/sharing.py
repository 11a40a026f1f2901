"""In how many parts idle workers take what waits. Pure."""

#: What the parts may take together, of the time of one run of all: each repeats a run's fixed part.
MOST_TIME = 1.5
#: To save less than this is not worth waking others for.
_LEAST_SAVED_S = 0.0003


def parts(rows: int, *, most: int, fixed_s: float, row_s: float, most_time: float = MOST_TIME) -> int:
    """Return in how many even parts, up to ``most``, ``rows`` are done soonest, all of them running at the same time.

    A run takes ``fixed_s`` and for each of its rows ``row_s``, whatever runs beside it.
    """
    rows_s = rows * row_s
    found = min(rows, most)
    if fixed_s * (found - most_time) > rows_s * (most_time - 1):
        found = int(most_time + rows_s * (most_time - 1) / fixed_s)
    return found if rows_s - rows_s / found > _LEAST_SAVED_S else 1
