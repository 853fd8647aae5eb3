# SPDX-License-Identifier: GPL-2.0-or-later
"""Return codes of hypercalls (PAPR 14.1.3, signed in r3) and status words of RTAS calls (PAPR 7.2.8)."""

from enum import IntEnum


class H(IntEnum):
    """The result of a hypercall, in r3."""

    SUCCESS = 0
    BUSY = 1
    CLOSED = 2
    NOT_AVAILABLE = 3
    CONSTRAINED = 4
    PARTIAL = 5
    IN_PROGRESS = 14
    PAGE_REGISTERED = 15
    PARTIAL_STORE = 16
    PENDING = 17
    CONTINUE = 18
    LONG_BUSY_1_MSEC = 9900
    LONG_BUSY_10_MSEC = 9901
    LONG_BUSY_100_MSEC = 9902
    LONG_BUSY_1_SEC = 9903
    LONG_BUSY_10_SEC = 9904
    LONG_BUSY_100_SEC = 9905
    HARDWARE = -1
    FUNCTION = -2
    PRIVILEGE = -3
    PARAMETER = -4
    BAD_MODE = -5
    PTEG_FULL = -6
    NOT_FOUND = -7
    RESERVED_DABR = -8
    NO_MEM = -9
    AUTHORITY = -10
    PERMISSION = -11
    DROPPED = -12
    SOURCE_PARM = -13
    DEST_PARM = -14
    REMOTE_PARM = -15
    RESOURCE = -16
    ADAPTER_PARM = -17
    P2 = -55
    P3 = -56
    P4 = -57
    P5 = -58
    NOOP = -63
    UNSUPPORTED = -67
    OVERLAP = -68
    UNSUPPORTED_FLAG = -256
    MULTI_THREADS_ACTIVE = -9005


class RtasStatus(IntEnum):
    """The first return word of an RTAS call."""

    SUCCESS = 0
    NO_ERRORS_FOUND = 1
    HARDWARE_ERROR = -1
    BUSY = -2
    PARAMETER_ERROR = -3
    NOT_AUTHORIZED = -9002
    MULTI_THREADS_ACTIVE = -9005
    SYSTEM_PARAMETER_ERROR = -9999
