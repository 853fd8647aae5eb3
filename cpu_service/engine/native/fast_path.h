/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * What the native part of an engine works on. ../fast_path.py has the same structure.
 */

#ifndef FAST_PATH_H
#define FAST_PATH_H

#include "native.h"

enum { EXCEPTIONS = 128, ABORTED = 127, DECREMENTER_WRITTEN = 126, MMU_MODES = 10 };
/* ../replacements.py has them in the same order. */
enum replaced { GEN_CODE, STORE, RESET_DIRTY, SET_PAGE, FIND_SECTION, EXIT_TB, FIND_BLOCK };

#define MSR_PR (1UL << 14)
#define MSR_ME (1UL << 12)
#define MSR_IR (1UL << 5)
#define MSR_DR (1UL << 4)

struct code_page;

struct fast_path {
    u64 *gpr, *msr, *nip;
    int *error_code, *exception_index;
    void *cpu;
    void (*do_interrupt)(void *cpu);
    void (*tlb_flush)(void *cpu);
    void (*tlb_flush_page)(void *cpu, u64 address, u16 modes);
    u64 *slb;
    u8 *tlb_descriptions; /* of each MMU mode, tlb_description_size bytes */
    u64 tlb_description_size, modes;
    void (*slow)(void *uc, u32 number, void *self);
    int (*emu_start)(void *uc, u64 begin, u64 until, u64 timeout, u64 count);
    void *uc;
    u64 *table; /* big endian */
    u64 entries, ram_bytes;
    u64 entered, removed, protections, bulk_removals; /* calls so far */
    u64 hints;            /* of a lower priority than the normal one, so far */
    u64 delivered[EXCEPTIONS];
    u8 *env;
    u64 *spr;
    u8 *ram;
    struct code_page *pages; /* of all RAM */
    u64 *fast_tlbs;          /* of each MMU mode: mask, table */
    u32 *interrupt_request, *pending;
    volatile u16 *exit_flag; /* ends the chain of blocks */
    const char *aborted;     /* why the engine has given up */
    u64 deliver;             /* set by slow(): the guest gets the exception */
    u64 enabled; /* 0: the slow path gets every hypercall */
    volatile u32 stopping; /* ends run(); set by any thread */
    u32 watched_stores;    /* to the watched page, since somebody has looked */
    u64 watched_page;      /* whose stores end run(); -1: none */
    u64 own_walk;          /* 0: Unicorn looks up every address in the page table */
    u64 walks;             /* that went through without it */
    u64 misses[MMU_MODES], enlargements; /* of TLBs; misses since their size was last considered */
    void *ram_section, *ram_region; /* of Unicorn's map of memory, once it has said so */
    u64 called;            /* replaced functions that Unicorn has called: a bit of enum replaced for each */
    u64 translations_left; /* of blocks, until the engine gives up; -1: as many as the guest needs */
    u64 decrementer;       /* what was written, for slow() */
    u64 *blocks;           /* the cache of block_cache.c */
    u32 *flushes;          /* how often Unicorn has dropped all blocks */
    u64 flushes_seen;      /* since when the cache holds what it does */
    u64 blocks_found;      /* in the cache */
    u64 hints_left;        /* until run() ends */
    u64 timer_ns;          /* until when nobody looks whether the decrementer is due; monotonic time */
};

/* Ends the guest with a report; only from what Unicorn has called. */
void end_guest(const char *why) __attribute__((noreturn));

/* The engine whose guest this thread runs; none between runs, and none for an engine that is not ours. */
extern _Thread_local struct fast_path *running __attribute__((tls_model("initial-exec")));

static inline void note_call(enum replaced function)
{
    if (running)
        running->called |= 1UL << function;
}

#endif
