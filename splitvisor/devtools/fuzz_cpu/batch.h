/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Where a batch has what, for harness.S and oracle.S; batch.py reads these numbers from here.
 */

#define HARNESS 0x200000
#define HARNESS_BYTES 0x3000
#define CONTROL 0x203000
#define MEMORY 0x204100
#define MEMORY_BYTES 256
#define SLOTS 0x208000
#define SLOT_BYTES 32
#define MAX_SLOTS 512
#define STAGED_SLOTS 0x20C000
#define IN 0x210000
#define MAX_CASES 2048
#define OUT 0x600000
#define END 0xA00000

/* The control block. */
#define C_IN 0
#define C_OUT 8
#define C_LEFT 16
#define C_SLOT_BYTES 24
#define C_RETURN 32
#define C_MSR 40
#define C_R30 48
#define C_ENDING 56
#define C_SIGNALLED 64 /* 1 when FPSCR is in the next, for the kernel clears the register */
#define C_FPSCR 72
#define C_SIGNAL_OF_CAUSE 80

/* A record. */
#define IN_GPR 0
#define IN_VSR 256
#define IN_CR 1280
#define IN_XER 1288
#define IN_FPSCR 1296
#define IN_LR 1304
#define IN_CTR 1312
#define IN_SLOT 1320
#define IN_VSCR 1328
#define IN_MEMORY 1344
#define RECORD_BYTES 1600

/* How a case ended: 0, taken, or the signal. */
#define TAKEN 100
#define SIGILL 4
#define SIGTRAP 5
#define SIGBUS 7
#define SIGFPE 8
#define SIGSEGV 11

#define TAR 815
#define SRR1 27

/* Of a ucontext, Linux on ppc64. */
#define SAVED_GPR 232
#define SAVED_FPSCR (SAVED_GPR + 8 * (48 + 32))
#define SAVED_LR (SAVED_GPR + 8 * 36)
