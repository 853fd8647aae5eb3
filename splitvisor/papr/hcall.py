# SPDX-License-Identifier: GPL-2.0-or-later
"""Hypercall tokens (PAPR chapter 14), the private range from 0xF000 that KVM and SLOF use, and Splitvisor's own."""

from enum import IntEnum


class Hcall(IntEnum):
    """Hypercall tokens, passed in r3."""

    H_REMOVE = 0x4
    H_ENTER = 0x8
    H_READ = 0xC
    H_CLEAR_MOD = 0x10
    H_CLEAR_REF = 0x14
    H_PROTECT = 0x18
    H_GET_TCE = 0x1C
    H_PUT_TCE = 0x20
    H_SET_SPRG0 = 0x24
    H_SET_DABR = 0x28
    H_PAGE_INIT = 0x2C
    H_SET_ASR = 0x30
    H_ASR_ON = 0x34
    H_ASR_OFF = 0x38
    H_LOGICAL_CI_LOAD = 0x3C
    H_LOGICAL_CI_STORE = 0x40
    H_LOGICAL_CACHE_LOAD = 0x44
    H_LOGICAL_CACHE_STORE = 0x48
    H_LOGICAL_ICBI = 0x4C
    H_LOGICAL_DCBF = 0x50
    H_GET_TERM_CHAR = 0x54
    H_PUT_TERM_CHAR = 0x58
    H_REAL_TO_LOGICAL = 0x5C
    H_HYPERVISOR_DATA = 0x60
    H_EOI = 0x64
    H_CPPR = 0x68
    H_IPI = 0x6C
    H_IPOLL = 0x70
    H_XIRR = 0x74
    H_MIGRATE_DMA = 0x78
    H_PERFMON = 0x7C
    H_REGISTER_VPA = 0xDC
    H_CEDE = 0xE0
    H_CONFER = 0xE4
    H_PROD = 0xE8
    H_GET_PPP = 0xEC
    H_SET_PPP = 0xF0
    H_PURR = 0xF4
    H_PIC = 0xF8
    H_REG_CRQ = 0xFC
    H_FREE_CRQ = 0x100
    H_VIO_SIGNAL = 0x104
    H_SEND_CRQ = 0x108
    H_COPY_RDMA = 0x110
    H_REGISTER_LOGICAL_LAN = 0x114
    H_FREE_LOGICAL_LAN = 0x118
    H_ADD_LOGICAL_LAN_BUFFER = 0x11C
    H_SEND_LOGICAL_LAN = 0x120
    H_BULK_REMOVE = 0x124
    H_MULTICAST_CTRL = 0x130
    H_SET_XDABR = 0x134
    H_STUFF_TCE = 0x138
    H_PUT_TCE_INDIRECT = 0x13C
    H_CHANGE_LOGICAL_LAN_MAC = 0x14C
    H_VTERM_PARTNER_INFO = 0x150
    H_REGISTER_VTERM = 0x154
    H_FREE_VTERM = 0x158
    H_RESET_EVENTS = 0x15C
    H_GET_CPU_CHARACTERISTICS = 0x1C8
    H_FREE_LOGICAL_LAN_BUFFER = 0x1D4
    H_POLL_PENDING = 0x1D8
    H_QUERY_INT_STATE = 0x1E4
    H_ILLAN_ATTRIBUTES = 0x244
    H_ADD_LOGICAL_LAN_BUFFERS = 0x248
    H_JOIN = 0x298
    H_VASI_STATE = 0x2A4
    H_ENABLE_CRQ = 0x2B0
    H_GET_EM_PARMS = 0x2B8
    H_SET_MPP = 0x2D0
    H_GET_MPP = 0x2D4
    H_HOME_NODE_ASSOCIATIVITY = 0x2EC
    H_XIRR_X = 0x2FC
    H_RANDOM = 0x300
    H_SET_MODE = 0x31C
    H_CLEAR_HPT = 0x358
    H_RESIZE_HPT_PREPARE = 0x36C
    H_RESIZE_HPT_COMMIT = 0x370
    H_CLEAN_SLB = 0x374
    H_INVALIDATE_PID = 0x378
    H_REGISTER_PROC_TBL = 0x37C
    H_SIGNAL_SYS_RESET = 0x380
    H_WATCHDOG = 0x45C
    H_RTAS = 0xF000
    H_LOGICAL_MEMOP = 0xF001
    H_CAS = 0xF002
    H_UPDATE_DT = 0xF003
    H_OF_CLIENT = 0xF005
    SPLITVISOR_H_BLOCK = 0xF1D0
    SPLITVISOR_H_FRAME = 0xF1D1


def hcall_name(token: int) -> str:
    """Return the name of a token, or its number if PAPR has no name for it."""
    return Hcall(token).name if token in Hcall._value2member_map_ else f"hypercall {token:#x}"
