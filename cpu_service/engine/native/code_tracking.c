/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Which pages of RAM hold translated code, and what happens when somebody stores there. These functions replace Unicorn's own by
 * name (../replacements.py), which miss stores: those to a page that has other blocks, after the first; and those through another
 * virtual address. They also keep every store beside code on the slow path for ever.
 *
 * The rule here: while a page has code, no TLB entry lets a store pass unseen, whatever its virtual address. An entry is
 * protected where it is made, and all entries of a page when the page gets its first block. A store that touches no code
 * costs a look at a mask. A page that is watched (a spin table) is protected likewise, for good: each store there ends the run at the
 * end of its block, so that somebody can look. After many of them without new code between, the page loses its code and the stores become
 * fast; when it gets code again, it takes twice as many.
 */

#include "fast_path.h"

enum { NOT_DIRTY = 0x400, INVALID = 0x800, NOT_RAM = 0x200, DISCARD = 0x40 }; /* low bits of an address in the TLB */
enum { VICTIMS = 8, VICTIM_OFFSET = 48, MODE_WORDS = 2 };
enum { BLOCK_SIZE_OFFSET = 20 };
enum { GRANULE_SHIFT = 6 };
enum { PATIENCE = 64, MOST_DOUBLINGS = 14 };

#define PAGE 0x1000UL
#define NONE (-1UL)

struct code_page {
    u64 granules; /* that have held code, 64 bytes each */
    u32 stores;   /* beside code, since the page's last new block */
    u32 doublings;
};

struct tlb_entry {
    u64 read, write, code, physical, addend, padding[3];
};

extern void *tb_gen_code_ppc64(void *cpu, u64 pc, u64 base, u32 flags, int options);
extern void tb_invalidate_phys_page_fast_ppc64(void *uc, void *pages, u64 address, int length, u64 from);
extern void tb_invalidate_phys_page_range_ppc64(void *uc, u64 start, u64 end);
extern void tlb_reset_dirty_by_vaddr_ppc64(void *cpu, u64 address, u64 length);
extern void tlb_set_page_ppc64(void *cpu, u64 address, u64 physical, int protection, int mode, u64 size);
extern int uc_emu_stop(void *uc);
extern u64 get_page_addr_code_ppc64(void *env, u64 address);

/* The granules of bytes first to last of a page. */
static u64 granules(u64 first, u64 last)
{
    return (-1UL << (first >> GRANULE_SHIFT)) & (-1UL >> (63 - (last >> GRANULE_SHIFT)));
}

/* An entry whose code address is not NONE stays as it is when Unicorn has let a store pass: so one is made up that hits nothing. */
static void protect(struct tlb_entry *entry)
{
    u64 page = entry->write & -PAGE;

    entry->write |= NOT_DIRTY;
    if (entry->code == NONE)
        entry->code = page | INVALID;
}

static void release(struct tlb_entry *entry)
{
    entry->write &= ~(u64)NOT_DIRTY;
}

static void change(struct tlb_entry *entry, u64 host, void (*act)(struct tlb_entry *))
{
    if (!(entry->write & (INVALID | NOT_RAM | DISCARD)) && (entry->write & -PAGE) + entry->addend == host)
        act(entry);
}

/* All entries through which a page of RAM can be written. */
static void change_all(struct fast_path *self, u64 page, void (*act)(struct tlb_entry *))
{
    u64 host = (u64)self->ram + page;

    for (u64 mode = 0; self->modes >> mode; mode++) {
        u64 *fast = self->fast_tlbs + MODE_WORDS * mode;
        struct tlb_entry *entry = (struct tlb_entry *)fast[1], *end = entry + fast[0] / sizeof *entry + 1;
        struct tlb_entry *victim = (struct tlb_entry *)(self->tlb_descriptions + mode * self->tlb_description_size + VICTIM_OFFSET);

        if (!(self->modes >> mode & 1))
            continue;
        for (; entry < end; entry++)
            change(entry, host, act);
        for (u64 index = 0; index < VICTIMS; index++)
            change(&victim[index], host, act);
    }
}

/* Every new entry comes through here, and is protected as Unicorn makes it. */
void set_page(void *cpu, u64 address, u64 physical, int protection, int mode, u64 size)
{
    struct fast_path *self = running;
    u64 *fast;
    struct tlb_entry *entry;

    tlb_set_page_ppc64(cpu, address, physical, protection, mode, size);
    if (!self || self->cpu != cpu || physical >= self->ram_bytes)
        return;
    fast = self->fast_tlbs + MODE_WORDS * mode;
    entry = (struct tlb_entry *)(fast[1] + (address >> 6 & fast[0]));
    if (entry->write == ((address & -PAGE) | NOT_DIRTY))
        (self->pages[physical / PAGE].granules || (physical & -PAGE) == self->watched_page ? protect : release)(entry);
}

/* One for which Unicorn has looked in the page table. */
EXPORT void tracked_set_page(void *cpu, u64 address, u64 physical, int protection, int mode, u64 size)
{
    note_call(SET_PAGE);
    set_page(cpu, address, physical, protection, mode, size);
}

EXPORT void *tracked_gen_code(void *cpu, u64 pc, u64 base, u32 flags, int options)
{
    struct fast_path *self = running;
    struct code_page *page;
    u64 address, offset = pc & (PAGE - 1), size;
    u8 *block;

    note_call(GEN_CODE);
    if (!self || self->cpu != cpu)
        return tb_gen_code_ppc64(cpu, pc, base, flags, options);
    address = get_page_addr_code_ppc64(self->env, pc) & -PAGE;
    if (address >= self->ram_bytes)
        return tb_gen_code_ppc64(cpu, pc, base, flags, options);
    page = &self->pages[address / PAGE];
    if (!page->granules)
        change_all(self, address, protect);
    page->stores = 0;
    block = tb_gen_code_ppc64(cpu, pc, base, flags, options);
    size = *(u16 *)(block + BLOCK_SIZE_OFFSET);
    page->granules |= granules(offset, offset + (size ? size - 1 : 0));
    return block;
}

/* A store to a page with protected entries. */
EXPORT void tracked_store(void *uc, void *pages, u64 address, int length, u64 from)
{
    struct fast_path *self = running;
    struct code_page *page;
    u64 offset = address & (PAGE - 1), start = address & -PAGE;

    note_call(STORE);
    if (!self || self->uc != uc || address >= self->ram_bytes) {
        tb_invalidate_phys_page_fast_ppc64(uc, pages, address, length, from);
        return;
    }
    page = &self->pages[address / PAGE];
    if (page->granules & granules(offset, offset + (u64)length - 1))
        tb_invalidate_phys_page_range_ppc64(uc, address, address + (u64)length);
    if (start == self->watched_page) {
        self->watched_stores = 1;
        self->stopping = 1;
        uc_emu_stop(uc);
        return;
    }
    if (page->granules && ++page->stores < (u32)PATIENCE << page->doublings)
        return;
    if (page->granules) {
        tb_invalidate_phys_page_range_ppc64(uc, start, start + PAGE);
        page->granules = page->stores = 0;
        page->doublings += page->doublings < MOST_DOUBLINGS;
    }
    change_all(self, start, release);
}

/* Unicorn protects the page of each new block, by its virtual address, with a look at every entry. tracked_gen_code() has done it. */
EXPORT void tracked_reset_dirty(void *cpu, u64 address, u64 length)
{
    note_call(RESET_DIRTY);
    if (!running || running->cpu != cpu)
        tlb_reset_dirty_by_vaddr_ppc64(cpu, address, length);
}

/* Somebody outside the guest wrote to RAM; on the engine's thread. */
EXPORT void code_written(struct fast_path *self, u64 address, u64 length)
{
    u64 end = address + length;

    for (u64 next; address < end; address = next) {
        struct code_page *page = &self->pages[address / PAGE];

        next = (address & -PAGE) + PAGE;
        if (next > end)
            next = end;
        if (page->granules & granules(address & (PAGE - 1), (next - 1) & (PAGE - 1)))
            tb_invalidate_phys_page_range_ppc64(self->uc, address, next);
    }
}
