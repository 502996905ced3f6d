"""Element types: torch's, their names in the index, and their codes in safetensors."""

from __future__ import annotations

import torch

# Codes that every safetensors reader since 0.7 knows; any other type is stored as bytes (U8).
_CODES = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint8": "U8",
    "bool": "BOOL",
    "complex64": "C64",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
    "uint64": "U64",
    "uint32": "U32",
    "uint16": "U16",
}
_QUANTIZED = {torch.quint8, torch.qint8, torch.qint32, torch.quint4x2, torch.quint2x4}


def _named() -> dict[str, torch.dtype]:
    """Every element type of this torch that has plain memory, under its own name."""
    found = {value for value in vars(torch).values() if isinstance(value, torch.dtype)}
    return {str(dtype).removeprefix("torch."): dtype for dtype in found - _QUANTIZED}


BY_NAME: dict[str, torch.dtype] = _named()
NAMES: dict[torch.dtype, str] = {dtype: name for name, dtype in BY_NAME.items()}


def stored_code(dtype: str) -> str | None:
    """The safetensors code of this type, or None where it is stored as U8 bytes."""
    return _CODES.get(dtype)
