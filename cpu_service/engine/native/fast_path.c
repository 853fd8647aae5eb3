/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * What the engine does when Python is not needed. It goes on after a priority hint, at each of which Unicorn returns. It delivers
 * exceptions to the guest's vectors. It carries out the calls that change the hash page table, if they succeed. Everything else goes
 * to the slow path, in Python, which does the same and more: a call that this file refuses has changed nothing.
 *
 * Runs on the vCPU thread, without Python's lock. ../fast_path.py has the same structure.
 */

#include "fast_path.h"

enum { MACHINE_CHECK = 1, SYSTEM_CALL = 8, EMULATION_ASSISTANCE = 96, INVALID = 0x21, HYPERCALL = 1 };
enum { SPR_SRR1 = 27 };
enum { H_REMOVE = 0x04, H_ENTER = 0x08, H_PROTECT = 0x18, H_BULK_REMOVE = 0x124 };
enum { BULK_FIRST = 4, BULK_END = 12 };                         /* registers */
enum { REQUEST = 1, END = 3, RESPONSE = 2, NOT_FOUND = 1 };      /* kinds, and a code */
enum { ENTRY_WORDS = 2, GROUP_ENTRIES = 8 };
enum { SLB_ENTRIES = 64, SLB_ENTRY_WORDS = 3 };
enum { VPN_SHIFT = 23, AVPN_SHIFT = 7, HASH_BITS = 11 };

#define SRR1_LOAD_STORE 0x200000UL
#define SRR1_FETCH 0x40000UL
#define EXACT (1UL << 39)
#define AVPN (1UL << 31)
#define ANDCOND (1UL << 30)
#define ZERO_PAGE (1UL << 15)
#define VALID 0x1UL
#define LARGE 0x4UL
#define SOFTWARE 0x60UL
#define NOT_AVPN 0x7FUL
#define REAL_PAGE 0x0FFFFFFFFFFFF000UL
#define WIMG 0x78UL
#define COHERENT 0x10UL
#define USED 0x180UL
#define PAGE_4K 0x1000UL
#define PAGE_64K 0x10000UL
#define LP_64K 0x1UL
#define SECONDARY 0x2UL
#define SEGMENT_SIZE_SHIFT 62
#define PP0 (1UL << 63)
#define KEY_HIGH (3UL << 60)
#define KEY_LOW 0xE00UL
#define NO_EXECUTE_AND_PP 0x7UL
#define PROTECTION (PP0 | KEY_HIGH | KEY_LOW | NO_EXECUTE_AND_PP)
#define KIND_SHIFT 62
#define CODE_SHIFT 60
#define BULK_INDEX 0x00FFFFFFFFFFFFFFUL
#define BULK_FLAGS (3UL << 56)
#define BULK_FLAGS_SHIFT 26
#define BULK_USED_SHIFT 51
#define ABBREVIATED_VPN 0x3FFFFFFFFFFFFF80UL
#define SLB_VALID 0x08000000UL
#define SLB_FLAGS 0xFFFUL

_Thread_local struct fast_path *running __attribute__((tls_model("initial-exec")));

#define be64(word) __builtin_bswap64(word)

/* Bytes of the page that an entry maps; 0 when it is neither 4 KiB nor 64 KiB in a segment of such pages. */
static u64 page_size(u64 high, u64 low)
{
    if (!(high & LARGE))
        return PAGE_4K;
    return (low >> 12 & 0xF) == LP_64K ? PAGE_64K : 0;
}

static int enter(struct fast_path *self)
{
    u64 *gpr = self->gpr, flags = gpr[4], index = gpr[5], high = gpr[6], low = gpr[7];
    u64 size = page_size(high, low), address = low & REAL_PAGE & -size, end;

    if (!size || (low & WIMG) != COHERENT || flags & ZERO_PAGE || index >= self->entries || address + size > self->ram_bytes)
        return 0;
    if (!(flags & EXACT)) {
        index &= ~(GROUP_ENTRIES - 1UL);
        for (end = index + GROUP_ENTRIES - 1; index < end && be64(self->table[ENTRY_WORDS * index]) & VALID;)
            index++;
    }
    if (be64(self->table[ENTRY_WORDS * index]) & VALID)
        return 0;
    self->table[ENTRY_WORDS * index + 1] = be64(low | USED);
    self->table[ENTRY_WORDS * index] = be64(high & ~SOFTWARE);
    gpr[4] = index;
    gpr[3] = 0;
    self->entered++;
    return 1;
}

/* The engine forgets all translations when one page of a "large" region goes, and one of more than 4 KiB makes such a region. Here
 * every 4 KiB of a page are flushed, so it need not remember them. */
static void flush_page(struct fast_path *self, u64 address, u64 size)
{
    for (u64 mode = 0; self->modes >> mode; mode++) {
        u64 *large_page = (u64 *)(self->tlb_descriptions + mode * self->tlb_description_size);

        if (self->modes >> mode & 1)
            large_page[0] = large_page[1] = -1UL;
    }
    for (u64 offset = 0; offset < size; offset += PAGE_4K)
        self->tlb_flush_page(self->cpu, address + offset, (u16)self->modes);
}

/* Drop the translations that come from an entry. Its virtual address follows from its place in the table, the effective one from
 * the segment that has it now. A segment that is in no SLB entry any more may have left translations: then all must go, says 0. */
static int flush_entry(struct fast_path *self, u64 index, u64 high, u64 low)
{
    u64 size = page_size(high, low), segment_size = high >> SEGMENT_SIZE_SHIFT, group = index / GROUP_ENTRIES;
    u64 segment_shift = segment_size ? 40 : 28, avpn = (high & ABBREVIATED_VPN) >> AVPN_SHIFT;
    u64 vsid = avpn >> (segment_shift - VPN_SHIFT), offset, wanted;

    if (!size || segment_size > 1)
        return 0;
    if (high & SECONDARY)
        group = ~group;
    offset = (avpn << VPN_SHIFT) & ((1UL << segment_shift) - 1);
    offset |= ((group ^ vsid) & ((1UL << HASH_BITS) - 1)) * size;
    wanted = segment_size << SEGMENT_SIZE_SHIFT | vsid << (segment_size ? 24 : 12);
    for (u64 *segment = self->slb; segment < self->slb + SLB_ENTRIES * SLB_ENTRY_WORDS; segment += SLB_ENTRY_WORDS) {
        if (segment[0] & SLB_VALID && (segment[1] & ~SLB_FLAGS) == wanted) {
            flush_page(self, (segment[0] & -(1UL << segment_shift)) | offset, size);
            return 1;
        }
    }
    return 0;
}

static void flush(struct fast_path *self, u64 index, u64 high, u64 low)
{
    if (!flush_entry(self, index, high, low))
        self->tlb_flush(self->cpu);
}

/* Whether an entry is there and is the one that a call means. */
static int is_meant(u64 high, u64 flags, u64 avpn)
{
    return high & VALID && !(flags & AVPN && (high & ~NOT_AVPN) != avpn) && !(flags & ANDCOND && high & avpn);
}

static int remove(struct fast_path *self)
{
    u64 *gpr = self->gpr, flags = gpr[4], index = gpr[5], avpn = gpr[6], high, low;

    if (index >= self->entries)
        return 0;
    high = be64(self->table[ENTRY_WORDS * index]);
    low = be64(self->table[ENTRY_WORDS * index + 1]);
    if (!is_meant(high, flags, avpn))
        return 0;
    self->table[ENTRY_WORDS * index] = self->table[ENTRY_WORDS * index + 1] = 0;
    flush(self, index, high, low);
    gpr[4] = high;
    gpr[5] = low;
    gpr[3] = 0;
    self->removed++;
    return 1;
}

static int protect(struct fast_path *self)
{
    u64 *gpr = self->gpr, flags = gpr[4], index = gpr[5], high, low, wanted;

    if (index >= self->entries)
        return 0;
    high = be64(self->table[ENTRY_WORDS * index]);
    low = be64(self->table[ENTRY_WORDS * index + 1]);
    if (!is_meant(high, flags & AVPN, gpr[6]))
        return 0;
    wanted = (flags << 55 & PP0) | (flags << 48 & KEY_HIGH) | (flags & (KEY_LOW | NO_EXECUTE_AND_PP));
    self->table[ENTRY_WORDS * index + 1] = be64((low & ~PROTECTION) | wanted);
    flush(self, index, high, low);
    gpr[3] = 0;
    self->protections++;
    return 1;
}

/* Whether the list is one that can be carried out to its end. */
static int is_well_formed(struct fast_path *self)
{
    for (u64 *request = self->gpr + BULK_FIRST; request < self->gpr + BULK_END; request += 2) {
        if (*request >> KIND_SHIFT == END)
            return 1;
        if (*request >> KIND_SHIFT != REQUEST || (*request & BULK_INDEX) >= self->entries ||
            (*request & BULK_FLAGS) >> BULK_FLAGS_SHIFT == (AVPN | ANDCOND))
            return 0;
    }
    return 1;
}

static int bulk_remove(struct fast_path *self)
{
    int all = 0;

    if (!is_well_formed(self))
        return 0;
    for (u64 *request = self->gpr + BULK_FIRST; request < self->gpr + BULK_END && *request >> KIND_SHIFT != END; request += 2) {
        u64 index = *request & BULK_INDEX, *entry = self->table + ENTRY_WORDS * index, high = be64(entry[0]), low = be64(entry[1]);
        u64 response = (u64)RESPONSE << KIND_SHIFT | (*request & (BULK_INDEX | BULK_FLAGS));

        if (is_meant(high, (*request & BULK_FLAGS) >> BULK_FLAGS_SHIFT, request[1])) {
            entry[0] = entry[1] = 0;
            all |= !flush_entry(self, index, high, low);
            *request = response | (low & USED) << BULK_USED_SHIFT;
        } else {
            *request = response | (u64)NOT_FOUND << CODE_SHIFT;
        }
    }
    if (all)
        self->tlb_flush(self->cpu);
    self->gpr[3] = 0;
    self->bulk_removals++;
    return 1;
}

/* Whether it was carried out. */
static int hypercall(struct fast_path *self)
{
    switch (self->gpr[3]) {
    case H_ENTER:
        return enter(self);
    case H_REMOVE:
        return remove(self);
    case H_PROTECT:
        return protect(self);
    case H_BULK_REMOVE:
        return bulk_remove(self);
    default:
        return 0;
    }
}

/* Run until something stops it, or for hints_left hints. Returns Unicorn's error. */
EXPORT int run_guest(struct fast_path *self)
{
    struct fast_path *outer = running;
    u64 before;
    int error = 0;

    running = self;
    while (self->hints_left) {
        before = self->hints_left;
        error = self->emu_start(self->uc, *self->nip, 0, 0, 0);
        if (error || self->stopping)
            break;
        if (self->hints_left == before) /* Unicorn has a reason of its own, such as an instruction that waits. */
            self->hints_left--;
    }
    running = outer;
    return error;
}

static void deliver(struct fast_path *self, u32 number)
{
    u64 cause = number != MACHINE_CHECK ? 0 : *self->error_code ? SRR1_FETCH : SRR1_LOAD_STORE;

    if (number < EXCEPTIONS)
        self->delivered[number]++;
    if (number == EMULATION_ASSISTANCE) /* Which a hypervisor would pass on as an illegal instruction. */
        *self->error_code = INVALID;
    *self->nip -= 4;
    *self->exception_index = (int)number;
    self->do_interrupt(self->cpu);
    if (cause)
        self->spr[SPR_SRR1] |= cause;
}

/* Python may want the exception delivered. It does not do it itself: do_interrupt() may end in a jump out of here. */
static void go_slowly(void *uc, u32 number, struct fast_path *self)
{
    self->deliver = 0;
    self->slow(uc, number, self);
    if (self->deliver)
        deliver(self, number);
}

/* The hook. */
EXPORT void exception_hook(void *uc, u32 number, struct fast_path *self)
{
    if (number == SYSTEM_CALL && *self->error_code == HYPERCALL) {
        if (!self->enabled || *self->msr & MSR_PR || !hypercall(self))
            go_slowly(uc, number, self);
    } else if (number == MACHINE_CHECK || number == ABORTED) {
        go_slowly(uc, number, self);
    } else {
        deliver(self, number);
    }
}
