/* SPDX-License-Identifier: GPL-2.0-or-later */

#ifndef PAGE_WALK_H
#define PAGE_WALK_H

#include "fast_path.h"

/* code_tracking.c: every new entry of the TLB comes through here. Protection: 1 read, 2 write, 4 execute. */
void set_page(void *cpu, u64 address, u64 physical, int protection, int mode, u64 size);

/* tlb_size.c: the TLB of a mode had no entry for an address. It may be empty, and larger, when this returns. */
void note_miss(struct fast_path *self, int mode);

/* Puts a translated address into the TLB. Access: 0 load, 1 store, 2 fetch. Returns 0, with nothing done, when Unicorn has to look. */
int walk(struct fast_path *self, u64 address, int access, int mode);

#endif
