/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * TBU: the upper half of the time base as a register of its own (Power ISA 2.07, book II, 6.2.1). Unicorn has it as plain storage,
 * which stays 0: a guest that puts its time together from two halves would go back to 0 every 8.4 seconds.
 */

#include "env.h"

extern u64 helper_load_purr(struct env *env);

/* Unicorn's function that translates a read of PURR, whose one call is helper_load_purr()'s; ../special_registers.py sets it. */
EXPORT void (*translate_read_purr)(void *context, int target, int spr);

static u64 load_upper_half(struct env *env)
{
    return helper_load_purr(env) >> 32;
}

/* Translates a read of TBU. */
EXPORT void translate_read_tbu(void *context, int target, int spr)
{
    substitute = (function *)load_upper_half;
    translate_read_purr(context, target, spr);
    substitute = 0;
}
