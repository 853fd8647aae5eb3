/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Priority hints: "or 1,1,1" and its like (Power ISA 2.07, book II, 3.2). Unicorn returns from its loop at each, which costs a
 * microsecond, and Linux gives one on the way into every exception. Here the guest goes on in the next block. A vCPU that asks for
 * less than the normal priority is likely to spin; those hints are counted, and end a run that has had its share of them.
 */

#include "env.h"
#include "fast_path.h"

enum { HLT = 0x10001 };
enum { HALTED = -7208 }; /* of a CPU, from its env */
enum { SPR_PPR = 896, PRIORITY_SHIFT = 50, PRIORITY = 7, NORMAL = 4 };

extern void helper_raise_exception_ppc64(struct env *env, u32 exception);

/* Whether the guest may go on. */
static int take_hint(struct fast_path *self)
{
    if ((self->spr[SPR_PPR] >> PRIORITY_SHIFT & PRIORITY) >= NORMAL)
        return 1;
    self->hints++;
    return --self->hints_left != 0;
}

/* In the place of Unicorn's: HLT with a CPU that is not halted is a hint. The block has noted the next instruction's address. */
void raise_or_go_on(struct env *env, u32 exception)
{
    struct fast_path *self = running;

    if (exception == HLT && self && (u8 *)env == self->env && !AT(u32, env, HALTED) && self->hints_left && take_hint(self))
        return;
    helper_raise_exception_ppc64(env, exception);
}
