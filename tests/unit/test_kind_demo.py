"""The demo on kind cannot run here: what it names must be what the rest of the project names."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

from moe_operator.catalog.accelerators import load_catalog

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = (ROOT / "hack" / "kind" / "demo.sh").read_text(encoding="utf-8")


def test_the_engine_is_the_one_that_the_operator_asks_for() -> None:
    """Another image would not be on the node, and cannot be pulled behind most firewalls."""
    profile = load_catalog().accelerator("cpu")
    assert profile is not None
    assert f"engine={profile.default_image}\n" in SCRIPT


def test_leader_worker_set_is_the_version_that_is_tested() -> None:
    modules = (ROOT / "hack" / "addons" / "go.mod").read_text(encoding="utf-8")
    version = re.search(r"sigs\.k8s\.io/lws (v\S+)", modules)
    assert version
    assert f"/releases/download/{version[1]}/" in SCRIPT


def test_what_it_reads_exists() -> None:
    for path in re.findall(r"(?:hack|manifests|charts)/[\w./-]+\.(?:ya?ml|py)", SCRIPT):
        assert (ROOT / path).is_file(), path
    subprocess.run(["bash", "-n", str(ROOT / "hack" / "kind" / "demo.sh")], check=True)


def test_the_weights_are_written_with_what_the_job_mounts(tmp_path: Path) -> None:
    """The Job has these three files and Python, nothing else of the project."""
    jobs = yaml.safe_load_all((ROOT / "hack" / "kind" / "weights.yaml").read_text(encoding="utf-8"))
    job = next(obj for obj in jobs if obj["kind"] == "Job")
    container = job["spec"]["template"]["spec"]["containers"][0]
    package, weights = tmp_path / "engine", tmp_path / "weights"
    package.mkdir()
    weights.mkdir()
    for source in re.findall(r"--from-file=(\S+)", SCRIPT):
        shutil.copy(ROOT / source, package)
    assert container["command"] == ["python", "-c"]
    code = container["args"][0].replace("/weights", str(weights))
    subprocess.run([sys.executable, "-c", code], cwd="/", env={"PYTHONPATH": str(tmp_path)}, check=True)
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {path.name for path in weights.iterdir()}
