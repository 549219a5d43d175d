"""What is known of engine images. A missing warning costs a day of somebody's GPUs; one that guesses costs trust."""

import pytest

from moe_operator.catalog.fabrics import load_fabrics
from moe_operator.catalog.images import Known, Use, load_images, parse_image

X86, ARM = Use("amd64", "nvidia"), Use("arm64", "nvidia")
STOCK = "vllm/vllm-openai:v0.32.0"


@pytest.mark.parametrize(
    ("reference", "repository", "version"),
    [
        (STOCK, "vllm/vllm-openai", (0, 32, 0)),
        ("docker.io/vllm/vllm-openai:v0.32.0-cu129", "vllm/vllm-openai", (0, 32, 0)),
        ("vllm/vllm-openai:0.32.0.post1", "vllm/vllm-openai", (0, 32, 0)),
        ("vllm/vllm-openai:v0.32.0@sha256:" + "0" * 64, "vllm/vllm-openai", (0, 32, 0)),
        (
            "registry.example:5000/mirror/vllm-openai:v0.32",
            "registry.example:5000/mirror/vllm-openai",
            (0, 32),
        ),
        ("vllm/vllm-openai:latest", "vllm/vllm-openai", None),
        ("vllm/vllm-openai:nightly-0a1b2c3", "vllm/vllm-openai", None),
        ("vllm/vllm-openai", "vllm/vllm-openai", None),
        ("vllm/vllm-openai@sha256:" + "0" * 64, "vllm/vllm-openai", None),
        ("localhost:5000/vllm", "localhost:5000/vllm", None),
        ("example/vllm:2026.11", "example/vllm", (2026, 11)),
    ],
)
def test_a_reference_is_taken_apart(reference: str, repository: str, version: tuple[int, ...] | None) -> None:
    image = parse_image(reference)
    assert (image.repository, image.version) == (repository, version)


@pytest.mark.parametrize(
    ("reference", "component", "known"),
    [
        (STOCK, "deepep_v2", Known.YES),
        ("vllm/vllm-openai:v0.26.0", "deepep_v2", Known.UNKNOWN),
        ("vllm/vllm-openai:latest", "deepep_v2", Known.UNKNOWN),
        ("registry.example/vllm-openai:v0.32.0", "deepep_v2", Known.UNKNOWN),
        ("vllm/vllm-openai:v0.29.0", "aws-ofi-nccl", Known.NO),
        (STOCK, "aws-ofi-nccl", Known.UNKNOWN),
        (STOCK, "no such thing", Known.UNKNOWN),
        ("vllm/vllm-openai-rocm:v0.32.0", "mori", Known.YES),
        ("vllm/vllm-openai-rocm:latest", "deepep", Known.NO),
    ],
)
def test_what_an_image_contains_is_said_only_where_it_is_known(
    reference: str, component: str, known: Known
) -> None:
    assert load_images().contains(reference, component) is known


def _notes(reference: str, use: Use) -> str:
    return "\n".join(load_images().notes(reference, use))


def test_the_default_image_needs_no_word() -> None:
    assert _notes(STOCK, X86) == _notes(STOCK, ARM) == ""


def test_an_older_image_is_said_to_be_untested() -> None:
    assert "tested with vLLM 0.32" in _notes("vllm/vllm-openai:v0.27.0", X86)
    assert _notes("vllm/vllm-openai:v0.33.0", X86) == ""
    # Of these nobody knows which vLLM they are.
    assert _notes("vllm/vllm-openai:latest", X86) == ""
    assert _notes("registry.example/mine:v0.1.0", X86) == ""


def test_an_image_for_other_hardware_is_named() -> None:
    """It starts, finds no GPU and ends, again and again."""
    assert "built for nvidia, but these nodes are amd" in _notes(STOCK, Use("amd64", "amd"))


def test_an_image_without_the_adapters_plugin_is_named() -> None:
    use = Use("amd64", "nvidia", fabric="efa")
    assert "it has no aws-ofi-nccl" in _notes("vllm/vllm-openai:v0.29.0", use)
    unknown = _notes(STOCK, use)
    assert "nothing is known of this image's" in unknown
    assert "it has no" not in unknown
    assert "nothing is known" not in _notes("vllm/vllm-openai:v0.29.0", use)


def test_flashinfers_need_of_ptrace_is_said_on_x86_only() -> None:
    backend = "flashinfer_nvlink_one_sided"
    assert "SYS_PTRACE" in _notes(STOCK, Use("amd64", "nvidia", "nvlink", backend))
    assert _notes(STOCK, Use("arm64", "nvidia", "mnnvl", backend)) == ""


def test_rules_speak_of_fabrics_and_backends_that_exist() -> None:
    """A misspelt name would be a warning that nobody ever sees."""
    fabrics, images = load_fabrics(), load_images()
    for rule in images.warnings:
        assert all(fabrics.fabric(name) for name in rule.fabrics), rule
        assert all(fabrics.backend(name) for name in rule.backends), rule
        assert rule.source
    known = {c.component for family in images.families for c in (*family.contains, *family.lacks)}
    assert {name for rule in images.warnings for name in rule.unless} <= known
    wanted = {backend.component for backend in fabrics.backends() if backend.component}
    assert wanted - known <= {"nixl_ep", "moonep"}, "no image is known to have these"
