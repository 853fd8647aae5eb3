/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Where Unicorn would end the process, the guest ends, with a report. These functions replace those that abort (../replacements.py). The
 * engine must not be used any more: whatever it was in the middle of was left there.
 */

#include "fast_path.h"

extern void cpu_loop_exit_ppc64(void *cpu) __attribute__((noreturn));
extern void abort(void) __attribute__((noreturn));

void end_guest(const char *why)
{
    if (!running)
        abort();
    running->aborted = why;
    *running->exception_index = ABORTED;
    cpu_loop_exit_ppc64(running->cpu);
}

/* cpu_abort() of QEMU; what follows the format stays unread. */
EXPORT void guest_abort(void *cpu, const char *format, ...)
{
    (void)cpu;
    end_guest(format);
}

/* Also of exit(), which QEMU calls where it lacks something. */
EXPORT void guest_exit(void)
{
    end_guest("an assertion failed, or something is not implemented");
}
