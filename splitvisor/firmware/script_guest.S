/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The guest of tests that are written in Python: it makes the calls that a back end gives it, and hands back their results. A client
 * program, linked at 0x200000.
 *
 *	H_SCRIPT_NEXT	r4 = the area, r5 = its size in bytes
 *	returns		r4 = number of calls, r5 = what the decrementer starts from before each; 0 leaves it alone
 *
 * The area starts with a table of calls: r3 to r12 of each, which the registers after the call replace. The rest of it is the
 * script's to use. Whatever r3 says other than H_SUCCESS, it asks again.
 */
	.machine power8
	.set	H_SCRIPT_NEXT, 0xf7f0
	.set	AREA_BYTES, 0x400000
	.set	RECORD_BYTES, 80

	.globl	_start
_start:
	lis	%r31, area@h
	ori	%r31, %r31, area@l

next:
	li	%r3, 0
	ori	%r3, %r3, H_SCRIPT_NEXT
	mr	%r4, %r31
	lis	%r5, AREA_BYTES@h
	sc	1
	cmpdi	%r3, 0
	bne	next
	cmpdi	%r4, 0
	beq	next
	mr	%r29, %r4
	mr	%r28, %r5
	mr	%r30, %r31

call:
	cmpdi	%r28, 0
	beq	load
	mtdec	%r28
load:
	.irp	number, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12
	ld	%r\number, 8 * (\number - 3)(%r30)
	.endr
	sc	1
	.irp	number, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12
	std	%r\number, 8 * (\number - 3)(%r30)
	.endr
	addi	%r30, %r30, RECORD_BYTES
	addic.	%r29, %r29, -1
	bne	call
	/* H_CEDE has enabled interrupts. */
	li	%r0, 0
	mtmsrd	%r0, 1
	b	next

	.bss
	.balign	256
area:
	.space	AREA_BYTES
