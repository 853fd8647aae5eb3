/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The part of Open Firmware that must run in the guest: it starts the client program (or has one found), turns calls of the client interface
 * into hypercalls, and catches exceptions until the operating system has vectors of its own. Linked at 0, entered at 0x100.
 *
 *	0x0000	words of the exception handlers' own
 *	0x0100	entry (system reset)
 *	0x0200	vectors, to 0x1000
 *	0x1000	client interface
 *	0x4000	of_client_service's own, to 0x8000
 *	 ...	stack, downwards from 0x10000
 */
	.machine power8
	.set	H_CEDE, 0xe0
	.set	H_OF_CLIENT, 0xf005
	.set	STACK_TOP, 0x10000
	.set	FRAME_BYTES, 0x40
	.set	FAR_AWAY, 0x7fff0000		/* ticks of the decrementer: 4 seconds */
	.set	A_WHILE, 0x140000		/* 2.6 ms */
	.set	SAVED_R3, 0x10

	.globl	_start
_start:
	.org	0x100
	b	start_client

/*
 * An interrupt that ends a wait in H_CEDE (decrementer, external). It is not handled: the program goes on with MSR[EE] off, so a
 * level that is still up does not interrupt again, and finds out by itself. The decrementer starts afresh, so that it has no level.
 */
	.macro	wake_vector address
	.org	\address
	std	%r3, SAVED_R3(0)
	lis	%r3, FAR_AWAY@h
	mtdec	%r3
	mfsrr1	%r3
	rldicl	%r3, %r3, 48, 1		/* clear MSR[EE]: rotate it to the top, mask it, rotate back */
	rotldi	%r3, %r3, 16
	mtsrr1	%r3
	ld	%r3, SAVED_R3(0)
	rfid
	.endm

/* An exception that nobody expects here: tell the hypervisor which, and where. */
	.macro	fatal_vector address
	.org	\address
	li	%r3, \address
	b	report_exception
	.endm

	.irp	vector, 0x200, 0x300, 0x380, 0x400, 0x480
	fatal_vector \vector
	.endr
	wake_vector 0x500
	.irp	vector, 0x600, 0x700, 0x800
	fatal_vector \vector
	.endr
	wake_vector 0x900
	.irp	vector, 0x980, 0xa00, 0xc00, 0xd00, 0xe00, 0xf00, 0xf20, 0xf40, 0xf60
	fatal_vector \vector
	.endr

	.org	0x1000
start_client:
	cmpwi	%r3, 0
	beq	find_program
start_program:
	mtctr	%r3
	lis	%r1, STACK_TOP@h
	addi	%r1, %r1, -FRAME_BYTES
	li	%r0, 0
	stw	%r0, 0(%r1)
	mr	%r3, %r4			/* initial RAM disk */
	mr	%r4, %r5
	li	%r5, client_interface
	li	%r6, 0				/* no arguments of a boot program */
	li	%r7, 0
	li	%r0, client_returned
	mtlr	%r0
	bctr

/* Without a program: have one loaded from a device. Until it is there, or somebody has chosen it, ask again. */
find_program:
	li	%r3, boot_array
	bl	client_interface
	lwz	%r2, boot_toc(0)
	lwz	%r3, boot_entry(0)
	lwz	%r4, boot_initrd(0)
	lwz	%r5, boot_initrd_bytes(0)
	cmpwi	%r3, 0
	bne	start_program
	lis	%r3, A_WHILE@h
	mtdec	%r3
	li	%r3, H_CEDE
	sc	1
	b	find_program

/*
 * IEEE 1275's client interface handler for PowerPC: r3 = address of the argument array (32 bits count); returns r3 = 0, or -1 when
 * there is no such service. Changes r3, r4 and CR0 only; callable in 32- and 64-bit mode.
 */
	.globl	client_interface
client_interface:
	clrldi	%r4, %r3, 32
	lis	%r3, 0
	ori	%r3, %r3, H_OF_CLIENT
	sc	1
	cmpdi	%r3, 0
	beqlr
	li	%r3, -1
	blr

/* A client program that returns has exited. */
client_returned:
	li	%r3, exit_array
	bl	client_interface
stop:
	li	%r3, H_CEDE
	sc	1
	b	stop

report_exception:
	stw	%r3, exception_vector(0)
	mfsrr0	%r3
	stw	%r3, exception_srr0(0)
	mfsrr1	%r3
	stw	%r3, exception_srr1(0)
	mfdar	%r3
	stw	%r3, exception_dar(0)
	li	%r3, exception_array
	bl	client_interface
	b	stop

	.balign	8
exit_array:
	.long	exit_name, 0, 0
exception_array:
	.long	exception_name, 4, 0
exception_vector:
	.long	0
exception_srr0:
	.long	0
exception_srr1:
	.long	0
exception_dar:
	.long	0
boot_array:
	.long	boot_name, 0, 4
boot_entry:
	.long	0
boot_toc:
	.long	0
boot_initrd:
	.long	0
boot_initrd_bytes:
	.long	0
exit_name:
	.asciz	"exit"
boot_name:
	.asciz	"splitvisor,boot"
exception_name:
	.asciz	"splitvisor,exception"
