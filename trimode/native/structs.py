"""The structures of network.h and products.h, field for field."""

import ctypes
from ctypes import c_float, c_int64, c_void_p
from typing import Any, ClassVar

F32, BF16, INT8 = 0, 1, 2
PANEL, ROWS = 32, 8  # outputs of a panel; rows of a tile
ALIGNED = 16  # numbers of a row that are read and written together, at most


def _fields(kind: Any, names: str) -> list[tuple[str, Any]]:
    return [(name, kind) for name in names.split()]


class Matrix(ctypes.Structure):
    _fields_: ClassVar = [*_fields(c_int64, "n k kind"), *_fields(c_void_p, "data scale sum")]


class Products(ctypes.Structure):
    _fields_: ClassVar = _fields(Matrix, "qkv out gate_up down")


class Layer(ctypes.Structure):
    _fields_: ClassVar = [
        *_fields(Products, "own draft"),
        *_fields(c_void_p, "input_norm post_norm qkv_bias q_norm k_norm"),
    ]


class Network(ctypes.Structure):
    _fields_: ClassVar = [
        *_fields(c_int64, "n_layers width inner n_heads n_kv_heads head_dim vocab"),
        ("eps", c_float),
        *_fields(c_void_p, "layers embedding norm cos sin query_scale"),
        ("positions", c_int64),
    ]


class Share(ctypes.Structure):
    _fields_: ClassVar = [
        *_fields(c_void_p, "k v"),
        *_fields(c_int64, "slots capacity"),
        ("pages", c_void_p),
        ("page", c_int64),
    ]


class Rows(ctypes.Structure):
    _fields_: ClassVar = [
        *_fields(c_int64, "n n_own"),
        *_fields(c_void_p, "token position cache slot limit start stop caches"),
    ]


class Operand(ctypes.Structure):
    _fields_: ClassVar = _fields(c_void_p, "data scale")


class Scratch(ctypes.Structure):
    _fields_: ClassVar = [
        *_fields(c_void_p, "x qkv mixed act scores"),
        *_fields(Operand, "own draft"),
        ("slots", c_int64),
    ]
