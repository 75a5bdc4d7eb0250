"""The types of tensors by their names in the format, and the names by types."""

from __future__ import annotations

import torch

from s3torchconnector._safetensors._header import BITS, TORCH_NAMES

TORCH_TYPES: dict[str, torch.dtype] = {
    name: getattr(torch, theirs) for name, theirs in TORCH_NAMES.items() if name in BITS and hasattr(torch, theirs)
}
"""The format's types that this PyTorch has. It has no types of less than a byte."""

NAMES: dict[torch.dtype, str] = {dtype: name for name, dtype in TORCH_TYPES.items()}
