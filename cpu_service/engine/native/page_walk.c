/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The translation of an address by SLB and hash page table that succeeds (Power ISA 2.07, III-S, 5.7). Unicorn's own reads the
 * table through its map of memory, as if it could be anywhere; here it is an array. Only pages of their segment's size are found,
 * which have their R and C bits set, as all have that H_ENTER has made. Everything else is left to Unicorn, which looks again, and
 * knows the exceptions.
 */

#include "page_walk.h"

enum { FETCH = 2 };
enum { READ = 1, WRITE = 2, EXECUTE = 4 }; /* by access, 1 << access */
enum { SLB_ENTRIES = 64, SLB_ENTRY_WORDS = 3, ENTRY_WORDS = 2, GROUP_WORDS = 16 };
enum { SPR_AMR = 29, SPR_IAMR = 61, KEYS = 32 };

#define PAGE 0x1000UL
#define SLB_VALID 0x08000000UL
#define SEGMENT_SIZE (3UL << 62) /* of a VSID, and of an entry */
#define TERABYTE (1UL << 62)
#define VSID 0x3FFFFFFFFFFFF000UL
#define STATE_KEY 0x800UL
#define PROBLEM_KEY 0x400UL
#define SEGMENT_NO_EXECUTE 0x200UL
#define PAGE_SIZE_BITS 0x130UL
#define ABBREVIATED_PAGE 0x3FFFFFFFFFFFFF80UL
#define COMPARED 0xFFFFFFFFFFFFFF83UL /* all but software's bits and L */
#define VALID 0x1UL
#define SECONDARY 0x2UL
#define LARGE 0x4UL
#define REAL_PAGE 0x0FFFFFFFFFFFF000UL
#define NO_EXECUTE 0x4UL
#define GUARDED 0x8UL
#define USED 0x180UL

#define be64(word) __builtin_bswap64(word)

/* What PP, with PP0 as its first bit, lets do; with the segment's key for the present state, and without. */
static const u8 without_key[8] = {7, 7, 7, READ | EXECUTE, 0, 0, READ | EXECUTE, 0};
static const u8 with_key[8] = {0, READ | EXECUTE, 7, READ | EXECUTE, 0, 0, 0, 0};

static u64 *find_segment(struct fast_path *self, u64 address)
{
    u64 small = (address & -(1UL << 28)) | SLB_VALID, large = (address & -(1UL << 40)) | SLB_VALID;

    for (u64 *segment = self->slb; segment < self->slb + SLB_ENTRIES * SLB_ENTRY_WORDS; segment += SLB_ENTRY_WORDS)
        if ((segment[0] == small && !(segment[1] & SEGMENT_SIZE)) ||
            (segment[0] == large && (segment[1] & SEGMENT_SIZE) == TERABYTE))
            return segment;
    return 0;
}

/* Log2 of the size of a segment's pages; 0: another than 4 KiB, 64 KiB and 16 MiB. */
static u32 page_shift(u64 vsid)
{
    switch (vsid & PAGE_SIZE_BITS) {
    case 0:
        return 12;
    case 0x110:
        return 16;
    case 0x100:
        return 24;
    default:
        return 0;
    }
}

/* Whether an entry's page has the size of its segment's pages: the low end of the real page number tells. */
static int has_size(u64 high, u64 low, u32 shift)
{
    u64 encoding = low & REAL_PAGE & ((1UL << shift) - 1);

    return shift == 12 ? !(high & LARGE) : high & LARGE && encoding == (shift == 16 ? PAGE : 0);
}

static u64 *find_entry(struct fast_path *self, u64 hash, u64 wanted)
{
    u64 *group = self->table + (hash & (self->entries * ENTRY_WORDS / GROUP_WORDS - 1)) * GROUP_WORDS;

    for (u64 *entry = group; entry < group + GROUP_WORDS; entry += ENTRY_WORDS)
        if (!((be64(entry[0]) ^ wanted) & COMPARED))
            return entry;
    return 0;
}

static u32 permissions(struct fast_path *self, u64 vsid, u64 low)
{
    u64 pp = (low & 3) | low >> 63 << 2, key = (low >> 60 & 3) << 3 | (low >> 9 & 7), shift = 2 * (KEYS - 1 - key);
    u32 allowed = (vsid & (*self->msr & MSR_PR ? PROBLEM_KEY : STATE_KEY) ? with_key : without_key)[pp];

    if (low & (NO_EXECUTE | GUARDED) || self->spr[SPR_IAMR] >> shift & 1)
        allowed &= ~(u32)EXECUTE;
    if (self->spr[SPR_AMR] >> shift & 1)
        allowed &= ~(u32)READ;
    if (self->spr[SPR_AMR] >> shift & 2)
        allowed &= ~(u32)WRITE;
    return allowed;
}

int walk(struct fast_path *self, u64 address, int access, int mode)
{
    u64 *segment = find_segment(self, address), *entry, vsid, number, offset, hash, wanted, low, physical;
    u32 shift, allowed;

    if (!self->own_walk || !segment)
        return 0;
    vsid = segment[1];
    shift = page_shift(vsid);
    if (!shift || (access == FETCH && vsid & SEGMENT_NO_EXECUTE))
        return 0;
    offset = address & (vsid & TERABYTE ? (1UL << 40) - 1 : (1UL << 28) - 1) & -(1UL << shift);
    number = (vsid & VSID) >> (vsid & TERABYTE ? 24 : 12);
    hash = number ^ (vsid & TERABYTE ? number << 25 : 0) ^ offset >> shift;
    wanted = (vsid & (SEGMENT_SIZE | VSID)) | (offset >> 16 & ABBREVIATED_PAGE) | VALID;
    entry = find_entry(self, hash, wanted);
    if (!entry)
        entry = find_entry(self, ~hash, wanted | SECONDARY);
    if (!entry)
        return 0;
    low = be64(entry[1]);
    if (!has_size(be64(entry[0]), low, shift) || (low & USED) != USED)
        return 0;
    allowed = permissions(self, vsid, low);
    physical = (low & REAL_PAGE & -(1UL << shift)) | (address & ((1UL << shift) - 1));
    if (!(allowed >> access & 1) || physical >= self->ram_bytes)
        return 0;
    /* 4 KiB, whatever the page's size: flushes go over all of a larger one (fast_path.c), so the TLB need not remember it. */
    set_page(self->cpu, address & -PAGE, physical & -PAGE, (int)allowed, mode, PAGE);
    self->walks++;
    return 1;
}
