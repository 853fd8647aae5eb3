/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Helpers of binary floating point that differ from the architecture: comparisons of NaNs, conversions of numbers too large for an
 * integer, and moves to the FPSCR.
 */

#include "env.h"

enum { PROGRAM = 6, FLOATING_POINT = 0x10 };
enum { BY_OX = 1, BY_UX = 2, BY_ZX = 3, BY_XX = 4, BY_VXSNAN = 5, BY_VXVC = 10, BY_VXCVI = 13 };
enum { INVALID = 1, INEXACT = 32 };
enum { TO_NEAREST = 0, TO_ODD = 5 };
enum { LESS = -1, EQUAL = 0, GREATER = 1 };
enum { CR_LT = 8, CR_GT = 4, CR_EQ = 2, CR_SO = 1 };

#define MSR_FE (BIT(11) | BIT(8))
#define INVALID_CAUSES (VXSNAN | 0xF00000UL | VXVC | 0x700UL)
#define ENABLED_CAUSES_SHIFT (FPSCR_XX - FPSCR_XE)
/* What a move to the FPSCR writes: the decimal rounding mode, and all of the low word but FEX, VX and a reserved bit. */
#define WRITABLE (7UL << 32 | (0xFFFFFFFFUL & ~(FEX | VX | BIT(11))))

void raise_exception_err_ra_ppc64(struct env *env, u32 exception, u32 error, u64 caller) __attribute__((noreturn));
int float64_compare_quiet_ppc64(u64 a, u64 b, void *status);

static void raise(struct env *env, u32 cause, u64 caller)
{
    if (MSR(env) & MSR_FE)
        raise_exception_err_ra_ppc64(env, PROGRAM, FLOATING_POINT | cause, caller);
}

static void note_inexact(struct env *env, int change_fi, u64 caller)
{
    if (change_fi)
        FPSCR(env) = (FPSCR(env) & ~FI) | (FLOAT_FLAGS(env) & INEXACT ? FI : 0);
    if (!(FLOAT_FLAGS(env) & INEXACT))
        return;
    FPSCR(env) |= XX | FX;
    if (FPSCR(env) & XE) {
        FPSCR(env) |= FEX;
        raise(env, BY_XX, caller);
    }
}

/* In the place of float_check_status() where only the FPSCR has changed: a cause and its enabling bit together interrupt. */
void check_enabled_exceptions(struct env *env)
{
    static const u8 by_bit[] = {BY_XX, BY_ZX, BY_UX, BY_OX, BY_VXSNAN};
    u64 enabled = FPSCR(env) >> ENABLED_CAUSES_SHIFT & FPSCR(env) & (0x1F << FPSCR_XE);

    AT(s32, env, EXCEPTION_INDEX) = -1;
    for (int bit = 4; bit >= 0; bit--)
        if (enabled >> (FPSCR_XE + bit) & 1)
            raise(env, by_bit[bit], CALLER);
}

static void set_fpscr(struct env *env, u64 fpscr)
{
    /* Of softfloat: to nearest, up, down and to zero are 0, 2, 1 and 3. */
    static const s8 rounding[] = {0, 3, 2, 1};

    fpscr &= WRITABLE;
    if (fpscr & INVALID_CAUSES)
        fpscr |= VX;
    if ((fpscr >> ENABLED_CAUSES_SHIFT | (fpscr & VX ? VE : 0)) & fpscr & (0x1F << FPSCR_XE))
        fpscr |= FEX;
    FPSCR(env) = fpscr;
    ROUNDING(env) = rounding[fpscr & RN];
}

void store_fpscr(struct env *env, u64 value, u32 fields)
{
    u64 mask = 0;

    for (int field = 0; field < 16; field++)
        if (fields >> field & 1)
            mask |= 0xFUL << 4 * field;
    set_fpscr(env, (value & mask) | (FPSCR(env) & ~mask));
}

void clear_fpscr_bit(struct env *env, u32 bit)
{
    set_fpscr(env, FPSCR(env) & ~BIT(bit));
}

void helper_fpscr_setbit_ppc64(struct env *env, u32 bit);
void set_fpscr_bit(struct env *env, u32 bit)
{
    if (WRITABLE >> bit & 1)
        helper_fpscr_setbit_ppc64(env, bit);
}

/* The non-Java mode of vector instructions takes denormalised operands for 0 too, not only results. */
void helper_mtvscr_ppc64(struct env *env, u32 value);
void mtvscr(struct env *env, u32 value)
{
    helper_mtvscr_ppc64(env, value);
    FLUSH_VECTOR_INPUTS(env) = value >> VSCR_NJ & 1;
}

static int is_nan(u64 number)
{
    return (number & 0x7FFFFFFFFFFFFFFFUL) > 0x7FF0000000000000UL;
}

static int is_signalling(u64 number)
{
    return is_nan(number) && !(number & BIT(51));
}

static int is_nan_single(u32 number)
{
    return (number & 0x7FFFFFFFU) > 0x7F800000U;
}

static int is_signalling_single(u32 number)
{
    return is_nan_single(number) && !(number & BIT(22));
}

static void compare(struct env *env, u32 opcode, u64 a, u64 b, int ordered, u64 caller)
{
    u32 result;
    int signalling = is_signalling(a) || is_signalling(b), relation;

    FLOAT_FLAGS(env) = 0;
    relation = float64_compare_quiet_ppc64(a, b, FLOAT_STATUS(env));
    result = relation == LESS ? CR_LT : relation == EQUAL ? CR_EQ : relation == GREATER ? CR_GT : CR_SO;
    FPSCR(env) = (FPSCR(env) & ~FPCC) | (u64)result << FPSCR_FPCC;
    CR_FIELD(env, opcode >> 23 & 7) = result;
    if (signalling) {
        FPSCR(env) |= VXSNAN | VX | FX;
        if (FPSCR(env) & VE) {
            FPSCR(env) |= FEX;
            raise(env, BY_VXSNAN, caller);
        }
    }
    if (ordered && result == CR_SO && !(signalling && FPSCR(env) & VE)) {
        FPSCR(env) |= VXVC | VX | FX;
        if (FPSCR(env) & VE) {
            FPSCR(env) |= FEX;
            raise(env, BY_VXVC, caller);
        }
    }
}

void compare_unordered(struct env *env, u32 opcode, struct vsr *a, struct vsr *b)
{
    compare(env, opcode, DOUBLEWORD(a, 0), DOUBLEWORD(b, 0), 0, CALLER);
}

void compare_ordered(struct env *env, u32 opcode, struct vsr *a, struct vsr *b)
{
    compare(env, opcode, DOUBLEWORD(a, 0), DOUBLEWORD(b, 0), 1, CALLER);
}

/* A conversion to an integer was invalid: the operand is a NaN or has no integer of the type near it. */
static void invalid_conversion(struct env *env, int signalling, int set_class, int change_fi, u64 caller)
{
    FPSCR(env) = (FPSCR(env) & ~(change_fi ? FR | FI : 0)) | VXCVI | VX | FX | (signalling ? VXSNAN : 0);
    if (set_class && !(FPSCR(env) & VE))
        FPSCR(env) = (FPSCR(env) & ~FPCC) | 0x11UL << FPSCR_FPCC;
    if (FPSCR(env) & VE) {
        FPSCR(env) |= FEX;
        raise(env, BY_VXCVI, caller);
    }
}

/* To one integer, in a floating point register. */
#define TO_INTEGER(name, type, convert, of_nan) \
    type convert(u64 number, void *status); \
    u64 name(struct env *env, u64 number) \
    { \
        u64 result = (u64)convert(number, FLOAT_STATUS(env)); \
\
        if (FLOAT_FLAGS(env) & INVALID) { \
            if (is_nan(number)) \
                result = of_nan; \
            invalid_conversion(env, is_signalling(number), 1, 1, CALLER); \
        } \
        note_inexact(env, 1, CALLER); \
        return result; \
    }

TO_INTEGER(fctiw, s32, float64_to_int32_ppc64, 0x80000000UL)
TO_INTEGER(fctiwz, s32, float64_to_int32_round_to_zero_ppc64, 0x80000000UL)
TO_INTEGER(fctiwu, u32, float64_to_uint32_ppc64, 0)
TO_INTEGER(fctiwuz, u32, float64_to_uint32_round_to_zero_ppc64, 0)
TO_INTEGER(fctid, s64, float64_to_int64_ppc64, BIT(63))
TO_INTEGER(fctidz, s64, float64_to_int64_round_to_zero_ppc64, BIT(63))
TO_INTEGER(fctidu, u64, float64_to_uint64_ppc64, 0)
TO_INTEGER(fctiduz, u64, float64_to_uint64_round_to_zero_ppc64, 0)

/* To the integers of a vector register, rounded towards zero. Where a result has half of a doubleword, both halves have it. */
#define TO_INTEGERS(name, count, type, convert, nan, signalling, source, put, of_nan, scalar) \
    void name(struct env *env, struct vsr *to, struct vsr *from) \
    { \
        struct vsr result = {0, 0}; \
        u8 flags = FLOAT_FLAGS(env); \
\
        for (int i = 0; i < count; i++) { \
            type number; \
\
            FLOAT_FLAGS(env) = 0; \
            number = (type)convert(source, FLOAT_STATUS(env)); \
            if (FLOAT_FLAGS(env) & INVALID) { \
                if (nan(source)) \
                    number = of_nan; \
                invalid_conversion(env, signalling(source), 0, scalar, CALLER); \
            } \
            put; \
            flags |= FLOAT_FLAGS(env); \
        } \
        *to = result; \
        FLOAT_FLAGS(env) = flags; \
        note_inexact(env, scalar, CALLER); \
    }

#define PUT_DOUBLEWORD DOUBLEWORD(&result, i) = (u64)number
#define PUT_TWO_WORDS WORD(&result, 2 * i) = WORD(&result, 2 * i + 1) = (u32)number
#define PUT_WORD WORD(&result, i) = (u32)number

#define FROM_DOUBLES(name, count, type, convert, put, of_nan) \
    TO_INTEGERS(name, count, type, convert, is_nan, is_signalling, DOUBLEWORD(from, i), put, of_nan, (count) == 1)
#define FROM_SINGLES(name, count, type, convert, source, put, of_nan) \
    type convert(u32 number, void *status); \
    TO_INTEGERS(name, count, type, convert, is_nan_single, is_signalling_single, source, put, of_nan, 0)

FROM_DOUBLES(xscvdpsxds, 1, s64, float64_to_int64_round_to_zero_ppc64, PUT_DOUBLEWORD, (s64)BIT(63))
FROM_DOUBLES(xscvdpsxws, 1, s32, float64_to_int32_round_to_zero_ppc64, PUT_TWO_WORDS, (s32)BIT(31))
FROM_DOUBLES(xscvdpuxds, 1, u64, float64_to_uint64_round_to_zero_ppc64, PUT_DOUBLEWORD, 0)
FROM_DOUBLES(xscvdpuxws, 1, u32, float64_to_uint32_round_to_zero_ppc64, PUT_TWO_WORDS, 0)
FROM_DOUBLES(xvcvdpsxds, 2, s64, float64_to_int64_round_to_zero_ppc64, PUT_DOUBLEWORD, (s64)BIT(63))
FROM_DOUBLES(xvcvdpsxws, 2, s32, float64_to_int32_round_to_zero_ppc64, PUT_TWO_WORDS, (s32)BIT(31))
FROM_DOUBLES(xvcvdpuxds, 2, u64, float64_to_uint64_round_to_zero_ppc64, PUT_DOUBLEWORD, 0)
FROM_DOUBLES(xvcvdpuxws, 2, u32, float64_to_uint32_round_to_zero_ppc64, PUT_TWO_WORDS, 0)
FROM_SINGLES(xvcvspsxds, 2, s64, float32_to_int64_round_to_zero_ppc64, WORD(from, 2 * i), PUT_DOUBLEWORD, (s64)BIT(63))
FROM_SINGLES(xvcvspsxws, 4, s32, float32_to_int32_round_to_zero_ppc64, WORD(from, i), PUT_WORD, (s32)BIT(31))
FROM_SINGLES(xvcvspuxds, 2, u64, float32_to_uint64_round_to_zero_ppc64, WORD(from, 2 * i), PUT_DOUBLEWORD, 0)
FROM_SINGLES(xvcvspuxws, 4, u32, float32_to_uint32_round_to_zero_ppc64, WORD(from, i), PUT_WORD, 0)

/* Single precision in a vector register to double precision, as loads convert: a signalling NaN stays one. */
u64 helper_todouble_ppc64(u32 number);
u64 xscvspdpn(struct env *env, u64 number)
{
    (void)env;
    return helper_todouble_ppc64((u32)(number >> 32));
}

typedef u64 helper(struct env *env, u64 a, u64 b, u64 c, u64 d);

_Bool cpu_restore_state_ppc64(void *cpu, u64 caller, _Bool will_exit);

/* What Unicorn's helper changes and an instruction does not, while the helper runs. */
static THREAD struct {
    struct env *env;
    u64 mask, bits;
    s8 rounding;
} kept;

#define ENABLES (VE | OE | UE | ZE | XE)

static void keep(struct env *env, u64 mask, u64 caller)
{
    /* The helper finds the instruction that it raises an exception for by its return address, which is ours: so we find it before. */
    if (MSR(env) & MSR_FE && FPSCR(env) & ENABLES)
        cpu_restore_state_ppc64(&AT(u8, env, CPU_OF_ENV), caller, 1);
    kept.env = env;
    kept.mask = mask;
    kept.bits = FPSCR(env) & mask;
    kept.rounding = ROUNDING(env);
}

static void give_back(struct env *env)
{
    kept.env = 0;
    FPSCR(env) = (FPSCR(env) & ~kept.mask) | kept.bits;
    ROUNDING(env) = kept.rounding;
}

/* In the place of Unicorn's function. */
EXPORT void raise_exception(struct env *env, u32 exception, u32 error, u64 caller)
{
    if (kept.env == env)
        give_back(env);
    raise_exception_err_ra_ppc64(env, exception, error, caller);
}

#define KEEP(mask, name, unicorns) \
    helper unicorns; \
    u64 name(struct env *env, u64 a, u64 b, u64 c, u64 d) \
    { \
        u64 result, before = FPSCR(env); \
\
        if (before & ENABLES) { /* Without, no exception can end the helper early. */ \
            keep(env, mask, CALLER); \
            result = unicorns(env, a, b, c, d); \
            give_back(env); \
        } else { \
            result = unicorns(env, a, b, c, d); \
            FPSCR(env) = (FPSCR(env) & ~(mask)) | (before & (mask)); \
        } \
        return result; \
    }
#define KEEP_VECTOR(name, unicorns) KEEP(FI | FR | FPRF, name, unicorns)
#define KEEP_SCALAR(name, unicorns) KEEP(FI | FR, name, unicorns)
FI_REPLACEMENTS(KEEP_VECTOR)
SCALAR_REPLACEMENTS(KEEP_SCALAR)

#define TWICE(name, unicorns) \
    helper unicorns; \
    void name(struct env *env, struct vsr *to, struct vsr *from) \
    { \
        keep(env, FI | FR | FPRF, CALLER); \
        unicorns(env, (u64)to, (u64)from, 0, 0); \
        give_back(env); \
        WORD(to, 1) = WORD(to, 0); \
        WORD(to, 3) = WORD(to, 2); \
    }
WORDS_REPLACEMENTS(TWICE)

/* The same for a scalar, with its changes to the FPSCR. */
helper helper_xscvdpsp_ppc64;
void xscvdpsp(struct env *env, struct vsr *to, struct vsr *from)
{
    keep(env, 0, CALLER);
    helper_xscvdpsp_ppc64(env, (u64)to, (u64)from, 0, 0);
    give_back(env);
    WORD(to, 1) = WORD(to, 0);
    DOUBLEWORD(to, 1) = 0;
}

/* Unicorn takes a negative signalling NaN for a negative number: the invalid operation is VXSQRT and not VXSNAN. */
#define ROOT(name, unicorns) \
    helper unicorns; \
    void name(struct env *env, struct vsr *to, struct vsr *from) \
    { \
        static const char instruction[] = #name; \
        struct vsr operand = *from; \
        int vector = instruction[6] == 'v', single = vector && instruction[sizeof(instruction) - 3] == 's'; \
        u64 before = FPSCR(env); \
\
        keep(env, vector ? FI | FR | FPRF : 0, CALLER); \
        unicorns(env, (u64)to, (u64)from, 0, 0); \
        give_back(env); \
        name_the_cause(env, &operand, vector ? single ? 4 : 2 : 1, single, before); \
    }

static void name_the_cause(struct env *env, const struct vsr *operand, int count, int single, u64 before)
{
    int nan = 0, negative = 0;

    for (int i = 0; i < count; i++) {
        u64 number = single ? WORD(operand, i) : DOUBLEWORD(operand, i);

        if (single ? is_nan_single((u32)number) : is_nan(number))
            nan |= single ? is_signalling_single((u32)number) : is_signalling(number);
        else
            negative |= number >> (single ? 31 : 63) && number << (single ? 33 : 1);
    }
    if (!nan || negative) {
        FPSCR(env) |= nan ? VXSNAN : 0;
        return;
    }
    FPSCR(env) = (FPSCR(env) & ~VXSQRT) | (before & VXSQRT) | VXSNAN | VX | FX;
    if (count == 1)
        FPSCR(env) = (FPSCR(env) & ~FR) | (before & FR);
}
ROOT_REPLACEMENTS(ROOT)

/* An estimate of the reciprocal of 0 is infinite. Unicorn's fre gives 1/2, its fres reports no division by zero. */
#define RECIPROCAL(name, unicorns) \
    u64 unicorns(struct env *env, u64 number); \
    u64 name(struct env *env, u64 number) \
    { \
        if (number << 1) \
            return unicorns(env, number); \
        FPSCR(env) = (FPSCR(env) & ~(FR | FI)) | ZX | FX; \
        if (FPSCR(env) & ZE) { \
            FPSCR(env) |= FEX; \
            raise(env, BY_ZX, CALLER); \
        } \
        return number | 0x7FFUL << 52; \
    }
RECIPROCAL(fre, helper_fre_ppc64)
RECIPROCAL(fres, helper_fres_ppc64)

/* In single precision a product and a sum are rounded once, but Unicorn rounds to double precision before. Rounded to odd, the
 * first time does no harm. */
#define SINGLE_SUM(name, unicorns) \
    helper unicorns; \
    u64 name(struct env *env, u64 a, u64 b, u64 c) \
    { \
        u64 result; \
\
        keep(env, 0, CALLER); \
        ROUNDING(env) = TO_ODD; \
        result = unicorns(env, a, b, c, 0); \
        if (!(result << 1) && kept.rounding != TO_NEAREST) { /* The sign of a zero is the mode's. */ \
            ROUNDING(env) = kept.rounding; \
            result = unicorns(env, a, b, c, 0); \
        } \
        give_back(env); \
        return result; \
    }
SUM_REPLACEMENTS(SINGLE_SUM)
