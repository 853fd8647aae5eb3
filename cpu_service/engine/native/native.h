/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * What the files of the native part share. Functions of Unicorn are declared where they are called, and found in its library
 * when ours is loaded; nothing else is linked, not even a C library.
 */

#ifndef NATIVE_H
#define NATIVE_H

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long u64;
typedef signed char s8;
typedef short s16;
typedef int s32;
typedef long s64;

/* What Python finds by its name; all else is local. */
#define EXPORT __attribute__((visibility("default")))

#endif
