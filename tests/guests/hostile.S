/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A client program that makes CALLS hypercalls, every token from 0 to 0x500 and from 0xF000 to 0xF010 in turn, with random
 * arguments: whole registers, addresses in RAM, and small numbers. When all have returned it says so on the console.
 */
        .equ    CALLS, 100000
        .equ    H_CPPR, 0x68
        .equ    H_PUT_TERM_CHAR, 0x58

        .macro  random target
        sldi    0, 14, 13
        xor     14, 14, 0
        srdi    0, 14, 7
        xor     14, 14, 0
        sldi    0, 14, 17
        xor     14, 14, 0
        /* The two top bits choose how many of the others stay. */
        srdi    0, 14, 62
        rlwinm  0, 0, 4, 0, 27
        srd     \target, 14, 0
        .endm

        .globl  _start
_start:
        lis     14, 0x1234
        ori     14, 14, 0x5677
        li      15, 0
        lis     16, CALLS@h
        ori     16, 16, CALLS@l
next:
        /* Mask what an earlier H_IPI raised, and let the decrementer end an H_CEDE. */
        li      3, H_CPPR
        li      4, 0
        sc      1
        li      3, 0x4000
        mtdec   3
        random  4
        random  5
        random  6
        random  7
        random  8
        random  9
        random  10
        random  11
        random  12
        mr      3, 15
        sc      1
        /* H_CEDE enables interrupts. */
        li      0, 0
        mtmsrd  0, 1
        addi    15, 15, 1
        cmplwi  15, 0x501
        bne     1f
        lis     15, 0xF000@h
        ori     15, 15, 0xF000@l
1:      lis     3, 0xF011@h
        ori     3, 3, 0xF011@l
        cmplw   15, 3
        bne     2f
        li      15, 0
2:      addic.  16, 16, -1
        bne     next
say:
        li      3, H_PUT_TERM_CHAR
        li      4, 0
        li      5, 16
        bl      3f
        .ascii  "\r\nall returned\r\n"
3:      mflr    8
        ld      6, 0(8)
        ld      7, 8(8)
        sc      1
        cmpdi   3, 0
        bne     say
stay:   b       stay
