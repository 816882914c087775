/* The registers as gdb knows them: their numbers, sizes and order. */
#ifndef GDBSTUB_REGISTERS_H
#define GDBSTUB_REGISTERS_H

#include "base/buf.h"

/* A register's value under the query's name for it. name: borrowed */
struct known_register {
    const char *name;
    uint8_t value[32];
    size_t len; /* bytes, little-endian */
};

/** The target description ("Debugging with GDB", appendix G): a heap string. */
char *registers_description(void) nodiscard;
/** Appends the contents of a `g` packet. What is not known is "x" (E.2). */
void registers_packet(const struct known_register *known, size_t count, struct buf *out);
/** Where register `number` has its digits within a `g` packet, and how many; false: there is no
 * such register. */
bool registers_find(uint64_t number, size_t *at_out, size_t *digits_out) nodiscard;
/** Which part of which of the query's registers that is: its name, byte offset, and bytes. False:
 * there is no such register. */
bool registers_part(uint64_t number, char name[16], size_t *offset_out, size_t *len_out) nodiscard;
/** The x87 unit's tag word in full, as gdb has it, in the form of the query's "ftw": a bit for each
 * register that is not empty. */
uint8_t registers_abridge_tags(uint16_t tags);

#endif
