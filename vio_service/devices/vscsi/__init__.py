# SPDX-License-Identifier: GPL-2.0-or-later
"""v-scsi: a virtual SCSI adapter with disks and CD-ROM drives (LoPAPR 17.2.6, SRP).

device.py       the adapter: entries of its queue, its state, its life
information.py  what the information units of SRP and the adapter's datagrams look like
transfer.py     a command's data: descriptors, and the guest memory that they name
requests.py     a command from its information unit to its response
parking.py      requests whose transfer failed, and that wait for an operator
datagrams.py    management datagrams (MADs)
luns.py         logical unit numbers, as SCSI and the target have them
units.py        the disks and drives of the host
firmware.py     reading and writing for the firmware, without the queue
description.py  what the disks are and have done, for operators
metrics.py      the same as metrics
"""

from splitvisor.backend.vio import DeviceKind
from vio_service.devices.vscsi.device import VScsi
from vio_service.devices.vscsi.firmware import CALLS

KIND = DeviceKind(VScsi, CALLS)
