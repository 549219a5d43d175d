"""LoRA adapters beside their model. An engine without a way to the hub starts on what is here, or not at all."""

from pathlib import Path

import pytest

from weights.hub_server import HubServer
from weights.program import environment, fetch_arguments, model, random_bytes, run

LORA = {
    "adapter_config.json": b'{"r": 16, "target_modules": ["q_proj"]}',
    "adapter_model.safetensors": random_bytes(40_000, 9),
    "README.md": b"# An adapter",
}
MODEL_BYTES = sum(
    len(model()[name]) for name in model() if name.endswith((".safetensors", ".json", ".jinja"))
)


@pytest.fixture
def lora(hub: HubServer) -> HubServer:
    hub.add("acme/law", dict(LORA), commit="b" * 40)
    return hub


def arguments(folder: Path, hub: HubServer, *more: str) -> tuple[str, ...]:
    given = ("--adapter", "hf://acme/law", "--adapter-endpoint", hub.url, *more)
    return fetch_arguments(folder, hub.url, "hf://acme/moe", *given)


def test_an_adapter_lies_in_a_folder_of_its_own_and_is_told_apart_from_the_model(
    lora: HubServer, tmp_path: Path
) -> None:
    done = run(*arguments(tmp_path, lora))
    assert done.code == 0, done
    (folder,) = tmp_path.glob("acme-law-main-*")
    found = {path.name: path.read_bytes() for path in (folder / "model").iterdir()}
    assert found == {name: content for name, content in LORA.items() if name != "README.md"}
    assert (done.outcome["commit"], done.outcome["bytes"]) == ("a" * 40, MODEL_BYTES)
    about = [line for line in done.lines if line.get("adapter") == "hf://acme/law"]
    assert about, "nothing is said of the adapter"
    assert all("totalBytes" not in line for line in about), "its bytes would be shown as the model's"
    assert done.lines.index(about[-1]) < next(i for i, one in enumerate(done.lines) if one.get("totalBytes"))


def test_what_is_there_is_asked_of_nobody(lora: HubServer, tmp_path: Path) -> None:
    run(*arguments(tmp_path, lora))
    asked = len(lora.requests)
    assert run(*arguments(tmp_path, lora)).code == 0
    assert len(lora.requests) == asked
    lora.add("acme/tax", dict(LORA), commit="d" * 40)
    more = run(*arguments(tmp_path, lora, "--adapter", "hf://acme/tax"))
    assert more.code == 0
    assert lora.asked("/api/models/acme/moe") == 1, "one adapter more downloads the model again"
    assert len(list(tmp_path.glob("acme-tax-main-*"))) == 1


def test_a_gated_adapter_is_named_before_a_byte_of_the_model_comes(lora: HubServer, tmp_path: Path) -> None:
    """Else a licence that nobody accepted is known after hours."""
    lora.repositories["acme/law"].gated = True
    done = run(*arguments(tmp_path, lora), env=environment(HF_TOKEN="hf_secret"))
    assert done.code == 3
    assert done.outcome["reason"] == "Unauthorized"
    assert done.outcome["message"].startswith("adapter hf://acme/law: acme/law is gated")
    assert done.outcome["commit"] is None, "the adapter's commit would be shown as the model's"
    assert lora.asked("/api/models/acme/moe") == 0


def test_a_private_adapter_comes_with_the_token_of_the_model(lora: HubServer, tmp_path: Path) -> None:
    lora.repositories["acme/law"].token = "hf_secret"
    refused = run(*arguments(tmp_path, lora))
    assert refused.outcome["reason"] == "Unauthorized"
    assert run(*arguments(tmp_path, lora), env=environment(HF_TOKEN="hf_secret")).code == 0


def test_an_adapter_is_not_removed_to_make_room_for_its_model(lora: HubServer, tmp_path: Path) -> None:
    """Named as in use, as the operator does."""
    first = run(*arguments(tmp_path, lora))
    assert first.code == 0
    (folder,) = tmp_path.glob("acme-law-main-*")
    lora.add("acme/large", model(), commit="e" * 40)
    given = ("--reserve-free", "900000G", "--in-use", folder.name)
    full = run(*fetch_arguments(tmp_path, lora.url, "hf://acme/large", *given))
    assert full.outcome["reason"] == "DiskFull"
    assert (folder / "model/adapter_model.safetensors").is_file()
