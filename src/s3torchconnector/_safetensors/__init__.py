"""The safetensors format: a JSON header that names byte ranges, then the tensors' bytes.

``_header``, which is pure, is imported without PyTorch.
"""

from typing import TYPE_CHECKING

from s3torchconnector._late_imports import names_from

if TYPE_CHECKING:
    from s3torchconnector._safetensors._load import load
    from s3torchconnector._safetensors._save import save

__all__ = ["load", "save"]

__getattr__ = names_from(__name__, {"load": "_load", "save": "_save"})
