/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Open Firmware's client interface, RTAS and the one hypercall that a client program needs, for 32-bit big-endian programs. */
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

/* Let the processor rest until the decrementer runs out. */
static void rest(cell ticks)
{
	register cell token __asm__("r3") = 0xe0; /* H_CEDE */

	__asm__ volatile("mtdec %1\n\tsc 1"
			 : "+r"(token)
			 : "r"(ticks)
			 : "r0", "r4", "r5", "r6", "r7", "r8", "r9", "r10", "r11", "r12", "ctr", "xer", "cr0", "cr1", "cr5", "cr6",
			   "cr7", "memory");
}

#endif
