/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Instructions that Unicorn carries out wrongly, done rightly. Translated code calls a helper function for each of them. When a call
 * is translated, translate_call() puts our function in the place of Unicorn's; ../instructions.py lets Unicorn call it. The functions
 * have the signatures of those that they replace.
 */

#include "env.h"

/* Of a TCGContext and a TCGOp: the link of the last operation, its distance from the operation's start, the operands. */
enum { LAST_LINK = 0x7390, LINK = 8, OPERANDS = 0x18 };

struct replacement {
    function *original, *ours;
};

/* Each as name(ours, Unicorn's). */
#define REPLACEMENTS(name) \
    FLOATING_POINT_REPLACEMENTS(name) FI_REPLACEMENTS(name) SCALAR_REPLACEMENTS(name) ROOT_REPLACEMENTS(name) WORDS_REPLACEMENTS(name) \
    DECIMAL_REPLACEMENTS(name) BCD_REPLACEMENTS(name) REGISTER_REPLACEMENTS(name)

#define DECLARE(ours, unicorns) void ours(void), unicorns(void);
REPLACEMENTS(DECLARE)
SUM_REPLACEMENTS(DECLARE)
void tcg_gen_callN_ppc64(void *context, function *called, void *result, int count, void **arguments);
void helper_reset_fpstatus_ppc64(void), helper_float_check_status_ppc64(void), helper_check_exit_request_ppc64(void);

#define ROW(ours, unicorns) {unicorns, ours},
static const struct replacement replacements[] = {REPLACEMENTS(ROW)};

enum { SLOTS = 1024 };
static const struct replacement *slots[SLOTS];
static const struct replacement sums[] = {SUM_REPLACEMENTS(ROW)};

EXPORT u64 calls_not_found;
THREAD function *substitute;
THREAD int single_precision;
static THREAD int keeps_fi;

static u32 slot_of(function *called)
{
    return (u32)((u64)called >> 4) & (SLOTS - 1);
}

/* To be called before translate_call() is. */
EXPORT void prepare_replacements(void)
{
    for (u64 row = 0; row < sizeof(replacements) / sizeof(*replacements); row++) {
        u32 slot = slot_of(replacements[row].original);

        while (slots[slot] && slots[slot] != &replacements[row])
            slot = (slot + 1) & (SLOTS - 1);
        slots[slot] = &replacements[row];
    }
}

static function *ours(function *called)
{
    for (u32 slot = slot_of(called); slots[slot]; slot = (slot + 1) & (SLOTS - 1))
        if (slots[slot]->original == called)
            return slots[slot]->ours;
    return 0;
}

static function *sum(function *called)
{
    for (u64 row = 0; row < sizeof(sums) / sizeof(*sums); row++)
        if (sums[row].original == called)
            return sums[row].ours;
    return 0;
}

static int is_comparison(function *called)
{
    return called == helper_xvcmpeqdp_ppc64 || called == helper_xvcmpgedp_ppc64 || called == helper_xvcmpgtdp_ppc64 ||
        called == helper_xvcmpeqsp_ppc64 || called == helper_xvcmpgesp_ppc64 || called == helper_xvcmpgtsp_ppc64;
}

/* In the place of Unicorn's tcg_gen_callN(): emits the call of a helper. */
EXPORT void translate_call(void *context, function *called, void *result, int count, void **arguments)
{
    function *instead = substitute ? substitute : single_precision && sum(called) ? sum(called) : ours(called);
    function **operand;

    if (called == helper_check_exit_request_ppc64 && check_exit_in_line(context))
        return;
    /* Instructions that move to the FPSCR reset the status of floating point, write, and check the status; comparisons check one that
     * is not theirs. Neither may change FI. */
    if (called == helper_float_check_status_ppc64 && keeps_fi)
        instead = (function *)check_enabled_exceptions;
    keeps_fi = called == helper_reset_fpstatus_ppc64 || is_comparison(called) ||
        (keeps_fi && (called == helper_store_fpscr_ppc64 || called == helper_fpscr_setbit_ppc64));
    tcg_gen_callN_ppc64(context, called, result, count, arguments);
    if (!instead)
        return;
    operand = (function **)(AT(u8 *, context, LAST_LINK) - LINK + OPERANDS) + (result ? 1 : 0) + count;
    if (*operand == called)
        *operand = instead;
    else
        calls_not_found++;
}
