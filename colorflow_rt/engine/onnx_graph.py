"""An ONNX model's graph as bytes: nodes and names of files read, outputs added. No onnx package at run time.

A model is a protocol buffer message. Where a message field stands twice, readers merge both, so a graph gets another
output by appending to the file a second, partial graph that holds nothing else. Field numbers are those of onnx.proto.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from colorflow_rt.errors import PackError

_MODEL_GRAPH, _GRAPH_NODE, _GRAPH_OUTPUT = 7, 1, 12
_NODE_INPUT, _NODE_OUTPUT, _NODE_OP, _VALUE_NAME = 1, 2, 4, 1
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


@dataclass(frozen=True)
class Node:
    """One operation of a graph; inputs and outputs are names of tensors."""

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def read_nodes(model: bytes) -> list[Node]:
    """The nodes of a model's graph, in its order (an input is made before it is used). PackError if it is no model."""
    try:
        graphs = [graph for number, graph in _fields(model) if number == _MODEL_GRAPH]
        return [_node(node) for graph in graphs for number, node in _fields(graph) if number == _GRAPH_NODE]
    except (IndexError, UnicodeDecodeError) as error:
        raise PackError(f"not an ONNX model ({error}): copy the pack again") from error


def external_files(model: bytes) -> set[str]:
    """Names of the files that an ONNX model keeps its weights in, as written there: relative to the model.

    They are StringStringEntryProto messages {key: "location", value: name}, found without an ONNX parser.
    """
    names = set()
    for entry in re.finditer(rb"\x0a\x08location\x12([\x80-\xff]*[\x00-\x7f])", model):
        length, _ = _varint(entry[1], 0)
        names.add(model[entry.end() : entry.end() + length].decode("utf-8", "replace"))
    return names


def with_outputs(model: bytes, names: Iterable[str]) -> bytes:
    """The model with these tensors of its graph as further outputs, behind its own and in this order."""
    values = [_field(_VALUE_NAME, name.encode()) for name in names]
    return model + _field(_MODEL_GRAPH, b"".join(_field(_GRAPH_OUTPUT, value) for value in values))


def _node(message: bytes) -> Node:
    texts = [(number, value.decode()) for number, value in _fields(message) if number <= _NODE_OP]

    def all_of(wanted: int) -> tuple[str, ...]:
        return tuple(text for number, text in texts if number == wanted)

    return Node("".join(all_of(_NODE_OP)), all_of(_NODE_INPUT), all_of(_NODE_OUTPUT))


def _fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """(number, content) of the fields that hold bytes, text or messages; numbers are skipped."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        kind = key & 7
        if kind == _VARINT:
            _, at = _varint(message, at)
        elif kind in (_FIXED64, _FIXED32):
            at += 8 if kind == _FIXED64 else 4
        elif kind == _BYTES:
            length, at = _varint(message, at)
            if at + length > len(message):
                raise IndexError("a field is cut short")
            yield key >> 3, message[at : at + length]
            at += length
        else:
            raise IndexError(f"a field of unknown kind {kind}")


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """The number that starts at `at`, 7 bits a byte, low bits first; and where it ends."""
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def _field(number: int, content: bytes) -> bytes:
    return _as_varint(number << 3 | _BYTES) + _as_varint(len(content)) + content


def _as_varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
