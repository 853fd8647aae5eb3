/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * What rtas_errd and drmgr do on a full system, as far as VIO slots go: waits for hotplug events in the kernel's RTAS log, takes
 * the slot that one names through RTAS, gives its node to the kernel, and lets the kernel's own driver register the device; and
 * the way back. Runs in a tiny initramfs, without a C library.
 *
 *     dlpar              handle events for ever
 *     dlpar add INDEX    as if an event had said so; INDEX is a connector's, in hexadecimal
 *     dlpar remove INDEX
 */

typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long u64;

enum { SYS_EXIT = 1, SYS_READ = 3, SYS_WRITE = 4, SYS_OPEN = 5, SYS_CLOSE = 6, SYS_MMAP = 90, SYS_GETDENTS64 = 202, SYS_RTAS = 255 };
enum { O_RDONLY = 0, O_WRONLY = 1, O_RDWR = 2 };
enum { ENTITY_SENSE = 9003, ISOLATION = 9001, ALLOCATION = 9003 };
enum { WORK_AREA = 4096, LOG_BYTES = 8192, NODE_BYTES = 16384 };

#define VDEVICE "/proc/device-tree/vdevice"
#define be32(word) __builtin_bswap32(word)

static long system_call(long number, long a, long b, long c, long d, long e, long f)
{
    register long r0 asm("r0") = number;
    register long r3 asm("r3") = a;
    register long r4 asm("r4") = b;
    register long r5 asm("r5") = c;
    register long r6 asm("r6") = d;
    register long r7 asm("r7") = e;
    register long r8 asm("r8") = f;

    asm volatile("sc\n\tbns+ 1f\n\tneg 3, 3\n1:"
                 : "+r"(r0), "+r"(r3), "+r"(r4), "+r"(r5), "+r"(r6), "+r"(r7), "+r"(r8)
                 :
                 : "memory", "cr0", "ctr", "r9", "r10", "r11", "r12");
    return r3;
}

void *memcpy(void *to, const void *from, u64 count)
{
    for (u64 i = 0; i < count; i++)
        ((volatile u8 *)to)[i] = ((const u8 *)from)[i];
    return to;
}

void *memset(void *to, int byte, u64 count)
{
    for (u64 i = 0; i < count; i++)
        ((volatile u8 *)to)[i] = (u8)byte;
    return to;
}

static u64 length(const char *text)
{
    u64 count = 0;

    while (text[count])
        count++;
    return count;
}

static int same(const char *a, const char *b)
{
    while (*a && *a == *b)
        a++, b++;
    return *a == *b;
}

static char *append(char *to, const char *text)
{
    u64 count = length(text);

    memcpy(to, text, count);
    to[count] = 0;
    return to + count;
}

static char *append_number(char *to, u64 number, u64 base)
{
    char digits[24];
    int count = 0;

    do
        digits[count++] = "0123456789abcdef"[number % base];
    while (number /= base);
    while (count)
        *to++ = digits[--count];
    *to = 0;
    return to;
}

static void say(const char *what, u64 number)
{
    char line[200], *end = append(append(line, "dlpar: "), what);

    end = append(append_number(append(end, " "), number, 16), "\n");
    system_call(SYS_WRITE, 1, (long)line, end - line, 0, 0, 0);
}

static int fail(const char *what, long number)
{
    say(what, number < 0 ? -number : number);
    return 1;
}

static long read_file(const char *path, void *to, u64 room)
{
    long file = system_call(SYS_OPEN, (long)path, O_RDONLY, 0, 0, 0, 0), count;

    if (file < 0)
        return file;
    count = system_call(SYS_READ, file, (long)to, room, 0, 0, 0);
    system_call(SYS_CLOSE, file, 0, 0, 0, 0, 0);
    return count;
}

static long write_file(const char *path, const char *from, u64 count)
{
    long file = system_call(SYS_OPEN, (long)path, O_WRONLY, 0, 0, 0, 0), done;

    if (file < 0)
        return file;
    done = system_call(SYS_WRITE, file, (long)from, count, 0, 0, 0);
    system_call(SYS_CLOSE, file, 0, 0, 0, 0, 0);
    return done < 0 ? done : 0;
}

/* An RTAS call; returns its status, and the second return word in *result. */
static int rtas(const char *name, u32 arguments, const u32 *argument, u32 returns, u32 *result)
{
    struct {
        u32 token, nargs, nret, args[16];
        u64 rets;
    } block;
    char path[100];
    u32 token;

    append(append(path, "/proc/device-tree/rtas/"), name);
    if (read_file(path, &token, 4) != 4)
        return -3;
    memset(&block, 0, sizeof block);
    block.token = token; /* big endian in both places */
    block.nargs = be32(arguments);
    block.nret = be32(returns);
    for (u32 i = 0; i < arguments; i++)
        block.args[i] = be32(argument[i]);
    if (system_call(SYS_RTAS, (long)&block, 0, 0, 0, 0, 0) < 0)
        return -3;
    if (result)
        *result = be32(block.args[arguments + 1]);
    return (int)be32(block.args[arguments]);
}

static int set_indicator(u32 kind, u32 index, u32 state)
{
    u32 arguments[3] = { kind, index, state };

    return rtas("set-indicator", 3, arguments, 1, 0);
}

/* The part of real-mode memory that the kernel keeps for programs that make RTAS calls. */
static u8 *rtas_memory(u32 *address)
{
    char text[64];
    u64 base = 0;
    long file, map;

    if (read_file("/proc/powerpc/rtas/rmo_buffer", text, sizeof text) <= 0)
        return 0;
    for (char *at = text; *at != ' '; at++)
        base = base * 16 + (u64)(*at <= '9' ? *at - '0' : *at - 'a' + 10);
    file = system_call(SYS_OPEN, (long)"/dev/mem", O_RDWR, 0, 0, 0, 0);
    if (file < 0)
        return 0;
    map = system_call(SYS_MMAP, 0, 65536, 3 /* read, write */, 1 /* shared */, file, (long)base);
    *address = (u32)base;
    return map < 0 && map > -4096 ? 0 : (u8 *)map;
}

static u32 word(const u8 *at)
{
    return (u32)at[0] << 24 | (u32)at[1] << 16 | (u32)at[2] << 8 | at[3];
}

/* Fetch a connector's node; command gets what /proc/powerpc/ofdt wants to hear. Returns the command's end. */
static char *fetch_node(u32 index, char *command)
{
    u32 address = 0, arguments[2];
    u8 *area = rtas_memory(&address);
    char *end = append(command, "add_node " "/vdevice/");
    u32 index_be = be32(index);

    if (!area)
        return 0;
    memset(area, 0, WORK_AREA);
    memcpy(area, &index_be, 4);
    arguments[0] = address;
    arguments[1] = 0;
    for (;;) {
        int status = rtas("ibm,configure-connector", 2, arguments, 1, 0);
        const char *name = (const char *)area + word(area + 8);

        if (status == 0)
            return end - 1; /* without the last space */
        if (status == 2) {
            end = append(append(end, name), " ");
        } else if (status == 3) {
            u32 size = word(area + 12);

            end = append(append_number(append(append(end, name), " "), size, 10), " ");
            memcpy(end, area + word(area + 16), size);
            end = append(end + size, " ");
        } else {
            fail("configure-connector", status);
            return 0;
        }
    }
}

/* The name of a connector, from the lists of /vdevice. */
static int connector_name(u32 index, char *name)
{
    static u8 indexes[4096], names[8192];
    const char *at = (const char *)names + 4;

    if (read_file(VDEVICE "/ibm,drc-indexes", indexes, sizeof indexes) < 8
        || read_file(VDEVICE "/ibm,drc-names", names, sizeof names) < 5)
        return fail("no connectors in the device tree", index);
    for (u32 i = 0; i < word(indexes); i++, at += length(at) + 1) {
        if (word(indexes + 4 + 4 * i) == index) {
            append(name, at);
            return 0;
        }
    }
    return fail("no such connector", index);
}

/* The name of the node that has a connector. */
static int connector_node(u32 index, char *name)
{
    static u8 entries[16384];
    long directory = system_call(SYS_OPEN, (long)VDEVICE, O_RDONLY, 0, 0, 0, 0);
    long count = system_call(SYS_GETDENTS64, directory, (long)entries, sizeof entries, 0, 0, 0);

    system_call(SYS_CLOSE, directory, 0, 0, 0, 0, 0);
    for (long at = 0; at < count; at += *(unsigned short *)(entries + at + 16)) {
        const char *entry = (const char *)entries + at + 19;
        char path[400];
        u8 value[4];

        append(append(append(path, VDEVICE "/"), entry), "/ibm,my-drc-index");
        if (read_file(path, value, 4) == 4 && word(value) == index) {
            append(name, entry);
            return 0;
        }
    }
    return fail("no node has the connector", index);
}

static int add(u32 index)
{
    static char command[NODE_BYTES];
    u32 sense_arguments[2] = { ENTITY_SENSE, index }, sense = 0;
    char name[100], *end;
    long failed;

    if (connector_name(index, name))
        return 1;
    if (rtas("get-sensor-state", 2, sense_arguments, 2, &sense) || sense != 2)
        return fail("the connector is in use already", sense);
    if (set_indicator(ALLOCATION, index, 1))
        return fail("cannot allocate", index);
    if (set_indicator(ISOLATION, index, 1))
        return fail("cannot unisolate", index);
    end = fetch_node(index, command);
    if (!end)
        return 1;
    failed = write_file("/proc/powerpc/ofdt", command, end - command);
    if (failed)
        return fail("ofdt does not take the node", failed);
    failed = write_file("/sys/bus/pci/slots/control/add_slot", name, length(name));
    if (failed)
        return fail("add_slot", failed);
    say("added", index);
    return 0;
}

static int remove(u32 index)
{
    static char command[NODE_BYTES];
    char name[100], *end;
    long failed;

    if (connector_name(index, name))
        return 1;
    failed = write_file("/sys/bus/pci/slots/control/remove_slot", name, length(name));
    if (failed)
        return fail("remove_slot", failed);
    end = append(command, "remove_node /vdevice/");
    if (connector_node(index, end))
        return 1;
    failed = write_file("/proc/powerpc/ofdt", command, length(command));
    if (failed)
        return fail("ofdt does not let the node go", failed);
    if (set_indicator(ISOLATION, index, 0))
        return fail("cannot isolate", index);
    if (set_indicator(ALLOCATION, index, 0))
        return fail("cannot free", index);
    say("removed", index);
    return 0;
}

/* Find the hotplug section of a version 6 log entry and do what it says. */
static void handle(const u8 *entry)
{
    u32 extended = word(entry + 4);
    const u8 *at = entry + 8 + 16, *end = entry + 8 + extended;

    while (at + 16 <= end) {
        u32 size = (u32)at[2] << 8 | at[3];

        if (at[0] == 'H' && at[1] == 'P' && at[8] == 3 /* slot */ && at[10] == 2 /* by index */) {
            u32 index = word(at + 12);

            if (at[9] == 1)
                add(index);
            else if (at[9] == 2)
                remove(index);
            return;
        }
        if (size < 8)
            break;
        at += size;
    }
    say("an entry without a hotplug section", extended);
}

static int watch(void)
{
    static u8 entry[LOG_BYTES];
    long file = system_call(SYS_OPEN, (long)"/proc/powerpc/rtas/error_log", O_RDONLY, 0, 0, 0, 0), count;

    if (file < 0)
        return fail("no error log", file);
    say("ready", 0);
    while ((count = system_call(SYS_READ, file, (long)entry, sizeof entry, 0, 0, 0)) > 12)
        handle(entry + 4); /* behind the kernel's sequence number */
    return fail("the error log ended", count);
}

static int run(long count, char **arguments)
{
    u32 index = 0;

    if (count < 3)
        return watch();
    for (char *at = arguments[2]; *at; at++)
        index = index * 16 + (u32)(*at <= '9' ? *at - '0' : *at - 'a' + 10);
    return same(arguments[1], "add") ? add(index) : remove(index);
}

__attribute__((used)) void start(long *stack)
{
    system_call(SYS_EXIT, run(stack[0], (char **)(stack + 1)), 0, 0, 0, 0, 0);
}

asm(".globl _start\n"
    "_start:\n"
    "\taddis 2, 12, .TOC.-_start@ha\n"
    "\taddi 2, 2, .TOC.-_start@l\n"
    "\tmr 3, 1\n"
    "\tclrrdi 1, 1, 4\n"
    "\tli 0, 0\n"
    "\tstdu 1, -128(1)\n"
    "\tbl start\n"
    "\tnop\n");
