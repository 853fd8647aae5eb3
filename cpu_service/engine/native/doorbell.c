/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * msgsndp: a message of a guest's to a thread of its own processor, here always to itself. Unicorn takes the address of the wrong
 * structure for the CPU when it raises the interrupt, and aborts when it delivers it. So both ends are here.
 */

#include "fast_path.h"

enum { HARD = 2 };                  /* of interrupt_request */
enum { DOORBELL = 1 << 14 };        /* of pending_interrupts */
enum { EMBEDDED_DOORBELL = 36 };    /* an exception that is delivered in the same way; its vector is ours */
enum { NO_EXCEPTION = -1 };

#define MSR_EE (1UL << 15)

extern int ppc_cpu_exec_interrupt_ppc64(void *cpu, int request);

/* In the place of QEMU's cpu_interrupt_handler. Nothing but msgsndp and msgsnd calls it, with their registers for the CPU. */
EXPORT void raise_interrupt(void *cpu, int request)
{
    (void)cpu;
    if (running) {
        *running->interrupt_request |= (u32)request;
        *running->exit_flag = 0xFFFF;
    }
}

/* In the place of the CPU class's function: whether an interrupt was delivered. */
EXPORT int exec_interrupt(void *cpu, int request)
{
    struct fast_path *self = running;
    int delivered;

    if (!self || self->cpu != cpu || !(*self->pending & DOORBELL))
        return ppc_cpu_exec_interrupt_ppc64(cpu, request);
    *self->pending &= ~(u32)DOORBELL;
    if (!*self->pending && *self->msr & MSR_EE) { /* It is the last in order. */
        *self->interrupt_request &= ~(u32)HARD;
        *self->exception_index = EMBEDDED_DOORBELL;
        self->do_interrupt(cpu);
        *self->exception_index = NO_EXCEPTION;
        return 1;
    }
    delivered = ppc_cpu_exec_interrupt_ppc64(cpu, request);
    *self->pending |= DOORBELL;
    *self->interrupt_request |= HARD;
    return delivered;
}
