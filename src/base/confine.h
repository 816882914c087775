/* Giving up rights: what reads untrusted input should be able to do no harm.
 *
 * Landlock (landlock(7), Linux 5.13) bounds the files, a seccomp filter (seccomp(2)) the rest. Both
 * need no privileges, hold for the calling thread and all threads and processes it makes later, and
 * cannot be taken back. */
#ifndef BASE_CONFINE_H
#define BASE_CONFINE_H

#include "base/err.h"

#include <stddef.h>

/**
 * Call it before there are other threads. From then on: no file is made, changed or removed but
 * below `writable` (count directories, NULL ones are passed over); no program is started but one
 * that is a file in memory (memfd_create(2); without Landlock: that is open); no socket is made
 * (but for pairs), bound or connected; no namespace, mount, kernel key, trace of other processes
 * and the like; no change of modes, owners and times of files. Sockets and files that are open stay
 * as they are, and listening ones go on to accept. Where the kernel has no Landlock, files stay as
 * accessible as they are to the user, and the log tells (level info).
 *
 * Errors: ERR_OS when the kernel refuses what it has, or a directory cannot be opened.
 */
struct err *confine(const char *const *writable, size_t count) nodiscard;

/**
 * After confine(): files can be read only if they are, or are below, one of `readable` (count
 * paths; NULL ones and what is not there are passed over), or below directories of the system:
 * /usr, /lib, /lib64, /proc, /sys, /dev. What is open stays readable.
 */
struct err *confine_reading(const char *const *readable, size_t count) nodiscard;

/* What a program that is to be started may do with files; NULL paths and what is not there are
 * passed over. */
struct confine_files {
    const char *const *readable; /* these, and what is below them */
    size_t readable_count;
    const char *const *writable; /* files, not directories */
    size_t writable_count;
};

/**
 * For a process that is about to execute a program (execve(2)) which may turn against its user: it
 * reads and executes what is below /usr, /lib and /lib64, and has of all other files only `files`;
 * no socket, no new process or thread, no signal to another process, no capability but to read
 * files of others, and what confine() takes. What is open stays open. It does not sleep
 * (clock_nanosleep(2)).
 *
 * Errors: ERR_UNSUPPORTED where the kernel has no Landlock; ERR_OS.
 */
struct err *confine_program(const struct confine_files *files) nodiscard;

#endif
