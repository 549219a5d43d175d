"""The image encoder of Llama 4 and its way into the language model's width.

Tensors as in transformers' Llama4VisionModel and Llama4MultiModalProjector.
"""

from moe_operator.catalog.models.architecture import Component, Section, Split, Tensor
from moe_operator.catalog.models.config_reader import ConfigError, ConfigReader
from moe_operator.catalog.models.families import parts
from moe_operator.catalog.models.families.dimensions import MOST_LAYERS


def vision_tower(config: ConfigReader, *, text_hidden: int) -> list[Tensor]:
    """The tower's tensors from `vision_config`; `text_hidden` is the language model's width.

    Raises ConfigError with the path of a field that is missing or senseless.
    """
    hidden, intermediate = config.integer("hidden_size"), config.integer("intermediate_size")
    depth, patch = config.integer("num_hidden_layers"), config.integer("patch_size")
    if depth > MOST_LAYERS:
        raise ConfigError(f"{config.path('num_hidden_layers')}: {depth} is more than {MOST_LAYERS}")
    pixels = config.integer("num_channels", 3) * patch**2
    patches = (config.integer("image_size") // patch) ** 2
    adapter_in, adapter_out = config.integer("projector_input_dim"), config.integer("projector_output_dim")
    tower, layer = "vision_model.", "vision_model.model.layers.{layer}."
    every = tuple(range(depth))
    found = [
        _matrix(tower + "patch_embedding.linear", hidden, pixels),
        _vector(tower + "class_embedding", hidden),
        # One position more than patches, for the class embedding.
        Tensor(
            tower + "positional_embedding_vlm",
            Component.VISION,
            patches + 1,
            hidden,
            section=Section.VISION,
            linear=False,
        ),
        *(_vector(f"{tower}layernorm_{place}.{part}", hidden) for place in ("pre", "post") for part in _NORM),
        *(_vector(f"{layer}{norm}.{part}", hidden, every) for norm in _NORMS for part in _NORM),
    ]
    for name, rows, cols in (
        ("self_attn.q_proj", hidden, hidden),
        ("self_attn.k_proj", hidden, hidden),
        ("self_attn.v_proj", hidden, hidden),
        ("self_attn.o_proj", hidden, hidden),
        ("mlp.fc1", intermediate, hidden),
        ("mlp.fc2", hidden, intermediate),
    ):
        # A bias added after the sum over GPUs is whole on each of them.
        summed = name in ("self_attn.o_proj", "mlp.fc2")
        found.append(_matrix(layer + name, rows, cols, every))
        found.append(
            _vector(f"{layer}{name}.bias", rows, every, Split.REPLICATED if summed else Split.TENSOR)
        )
    return [
        *found,
        _matrix(tower + "vision_adapter.mlp.fc1", adapter_in, intermediate),
        _matrix(tower + "vision_adapter.mlp.fc2", adapter_out, adapter_in),
        _matrix("multi_modal_projector.linear_1", text_hidden, config.integer("vision_output_dim")),
    ]


_NORM = ("weight", "bias")
_NORMS = ("input_layernorm", "post_attention_layernorm")


def _matrix(name: str, rows: int, cols: int, layers: tuple[int, ...] = (0,)) -> Tensor:
    return Tensor(name, Component.VISION, rows, cols, layers, split=Split.TENSOR, section=Section.VISION)


def _vector(
    name: str, length: int, layers: tuple[int, ...] = (0,), split: Split = Split.REPLICATED
) -> Tensor:
    return parts.vector(name, length, layers, Component.VISION, section=Section.VISION, split=split)
