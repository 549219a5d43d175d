"""The image and video encoder of Qwen3.5, and the projector that joins it to the language model."""

from moe_operator.catalog.models.architecture import Component, Section, Split, Tensor
from moe_operator.catalog.models.config_reader import ConfigReader
from moe_operator.catalog.models.families import parts


def vision_tensors(config: ConfigReader, prefix: str = "model.visual.") -> list[Tensor]:
    """From a `vision_config`: raises ConfigError with the path of a field that is missing or senseless.

    vLLM divides the attention and feed-forward matrices over the GPUs of a rank (by default; each GPU has all
    of the encoder with `--mm-encoder-tp-mode data`).
    """
    hidden, intermediate = config.integer("hidden_size"), config.integer("intermediate_size")
    blocks = tuple(range(config.integer("depth")))
    patch, temporal = config.integer("patch_size"), config.integer("temporal_patch_size")
    merged = hidden * config.integer("spatial_merge_size") ** 2
    out = config.integer("out_hidden_size")
    once = (0,)
    found = [
        _matrix(
            prefix + "patch_embed.proj",
            hidden,
            config.integer("in_channels", 3) * temporal * patch**2,
            once,
            linear=False,
        ),
        _vector(prefix + "patch_embed.proj.bias", hidden, once),
        _matrix(prefix + "pos_embed", config.integer("num_position_embeddings"), hidden, once, linear=False),
    ]
    for name, rows, cols, layers, added_once in (
        ("blocks.{layer}.attn.qkv", 3 * hidden, hidden, blocks, False),
        ("blocks.{layer}.attn.proj", hidden, hidden, blocks, True),
        ("blocks.{layer}.mlp.linear_fc1", intermediate, hidden, blocks, False),
        ("blocks.{layer}.mlp.linear_fc2", hidden, intermediate, blocks, True),
        ("merger.linear_fc1", merged, merged, once, False),
        ("merger.linear_fc2", out, merged, once, True),
    ):
        found.append(_matrix(prefix + name, rows, cols, layers, split=Split.TENSOR))
        # A bias that is added after the partial sums are joined is whole on every GPU.
        where = Split.REPLICATED if added_once else Split.TENSOR
        found.append(_vector(prefix + name + ".bias", rows, layers, split=where))
    for name, layers in (
        ("blocks.{layer}.norm1", blocks),
        ("blocks.{layer}.norm2", blocks),
        ("merger.norm", once),
    ):
        found += [_vector(prefix + name + part, hidden, layers) for part in ("", ".bias")]
    return found


def vision_divides(config: ConfigReader) -> tuple[tuple[str, int], ...]:
    """What must divide over the GPUs of a rank beside the matrices: vLLM gives each GPU whole heads."""
    return (("vision attention heads", config.integer("num_heads", 16)),)


def _matrix(
    name: str,
    rows: int,
    cols: int,
    layers: tuple[int, ...],
    *,
    split: Split = Split.REPLICATED,
    linear: bool = True,
) -> Tensor:
    return Tensor(
        name, Component.VISION, rows, cols, layers, split=split, section=Section.VISION, linear=linear
    )


def _vector(name: str, length: int, layers: tuple[int, ...], *, split: Split = Split.REPLICATED) -> Tensor:
    return parts.vector(name, length, layers, Component.VISION, section=Section.VISION, split=split)
