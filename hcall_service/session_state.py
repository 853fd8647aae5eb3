# SPDX-License-Identifier: GPL-2.0-or-later
"""What hcall_service keeps of a VM as bytes, and back: its clock, its events, and its device trees with their history."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from itertools import pairwise

from hcall_service.device_tree_store import Revision, Store, StoreError, UnknownRevisionError
from hcall_service.platform.events import HOTPLUG_EVENTS, MAX_EVENTS, PlatformEvent
from hcall_service.platform.rtas import RtasSession
from hcall_service.trees.builder import HOTPLUG_SOURCE
from splitvisor.declarations.state import StateError, parse_state
from splitvisor.rpc import device_tree_pb2, state_pb2
from splitvisor.tree import fdt

VERSION = 1
HISTORY_BYTES = 32 << 20
"""Of trees that are saved: the newest, and the newest seed."""
MAX_ENTRY_BYTES = 4096
MAX_CLOCK_OFFSET_SECONDS = 9_000 * 365 * 86_400
"""More than a calendar that ends with the year 9999 allows today."""
_SECOND = 10**9


def save(session: RtasSession, store: Store) -> bytes:
    """Return the state of a VM; reads its trees from the disk. Raises StateError."""
    state = state_pb2.PlatformState(
        version=VERSION,
        clock_offset_seconds=session.clock_offset // _SECOND,
        clock_offset_nanoseconds=session.clock_offset % _SECOND,
        events=[
            state_pb2.PlatformEventState(event_class=event.event_class, source=event.source, entry=event.entry)
            for event in session.events.waiting()
        ],
    )
    try:
        saved = list(_history(session.vm.name, store))
    except UnknownRevisionError:
        saved = []
    except StoreError as error:
        raise StateError(str(error)) from error
    state.revisions.extend(reversed(saved))
    return state.SerializeToString()


def _history(vm: str, store: Store) -> Iterator[state_pb2.SavedRevision]:
    """The newest revisions of a VM, the newest first, and the newest seed whatever its age."""
    room = HISTORY_BYTES
    has_seed = False
    for number, revision in enumerate(store.revisions(vm)):
        is_seed = revision.origin == device_tree_pb2.TREE_ORIGIN_SEED
        room -= revision.size
        if room < 0 and number and (has_seed or not is_seed):
            continue
        has_seed = has_seed or is_seed
        _, blob = store.get(vm, revision.number)
        yield state_pb2.SavedRevision(
            number=revision.number,
            time_ns=revision.time_ns,
            origin=device_tree_pb2.TreeOrigin.Name(revision.origin),
            sha256=revision.sha256,
            blob=blob,
        )


def restore(session: RtasSession, store: Store, data: bytes) -> None:
    """Give a new session a saved state, and the store its trees. Raises StateError; a bad state leaves the store as it was."""
    state = parse_state(state_pb2.PlatformState, data, VERSION, "hcall_service")
    is_clock = abs(state.clock_offset_seconds) <= MAX_CLOCK_OFFSET_SECONDS and state.clock_offset_nanoseconds < _SECOND
    if len(state.events) > MAX_EVENTS or not is_clock:
        raise StateError("hcall_service: its state cannot be that of a guest")
    for event in state.events:
        if (event.event_class, event.source) != (HOTPLUG_EVENTS, HOTPLUG_SOURCE) or len(event.entry) > MAX_ENTRY_BYTES:
            raise StateError("hcall_service: its state has an event that cannot be")
    history = [_revision(saved) for saved in state.revisions]
    if any(older.number >= newer.number for (older, _), (newer, _) in pairwise(history)):
        raise StateError("hcall_service: the trees of its state are out of order")
    session.clock_offset = state.clock_offset_seconds * _SECOND + state.clock_offset_nanoseconds
    session.events.restore([PlatformEvent(event.event_class, event.source, event.entry) for event in state.events])
    if history:
        try:
            store.restore(session.vm.name, history)
        except StoreError as error:
            raise StateError(str(error)) from error


def _revision(saved: state_pb2.SavedRevision) -> tuple[Revision, bytes]:
    what = f"hcall_service: revision {saved.number} of the device tree"
    known = saved.origin in device_tree_pb2.TreeOrigin.values() and saved.origin != device_tree_pb2.TREE_ORIGIN_UNSPECIFIED
    if not 0 < saved.number < 1 << 62 or not known or saved.time_ns < 0:
        raise StateError(f"{what} cannot be as saved")
    if hashlib.sha256(saved.blob).digest() != saved.sha256:
        raise StateError(f"{what} is damaged: its SHA-256 is wrong")
    try:
        fdt.read(saved.blob)
    except fdt.FdtError as error:
        raise StateError(f"{what} is broken: {error}") from error
    return Revision(saved.number, saved.time_ns, saved.origin, saved.sha256, len(saved.blob)), saved.blob
