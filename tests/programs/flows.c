/* Bytes that go from task to task by other ways than being read and written (tests/programs/streams.c): made() is called where they are made,
 * got() where they have arrived. All bytes made under a name come out in their order under that name (tests/oracle/streams.c). */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

volatile size_t seen;
__attribute__((noinline)) void made(const char *name, const volatile void *bytes, size_t len)
{
    seen += len;
}
__attribute__((noinline)) void got(const char *name, const volatile void *bytes, size_t len)
{
    seen += len;
}

static void fill(char *buf, const char *word, size_t len)
{
    for (size_t i = 0; i < len; i++)
        buf[i] = word[i % strlen(word)] + i / strlen(word);
}

/* Makes bytes, and has them written. */
static void put_at(int fd, const char *name, const char *text, off_t at)
{
    char buf[64];
    size_t len = strlen(text);
    fill(buf, text, len);
    made(name, buf, len);
    if ((at < 0 ? write(fd, buf, len) : pwrite(fd, buf, len, at)) != (ssize_t)len)
        abort();
}

static void put(int fd, const char *name, const char *text)
{
    put_at(fd, name, text, -1);
}

static void take(int fd, const char *name, size_t most)
{
    char buf[64];
    ssize_t n = read(fd, buf, most);
    if (n > 0)
        got(name, buf, n);
}

static void take_at(int fd, const char *name, size_t len, off_t at)
{
    char buf[64];
    if (pread(fd, buf, len, at) == (ssize_t)len)
        got(name, buf, len);
}

/* Makes bytes where they are. */
static void store(char *at, const char *name, const char *text)
{
    char buf[64];
    fill(buf, text, strlen(text));
    memcpy(at, buf, strlen(text));
    made(name, at, strlen(text));
}

/* A child that waits until it is told to go on, and its parent until it has ended. */
static void wait_byte(int fd)
{
    char c;
    if (read(fd, &c, 1) != 1)
        _exit(1);
}

static void wait_all(void)
{
    while (wait(NULL) > 0)
        ;
}

/* --- files that are mapped --- */

enum { SIZE = 8192 };

static char *map(int fd, int prot, int flags)
{
    char *p = mmap(NULL, SIZE, prot, flags, fd, 0);
    if (p == MAP_FAILED)
        abort();
    return p;
}

/* What was written before a file is mapped. */
static void written_then_mapped(const char *path)
{
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    put(fd, "write-private", "to a private mapping");
    put(fd, "write-shared", "to a shared one");
    put_at(fd, "write-part", "of two", 100);
    put_at(fd, "write-part", " halves", 106);
    ftruncate(fd, SIZE);
    if (!fork()) {
        int own = open(path, O_RDONLY);
        char *p = map(own, PROT_READ, MAP_PRIVATE), *s = map(own, PROT_READ, MAP_SHARED);
        close(own);
        got("write-private", p, 20);
        got("write-shared", s + 20, 15);
        got("write-part", p + 100, 13);
        got("hole", p + 4096, 8); // nobody wrote it
        _exit(0);
    }
    wait_all();
    close(fd);
    unlink(path);
}

/* Stores, which others read from the file, or see in mappings of their own. */
static void stored(const char *path)
{
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600), pipes[2];
    pipe(pipes);
    ftruncate(fd, SIZE);
    char *before = map(fd, PROT_READ, MAP_SHARED);
    if (!fork()) {
        int own = open(path, O_RDWR);
        char *p = map(own, PROT_READ | PROT_WRITE, MAP_SHARED);
        store(p, "store-read", "by a store");
        store(p + 10, "store-seen", "seen by others");
        store(p + 24, "store-private", "in a copy");
        store(p + 64, "store-mixed", "first");
        put_at(own, "store-mixed", "second", 69); // what the mapping has, too
        store(p + 75, "store-mixed", "third");
        read(pipes[0], p + 4000, 64); // a store of the kernel's
        got("piped", p + 4000, 7);
        made("piped-on", p + 4000, 7);
        munmap(p, SIZE);
        p = map(own, PROT_READ | PROT_WRITE, MAP_SHARED); // again
        store(p + 128, "store-again", "in another one");
        _exit(0);
    }
    put(pipes[1], "piped", "by pipe");
    wait_all();
    take_at(fd, "store-read", 10, 0);
    got("store-seen", before + 10, 14);
    char *p = map(fd, PROT_READ, MAP_PRIVATE);
    got("store-private", p + 24, 9);
    take_at(fd, "store-mixed", 16, 64);
    take_at(fd, "piped-on", 7, 4000);
    take_at(fd, "store-again", 14, 128);
    munmap(before, SIZE);
    ftruncate(fd, 0);
    ftruncate(fd, SIZE);
    take_at(fd, "cut", 10, 0);
    close(fd);
    unlink(path);
}

/* Nothing maps the file any more when it is read. */
static void stored_and_gone(const char *path)
{
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    ftruncate(fd, SIZE);
    if (!fork()) {
        char *p = map(fd, PROT_READ | PROT_WRITE, MAP_SHARED);
        store(p, "gone", "before it went");
        store(p + 14, "gone-part", "stays");
        store(p + 19, "gone-lost", "is lost");
        _exit(0);
    }
    wait_all();
    put_at(fd, "gone-over", "written over", 19);
    lseek(fd, 0, SEEK_SET);
    take(fd, "gone", 14);
    char *p = map(fd, PROT_READ, MAP_SHARED);
    got("gone-part", p + 14, 5);
    got("gone-over", p + 19, 12);
    munmap(p, SIZE);
    close(fd);
    unlink(path);
    fd = memfd_create("mapped", 0);
    ftruncate(fd, SIZE);
    p = map(fd, PROT_READ | PROT_WRITE, MAP_SHARED);
    put_at(fd, "memfd-seen", "in memory", 5);
    got("memfd-seen", p + 5, 9);
    store(p + 100, "memfd-stored", "and back");
    take_at(fd, "memfd-stored", 8, 100);
    munmap(p, SIZE);
    close(fd);
}

/* --- memory of other processes --- */

static char there[6][64];

static void other_memory(void)
{
    int go[2], done[2];
    char path[40], in[64], word[8];
    pipe(go);
    pipe(done);
    store(there[5], "forked", "from before a fork");
    pid_t pid = fork();
    if (!pid) {
        got("forked", there[5], 18);
        store(there[0], "vm-read", "read by another process");
        store(there[1], "mem-read", "read as a file");
        write(done[1], "r", 1);
        wait_byte(go[0]);
        got("vm-write", there[2], 7);
        got("vm-write", there[2] + 10, 15);
        got("mem-write", there[3], 17);
        _exit(0);
    }
    wait_byte(done[0]);
    struct iovec here[2] = {{in, 4}, {in + 8, 19}}, remote[2] = {{there[0], 12}, {there[0] + 12, 11}};
    process_vm_readv(pid, here, 2, remote, 2, 0);
    got("vm-read", in, 4);
    got("vm-read", in + 8, 19);
    fill(in, "written by another one", 22);
    made("vm-write", in, 22);
    here[0].iov_len = 10;
    here[1] = (struct iovec){in + 10, 12};
    remote[0] = (struct iovec){there[2], 7};
    remote[1] = (struct iovec){there[2] + 10, 15};
    process_vm_writev(pid, here, 2, remote, 2, 0);
    snprintf(path, sizeof(path), "/proc/%d/mem", pid);
    int fd = open(path, O_RDWR);
    take_at(fd, "mem-read", 14, (off_t)(uintptr_t)there[1]);
    put_at(fd, "mem-write", "written as a file", (off_t)(uintptr_t)there[3]);
    close(fd);
    write(go[1], "g", 1);
    wait_all();
    // By ptrace: a word of it.
    pid = fork();
    if (!pid) {
        store(there[0], "peek", "peekpeek");
        ptrace(PTRACE_TRACEME, 0, 0, 0);
        raise(SIGSTOP);
        got("poke", there[4], 8);
        _exit(0);
    }
    waitpid(pid, NULL, 0);
    long v = ptrace(PTRACE_PEEKDATA, pid, there[0], 0);
    memcpy(word, &v, 8);
    got("peek", word, 8);
    fill(word, "pokepoke", 8);
    made("poke", word, 8);
    memcpy(&v, word, 8);
    ptrace(PTRACE_POKEDATA, pid, there[4], v);
    ptrace(PTRACE_CONT, pid, 0, 0);
    wait_all();
}

/* --- bytes that the kernel moves --- */

static void moved(const char *path)
{
    char other[64];
    int a[2], b[2], s[2];
    pipe(a);
    pipe(b);
    socketpair(AF_UNIX, SOCK_STREAM, 0, s);
    snprintf(other, sizeof(other), "%s-copy", path);
    put(a[1], "splice", "from pipe to pipe");
    splice(a[0], NULL, b[1], NULL, 9, 0);
    splice(a[0], NULL, b[1], NULL, 64, 0);
    take(b[0], "splice", 5);
    take(b[0], "splice", 64);
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600), to = open(other, O_RDWR | O_CREAT | O_TRUNC, 0600);
    put(fd, "sendfile", "a file is sent");
    put(fd, "sendfile-socket", "over a socket");
    put(fd, "splice-socket", "and again");
    put(fd, "copy", "or copied");
    lseek(fd, 0, SEEK_SET);
    sendfile(b[1], fd, NULL, 14);
    take(b[0], "sendfile", 64);
    off_t at = 14;
    sendfile(s[0], fd, &at, 13);
    take(s[1], "sendfile-socket", 64);
    lseek(fd, 27, SEEK_SET);
    splice(fd, NULL, a[1], NULL, 9, 0); // a pipe on the way
    splice(a[0], NULL, s[0], NULL, 9, 0);
    take(s[1], "splice-socket", 64);
    off_t in = 36, out = 3;
    copy_file_range(fd, &in, to, &out, 9, 0);
    take_at(to, "copy", 9, 3);
    put(a[1], "splice-file", "to a file");
    out = 100;
    splice(a[0], NULL, to, &out, 9, 0);
    take_at(to, "splice-file", 9, 100);
    for (int i = 0; i < 2; i++) {
        close(a[i]);
        close(b[i]);
        close(s[i]);
    }
    close(fd);
    close(to);
    unlink(path);
    unlink(other);
}

static void counted(void)
{
    int e = eventfd(0, 0), five = eventfd(5, 0);
    uint64_t n = 0x0102030405060708, in;
    if (!fork()) {
        read(e, &in, 8);
        got("event", &in, 8);
        _exit(0);
    }
    made("event", &n, 8);
    write(e, &n, 8);
    wait_all();
    write(e, &n, 8);
    write(e, &n, 8);
    read(e, &in, 8);
    got("events", &in, 8);
    read(five, &in, 8);
    got("event-first", &in, 8);
    close(e);
    close(five);
}

/* --- connections --- */

/* Without waiting for anything. */
static void connected(int family, const char *name, const char *answer, const char *path)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    strcpy(un.sun_path, path);
    struct sockaddr *a = family == AF_UNIX ? (void *)&un : (void *)&in;
    socklen_t len = family == AF_UNIX ? sizeof(un) : sizeof(in);
    int l = socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    bind(l, a, len);
    getsockname(l, a, &len);
    listen(l, 5);
    if (!fork()) {
        int c = socket(family, SOCK_STREAM | SOCK_NONBLOCK, 0);
        int error = connect(c, a, len) ? errno : 0;
        struct pollfd p = {c, POLLOUT, 0};
        poll(&p, 1, -1);
        put(c, name, "a request");
        p.events = POLLIN;
        poll(&p, 1, -1);
        take(c, answer, 64);
        _exit(error == EINPROGRESS);
    }
    struct pollfd p = {l, POLLIN, 0};
    poll(&p, 1, -1);
    int c = accept4(l, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    p.fd = c;
    poll(&p, 1, -1);
    take(c, name, 64);
    put(c, answer, "an answer");
    close(c);
    close(l);
    unlink(path);
    int status;
    wait(&status);
    printf("%s: %s\n", name, WEXITSTATUS(status) ? "in progress" : "at once");
}

/* Many messages with one call. */
static void many(void)
{
    int s[2];
    char a[8], b[8], x[8], y[8];
    socketpair(AF_UNIX, SOCK_DGRAM, 0, s);
    fill(a, "first", 5);
    fill(b, "second", 6);
    made("many", a, 5);
    made("many", b, 6);
    struct iovec v[4] = {{a, 5}, {b, 6}, {x, 8}, {y, 8}};
    struct mmsghdr m[4] = {{{.msg_iov = &v[0], .msg_iovlen = 1}}, {{.msg_iov = &v[1], .msg_iovlen = 1}},
                           {{.msg_iov = &v[2], .msg_iovlen = 1}}, {{.msg_iov = &v[3], .msg_iovlen = 1}}};
    sendmmsg(s[0], m, 2, 0);
    recvmmsg(s[1], m + 2, 2, 0, NULL);
    got("many", x, 5);
    got("many", y, 6);
    close(s[0]);
    close(s[1]);
}

/* --- a new program --- */

static void executed(const char *program)
{
    if (!fork()) {
        char argument[32] = {0}, variable[40] = "VARIABLE=";
        fill(argument, "an argument", 11);
        made("argument", argument, 11);
        fill(variable + 9, "its value", 9);
        made("variable", variable + 9, 9);
        char *argv[] = {(char *)program, "executed", argument, NULL}, *envp[] = {"OTHER=1", variable, NULL};
        execve(program, argv, envp);
        _exit(1);
    }
    wait_all();
}

int main(int argc, char **argv)
{
    char path[] = "flows.tmp";
    if (argc == 3 && !strcmp(argv[1], "executed")) {
        got("argument", argv[2], 11);
        got("variable", getenv("VARIABLE"), 9);
        return 0;
    }
    written_then_mapped(path);
    stored(path);
    stored_and_gone(path);
    other_memory();
    moved(path);
    counted();
    connected(AF_INET, "tcp", "tcp-answer", path);
    connected(AF_UNIX, "unix", "unix-answer", path);
    many();
    executed(argv[0]);
    puts("flows done");
    return 0;
}
