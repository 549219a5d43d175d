"""How weights are stored: bits per weight and the scales beside them."""

import re
from dataclasses import dataclass
from enum import StrEnum


class Precision(StrEnum):
    """Of a checkpoint's weights, as users ask for it: the narrowest that it has."""

    BF16 = "bf16"
    FP16 = "fp16"
    FP32 = "fp32"
    FP8 = "fp8"
    INT8 = "int8"
    NVFP4 = "nvfp4"
    MXFP4 = "mxfp4"
    INT4 = "int4"


#: Bytes of one element in the precision that a config calls `dtype`.
ELEMENT_BYTES = {"bfloat16": 2, "float16": 2, "float32": 4}

#: The `dtype` of an unquantised checkpoint.
DTYPES = {Precision.BF16: "bfloat16", Precision.FP16: "float16", Precision.FP32: "float32"}


@dataclass(frozen=True)
class Scheme:
    """A storage format of matrices. Scales are shared by blocks of `block_rows` x `block_cols` weights, blocks at the
    edges being cut."""

    name: str
    precision: Precision | None
    """None: the weights are as wide as the config's dtype."""
    bits: int = 0
    """Per weight."""
    scale_bytes: int = 0
    block_rows: int = 1
    block_cols: int | None = None
    """Input features per block; None: all of a row."""
    zero_bits: int = 0
    """Of a zero point beside every scale."""
    matrix_bytes: int = 0
    """Once per matrix: a global scale."""

    def bytes_of(self, rows: int, cols: int, element_bytes: int) -> int:
        """Bytes of one matrix with its scales; `element_bytes` is that of the config's dtype."""
        if self.precision is None:
            return rows * cols * element_bytes
        blocks = -(-rows // self.block_rows) * -(-cols // (self.block_cols or cols))
        weights = rows * -(-cols * self.bits // 8)
        zeros = -(-blocks * self.zero_bits // 8)
        return weights + blocks * self.scale_bytes + zeros + self.matrix_bytes


NONE = Scheme("none", None)

_FP8, _NVFP4, _MXFP4 = Precision.FP8, Precision.NVFP4, Precision.MXFP4


def fp8_block(rows: int, cols: int) -> Scheme:
    """E4M3 with one FP32 scale per block: DeepSeek V3's format, 128x128."""
    name = "fp8-block" if (rows, cols) == (128, 128) else f"fp8-block-{rows}x{cols}"
    return Scheme(name, _FP8, bits=8, scale_bytes=4, block_rows=rows, block_cols=cols)


def integer(bits: int, group: int | None, *, zeros: bool = False) -> Scheme:
    """Integers of 4 or 8 bits with a 16-bit scale per group of input features (None: per output row), and a zero
    point of as many bits where `zeros`, as GPTQ and AWQ keep one."""
    name = f"int{bits}-" + (f"g{group}" if group else "channel") + ("-zeros" if zeros else "")
    precision = Precision.INT4 if bits == 4 else Precision.INT8
    return Scheme(name, precision, bits=bits, scale_bytes=2, block_cols=group, zero_bits=bits if zeros else 0)


_FIXED = {
    scheme.name: scheme
    for scheme in (
        NONE,
        fp8_block(128, 128),
        Scheme("fp8-tensor", _FP8, bits=8, matrix_bytes=4),
        # The scale is FP32 in vLLM's memory; files may hold 2 bytes of it.
        Scheme("fp8-channel", _FP8, bits=8, scale_bytes=4),
        Scheme("mxfp8", _FP8, bits=8, scale_bytes=1, block_cols=32),
        # Blocks of 16 with an FP8 (E4M3) scale, and one FP32 scale per matrix.
        Scheme("nvfp4", _NVFP4, bits=4, scale_bytes=1, block_cols=16, matrix_bytes=4),
        # OCP microscaling: blocks of 32 with an 8-bit exponent.
        Scheme("mxfp4", _MXFP4, bits=4, scale_bytes=1, block_cols=32),
    )
}


def scheme_named(name: str) -> Scheme:
    """The scheme that an entry names: `none`, `fp8-block`, `fp8-tensor`, `fp8-channel`, `mxfp8`, `nvfp4`, `mxfp4`,
    `int4-g32`, `int4-g128` or another group. Raises ValueError with the known names."""
    if found := _FIXED.get(name):
        return found
    if group := re.fullmatch(r"int([48])-g([1-9][0-9]{0,4})", name):
        return integer(int(group[1]), int(group[2]))
    raise ValueError(f"{name!r} is no storage scheme; known are {', '.join(_FIXED)} and int4-g<group>")
