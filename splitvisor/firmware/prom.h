/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Open Firmware's client interface and the hypercalls that a client program needs, for 32-bit big-endian programs. */
#ifndef PROM_H
#define PROM_H

#include <stdarg.h>

typedef unsigned int cell;

#define FAILED ((cell)-1)

/* Given by the firmware at the start. */
extern int (*client_interface)(cell *array);

/* Call a client service. Returns its first return cell, FAILED when the service does not exist. */
static cell prom(const char *service, int arguments, int returns, ...)
{
	cell array[3 + 10] = { (cell)service, arguments, returns };
	va_list list;
	int i;

	va_start(list, returns);
	for (i = 0; i < arguments; i++)
		array[3 + i] = va_arg(list, cell);
	va_end(list);
	if (client_interface(array) != 0)
		return FAILED;
	return returns ? array[3 + arguments] : 0;
}

/* call-method with one input; the method's result, FAILED when it threw. */
static cell prom_method(const char *method, cell ihandle, cell input)
{
	cell array[3 + 5] = { (cell)"call-method", 3, 2, (cell)method, ihandle, input };

	return client_interface(array) != 0 || array[6] != 0 ? FAILED : array[7];
}

enum { H_EOI = 0x64, H_CPPR = 0x68, H_XIRR = 0x74, H_CEDE = 0xe0 };

/* Make a hypercall with one argument. Returns r4 as the hypervisor left it. */
static cell hypercall(cell token, cell argument)
{
	register cell r3 __asm__("r3") = token;
	register cell r4 __asm__("r4") = argument;

	__asm__ volatile("sc 1"
			 : "+r"(r3), "+r"(r4)
			 :
			 : "r0", "r5", "r6", "r7", "r8", "r9", "r10", "r11", "r12", "ctr", "xer", "cr0", "cr1", "cr5", "cr6", "cr7",
			   "memory");
	return r4;
}

/* Let the processor rest until an interrupt, or until so many ticks have passed. */
static void rest(cell ticks)
{
	__asm__ volatile("mtdec %0" : : "r"(ticks));
	hypercall(H_CEDE, 0);
}

#endif
