"""GatedDeltaNet, the linear attention of Qwen3-Next and Qwen3.5: a recurrent state instead of keys and values."""

from collections.abc import Sequence
from dataclasses import dataclass

from moe_operator.catalog.models.architecture import Component, Split, StateCache, Tensor
from moe_operator.catalog.models.config_reader import ConfigReader
from moe_operator.catalog.models.families import parts


@dataclass(frozen=True, slots=True)
class GatedDeltaNet:
    """Sizes of one layer."""

    hidden: int
    key_heads: int
    key_head_size: int
    value_heads: int
    value_head_size: int
    kernel: int
    """Width of the short convolution over queries, keys and values."""

    @property
    def keys(self) -> int:
        return self.key_heads * self.key_head_size

    @property
    def values(self) -> int:
        return self.value_heads * self.value_head_size

    @property
    def channels(self) -> int:
        """Channels of the convolution: queries, keys and values."""
        return 2 * self.keys + self.values

    @property
    def divides(self) -> tuple[tuple[str, int], ...]:
        """What the GPUs of a rank must divide: vLLM gives each whole heads."""
        return (
            ("linear attention key heads", self.key_heads),
            ("linear attention value heads", self.value_heads),
        )

    def tensors(self, prefix: str, layers: Sequence[int], *, fused: bool) -> list[Tensor]:
        """The weights of these layers; none for no layers.

        `fused`: Qwen3-Next stores queries, keys, values and gate in one matrix and both gates' inputs in
        another, Qwen3.5 stores four matrices. In the layers' order of use, as transformers names them.
        """
        if not layers:
            return []
        rows = (
            {"in_proj_qkvz": self.channels + self.values, "in_proj_ba": 2 * self.value_heads}
            if fused
            else {
                "in_proj_qkv": self.channels,
                "in_proj_z": self.values,
                "in_proj_b": self.value_heads,
                "in_proj_a": self.value_heads,
            }
        )
        kind, every = Component.ATTENTION, tuple(layers)
        return [
            *(
                Tensor(prefix + name, kind, count, self.hidden, every, split=Split.TENSOR)
                for name, count in rows.items()
            ),
            Tensor(
                prefix + "conv1d", kind, self.channels, self.kernel, every, split=Split.TENSOR, linear=False
            ),
            parts.vector(prefix + "dt_bias", self.value_heads, every, kind, split=Split.TENSOR),
            parts.vector(prefix + "A_log", self.value_heads, every, kind, split=Split.TENSOR),
            parts.vector(prefix + "norm", self.value_head_size, every, kind),
            Tensor(prefix + "out_proj", kind, self.hidden, self.values, every, split=Split.TENSOR),
        ]

    def cache(self, layers: int, *, float32_state: bool) -> StateCache:
        return StateCache(
            layers=layers,
            key_heads=self.key_heads,
            key_head_size=self.key_head_size,
            value_heads=self.value_heads,
            value_head_size=self.value_head_size,
            convolution=self.kernel,
            float32_state=float32_state,
        )


def read_gated_delta_net(config: ConfigReader, hidden: int) -> GatedDeltaNet:
    """Raises ConfigError with the path of a field that is missing or senseless."""
    return GatedDeltaNet(
        hidden=hidden,
        key_heads=config.integer("linear_num_key_heads"),
        key_head_size=config.integer("linear_key_head_dim"),
        value_heads=config.integer("linear_num_value_heads"),
        value_head_size=config.integer("linear_value_head_dim"),
        kernel=config.integer("linear_conv_kernel_dim"),
    )
