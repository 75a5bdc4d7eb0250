"""The safetensors format: a JSON header that names byte ranges, then the tensors' bytes."""

from s3torchconnector._safetensors._load import load
from s3torchconnector._safetensors._save import save

__all__ = ["load", "save"]
