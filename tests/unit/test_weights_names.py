"""Names in a weights cache. A wrong one mixes two models, or writes where it must not."""

import re

import pytest

from moe_operator.catalog import weights_layout
from moe_operator.catalog.weights_layout import EXIT_CODES, Reason, entry_name, parse_source
from moe_operator.weights.names import NEEDED, conflicting, selected, unsafe

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("source", "revision", "readable"),
    [
        ("hf://Qwen/Qwen3-30B-A3B", None, "qwen-qwen3-30b-a3b-main-"),
        ("hf://Qwen/Qwen3-30B-A3B", COMMIT, "qwen-qwen3-30b-a3b-0123456789ab-"),
        ("hf://deepseek-ai/DeepSeek-V3.2-Exp", "refs/pr/12", "deepseek-ai-deepseek-v3-2-exp-refs-pr-12-"),
        ("s3://models/qwen/v1", None, "s3-models-qwen-v1-"),
        (
            "s3://a-bucket-of-a-long-name/teams/search/models/qwen3/v7",
            None,
            "a-long-name-teams-search-models-qwen3-v7-",
        ),
    ],
)
def test_an_entry_tells_what_it_holds(source: str, revision: str | None, readable: str) -> None:
    name = entry_name(source, revision)
    assert name.startswith(readable)
    assert re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", name), "a DNS label: of use in names and labels"
    assert len(name) <= 51
    assert re.fullmatch(r"[0-9a-f]{10}", name.rpartition("-")[2])


def test_different_models_never_share_an_entry() -> None:
    """Names that read the same differ in their digits."""
    long = "x" * 60
    names = [
        entry_name(source, revision)
        for source, revision in (
            ("hf://acme/moe", None),
            ("hf://acme/moe", "v1"),
            ("hf://acme/moe", "v1.0"),
            ("hf://acme/moe", "v1-0"),
            ("hf://Acme/moe", None),
            ("hf://acme/mo.e", None),
            (f"hf://acme/{long}", None),
            (f"hf://acme/{long}y", None),
            ("s3://models/a/b", None),
            ("s3://models/a-b", None),
        )
    ]
    assert len(set(names)) == len(names)


def test_the_same_model_written_otherwise_is_one_entry() -> None:
    assert (
        entry_name("hf://acme/moe") == entry_name("hf://acme/moe", "main") == entry_name("hf://acme/moe", "")
    )
    assert entry_name("s3://models/a/b/") == entry_name("s3://models/a/b")


def test_entries_keep_their_names() -> None:
    """A new version that names them otherwise fetches every model of every cluster again."""
    assert entry_name("hf://Qwen/Qwen3-30B-A3B") == "qwen-qwen3-30b-a3b-main-f8efcc72f0"


@pytest.mark.parametrize(
    "source",
    [
        "",
        "acme/moe",
        "hf://acme",
        "hf://acme/moe/sub",
        "hf://acme/../moe",
        "hf://acme/moe@v1",
        "hf://-acme/moe",
        "http://x/y",
        "s3://models",
        "s3://models/",
        "s3://m/x",
        "s3://models/a//b",
        "s3://models/../b",
        "s3://models/a\nb",
        "pvc://claim/x",
    ],
)
def test_a_source_that_is_none_is_refused(source: str) -> None:
    with pytest.raises(ValueError, match=r"hf://ORG/NAME|s3://BUCKET/PREFIX"):
        parse_source(source)


def test_every_reason_has_an_exit_code() -> None:
    assert set(EXIT_CODES) == set(Reason)
    assert weights_layout.MODEL_FOLDER == "model"


FILES = ["config.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]


@pytest.mark.parametrize(
    ("more", "taken"),
    [
        (["model.safetensors.index.json", "tokenizer.model", "merges.txt", "vocab.txt"], True),
        (
            ["modeling_kimi.py", "tokenization.py", "tiktoken.model", "qwen.tiktoken", "chat_template.jinja"],
            True,
        ),
        (["additional_chat_templates/tool_use.jinja"], True),
        (["README.md", ".gitattributes", "LICENSE", "figures/a.png"], False),
        (["pytorch_model-00001-of-00002.bin", "model.pt", "training_args.bin"], False),
        (["original/model.safetensors", "metal/model.bin", "onnx/model.onnx", "model-Q4_K_M.gguf"], False),
        (["consolidated.00.pth", "tf_model.h5", "flax_model.msgpack"], False),
    ],
)
def test_what_an_engine_needs_beside_shards(more: list[str], taken: bool) -> None:
    assert selected(FILES + more) == FILES + (more if taken else [])


def test_pickles_only_where_there_is_nothing_else() -> None:
    files = ["config.json", "pytorch_model.bin", "training_args.bin", "optimizer.pt"]
    assert selected(files) == ["config.json", "pytorch_model.bin"]


def test_of_two_formats_the_one_that_the_engine_takes() -> None:
    """vLLM loads Mistral's own files where a repository has both: the others would only fill the disk."""
    mistral = ["params.json", "consolidated.safetensors"]
    assert selected(FILES + mistral) == ["config.json", *mistral]
    assert selected([*FILES, "consolidated.safetensors"]) == [*FILES, "consolidated.safetensors"]


def test_patterns_of_a_user_add() -> None:
    assert selected([*FILES, "onnx/a.onnx"], ["onnx/*"]) == [*FILES, "onnx/a.onnx"]
    assert all("/" not in pattern for pattern in NEEDED)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/etc/passwd",
        "../x",
        "a/../b",
        "a//b",
        "./a",
        "a/",
        "a\\b",
        "a\x00b",
        "a\nb",
        "x" * 256,
        "a/" * 600,
        "\ud800",
    ],
)
def test_names_that_lead_elsewhere_are_refused(name: str) -> None:
    """A repository's author decides these names: they must not write outside of their folder."""
    assert unsafe(name)


def test_usual_names_are_safe() -> None:
    for name in ("config.json", "a/b.jinja", "ü.json", "..a", "a b"):
        assert unsafe(name) is None


def test_names_that_exclude_each_other() -> None:
    assert conflicting(["a", "b/c", "b/d"]) is None
    assert "a file and as a folder" in (conflicting(["a", "a/b"]) or "")
    assert "twice" in (conflicting(["a", "a"]) or "")
