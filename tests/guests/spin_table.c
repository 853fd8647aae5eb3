/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A guest without an operating system that starts its secondary processors as ePAPR says (5.5.2): it finds their entries of the spin
 * table in the flattened tree, writes r3 and an address there, and has each processor count. Then it powers off. With "wait" as its
 * command line it first waits until a key is pressed.
 */

typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long u64;

enum { MAX_CPUS = 8, STACK_BYTES = 4096, ROUNDS = 10000 };
enum { H_GET_TERM_CHAR = 0x54, H_PUT_TERM_CHAR = 0x58, H_RTAS = 0xf000 };
enum { BEGIN_NODE = 1, END_NODE, PROPERTY, NOP };

u8 stacks[MAX_CPUS][STACK_BYTES] __attribute__((aligned(16)));
static volatile u64 arrived[MAX_CPUS][8], finished[MAX_CPUS];
static volatile u64 counter;

void secondary(void);

__asm__(".machine power8\n"
        ".macro enter index\n"
        "    lis 2, .TOC.@ha\n"
        "    addi 2, 2, .TOC.@l\n"
        "    lis 1, stacks@ha\n"
        "    addi 1, 1, stacks@l\n"
        "    addi 11, \\index, 1\n"
        "    mulli 11, 11, 4096\n"
        "    add 1, 1, 11\n"
        "    addi 1, 1, -256\n"
        ".endm\n"
        ".globl _start, secondary\n"
        "_start:\n"
        "    li 10, 0\n"
        "    enter 10\n"
        "    bl main\n"
        "secondary:\n" /* r3: the processor's number, from its entry */
        "    mfspr 10, 1023\n"
        "    enter 3\n"
        "    bl run\n"
        "0:  b 0b\n");

static u64 output; /* r4 after the last hypercall */

static u64 hypercall(u64 token, u64 a, u64 b, u64 c, u64 d)
{
    register u64 r3 __asm__("r3") = token;
    register u64 r4 __asm__("r4") = a;
    register u64 r5 __asm__("r5") = b;
    register u64 r6 __asm__("r6") = c;
    register u64 r7 __asm__("r7") = d;

    __asm__ volatile("sc 1"
                     : "+r"(r3), "+r"(r4), "+r"(r5), "+r"(r6), "+r"(r7)
                     :
                     : "r0", "r8", "r9", "r10", "r11", "r12", "cr0", "ctr", "xer", "memory");
    output = r4;
    return r3;
}

static void put(const char *text)
{
    for (; *text; text++)
        while (hypercall(H_PUT_TERM_CHAR, 0, 1, (u64)*text << 56, 0))
            ;
}

static void put_hex(u64 value)
{
    char text[20], *next = text + 19;

    *next = 0;
    do {
        *--next = "0123456789abcdef"[value & 15];
        value >>= 4;
    } while (value);
    *--next = 'x';
    *--next = '0';
    put(next);
}

static void put_field(const char *name, u64 value)
{
    put(" ");
    put(name);
    put("=");
    put_hex(value);
}

static int equal(const char *a, const char *b)
{
    while (*a && *a == *b)
        a++, b++;
    return *a == *b;
}

static u64 next_count(void)
{
    u64 value;

    __asm__ volatile("0: ldarx %0, 0, %1\n"
                     "   addi %0, %0, 1\n"
                     "   stdcx. %0, 0, %1\n"
                     "   bne- 0b\n"
                     : "=&b"(value)
                     : "r"(&counter)
                     : "cr0", "memory");
    return value;
}

/* On each secondary processor. */
void run(u64 index, u64 r4, u64 r5, u64 r6, u64 r7, u64 r8, u64 r9, u64 pir)
{
    const u64 values[8] = {index, r4, r5, r6, r7, r8, r9, pir};

    for (int number = 0; number < 8; number++)
        arrived[index][number] = values[number];
    for (int round = 0; round < ROUNDS; round++)
        next_count();
    __asm__ volatile("sync" ::: "memory");
    finished[index] = 1;
}

struct found {
    u32 cpus, power_off, waits;
    u64 entry[MAX_CPUS];
};

/* Look through the tree for what is said of processors, and for RTAS's token. */
static void search(const u8 *tree, struct found *found)
{
    const u32 *header = (const u32 *)tree, *next = (const u32 *)(tree + header[2]);
    const char *names = (const char *)tree + header[3];
    int disabled = 0, spins = 0;
    u32 index = 0;
    u64 entry = 0;

    for (;;) {
        u32 tag = *next++;

        if (tag == BEGIN_NODE) {
            const char *name = (const char *)next;
            u32 length = 0;

            while (name[length])
                length++;
            next += length / 4 + 1;
            disabled = spins = 0;
            entry = 0;
        } else if (tag == PROPERTY) {
            u32 length = next[0];
            const char *name = names + next[1];
            const u32 *value = next + 2;

            if (equal(name, "reg"))
                index = value[0];
            else if (equal(name, "status"))
                disabled = equal((const char *)value, "disabled");
            else if (equal(name, "enable-method"))
                spins = equal((const char *)value, "spin-table");
            else if (equal(name, "cpu-release-addr"))
                entry = (u64)value[0] << 32 | value[1];
            else if (equal(name, "bootargs"))
                found->waits = equal((const char *)value, "wait");
            else if (equal(name, "power-off"))
                found->power_off = value[0];
            next += 2 + (length + 3) / 4;
        } else if (tag == END_NODE) {
            if (disabled && spins && entry && index < MAX_CPUS) {
                found->entry[index] = entry;
                found->cpus++;
            }
            disabled = spins = 0;
        } else if (tag != NOP) {
            return;
        }
    }
}

static int is_reserved(const u8 *tree, u64 address)
{
    const u64 *range = (const u64 *)(tree + ((const u32 *)tree)[4]);

    for (; range[0] || range[1]; range += 2)
        if (address >= range[0] && address + 32 <= range[0] + range[1])
            return 1;
    return 0;
}

void main(const u8 *tree, u64 r4, u64 r5, u64 magic, u64 reachable)
{
    static struct found found;
    static u32 block[6];

    put("started:");
    put_field("tree", *(const u32 *)tree);
    put_field("r4", r4);
    put_field("r5", r5);
    put_field("magic", magic);
    put_field("reachable", reachable);
    put("\n");
    search(tree, &found);
    if (found.waits) {
        put("waiting\n");
        do
            hypercall(H_GET_TERM_CHAR, 0, 0, 0, 0);
        while (!output);
    }
    for (u64 index = 0; index < MAX_CPUS; index++) {
        volatile u64 *entry = (volatile u64 *)found.entry[index];

        if (!entry)
            continue;
        put("entry:");
        put_field("address", entry[0]);
        put_field("r3", entry[1]);
        put_field("pir", ((volatile u32 *)entry)[5]);
        put_field("reserved", (u64)is_reserved(tree, (u64)entry));
        put("\n");
        ((volatile u32 *)entry)[5] = (u32)(index + 0x100);
        entry[1] = index;
        __asm__ volatile("sync" ::: "memory");
        if (index & 1) {
            entry[0] = (u64)secondary;
        } else { /* As a 32-bit program does. */
            ((volatile u32 *)entry)[0] = (u32)((u64)secondary >> 32);
            ((volatile u32 *)entry)[1] = (u32)(u64)secondary;
        }
    }
    for (u64 index = 0; index < MAX_CPUS; index++) {
        static const char *const names[8] = {"r3", "r4", "r5", "r6", "r7", "r8", "r9", "pir"};

        if (!found.entry[index])
            continue;
        while (!finished[index])
            ;
        put("secondary:");
        for (int number = 0; number < 8; number++)
            put_field(names[number], arrived[index][number]);
        put("\n");
    }
    put("all:");
    put_field("processors", found.cpus);
    put_field("counted", counter);
    put("\n");
    block[0] = found.power_off;
    block[1] = 2;
    block[2] = 1;
    hypercall(H_RTAS, (u64)block, 0, 0, 0);
}
