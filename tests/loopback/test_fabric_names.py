"""Names that the operator sets for networks, asked of vLLM: one that it does not read is a setting without effect."""

import json
import subprocess

import pytest

from engine.install import environment
from moe_operator.catalog.fabrics import load_fabrics
from moe_operator.catalog.gone_names import GONE

pytestmark = pytest.mark.timeout(120)

_ASK = """
import json, typing, vllm.envs
from vllm.config.parallel import All2AllBackend
print(json.dumps([sorted(vllm.envs.environment_variables), sorted(typing.get_args(All2AllBackend))]))
"""


@pytest.fixture(scope="module")
def known() -> tuple[set[str], set[str]]:
    """(variables, all-to-all backends) of the installed vLLM."""
    done = subprocess.run(
        [str(environment() / "bin" / "python"), "-c", _ASK],
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
        env={"PATH": "/usr/bin:/bin", "VLLM_LOGGING_LEVEL": "ERROR"},
    )
    variables, backends = json.loads(done.stdout.splitlines()[-1])
    return set(variables), set(backends)


def test_every_variable_of_vllms_is_read(known: tuple[set[str], set[str]]) -> None:
    ours = {setting.name for profile in load_fabrics().profiles() for setting in profile.env}
    assert {name for name in ours if name.startswith("VLLM_")} - known[0] == set()


def test_what_is_called_gone_is_gone(known: tuple[set[str], set[str]]) -> None:
    """Refusing a name that works would take a setting away from a site."""
    assert set(GONE) & known[0] == set()


def test_every_backend_is_vllms_and_none_is_missing(known: tuple[set[str], set[str]]) -> None:
    ours = {backend.name for backend in load_fabrics().backends()}
    assert ours - known[1] == set()
    # Older names, and the one that vLLM binds by itself.
    left = known[1] - ours
    fabrics = load_fabrics()
    assert {name for name in left if fabrics.backend(name) is None} <= {"passthrough"}
