/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A cache in front of the table of all translated blocks. The engine remembers blocks by their virtual address as long as no page
 * is unmapped; Linux does that with each change of process, and with most of its system calls on a disk. Unicorn's table has some
 * megabytes, so that a look into it misses the processor's caches two or three times, hundreds of times for each transfer of a disk.
 *
 * Here blocks are remembered by their physical address, whatever is unmapped. An entry is a block's address, with a part of the hash
 * above it; what it leads to is compared with all that Unicorn compares. A block that is no longer valid says so itself, until all
 * blocks go at once: Unicorn counts that, and then the cache is emptied before anybody looks at an entry.
 */

#include "env.h"
#include "fast_path.h"

enum { PHYSICAL_PAGE = 0x48, SECOND_PAGE = 0x50 };                                /* of a block */
enum { BLOCK_PC = 0, BLOCK_BASE = 8, BLOCK_FLAGS = 0x10, BLOCK_OPTIONS = 0x18, BLOCK_TRACE = 0x1C }; /* of a block */
enum { CPU_TRACE = 0x8188 };
enum { ADDRESS_BITS = 48, INDEX_BITS = 14, TAG_SHIFT = 32 }; /* ../fast_path.py makes room for as many entries */

#define PAGE 0x1000UL
#define NONE (-1UL)
#define COMPARED_OPTIONS 0xFF0EFFFFU
#define GOLDEN_RATIO 0x9E3779B97F4A7C15UL
#define ADDRESS ((1UL << ADDRESS_BITS) - 1)

extern void *tb_htable_lookup_ppc64(void *cpu, u64 pc, u64 base, u32 flags, u32 options);
extern u64 get_page_addr_code_ppc64(void *env, u64 address);

static void forget_flushed(struct fast_path *self)
{
    if (self->flushes_seen == *self->flushes)
        return;
    for (u64 index = 0; index < 1UL << INDEX_BITS; index++)
        self->blocks[index] = 0;
    self->flushes_seen = *self->flushes;
}

static int is_wanted(u8 *block, void *cpu, u64 pc, u64 base, u32 flags, u32 options, u64 page)
{
    return AT(u64, block, BLOCK_PC) == pc && AT(u64, block, PHYSICAL_PAGE) == page && AT(u64, block, SECOND_PAGE) == NONE &&
        AT(u32, block, BLOCK_FLAGS) == flags && AT(u64, block, BLOCK_BASE) == base &&
        (AT(u32, block, BLOCK_OPTIONS) & COMPARED_OPTIONS) == options && AT(u32, block, BLOCK_TRACE) == AT(u32, cpu, CPU_TRACE);
}

/* In the place of Unicorn's look into its table. */
EXPORT void *find_block(void *cpu, u64 pc, u64 base, u32 flags, u32 options)
{
    struct fast_path *self = running;
    u64 physical, hash, *entry;
    u8 *block;

    note_call(FIND_BLOCK);
    if (!self || self->cpu != cpu)
        return tb_htable_lookup_ppc64(cpu, pc, base, flags, options);
    physical = get_page_addr_code_ppc64(self->env, pc);
    if (physical == NONE)
        return 0;
    forget_flushed(self);
    hash = (physical ^ (u64)flags << TAG_SHIFT) * GOLDEN_RATIO;
    entry = &self->blocks[hash >> (64 - INDEX_BITS)];
    hash = hash >> TAG_SHIFT << ADDRESS_BITS;
    block = (u8 *)(*entry & ADDRESS);
    if (block && (*entry & ~ADDRESS) == hash && is_wanted(block, cpu, pc, base, flags, options, physical & -PAGE)) {
        self->blocks_found++;
        return block;
    }
    block = tb_htable_lookup_ppc64(cpu, pc, base, flags, options);
    if (block && !((u64)block & ~ADDRESS))
        *entry = (u64)block | hash;
    return block;
}
