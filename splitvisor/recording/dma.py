# SPDX-License-Identifier: GPL-2.0-or-later
"""Devices with a DMA window, whose back ends cannot be replayed: what they do between calls is no answer to any.

A disk moves its data when its image is ready, and a network device when a frame comes; neither the image nor the network is in
the recording. Their messages are, and are shown; the machine's other back ends are replayed as always.
"""

from __future__ import annotations

from splitvisor.recording import RecordingError
from splitvisor.recording.conversation import Introduction, Recording
from splitvisor.rpc import trap_pb2 as pb


def refuse_dma(recording: Recording, backend: str, introduction: Introduction) -> None:
    """Raise RecordingError if a back end of a recording has devices with DMA windows."""
    units = [each.unit_address for each in introduction.offer.transports if each.window_bytes]
    if not units:
        return
    names = ", ".join(_name(introduction.offer, unit) for unit in units)
    others = [each for each in recording.start.backends if each != backend]
    raise RecordingError(
        f"{backend} of {recording.name} has {names}: what a device with a DMA window does by itself cannot be replayed",
        f"replay {' or '.join(others)}" if others else "record a machine without it",
    )


def _name(offer: pb.Offer, unit: int) -> str:
    """Return how the device tree names a device, such as "v-scsi@71000002"."""
    names = (node.path.rpartition("/")[2] for node in offer.nodes)
    name = next((each for each in names if each.endswith(f"@{unit:x}")), f"a device at {unit:#x}")
    return name.encode("unicode_escape").decode("ascii")
