/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * RTAS as the guest sees it: called in real mode with the address of an argument block in r3 (LoPAPR 7.2.7), it asks the
 * hypervisor. Position independent, uses no stack, runs in 32- and 64-bit mode.
 */
	.machine power8
	.set	H_RTAS, 0xf000

	.globl	_start
_start:
	mr	%r4, %r3
	lis	%r3, 0
	ori	%r3, %r3, H_RTAS
	sc	1
	blr
