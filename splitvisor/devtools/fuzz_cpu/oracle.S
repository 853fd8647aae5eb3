/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The oracle's program: maps the file of its argument, in which the harness and a batch are, catches signals on a stack of their
 * own, and runs the harness each time that a byte arrives; a byte is the answer. Ends at the end of its input.
 */

#include "batch.h"

#define EXIT 1
#define READ 3
#define WRITE 4
#define OPEN 5
#define MMAP 90
#define RT_SIGACTION 173
#define SIGALTSTACK 185
#define O_RDWR 2
#define ARGUMENT 16 /* argv[1], from the stack pointer */
#define PROT_ALL 7
#define MAP_SHARED_FIXED 0x11
#define FLAGS 0x48000004 /* SA_ONSTACK | SA_NODEFER | SA_SIGINFO */
#define STACK_BYTES 65536

.macro address register, symbol
    lis     \register, \symbol@ha
    addi    \register, \register, \symbol@l
.endm

    .machine power8
    .abiversion 2
    .text
    .globl  _start
_start:
    ld      3, ARGUMENT(1)
    li      4, O_RDWR
    li      0, OPEN
    sc
    bso     failed
    mr      7, 3
    lis     3, HARNESS@ha
    lis     4, (END - HARNESS)@ha
    li      5, PROT_ALL
    li      6, MAP_SHARED_FIXED
    li      8, 0
    li      0, MMAP
    sc
    bso     failed
    address 3, stack
    li      4, 0
    li      0, SIGALTSTACK
    sc
    bso     failed
    address 20, signals
1:  lbz     3, 0(20)
    cmpwi   3, 0
    beq     wait
    addi    20, 20, 1
    address 4, action
    li      5, 0
    li      6, 8
    li      0, RT_SIGACTION
    sc
    bso     failed
    b       1b

wait:
    li      3, 0
    address 4, byte
    li      5, 1
    li      0, READ
    sc
    bso     failed
    cmpdi   3, 1
    bne     end
    lis     3, HARNESS@ha
    mtctr   3
    bctr
    .globl  batch_done
batch_done:
    li      3, 1
    address 4, byte
    li      5, 1
    li      0, WRITE
    sc
    bso     failed
    b       wait
end:
    li      3, 0
    b       exit
failed:
    li      3, 1
exit:
    li      0, EXIT
    sc

    .data
    .balign 16
stack:
    .quad   stack_bytes, 0, STACK_BYTES
action:
    .quad   ON_SIGNAL, FLAGS, 0, 0
signals:
    .byte   SIGILL, SIGTRAP, SIGBUS, SIGFPE, SIGSEGV, 0
byte:
    .byte   0
    .balign 16
    .lcomm  stack_bytes, STACK_BYTES, 16
