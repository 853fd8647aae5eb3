# SPDX-License-Identifier: GPL-2.0-or-later
"""SCSI targets: commands, data and sense as SPC, SBC and MMC have them, for any transport.

A transport has a `target.Target` with a `disk.Disk` or a `cdrom.CdRom` for each number, and makes a `command.Command` of what
it receives:

    Target.execute          by the number: the unit, or absent.py for one that is not there
    LogicalUnit.execute     task_set.py: order and bound; unit attentions; reservations.py; is there a medium?
    OperationTable.find     operations.py: the row of the CDB, and whether it has no bit that the row does not know
    the row's handler       transfers.py, provisioning.py, cd_disc.py, ...: moves data between the buffers and the block device
    Completion              status, sense (sense.py), and what has moved

A handler ends a command otherwise than with GOOD by raising `CheckError` or `ConflictError`; what it makes of the initiator's
memory it copies first, for the initiator may change it meanwhile.
"""
