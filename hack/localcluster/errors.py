"""The one exception whose message is meant for the person at the terminal."""


class LocalClusterError(Exception):
    """Something the user can act on. The message says what happened and what to do; no traceback is shown."""
