/* gdb has numbers of its own for signals (gdb's include/gdb/signals.def, "Debugging with GDB", E.3:
 * "signal numbers are those of gdb"). */
#include "gdbstub/stub_int.h"

/* By Linux' number on x86-64 (signal(7)). */
static const uint8_t numbers[] = {
    0,   1,  2,  3,  4,  5,  6,  10, 8,  9,  30, 11, 31, 13, 14, 15,
    143, 20, 19, 17, 18, 21, 22, 16, 24, 25, 26, 27, 28, 23, 32, 12,
};

int gdb_signal(int linux_number)
{
    if (linux_number >= 0 && linux_number < (int)sizeof(numbers))
        return numbers[linux_number];
    if (linux_number >= 33 && linux_number <= 63)
        return linux_number - 33 + 45;
    return linux_number == 32 ? 77 : linux_number == 64 ? 78 : 143;
}

int linux_signal(int gdb_number)
{
    for (int i = 1; i <= 64; i++) {
        if (gdb_number != 143 && gdb_signal(i) == gdb_number)
            return i;
    }
    return 0;
}
