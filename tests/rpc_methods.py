# SPDX-License-Identifier: GPL-2.0-or-later
"""Every rpc of every contract, from the descriptors that the stubs carry."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from typing import Any

from google.protobuf import message_factory

import splitvisor.rpc


def services() -> Iterator[Any]:
    """Yield the descriptors of all services in proto/."""
    for module in pkgutil.iter_modules(splitvisor.rpc.__path__):
        if module.name.endswith("_pb2"):
            yield from importlib.import_module(f"splitvisor.rpc.{module.name}").DESCRIPTOR.services_by_name.values()


def methods(service: Any) -> Iterator[tuple[str, Any]]:
    """Yield "/service/rpc" and descriptor of each rpc of a service."""
    for method in service.methods:
        yield f"/{service.full_name}/{method.name}", method


def message(descriptor: Any) -> Any:
    """Return an empty message of a descriptor."""
    return message_factory.GetMessageClass(descriptor)()


def field(descriptor: Any, path: Any) -> Any:
    """Return the descriptor of the field at the end of a path of names."""
    *way, last = path
    for name in way:
        descriptor = descriptor.fields_by_name[name].message_type
    return descriptor.fields_by_name[last]


def with_value(request: Any, path: Any, value: Any) -> Any:
    """Set the field at the end of a path; return the request."""
    *way, last = path
    inner = request
    for name in way:
        inner = getattr(inner, name)
    setattr(inner, last, value)
    return request
