/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The demo guest: an Open Firmware client program with a small command line. It shows that a machine works (processor, client
 * interface, console in both directions, device tree, RTAS, idling) without a kernel.
 */
#include "prom.h"

#define LINE_BYTES 256
#define VALUE_BYTES 4096
#define NAME_BYTES 128
#define MAX_DEPTH 16
#define CELL_BYTES 4

#define POLLS_PER_SECOND 50
#define INPUT_PRIORITY 5
#define ALL_PRIORITIES 0xff
#define SOURCE_MASK 0xffffff

enum { BACKSPACE = 8, KILL_LINE = 21, DELETE = 127 };

int (*client_interface)(cell *array);
static cell standard_input, standard_output;
static cell rtas, rtas_entry;
static cell ticks_per_second;
static int listening;

/* Strings. */

static int length_of(const char *text)
{
	int length = 0;

	while (text[length])
		length++;
	return length;
}

static int same(const char *a, const char *b)
{
	while (*a && *a == *b)
		a++, b++;
	return *a == *b;
}

/* GCC calls this for the clearing of aggregates. */
void *memset(void *area, int value, unsigned int size)
{
	volatile char *byte = area;

	while (size--)
		*byte++ = value;
	return area;
}

/* Output. */

static void put_bytes(const char *data, int length)
{
	while (length > 0) {
		cell written = prom("write", 3, 1, standard_output, (cell)data, (cell)length);

		if (written == FAILED || written == 0)
			return;
		data += written;
		length -= written;
	}
}

static void put(const char *text)
{
	put_bytes(text, length_of(text));
}

static void put_number(cell value, int base, int width)
{
	char digits[12];
	int at = sizeof(digits);

	do {
		digits[--at] = "0123456789abcdef"[value % base];
		value /= base;
	} while (value || (int)sizeof(digits) - at < width);
	put_bytes(digits + at, sizeof(digits) - at);
}

static void put_spaces(int count)
{
	while (count-- > 0)
		put(" ");
}

/* Properties. */

static cell get(cell package, const char *name, void *value, cell size)
{
	return prom("getprop", 4, 1, package, (cell)name, (cell)value, size);
}

/* The first cell of a property; FAILED when there is none. */
static cell get_cell(cell package, const char *name)
{
	cell value, size = get(package, name, &value, CELL_BYTES);

	return size != FAILED && size >= CELL_BYTES ? value : FAILED;
}

static void put_property(cell package, const char *name)
{
	static char value[NAME_BYTES];
	cell size = get(package, name, value, sizeof(value) - 1);

	value[size < sizeof(value) ? size : sizeof(value) - 1] = 0;
	put(size == FAILED ? "?" : value);
}

static int is_text(const char *value, cell size)
{
	cell i;

	if (size == 0 || value[0] == 0 || value[size - 1] != 0)
		return 0;
	for (i = 0; i < size; i++)
		if (value[i] ? value[i] < ' ' || value[i] > '~' : i > 0 && value[i - 1] == 0)
			return 0;
	return 1;
}

static void put_text(const char *value, cell size)
{
	cell at = 0;

	while (at < size) {
		put("  \"");
		put(value + at);
		put("\"\r\n");
		at += length_of(value + at) + 1;
	}
}

static void put_dump(const unsigned char *value, cell size)
{
	cell i;

	for (i = 0; i < size; i++) {
		if (i % 16 == 0) {
			put("  ");
			put_number(i, 16, 4);
			put(":");
		}
		put(i % 4 ? "" : " ");
		put_number(value[i], 16, 2);
		if (i % 16 == 15 || i + 1 == size)
			put("\r\n");
	}
}

static void put_node(cell package, int depth)
{
	static char path[NAME_BYTES];
	int length = (int)prom("package-to-path", 3, 1, package, (cell)path, sizeof(path) - 1);
	int start = length;

	if (length < 0 || length >= (int)sizeof(path))
		return;
	path[length] = 0;
	while (start > 0 && path[start - 1] != '/')
		start--;
	put_spaces(2 * depth + 2);
	put(length == 1 ? path : path + start);
	put("\r\n");
}

static void put_tree(cell package, int depth)
{
	put_node(package, depth);
	if (depth == MAX_DEPTH)
		return;
	for (package = prom("child", 1, 1, package); package && package != FAILED; package = prom("peer", 1, 1, package))
		put_tree(package, depth + 1);
}

/* Memory: cells of reg and available are pairs of 64-bit numbers; the demo shows MiB and keeps to 32-bit arithmetic. */

static void put_ranges(cell package, const char *name)
{
	static cell value[VALUE_BYTES / CELL_BYTES];
	cell size = get(package, name, value, sizeof(value)), i;

	if (size == FAILED)
		return;
	put("  ");
	put(name);
	put("\r\n");
	for (i = 0; i + 4 <= (size < sizeof(value) ? size : sizeof(value)) / CELL_BYTES; i += 4) {
		put("    from 0x");
		put_number(value[i], 16, 8);
		put_number(value[i + 1], 16, 8);
		put("  size 0x");
		put_number(value[i + 2], 16, 8);
		put_number(value[i + 3], 16, 8);
		put("  ");
		put_number(value[i + 2] << 12 | value[i + 3] >> 20, 10, 1);
		put(" MiB\r\n");
	}
}

/* RTAS. */

static void start_rtas(void)
{
	cell size, base, instance;

	rtas = prom("finddevice", 1, 1, "/rtas");
	size = rtas == FAILED ? FAILED : get_cell(rtas, "rtas-size");
	if (size == FAILED)
		return;
	base = prom("claim", 3, 1, 0, size, 4096);
	instance = prom("open", 1, 1, "/rtas");
	if (base != FAILED && instance != 0 && instance != FAILED)
		rtas_entry = prom_method("instantiate-rtas", instance, base);
	if (rtas_entry == FAILED)
		rtas_entry = 0;
}

/* Call RTAS. Returns the status; the other results go to results. */
static int call_rtas(const char *name, int arguments, const cell *given, int returns, cell *results)
{
	cell array[3 + 10], token = rtas_entry ? get_cell(rtas, name) : FAILED;
	int i;

	if (token == FAILED)
		return -1;
	array[0] = token;
	array[1] = arguments;
	array[2] = returns;
	for (i = 0; i < arguments; i++)
		array[3 + i] = given[i];
	((void (*)(cell *))rtas_entry)(array);
	for (i = 1; i < returns; i++)
		results[i - 1] = array[3 + arguments + i];
	return array[3 + arguments];
}

static void rtas_failed(const char *name)
{
	put("RTAS cannot ");
	put(name);
	put(".\r\n");
}

/*
 * Let the terminal's interrupt wake the processor. The firmware's vector for it only returns; wait_for_input() accepts it. Without
 * RTAS or an interrupt the console is looked at every now and then.
 */
static void listen_for_input(void)
{
	cell terminal = prom("instance-to-package", 1, 1, standard_input);
	cell route[3] = { terminal == FAILED ? FAILED : get_cell(terminal, "interrupts"), 0, INPUT_PRIORITY };

	if (route[0] == FAILED || call_rtas("ibm,set-xive", 3, route, 1, 0) != 0)
		return;
	hypercall(H_CPPR, ALL_PRIORITIES);
	listening = 1;
}

static void wait_for_input(void)
{
	cell pending;

	rest(listening ? ticks_per_second : ticks_per_second / POLLS_PER_SECOND);
	if (!listening)
		return;
	pending = hypercall(H_XIRR, 0);
	if (pending & SOURCE_MASK)
		hypercall(H_EOI, pending);
}

/* Commands. Each gets what follows its name, split at the first space. */

static void do_help(char *first, char *second);

static cell find(const char *path)
{
	cell package = prom("finddevice", 1, 1, *path ? path : "/");

	if (package == FAILED) {
		put("There is no ");
		put(path);
		put(".\r\n");
	}
	return package;
}

static void do_ls(char *path, char *unused)
{
	static char name[NAME_BYTES], previous[NAME_BYTES];
	cell package = find(path), child;
	int i;

	(void)unused;
	if (package == FAILED)
		return;
	for (previous[0] = 0; prom("nextprop", 3, 1, package, previous, name) == 1;) {
		put("  ");
		put(name);
		put("\r\n");
		for (i = 0; i < NAME_BYTES; i++)
			previous[i] = name[i];
	}
	for (child = prom("child", 1, 1, package); child && child != FAILED; child = prom("peer", 1, 1, child))
		put_node(child, 0);
}

static void do_tree(char *path, char *unused)
{
	cell package = find(path);

	(void)unused;
	if (package != FAILED)
		put_tree(package, 0);
}

static void do_cat(char *path, char *name)
{
	static char value[VALUE_BYTES];
	cell package, size;

	if (!*path || !*name) {
		put("cat PATH PROPERTY\r\n");
		return;
	}
	package = find(path);
	if (package == FAILED)
		return;
	size = get(package, name, value, sizeof(value));
	if (size == FAILED) {
		put("There is no ");
		put(name);
		put(".\r\n");
		return;
	}
	if (size > sizeof(value))
		size = sizeof(value);
	if (is_text(value, size))
		put_text(value, size);
	else
		put_dump((unsigned char *)value, size);
}

static void do_memory(char *first, char *second)
{
	cell memory = find("/memory");

	(void)first;
	(void)second;
	if (memory == FAILED)
		return;
	put_ranges(memory, "reg");
	put_ranges(memory, "available");
}

static void do_time(char *first, char *second)
{
	static const char separators[] = "-- :: ";
	cell now[7];
	int i;

	(void)first;
	(void)second;
	if (call_rtas("get-time-of-day", 0, 0, 8, now) != 0) {
		rtas_failed("get-time-of-day");
		return;
	}
	for (i = 0; i < 6; i++) {
		put_number(now[i], 10, i ? 2 : 4);
		put_bytes(&separators[i], 1);
	}
	put("UTC\r\n");
}

static void do_echo(char *first, char *second)
{
	put(first);
	put(*second ? " " : "");
	put(second);
	put("\r\n");
}

static void do_off(char *first, char *second)
{
	static const cell never_on_again[2] = { FAILED, FAILED };

	(void)first;
	(void)second;
	put("Powering off.\r\n");
	call_rtas("power-off", 2, never_on_again, 1, 0);
	rtas_failed("power-off");
}

static void do_reboot(char *first, char *second)
{
	(void)first;
	(void)second;
	put("Rebooting.\r\n");
	call_rtas("system-reboot", 0, 0, 1, 0);
	rtas_failed("system-reboot");
}

static void do_exit(char *first, char *second)
{
	(void)first;
	(void)second;
	prom("exit", 0, 0);
}

static const struct {
	const char *name, *usage;
	void (*run)(char *first, char *second);
} commands[] = {
	{ "help", "help                 this list", do_help },
	{ "ls", "ls [PATH]            properties and children of a node", do_ls },
	{ "tree", "tree [PATH]          all nodes from there on", do_tree },
	{ "cat", "cat PATH PROPERTY    a property's value", do_cat },
	{ "memory", "memory               RAM, and what of it is free", do_memory },
	{ "time", "time                 date and time of day", do_time },
	{ "echo", "echo TEXT            says it again", do_echo },
	{ "exit", "exit                 back to the firmware, which powers off", do_exit },
	{ "reboot", "reboot               start again", do_reboot },
	{ "off", "off                  power off", do_off },
};

#define COMMANDS ((int)(sizeof(commands) / sizeof(commands[0])))

static void do_help(char *first, char *second)
{
	int i;

	(void)first;
	(void)second;
	for (i = 0; i < COMMANDS; i++) {
		put("  ");
		put(commands[i].usage);
		put("\r\n");
	}
}

/* Cut off the first word of text; returns what follows it and the spaces. */
static char *cut(char *text)
{
	while (*text && *text != ' ')
		text++;
	while (*text == ' ')
		*text++ = 0;
	return text;
}

static void run(char *line)
{
	char *first, *second;
	int i;

	while (*line == ' ')
		line++;
	if (!*line)
		return;
	first = cut(line);
	second = cut(first);
	for (i = 0; i < COMMANDS; i++)
		if (same(line, commands[i].name)) {
			commands[i].run(first, second);
			return;
		}
	put(line);
	put(": unknown; try help.\r\n");
}

/* Input. */

static char get_char(void)
{
	static char buffer[16];
	static int next, filled;

	while (next == filled) {
		int count = (int)prom("read", 3, 1, standard_input, (cell)buffer, sizeof(buffer));

		next = 0;
		filled = count > 0 ? count : 0;
		if (!filled)
			wait_for_input();
	}
	return buffer[next++];
}

static void get_line(char *line)
{
	static char last;
	int length = 0;

	for (;;) {
		char c = get_char();
		int after_return = last == '\r';

		last = c;
		if (c == '\n' && after_return)
			continue;
		if (c == '\r' || c == '\n')
			break;
		if (c == BACKSPACE || c == DELETE || c == KILL_LINE) {
			int erase = c == KILL_LINE ? length : length > 0;

			for (; erase > 0; erase--, length--)
				put("\b \b");
		} else if (c >= ' ' && c <= '~' && length < LINE_BYTES - 1) {
			line[length++] = c;
			put_bytes(&c, 1);
		}
	}
	line[length] = 0;
	put("\r\n");
}

static cell first_cpu(void)
{
	cell cpus = prom("finddevice", 1, 1, "/cpus");
	cell cpu = cpus == FAILED ? 0 : prom("child", 1, 1, cpus);

	return cpu ? cpu : FAILED;
}

static void greet(void)
{
	cell root = prom("peer", 1, 1, 0), cpu = first_cpu(), memory = prom("finddevice", 1, 1, "/memory");

	put("\r\nSplitvisor's demo guest: an Open Firmware client program\r\n\r\n  machine    ");
	put_property(root, "model");
	put("\r\n  processor  ");
	put_property(cpu, "name");
	put(", ");
	put_number(ticks_per_second / 1000000, 10, 1);
	put(" MHz time base\r\n  memory     ");
	if (memory != FAILED) {
		cell reg[4];

		get(memory, "reg", reg, sizeof(reg));
		put_number(reg[2] << 12 | reg[3] >> 20, 10, 1);
	}
	put(" MiB\r\n  time       ");
	do_time("", "");
	put("\r\nType help for the commands.\r\n\r\n");
}

void _start(cell initrd, cell initrd_bytes, int (*entry)(cell *))
{
	static char line[LINE_BYTES];
	cell chosen;

	(void)initrd;
	(void)initrd_bytes;
	client_interface = entry;
	chosen = prom("finddevice", 1, 1, "/chosen");
	standard_output = get_cell(chosen, "stdout");
	standard_input = get_cell(chosen, "stdin");
	ticks_per_second = get_cell(first_cpu(), "timebase-frequency");
	if (ticks_per_second == FAILED)
		ticks_per_second = 512000000;
	start_rtas();
	listen_for_input();
	greet();
	for (;;) {
		put("> ");
		get_line(line);
		run(line);
	}
}
