"""`python -m engine install|path|command|model`: install vLLM for the CPU, say where it is, make the tiny
model.
"""

from __future__ import annotations

import argparse
import sys

from engine.install import InstallError, install, say, vllm_command
from engine.tiny_model import tiny_model


def main() -> int:
    """Run one subcommand; its answer, a path, goes to standard output."""
    parser = argparse.ArgumentParser(prog="engine", description=__doc__)
    parser.add_argument(
        "action",
        choices=["install", "path", "command", "model"],
        help="install: install vLLM and print its environment's folder; path: print that folder;"
        " command: print the vllm command's path; model: make the tiny Qwen3-MoE model, print its folder",
    )
    action = parser.parse_args().action
    try:
        if action == "install":
            print(install())
        elif action == "path":
            print(vllm_command().parent.parent)
        elif action == "command":
            print(vllm_command())
        else:
            print(tiny_model(say))
    except InstallError as error:
        say(str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
