"""The types of tensors by their names in the format, and the names by types."""

from __future__ import annotations

import torch

from s3torchconnector._safetensors._header import BITS

_TORCH_NAMES = {
    "BOOL": "bool",
    "U8": "uint8",
    "I8": "int8",
    "U16": "uint16",
    "I16": "int16",
    "U32": "uint32",
    "I32": "int32",
    "U64": "uint64",
    "I64": "int64",
    "F16": "float16",
    "BF16": "bfloat16",
    "F32": "float32",
    "F64": "float64",
    "C64": "complex64",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "F8_E8M0": "float8_e8m0fnu",
}
TORCH_TYPES: dict[str, torch.dtype] = {
    name: getattr(torch, theirs) for name, theirs in _TORCH_NAMES.items() if name in BITS and hasattr(torch, theirs)
}
"""The format's types that this PyTorch has. It has no types of less than a byte."""

NAMES: dict[torch.dtype, str] = {dtype: name for name, dtype in TORCH_TYPES.items()}
