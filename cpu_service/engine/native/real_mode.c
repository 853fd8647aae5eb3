/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Real mode of a guest under a hypervisor: addresses are guest-physical, and RAM is all there is. The engine's CPU believes that
 * a hypervisor runs on it, so its own real mode would go through the hypervisor's tables. mmu_fault() stands in the CPU's class.
 */

#include "page_walk.h"

enum { FETCH = 2 };
enum { READ_WRITE_EXECUTE = 7 };
enum { MACHINE_CHECK = 1 };
enum { SPR_DSISR = 18, SPR_DAR = 19 };

#define PAGE 0x1000UL
#define REAL_ADDRESS 0x0FFFFFFFFFFFFFFFUL
#define DSISR_UNCORRECTABLE 0x8000UL /* of a load or store, as POWER8 has it */

extern int ppc64_v3_handle_mmu_fault(void *cpu, u64 address, int access, int mode);

/* 0: the TLB has an entry. Else the exception is noted in the CPU. */
EXPORT int mmu_fault(void *cpu, u64 address, int access, int mode)
{
    struct fast_path *self = running;
    u64 physical = address & REAL_ADDRESS;

    if (!self || self->cpu != cpu)
        return ppc64_v3_handle_mmu_fault(cpu, address, access, mode);
    note_miss(self, mode);
    if (*self->msr & (access == FETCH ? MSR_IR : MSR_DR))
        return walk(self, address, access, mode) ? 0 : ppc64_v3_handle_mmu_fault(cpu, address, access, mode);
    if (physical < self->ram_bytes) {
        set_page(cpu, address & -PAGE, physical & -PAGE, READ_WRITE_EXECUTE, mode, PAGE);
        return 0;
    }
    if (access != FETCH) {
        self->spr[SPR_DAR] = address;
        self->spr[SPR_DSISR] = DSISR_UNCORRECTABLE;
    }
    *self->exception_index = MACHINE_CHECK;
    *self->error_code = access == FETCH;
    return 1;
}
