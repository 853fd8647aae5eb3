/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The look at the exit flag at the start of each block, by which a guest is stopped between two blocks. Unicorn has it in a helper
 * function, which each block calls; here it is a load and a branch, as in QEMU. The branch goes to the end of the block, where Unicorn
 * leaves the code for it: an exit with the index 3, by which the engine knows that the block has not begun.
 */

#include "env.h"
#include "fast_path.h"

enum { CPU_ENV = 0x88F0 }; /* Of a TCGContext: where its temporary for env is, from the context. */
enum { TEMPORARY_NAME = 0x20 };
enum { EXIT_FLAG = -16 }; /* from env: its sign */
enum { SET_LABEL = 1, LOAD_32 = 13, TYPE_32 = 0, LESS = 2, PRESENT = 1 };
enum { EXIT_REQUESTED = 3 };
#define UNLIMITED (-1UL)

struct label {
    u32 present;
};

extern struct label *gen_new_label_ppc64(void *context);
extern void *tcg_temp_new_internal_ppc64(void *context, int type, int is_local);
extern void tcg_temp_free_internal_ppc64(void *context, void *temporary);
extern void tcg_gen_op1_ppc64(void *context, int operation, u64 operand);
extern void tcg_gen_op3_ppc64(void *context, int operation, u64 first, u64 second, u64 third);
extern void tcg_gen_brcondi_i32_ppc64(void *context, int condition, u64 left, s32 right, struct label *target);
extern void tcg_gen_exit_tb_ppc64(void *context, void *block, u32 index);

/* Of the block that is being translated. A translation may end in the middle, at a page that cannot be fetched. */
static THREAD struct label *asked_to_exit;
/* Blocks that were translated with the check in them. */
EXPORT u64 checks_in_line;

static int is_env(const char *name)
{
    return name && name[0] == 'e' && name[1] == 'n' && name[2] == 'v' && !name[3];
}

/* Emits the check. 0: this is not the TCGContext that it should be, and Unicorn's own check is needed. */
int check_exit_in_line(void *context)
{
    u8 *env = (u8 *)context + AT(u64, context, CPU_ENV);
    void *flag;

    asked_to_exit = 0;
    /* Unicorn translates a block again, half as long, as long as it cannot be emitted; a label that is never placed is such a case. */
    if (running && running->translations_left != UNLIMITED && !running->translations_left--)
        end_guest("it translates more than its programs have");
    if (!is_env(AT(const char *, env, TEMPORARY_NAME)))
        return 0;
    flag = tcg_temp_new_internal_ppc64(context, TYPE_32, 0);
    tcg_gen_op3_ppc64(context, LOAD_32, (u64)flag, (u64)env, (u64)EXIT_FLAG);
    asked_to_exit = gen_new_label_ppc64(context);
    tcg_gen_brcondi_i32_ppc64(context, LESS, (u64)flag - (u64)context, 0, asked_to_exit);
    tcg_temp_free_internal_ppc64(context, flag);
    checks_in_line++;
    return 1;
}

/* In the place of Unicorn's function: the last of a block, and the only one with this index, is where the check goes to. */
EXPORT void translate_exit(void *context, void *block, u32 index)
{
    note_call(EXIT_TB);
    if (index == EXIT_REQUESTED && asked_to_exit) {
        asked_to_exit->present |= PRESENT;
        tcg_gen_op1_ppc64(context, SET_LABEL, (u64)asked_to_exit);
        asked_to_exit = 0;
    }
    tcg_gen_exit_tb_ppc64(context, block, index);
}
