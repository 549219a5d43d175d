"""What a process of this machine uses."""

import os
from pathlib import Path


def cpu_seconds(pid: int) -> float:
    """What a process has used of a core, without its children."""
    # After the command's name, which may hold blanks.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
