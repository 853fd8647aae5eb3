/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Runs a batch of cases: for each it loads every register of user mode and a window of memory from a record, executes a slot of one
 * to three instructions under test, and stores the same registers and memory to another record. The same bytes run in QEMU's user
 * mode, started by oracle.S, and on the engine in supervisor mode.
 *
 * TAR is the harness's own: it holds the slot's address on the way in and r31 on the way out. batch.py has the same numbers.
 */

#include "batch.h"

.macro gprs instruction, from, to, offset, base
    .set number, \from
    .rept \to - \from + 1
    \instruction number, \offset + 8 * number(\base)
    .set number, number + 1
    .endr
.endm

.macro copy from, at_from, to, at_to
    .set number, 0
    .rept MEMORY_BYTES / 8
    ld      4, \at_from + 8 * number(\from)
    std     4, \at_to + 8 * number(\to)
    .set number, number + 1
    .endr
.endm

.macro all_vsr instruction
    .set number, 0
    .rept 64
    \instruction number, 0, 3
    addi    3, 3, 16
    .set number, number + 1
    .endr
.endm

/* r31 = the control block, without a change to any flag. */
.macro load_control
    lis     31, CONTROL@ha
    addi    31, 31, CONTROL@l
.endm

    .machine power8
    .abiversion 2
    .text
    .globl _start
_start:
/* The slots are copied here, not by the host: an emulator must see the stores to drop what it translated before. */
    load_control
    ld      3, C_SLOT_BYTES(31)
    srdi    3, 3, 3
    mtctr   3
    lis     4, (STAGED_SLOTS - 8)@ha
    addi    4, 4, (STAGED_SLOTS - 8)@l
    lis     5, (SLOTS - 8)@ha
    addi    5, 5, (SLOTS - 8)@l
0:  ldu     6, 8(4)
    stdu    6, 8(5)
    bdnz    0b
    isync

next_case:
    load_control
    ld      4, C_LEFT(31)
    cmpdi   4, 0
    beq     finished
    addi    4, 4, -1
    std     4, C_LEFT(31)
    ld      31, C_IN(31)
    lis     3, MEMORY@ha
    addi    3, 3, MEMORY@l
    copy    31, IN_MEMORY, 3, 0
    addi    3, 31, IN_VSR
    all_vsr lxvd2x
    addi    3, 31, IN_VSCR
    lvx     0, 0, 3
    mtvscr  0
    addi    3, 31, IN_VSR + 32 * 16
    lxvd2x  32, 0, 3
    lfd     0, IN_FPSCR(31)
    mtfsf   255, 0, 1, 0
    addi    3, 31, IN_VSR
    lxvd2x  0, 0, 3
    ld      3, IN_SLOT(31)
    mtspr   TAR, 3
    ld      3, IN_LR(31)
    mtlr    3
    ld      3, IN_CTR(31)
    mtctr   3
    ld      3, IN_XER(31)
    mtxer   3
    ld      3, IN_CR(31)
    mtcr    3
    gprs    ld, 0, 31, IN_GPR, 31
    bctar   20, 0

/* Where slots branch to: after their last instruction, or, with a branch that was taken, to the second exit. */
    .balign 64
    .globl  first_exit
first_exit:
    mtspr   TAR, 31
    load_control
    std     30, C_R30(31)
    li      30, 0
    b       store_state
    .balign 64
    .globl  second_exit
second_exit:
    mtspr   TAR, 31
    load_control
    std     30, C_R30(31)
    li      30, TAKEN
    b       store_state

/* r31 = control block, TAR and C_R30 = r31 and r30 of the case, r30 = how it ended. */
store_state:
    std     30, C_ENDING(31)
    ld      30, C_OUT(31)
    gprs    std, 0, 29, IN_GPR, 30
    ld      0, C_R30(31)
    std     0, IN_GPR + 8 * 30(30)
    mfspr   0, TAR
    std     0, IN_GPR + 8 * 31(30)
    ld      0, C_ENDING(31)
    std     0, IN_SLOT(30)
    mfcr    0
    std     0, IN_CR(30)
    mfxer   0
    std     0, IN_XER(30)
    mflr    0
    std     0, IN_LR(30)
    mfctr   0
    std     0, IN_CTR(30)
    addi    3, 30, IN_VSR
    all_vsr stxvd2x
    mffs    0
    stfd    0, IN_FPSCR(30)
    ld      3, C_SIGNALLED(31)
    cmpdi   3, 0
    beq     0f
    ld      3, C_FPSCR(31)
    std     3, IN_FPSCR(30)
    li      3, 0
    std     3, C_SIGNALLED(31)
0:  mfvscr  0
    addi    3, 30, IN_VSCR
    stvx    0, 0, 3
    lis     3, MEMORY@ha
    addi    3, 3, MEMORY@l
    copy    3, 0, 30, IN_MEMORY
    addi    30, 30, RECORD_BYTES
    std     30, C_OUT(31)
    ld      30, C_IN(31)
    addi    30, 30, RECORD_BYTES
    std     30, C_IN(31)
    b       next_case

finished:
    ld      3, C_RETURN(31)
    mtctr   3
    li      3, -1
    bctr

/* The handler of signals: r3 = the signal, r5 = ucontext. Registers that the kernel has changed come from there; it never returns. */
    .balign 64
    .globl  on_signal
on_signal:
    load_control
    std     3, C_ENDING(31)
    li      3, 1
    std     3, C_SIGNALLED(31)
    ld      3, SAVED_FPSCR(5)
    std     3, C_FPSCR(31)
    ld      3, SAVED_LR(5)
    mtlr    3
    ld      3, SAVED_GPR + 8 * 31(5)
    mtspr   TAR, 3
    gprs    ld, 0, 4, SAVED_GPR, 5
    ld      6, SAVED_GPR + 8 * 6(5)
    ld      12, SAVED_GPR + 8 * 12(5)
    ld      5, SAVED_GPR + 8 * 5(5)
    std     30, C_R30(31)
    ld      30, C_ENDING(31)
    b       store_state

/* The engine's interrupt vectors, copied to theirs. A program interrupt's cause is in SRR1. */
.macro vector number, signal
    .balign 64
    .globl  vector_\number
vector_\number:
    mtspr   TAR, 31
    load_control
    std     30, C_R30(31)
    li      30, \signal
    b       on_interrupt
.endm

    vector  data_storage, SIGSEGV
    vector  data_segment, SIGSEGV
    vector  alignment, SIGBUS
    vector  no_fp, SIGILL
    vector  no_vmx, SIGILL
    vector  no_vsx, SIGILL
    vector  facility, SIGILL

    .balign 64
    .globl  vector_program
vector_program:
    mtspr   TAR, 31
    load_control
    std     30, C_R30(31)
    mfspr   30, SRR1
    rldicl  30, 30, 48, 59
    add     30, 30, 31
    lbz     30, C_SIGNAL_OF_CAUSE(30)
    b       on_interrupt

on_interrupt:
    std     30, C_ENDING(31)
    ld      30, C_MSR(31)
    mtmsrd  30
    isync
    ld      30, C_ENDING(31)
    b       store_state
