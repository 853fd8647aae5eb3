# SPDX-License-Identifier: GPL-2.0-or-later
"""Messages that are almost right: made from a contract's descriptors, then changed, all by a seed."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from tests.rpc_methods import message

DEPTH = 4
EDGES = (0, 1, 2, 7, 8, 255, 4096, 0x7100_0000, 0x7100_0001, 1 << 20, (1 << 31) - 1, (1 << 32) - 1, (1 << 63) - 1, (1 << 64) - 1)
_BITS = {
    FieldDescriptor.CPPTYPE_INT32: (31, True),
    FieldDescriptor.CPPTYPE_UINT32: (32, False),
    FieldDescriptor.CPPTYPE_INT64: (63, True),
    FieldDescriptor.CPPTYPE_UINT64: (64, False),
}


class Mutator:
    """Makes messages.

    Args:
        seed: the same seed gives the same messages.
        words: what texts are made of.
    """

    def __init__(self, seed: int, words: Sequence[str]) -> None:
        self.source = random.Random(seed)
        self._words = words

    def message(self, descriptor: Descriptor) -> bytes:
        """Return a message as bytes: in one of three cases well formed, else changed somewhere."""
        data = self.filled(descriptor).SerializeToString()
        return data if self.source.random() < 0.33 else self.changed(data)

    def filled(self, descriptor: Descriptor, depth: int = 0) -> Any:
        """Return a well-formed message with something in most of its fields."""
        made = message(descriptor)
        chosen = {oneof.name: self.source.choice(oneof.fields).name for oneof in descriptor.oneofs}
        for field in descriptor.fields:
            if field.containing_oneof is not None and chosen[field.containing_oneof.name] != field.name:
                continue
            if self.source.random() < 0.2 or (depth >= DEPTH and field.message_type is not None):
                continue
            self._fill(made, field, depth)
        return made

    def changed(self, data: bytes) -> bytes:
        """Return bytes with up to four changes."""
        source, raw = self.source, bytearray(data)
        for _ in range(source.randint(1, 4)):
            place = source.randrange(len(raw) + 1)
            match source.randrange(5):
                case 0:
                    raw[place : place + 1] = bytes((source.randrange(256),))
                case 1:
                    raw[place:place] = source.randbytes(source.randint(1, 8))
                case 2:
                    del raw[place : place + source.randint(1, 8)]
                case 3:
                    raw[place:place] = raw[place : place + source.randint(1, 32)]
                case _:
                    if place < len(raw):
                        raw[place] ^= 1 << source.randrange(8)
        return bytes(raw)

    def altered(self, made: Any) -> Any:
        """Return a message of which one field, somewhere, has another value: it is as well formed as it was."""
        copy = message(made.DESCRIPTOR)
        copy.CopyFrom(made)
        inner = copy
        while True:
            present = [field for field, _ in inner.ListFields()]
            nested = [field for field in present if field.message_type and not field.message_type.GetOptions().map_entry]
            if nested and self.source.random() < 0.8:
                field = self.source.choice(nested)
                value = getattr(inner, field.name)
                inner = self.source.choice(value) if field.is_repeated else value
                continue
            field = self.source.choice(inner.DESCRIPTOR.fields)
            if field.is_repeated and field in present and self.source.random() < 0.5:
                values = getattr(inner, field.name)
                if not isinstance(values, Mapping):
                    del values[self.source.randrange(len(values))]
            elif field in present and field.type == FieldDescriptor.TYPE_BYTES:
                setattr(inner, field.name, self.changed(getattr(inner, field.name)))
            else:
                self._fill(inner, field, DEPTH - 1)
            return copy

    def _fill(self, made: Any, field: FieldDescriptor, depth: int) -> None:
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            getattr(made, field.name).update({self.source.choice(self._words): self.source.choice(self._words)})
        elif field.message_type is not None:
            inner = self.filled(field.message_type, depth + 1)
            if field.is_repeated:
                getattr(made, field.name).append(inner)
            else:
                getattr(made, field.name).CopyFrom(inner)
        elif field.is_repeated:
            getattr(made, field.name).extend(self._value(field) for _ in range(self.source.randrange(5)))
        else:
            setattr(made, field.name, self._value(field))

    def _value(self, field: FieldDescriptor) -> Any:
        source = self.source
        if field.cpp_type in _BITS:
            bits, signed = _BITS[field.cpp_type]
            value = source.choice(EDGES) if source.random() < 0.7 else source.getrandbits(bits)
            value &= (1 << bits) - 1
            return -value if signed and source.random() < 0.2 else value
        if field.enum_type is not None:
            return source.choice(field.enum_type.values).number if source.random() < 0.9 else source.getrandbits(31)
        if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
            return source.random() < 0.5
        if field.cpp_type in (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT):
            return source.choice((0.0, -1.0, 1e300, float("nan"), float("inf"), source.random()))
        if field.type == FieldDescriptor.TYPE_STRING:
            return source.choice(self._words)
        return source.randbytes(source.choice((0, 1, 16, 300)))
