"""Time zones by their names in the time zone database: the system's, else that of the package `tzdata`."""

from zoneinfo import ZoneInfo

#: What such a name looks like.
PATTERN = r"^[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+)*$"


def time_zone(name: str) -> ZoneInfo | None:
    """None for a name that the database does not have."""
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # not there, no name at all, a folder of the database
        return None
