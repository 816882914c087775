#include "base/confine.h"

#include "base/buf.h"
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/landlock.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>

/* --- files: Landlock --- */

/* Rights by the version of Landlock that has them first; the headers of Debian 12 know versions 1
 * and 2. */
enum {
    READ_RIGHTS = LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR,
    WRITE_RIGHTS_1 = LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_REMOVE_DIR |
                     LANDLOCK_ACCESS_FS_REMOVE_FILE | LANDLOCK_ACCESS_FS_MAKE_CHAR |
                     LANDLOCK_ACCESS_FS_MAKE_DIR | LANDLOCK_ACCESS_FS_MAKE_REG |
                     LANDLOCK_ACCESS_FS_MAKE_SOCK | LANDLOCK_ACCESS_FS_MAKE_FIFO |
                     LANDLOCK_ACCESS_FS_MAKE_BLOCK | LANDLOCK_ACCESS_FS_MAKE_SYM,
    REFER_2 = 1 << 13,
    TRUNCATE_3 = 1 << 14,
    /* What a rule may give for a file that is no directory. */
    FILE_RIGHTS = LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_WRITE_FILE |
                  LANDLOCK_ACCESS_FS_EXECUTE | TRUNCATE_3,
};

/* landlock_ruleset_attr of version 6; older kernels are given less of it. */
struct ruleset {
    uint64_t files, net, scoped;
};
enum { SCOPE_ABSTRACT_SOCKETS = 1, SCOPE_SIGNALS = 2, SCOPES_SINCE = 6 };

static long landlock_version(void)
{
    return syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
}

static struct err *make_ruleset(const struct ruleset *r, int *out)
{
    *out =
        (int)syscall(SYS_landlock_create_ruleset, r, r->scoped ? sizeof(*r) : sizeof(r->files), 0);
    return *out < 0 ? err_os("cannot make a Landlock ruleset") : NULL;
}

static struct err *allow(int ruleset, const char *path, uint64_t rights)
{
    cleanup(closep) int fd = open(path, O_PATH | O_CLOEXEC);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) != 0)
        return err_os("cannot open %s", path);
    struct landlock_path_beneath_attr rule = {
        .allowed_access = S_ISDIR(st.st_mode) ? rights : rights & FILE_RIGHTS, .parent_fd = fd};
    if (syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &rule, 0) != 0)
        return err_os("cannot make a Landlock rule for %s", path);
    return NULL;
}

static struct err *allow_all(int ruleset, const char *const *paths, size_t count, uint64_t rights)
{
    for (size_t i = 0; i < count; i++) {
        if (paths[i] && access(paths[i], F_OK) == 0)
            TRY(allow(ruleset, paths[i], rights));
    }
    return NULL;
}

static struct err *enforce(int ruleset)
{
    return syscall(SYS_landlock_restrict_self, ruleset, 0) != 0
               ? err_os("cannot enforce a Landlock ruleset")
               : NULL;
}

/* As version 1 to 6 know it: all writing, and executing. */
static struct ruleset ruleset_of_writing(long version)
{
    return (struct ruleset){
        .files = WRITE_RIGHTS_1 | (version >= 2 ? REFER_2 : 0) | (version >= 3 ? TRUNCATE_3 : 0) |
                 LANDLOCK_ACCESS_FS_EXECUTE,
        .scoped = version >= SCOPES_SINCE ? SCOPE_ABSTRACT_SOCKETS | SCOPE_SIGNALS : 0};
}

static struct err *confine_writing(const char *const *writable, size_t count)
{
    long version = landlock_version();
    if (version < 0) {
        log_info("no Landlock in this kernel: files are not confined");
        return NULL;
    }
    struct ruleset r = ruleset_of_writing(version);
    cleanup(closep) int ruleset = -1;
    TRY(make_ruleset(&r, &ruleset));
    for (size_t i = 0; i < count; i++) {
        if (writable[i])
            TRY(allow(ruleset, writable[i], r.files & ~(uint64_t)LANDLOCK_ACCESS_FS_EXECUTE));
    }
    return enforce(ruleset);
}

struct err *confine_reading(const char *const *readable, size_t count)
{
    static const char *const of_system[] = {"/usr", "/lib", "/lib64", "/proc", "/sys", "/dev"};
    if (landlock_version() < 0)
        return NULL;
    struct ruleset r = {.files = READ_RIGHTS};
    cleanup(closep) int ruleset = -1;
    TRY(make_ruleset(&r, &ruleset));
    TRY(allow_all(ruleset, of_system, ARRAY_COUNT(of_system), READ_RIGHTS));
    TRY(allow_all(ruleset, readable, count, READ_RIGHTS));
    return enforce(ruleset);
}

static struct err *confine_files_of_program(const struct confine_files *files)
{
    static const char *const of_system[] = {"/usr", "/lib", "/lib64"};
    long version = landlock_version();
    if (version < 0)
        return err_new(ERR_UNSUPPORTED, "this kernel has no Landlock");
    struct ruleset r = ruleset_of_writing(version);
    r.files |= READ_RIGHTS;
    cleanup(closep) int ruleset = -1;
    TRY(make_ruleset(&r, &ruleset));
    TRY(allow_all(ruleset, of_system, ARRAY_COUNT(of_system),
                  READ_RIGHTS | LANDLOCK_ACCESS_FS_EXECUTE));
    TRY(allow_all(ruleset, files->readable, files->readable_count, READ_RIGHTS));
    TRY(allow_all(ruleset, files->writable, files->writable_count,
                  LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_WRITE_FILE));
    return enforce(ruleset);
}

/* --- all else: seccomp --- */

/* Refused with EPERM. Not a list of all that is allowed: libraries and kernels differ in what
 * harmless calls they use. */
// clang-format off
static const uint16_t refused[] = {
    SYS_socket, SYS_connect, SYS_bind, SYS_listen,
    SYS_chmod, SYS_fchmod, SYS_fchmodat, SYS_chown, SYS_fchown, SYS_lchown, SYS_fchownat, SYS_utime, SYS_utimes, SYS_futimesat,
    SYS_utimensat, SYS_setxattr, SYS_lsetxattr, SYS_fsetxattr, SYS_removexattr, SYS_lremovexattr, SYS_fremovexattr, // not Landlock's
#ifndef __SANITIZE_ADDRESS__ // its search for leaks stops the process's own threads by it
    SYS_ptrace,
#endif
    SYS_process_vm_readv, SYS_process_vm_writev, SYS_process_madvise, SYS_kcmp, SYS_pidfd_getfd, SYS_pidfd_open,
    SYS_unshare, SYS_setns, SYS_chroot, SYS_pivot_root, SYS_mount, SYS_umount2, SYS_open_tree, SYS_move_mount, SYS_fsopen,
    SYS_fsconfig, SYS_fsmount, SYS_fspick, SYS_mount_setattr, SYS_open_by_handle_at, SYS_name_to_handle_at, SYS_quotactl,
    SYS_keyctl, SYS_add_key, SYS_request_key, SYS_bpf, SYS_perf_event_open, SYS_userfaultfd, SYS_io_uring_setup,
    SYS_io_uring_enter, SYS_io_uring_register, SYS_fanotify_init, SYS_init_module, SYS_finit_module, SYS_delete_module,
    SYS_kexec_load, SYS_kexec_file_load, SYS_reboot, SYS_swapon, SYS_swapoff, SYS_acct, SYS_settimeofday, SYS_clock_settime,
    SYS_adjtimex, SYS_clock_adjtime, SYS_sethostname, SYS_setdomainname, SYS_iopl, SYS_ioperm, SYS_modify_ldt,
    SYS_personality, SYS_syslog, SYS_vhangup, SYS_migrate_pages, SYS_move_pages, SYS_shmget, SYS_shmat, SYS_msgget, SYS_semget,
    SYS_mq_open,
};
// clang-format on
static const uint16_t refused_to_us[] = {SYS_execve};
// clang-format off
static const uint16_t refused_to_programs[] = {
    SYS_execveat, SYS_fork, SYS_vfork, SYS_clone, SYS_kill, SYS_tkill, SYS_rt_sigqueueinfo, SYS_rt_tgsigqueueinfo, SYS_pidfd_send_signal,
    SYS_setpriority, SYS_ioprio_set, SYS_sched_setparam, SYS_sched_setscheduler, SYS_sched_setattr, SYS_sched_setaffinity,
};
// clang-format on

enum {
    NAMESPACES = CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER |
                 CLONE_NEWPID | CLONE_NEWNET,
    X32_BIT = 0x40000000
};

/* A filter under construction. */
struct filter {
    struct sock_filter code[2 * ARRAY_COUNT(refused) + 2 * ARRAY_COUNT(refused_to_programs) + 40];
    size_t n;
};

static void emit(struct filter *f, int op, uint32_t value, int yes, int no)
{
    f->code[f->n++] = (struct sock_filter){(uint16_t)op, (uint8_t)yes, (uint8_t)no, value};
}

enum { LOAD = BPF_LD | BPF_W | BPF_ABS, EQUAL = BPF_JMP | BPF_JEQ | BPF_K, GIVE = BPF_RET | BPF_K };

/* Requires: the number of the call is loaded. */
static void emit_refused(struct filter *f, const uint16_t *calls, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        emit(f, EQUAL, calls[i], 0, 1);
        emit(f, GIVE, SECCOMP_RET_ERRNO | EPERM, 0, 0);
    }
}

static void emit_head(struct filter *f)
{
    emit(f, LOAD, offsetof(struct seccomp_data, arch), 0, 0);
    emit(f, EQUAL, AUDIT_ARCH_X86_64, 1, 0);
    emit(f, GIVE, SECCOMP_RET_KILL_PROCESS, 0, 0);
    emit(f, LOAD, offsetof(struct seccomp_data, nr), 0, 0);
    emit(f, BPF_JMP | BPF_JGE | BPF_K, X32_BIT, 0, 1);
    emit(f, GIVE, SECCOMP_RET_KILL_PROCESS, 0, 0);
    emit(f, EQUAL, SYS_clone3, 0, 1); // its flags cannot be seen; libraries take clone instead
    emit(f, GIVE, SECCOMP_RET_ERRNO | ENOSYS, 0, 0);
    emit_refused(f, refused, ARRAY_COUNT(refused));
}

/* A call of which an argument decides: refused if (argument OP value) is `refuse`. Requires: as
 * above. */
static void emit_by_argument(struct filter *f, uint16_t call, unsigned argument, int op,
                             uint32_t value, bool refuse)
{
    emit(f, EQUAL, call, 0, 4);
    emit(f, LOAD, (uint32_t)(offsetof(struct seccomp_data, args) + argument * sizeof(uint64_t)), 0,
         0);
    emit(f, BPF_JMP | op | BPF_K, value, !refuse, refuse);
    emit(f, GIVE, SECCOMP_RET_ERRNO | EPERM, 0, 0);
    emit(f, GIVE, SECCOMP_RET_ALLOW, 0, 0);
}

static struct err *install(struct filter *f)
{
    emit(f, GIVE, SECCOMP_RET_ALLOW, 0, 0);
    struct sock_fprog program = {.len = (uint16_t)f->n, .filter = f->code};
    // SPEC_ALLOW: see worker_main.c. Older kernels do not know it.
    if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_SPEC_ALLOW, &program) !=
            0 &&
        syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) != 0)
        return err_os("cannot install a seccomp filter");
    return NULL;
}

static struct err *confine_calls(void)
{
    struct filter f = {.n = 0};
    emit_head(&f);
    emit_refused(&f, refused_to_us, ARRAY_COUNT(refused_to_us));
    // Of an open file: workers (worker.c) are executed out of memory, which no rule of Landlock is
    // for.
    emit_by_argument(&f, SYS_execveat, 4, BPF_JEQ, AT_EMPTY_PATH, false);
    emit_by_argument(&f, SYS_clone, 0, BPF_JSET, NAMESPACES, true);
    return install(&f);
}

static struct err *confine_calls_of_program(void)
{
    struct filter f = {.n = 0};
    emit_head(&f);
    emit_refused(&f, refused_to_programs, ARRAY_COUNT(refused_to_programs));
    // libiberty, which gdb uses, tries vfork again and again, and sleeps 15 s in between
    // (pex-unix.c): it thinks it has.
    emit(&f, EQUAL, SYS_clock_nanosleep, 0, 1);
    emit(&f, GIVE, SECCOMP_RET_ERRNO | 0, 0, 0);
    emit_by_argument(&f, SYS_tgkill, 0, BPF_JEQ, (uint32_t)getpid(), false); // abort(3)
    emit_by_argument(&f, SYS_prlimit64, 0, BPF_JEQ, 0, false);               // its own
    return install(&f);
}

struct err *confine(const char *const *writable, size_t count)
{
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
        return err_os("cannot give up new privileges");
    TRY(confine_writing(writable, count));
    return confine_calls();
}

/* CAP_DAC_READ_SEARCH stays: what may be read is bounded above, and may be another user's. */
static void give_up_capabilities(void)
{
    for (int c = 0; c < 64; c++) {
        if (c != CAP_DAC_READ_SEARCH)
            prctl(PR_CAPBSET_DROP, c, 0, 0, 0); // fails without privileges: there are none then
    }
}

struct err *confine_program(const struct confine_files *files)
{
    give_up_capabilities();
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
        return err_os("cannot give up new privileges");
    TRY(confine_files_of_program(files));
    return confine_calls_of_program();
}
