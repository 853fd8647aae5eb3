/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Decimal floating point. The wheel has one set of these helpers for its 32-bit and its 64-bit PowerPC: that of the 32-bit one. It
 * takes the rounding mode and keeps the flags where a 32-bit CPU's FPSCR is, which is half of a pointer in a 64-bit one's state
 * (to the function that reads SPR 943). So the FPSCR is put there for the duration of a call, and taken back.
 */

#include "env.h"

enum { NARROW_FPSCR = 71404 };
#define QUIET_NAN (0x7CUL << 56)

typedef u64 helper(struct env *env, u64 a, u64 b, u64 c, u64 d, u64 e);

void decContextSetRounding(void *context, int rounding);

/* The rounding mode for the call under way; negative when it has been set. */
static THREAD int rounding = -1;

/* In the place of decNumber's function. Each helper calls it first with what it takes for the FPSCR's mode, then perhaps with one
 * from the instruction. */
EXPORT void set_decimal_rounding(void *context, int mode)
{
    if (rounding >= 0) {
        mode = rounding;
        rounding = -1;
    }
    decContextSetRounding(context, mode);
}

static u64 with_fpscr(helper *call, struct env *env, u64 a, u64 b, u64 c, u64 d, u64 e)
{
    /* By DRN: to nearest even, towards 0, up, down, nearest away from 0, nearest towards 0, away from 0, to prepare for shorter
     * precision; in the order of decNumber's numbers. */
    static const u8 modes[] = {3, 5, 0, 6, 2, 4, 1, 7};
    u32 *narrow = &AT(u32, env, NARROW_FPSCR), kept = *narrow;
    u64 result;

    rounding = modes[FPSCR(env) >> 32 & 7];
    *narrow = (u32)FPSCR(env);
    result = call(env, a, b, c, d, e);
    FPSCR(env) = (FPSCR(env) & ~0xFFFFFFFFUL) | *narrow;
    *narrow = kept;
    rounding = -1;
    return result;
}

#define DECIMAL(name, unicorns) \
    u64 unicorns(struct env *env, u64 a, u64 b, u64 c, u64 d, u64 e); \
    u64 name(struct env *env, u64 a, u64 b, u64 c, u64 d, u64 e) \
    { \
        return with_fpscr(unicorns, env, a, b, c, d, e); \
    }
DECIMAL_REPLACEMENTS(DECIMAL)

/* Of packed decimal digits, with a sign on the right when they are signed: all are digits, and the sign is one. */
static int valid(u64 digits, int sign)
{
    if (sign && (digits & 15) < 10)
        return 0;
    for (int place = sign ? 4 : 0; place < 64; place += 4)
        if ((digits >> place & 15) > 9)
            return 0;
    return 1;
}

static void refuse(struct env *env, struct vsr *to, int registers)
{
    FPSCR(env) |= VXCVI | VX | FX;
    if (FPSCR(env) & VE) {
        FPSCR(env) |= FEX;
        return;
    }
    for (int i = 0; i < registers; i++)
        to[i].doubleword_0 = i ? 0 : QUIET_NAN;
}

/* Unicorn takes the digit 10 for valid, leaves the target as it is when another is not, and takes the reserved bit beside S for a
 * part of it. */
u64 helper_denbcd(struct env *env, u64 to, u64 from, u64 sign, u64, u64), helper_denbcdq(struct env *env, u64 to, u64 from, u64 sign, u64, u64);

void denbcd(struct env *env, struct vsr *to, struct vsr *from, u32 sign_and_reserved)
{
    int sign = sign_and_reserved >> 1 & 1;

    if (valid(from->doubleword_0, sign))
        with_fpscr(helper_denbcd, env, (u64)to, (u64)from, (u64)sign, 0, 0);
    else
        refuse(env, to, 1);
}

void denbcdq(struct env *env, struct vsr *to, struct vsr *from, u32 sign_and_reserved)
{
    int sign = sign_and_reserved >> 1 & 1;

    if (valid(from[0].doubleword_0, 0) && valid(from[1].doubleword_0, sign))
        with_fpscr(helper_denbcdq, env, (u64)to, (u64)from, (u64)sign, 0, 0);
    else
        refuse(env, to, 2);
}
