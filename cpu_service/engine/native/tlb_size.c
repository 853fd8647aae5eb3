/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * How large a TLB is. Unicorn has one for each MMU mode, of 256 entries at first, and makes it larger, or smaller, when it is emptied
 * as a whole, by how full it was. Here that is rare: a page that goes leaves the others. So a full TLB in which pages push out each
 * other is emptied for this purpose. Each time it doubles; so what it costs to fill it again is a part of what the misses before cost.
 */

#include "page_walk.h"

enum { MODE_WORDS = 2, ENTRY_BYTES = 64, USED_WORD = 4 };
enum { FULL_PERCENT = 70 };  /* above which Unicorn doubles it */
enum { MISSES_PER_ENTRY = 4 };
enum { MOST_ENTRIES = 1 << 13 }; /* emptying it takes time, too */

extern void tlb_flush_by_mmuidx_ppc64(void *cpu, u16 modes);

void note_miss(struct fast_path *self, int mode)
{
    u64 size = self->fast_tlbs[MODE_WORDS * mode] / ENTRY_BYTES + 1;
    u64 used = ((u64 *)(self->tlb_descriptions + (u64)mode * self->tlb_description_size))[USED_WORD];

    if (++self->misses[mode] < MISSES_PER_ENTRY * size)
        return;
    self->misses[mode] = 0;
    if (used * 100 / size <= FULL_PERCENT || size >= MOST_ENTRIES)
        return;
    tlb_flush_by_mmuidx_ppc64(self->cpu, (u16)(1 << mode));
    self->enlargements++;
}
