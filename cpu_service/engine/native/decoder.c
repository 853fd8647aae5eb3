/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The decoder's table: takes instructions out that the CPU has not, and puts those in that Unicorn has not.
 */

#include "env.h"

struct instruction {
    u32 reserved, reserved_recording;
    u64 type, type2;
    void (*translate)(void *context);
};

enum { PRIMARY = 64, EXTENDED = 32, PRIMARY_4 = 4, PRIMARY_31 = 31, PRIMARY_59 = 59, PRIMARY_63 = 63 };
enum { INDIRECT = 1, KINDS_OF_POINTERS = 3 };
enum { DIVWE = 427, POPCNTB = 122, ADDG6S = 74, CBCDTD = 314, CDTBCD = 282, MSGSYNC = 886, OVERFLOW = 512 };
enum { CMPLI = 10, CMPI = 11, CMP = 0, CMPL = 32 };
enum { DECIMAL = 4, EVEN_REGISTERS = 0x00210800, EVEN_TARGET = 0x00200000, EVEN_A = 0x00010000, NO_FRA = 0x00030000 };
enum { TESTS = 2, DCMPO = 4, DTSTDG = 7 }; /* with dcmpu and dtstsf, which are 16 on */
enum { VMLADDUHM = 0x22 };
enum { FMSUBS = 28, SUMS = 4 };
enum { MAX_DEPTH = 3 };

static void (*translate_divwe)(void *context), (*translate_popcntb)(void *context);

static void through(void (*translate)(void *context), void *context, void *helper)
{
    substitute = (function *)helper;
    translate(context);
    substitute = 0;
}

/* A 6 for each digit of the sum without carry. */
static u64 addg6s(struct env *env, u64 a, u64 b, u32 overflow)
{
    u64 sixes = 0;

    (void)env;
    (void)overflow;
    for (u64 digit = 0, carry = 0; digit < 64; digit += 4) {
        carry = ((a >> digit & 15) + (b >> digit & 15) + carry) >> 4;
        if (!carry)
            sixes |= 6UL << digit;
    }
    return sixes;
}

/* Three decimal digits from and to ten bits, densely packed: bits p to y from the left, as the Power ISA's appendix names them. */
static u32 declet_of(u32 digits)
{
    u32 low = (digits & 0x77) | (digits >> 1 & 0x380), large = (digits >> 3 & 1) | (digits >> 6 & 2) | (digits >> 9 & 4);
    u32 b_c = digits >> 9 & 3, d = digits >> 8 & 1, f_g = digits >> 5 & 3, h = digits >> 4 & 1, j_k = digits >> 1 & 3, m = digits & 1;

    switch (large) {
    case 0:
        return low;
    case 1:
        return b_c << 8 | d << 7 | f_g << 5 | h << 4 | 8 | m;
    case 2:
        return b_c << 8 | d << 7 | j_k << 5 | h << 4 | 10 | m;
    case 3:
        return b_c << 8 | d << 7 | 2 << 5 | h << 4 | 14 | m;
    case 4:
        return j_k << 8 | d << 7 | f_g << 5 | h << 4 | 12 | m;
    case 5:
        return f_g << 8 | d << 7 | 1 << 5 | h << 4 | 14 | m;
    case 6:
        return j_k << 8 | d << 7 | 0 << 5 | h << 4 | 14 | m;
    default:
        return d << 7 | 3 << 5 | h << 4 | 14 | m;
    }
}

static u32 digits_of(u32 declet)
{
    u32 p_q = declet >> 8 & 3, r = declet >> 7 & 1, s_t = declet >> 5 & 3, u = declet >> 4 & 1, w_x = declet >> 1 & 3, y = declet & 1;
    u32 first = p_q << 1 | r, second = s_t << 1 | u, third = w_x << 1 | y;

    if (declet & 8) {
        switch (w_x == 3 ? 4 | s_t : w_x) {
        case 0: /* The third is 8 or 9, */
            third = 8 | y;
            break;
        case 1: /* the second, */
            second = 8 | u;
            third = s_t << 1 | y;
            break;
        case 2: /* the first, */
            first = 8 | r;
            third = p_q << 1 | y;
            break;
        case 4: /* or several. */
            first = 8 | r;
            second = 8 | u;
            third = p_q << 1 | y;
            break;
        case 5:
            first = 8 | r;
            second = p_q << 1 | u;
            third = 8 | y;
            break;
        case 6:
            second = 8 | u;
            third = 8 | y;
            break;
        default:
            first = 8 | r;
            second = 8 | u;
            third = 8 | y;
        }
    }
    return first << 8 | second << 4 | third;
}

static u64 cbcdtd(u64 digits)
{
    u64 result = 0;

    for (int half = 0; half < 64; half += 32)
        result |= (u64)(declet_of(digits >> (half + 12) & 0xFFF) << 10 | declet_of(digits >> half & 0xFFF)) << half;
    return result;
}

static u64 cdtbcd(u64 declets)
{
    u64 result = 0;

    for (int half = 0; half < 64; half += 32)
        result |= (u64)(digits_of(declets >> (half + 10) & 0x3FF) << 12 | digits_of(declets >> half & 0x3FF)) << half;
    return result;
}

static void translate_addg6s(void *context)
{
    through(translate_divwe, context, (void *)addg6s);
}

static void translate_cbcdtd(void *context)
{
    through(translate_popcntb, context, (void *)cbcdtd);
}

static void translate_cdtbcd(void *context)
{
    through(translate_popcntb, context, (void *)cdtbcd);
}

static struct instruction **subtable(struct instruction *entry)
{
    return ((u64)entry & KINDS_OF_POINTERS) == INDIRECT ? (struct instruction **)((u64)entry & ~(u64)KINDS_OF_POINTERS) : 0;
}

/* Of single precision: fmsubs, fmadds, fnmsubs and fnmadds, which Unicorn rounds twice. */
static void (*translate_sums[SUMS])(void *context);
#define SUM(number) \
    static void translate_sum_##number(void *context) \
    { \
        single_precision = 1; \
        translate_sums[number](context); \
        single_precision = 0; \
    }
SUM(0) SUM(1) SUM(2) SUM(3)
static void (*const our_sums[SUMS])(void *context) = {translate_sum_0, translate_sum_1, translate_sum_2, translate_sum_3};

/* The entries are Unicorn's own, of the whole process: done once. */
static u32 replace_sums(struct instruction **singles)
{
    for (int number = 0; number < SUMS; number++) {
        struct instruction *entry = singles[FMSUBS + number];

        if (subtable(entry))
            return 0;
        if (entry->translate != our_sums[number]) {
            translate_sums[number] = entry->translate;
            entry->translate = our_sums[number];
        }
    }
    return 1;
}

static struct instruction added[] = {
    {0, 0, 0, 0, translate_addg6s},
    {0, 0, 0, 0, translate_cbcdtd},
    {0, 0, 0, 0, translate_cdtbcd},
};

static u32 take_out(struct instruction **table, int count, u64 type, u64 type2, struct instruction *illegal, int depth)
{
    u32 taken = 0;

    for (int i = 0; i < count; i++) {
        struct instruction **below = subtable(table[i]);

        if (below) {
            if (depth < MAX_DEPTH)
                taken += take_out(below, EXTENDED, type, type2, illegal, depth + 1);
        } else if (table[i] != illegal && !(table[i]->type & type) && !(table[i]->type2 & type2)) {
            table[i] = illegal;
            taken++;
        }
    }
    return taken;
}

/* The architecture ignores reserved bits, where Unicorn's decoder refuses them in decimal floating point; but the registers of numbers
 * of 128 bits are even. With BF, the bit of an odd target is a reserved one. */
static void ignore_reserved_bits(struct instruction **table, u32 kept, u32 kept_with_bf)
{
    for (int i = 0; i < EXTENDED; i++) {
        struct instruction **below = subtable(table[i]);

        for (int j = 0; below && j < EXTENDED; j++) {
            struct instruction **last = subtable(below[j]);

            for (int k = 0; k < (last ? EXTENDED : 1); k++) {
                struct instruction *entry = last ? last[k] : below[j];

                if (!(entry->type2 & DECIMAL))
                    continue;
                if ((entry->reserved & NO_FRA) == NO_FRA)
                    entry->reserved &= kept & ~EVEN_A;
                else
                    entry->reserved &= i == TESTS && (j & 15) >= DCMPO && (j & 15) <= DTSTDG ? kept_with_bf : kept;
            }
        }
    }
}

/* Unicorn's decoder leaves the last bit of a vector instruction's number to the function that translates it, and most do not look. */
static void refuse_odd_vector_numbers(struct instruction **table, struct instruction *illegal)
{
    static const u16 odd[] = {0x89, 0xC7, 0x4C7, 0x2C7, 0x6C7, 0x3C7, 0x7C7, 0x401, 0x601, 0x441, 0x641, 0x509, 0x549, 0x703, 0x743, 0x783, 0x7C3};

    for (u32 i = 0; i < EXTENDED; i++) {
        struct instruction **below = subtable(table[i]);

        for (u32 j = 0; below && j < EXTENDED; j++) {
            u32 known = subtable(below[j]) || below[j] == illegal;

            for (u32 k = 0; k < sizeof(odd) / sizeof(*odd); k++)
                known |= odd[k] == (j << 6 | i << 1 | 1);
            if (!known)
                below[j]->reserved |= 1;
        }
    }
    if (!subtable(table[VMLADDUHM >> 1]) && table[VMLADDUHM >> 1] != illegal)
        table[VMLADDUHM >> 1]->reserved |= 1;
}

/* Let a CPU's decoder have the instructions of these types and the added ones. Returns how many it took out; 0 when the table is not
 * as it should be. */
EXPORT u32 set_instructions(struct instruction **table, u64 type, u64 type2)
{
    struct instruction *illegal = table[0], **extended = subtable(table[PRIMARY_31]), **divwe, **popcntb, **addg6s_at, **bcd, **compare, **decimal, **decimal_128, **vector;
    u32 taken;

    if (illegal->reserved != 0xFFFFFFFFU || illegal->type || illegal->type2 || !extended)
        return 0;
    divwe = subtable(extended[DIVWE & 31]);
    popcntb = subtable(extended[POPCNTB & 31]);
    addg6s_at = subtable(extended[ADDG6S & 31]);
    bcd = subtable(extended[CBCDTD & 31]);
    compare = subtable(extended[CMP & 31]);
    decimal = subtable(table[PRIMARY_59]);
    decimal_128 = subtable(table[PRIMARY_63]);
    vector = subtable(table[PRIMARY_4]);
    if (!divwe || !popcntb || !addg6s_at || !bcd || !compare || !decimal || !decimal_128 || !vector)
        return 0;
    if (!replace_sums(decimal))
        return 0;
    taken = take_out(table, PRIMARY, type, type2, illegal, 0);
    /* Not of the ISA 3.0 to Unicorn. */
    if (subtable(extended[MSGSYNC & 31]))
        subtable(extended[MSGSYNC & 31])[MSGSYNC >> 5] = illegal;
    translate_divwe = divwe[DIVWE >> 5]->translate;
    translate_popcntb = popcntb[POPCNTB >> 5]->translate;
    ignore_reserved_bits(decimal, 0, 0);
    ignore_reserved_bits(decimal_128, EVEN_REGISTERS, EVEN_REGISTERS & ~EVEN_TARGET);
    refuse_odd_vector_numbers(vector, illegal);
    table[CMPI]->reserved = table[CMPLI]->reserved = compare[CMP >> 5]->reserved = compare[CMPL >> 5]->reserved = 0;
    addg6s_at[ADDG6S >> 5] = &added[0];
    addg6s_at[(ADDG6S | OVERFLOW) >> 5] = &added[0];
    bcd[CBCDTD >> 5] = &added[1];
    bcd[CDTBCD >> 5] = &added[2];
    return taken;
}
