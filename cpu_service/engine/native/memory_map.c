/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * What is behind an address of guest RAM, which Unicorn looks up in its map of memory twice at each TLB miss. RAM is one region from
 * address 0 to its end, for as long as there is the engine; so what Unicorn has once said of it stays true.
 */

#include "fast_path.h"

extern void *address_space_translate_for_iotlb_ppc64(
    void *cpu, int space, u64 address, u64 *offset, u64 *length, u32 attributes, int *protection);
extern void *find_memory_mapping_ppc64(void *uc, u64 address);

static int is_ram(struct fast_path *self, u64 address)
{
    return self && address < self->ram_bytes;
}

/* In the place of Unicorn's function: the section of the map, and the offset in it. */
EXPORT void *find_section(void *cpu, int space, u64 address, u64 *offset, u64 *length, u32 attributes, int *protection)
{
    struct fast_path *self = running;
    void *section;

    note_call(FIND_SECTION);
    if (!is_ram(self, address) || self->cpu != cpu)
        return address_space_translate_for_iotlb_ppc64(cpu, space, address, offset, length, attributes, protection);
    if (self->ram_section) {
        *offset = address;
        return self->ram_section;
    }
    section = address_space_translate_for_iotlb_ppc64(cpu, space, address, offset, length, attributes, protection);
    if (*offset == address)
        self->ram_section = section;
    return section;
}

/* In the place of the function that the engine has a pointer to: the region of the map. */
EXPORT void *find_region(void *uc, u64 address)
{
    struct fast_path *self = running;

    if (!is_ram(self, address) || self->uc != uc)
        return find_memory_mapping_ppc64(uc, address);
    if (!self->ram_region)
        self->ram_region = find_memory_mapping_ppc64(uc, address);
    return self->ram_region;
}
