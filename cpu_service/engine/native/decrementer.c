/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * mtspr DEC. Linux writes the decrementer each time when it goes idle and when it comes back: what counts is only when it will be 0.
 * The vCPU's own registers say so: DEC's, which is not otherwise used since reads compute it, and HDEC's likewise. Python is told
 * when somebody else has to know: the interrupt is due at once, or before the thread that waits for it would look.
 */

#include "env.h"
#include "fast_path.h"

enum { CLOCK_MONOTONIC = 1 };
enum { SPR_DECR = 22, SPR_HDECR = 310 };
enum { TB_ENV = 77656, HDECR_NEXT = 56 };
enum { DECREMENTER = 1 << 8 }; /* of pending_interrupts */
enum { HARD = 2 };             /* of interrupt_request */
enum { NS_PER_64_TICKS = 125, TICKS = 64 }; /* at 512 MHz */
#define NS_PER_S 1000000000UL

struct timespec {
    u64 seconds, nanoseconds;
};

extern int clock_gettime(int clock, struct timespec *now);

/* In the place of Unicorn's helper for HDEC, which does nothing; ../special_registers.py has a supervisor's mtspr DEC call it. */
void write_decrementer(struct env *env, u64 value)
{
    struct fast_path *self = running;
    struct timespec now;
    u64 zero;

    if (!self || (u8 *)env != self->env)
        return;
    value = (u32)value;
    clock_gettime(CLOCK_MONOTONIC, &now);
    zero = now.seconds * NS_PER_S + now.nanoseconds + value * NS_PER_64_TICKS / TICKS;
    if (!(value >> 31)) {
        self->spr[SPR_HDECR] = AT(u64, AT(u8 *, env, TB_ENV), HDECR_NEXT) = zero;
        __atomic_store_n(&self->spr[SPR_DECR], zero, __ATOMIC_SEQ_CST); /* Before the look at what the other thread waits for. */
        *self->pending &= ~(u32)DECREMENTER;
        if (!*self->pending)
            *self->interrupt_request &= ~(u32)HARD;
        if (zero >= __atomic_load_n(&self->timer_ns, __ATOMIC_SEQ_CST))
            return;
    }
    self->decrementer = value;
    self->slow(self->uc, DECREMENTER_WRITTEN, self);
    if (*self->pending)
        *self->exit_flag = 0xFFFF;
}
