/* Thread-local variables: gdb knows a variable's place within its module's block, and the module's
 * entry in the dynamic linker's list.
 *
 * Each thread has a vector of blocks, the DTV, of which the address is 8 bytes behind where FS
 * points (ELF Handling For Thread-Local Storage, 3.4.6, variant II): entries of 16 bytes, the
 * block's address first. Which entry is the module's, glibc's link_map says; where in it, glibc
 * tells debuggers in the words {bits, count, offset} at the symbol below (glibc
 * nptl_db/structs.def, db_info.c), of which gdb is asked for the address. */
#include "gdbstub/stub_int.h"

#include "base/bytes.h"
#include "gdbstub/hex.h"
#include "gdbstub/registers.h"

static const char modid_symbol[] = "_thread_db_link_map_l_tls_modid";
enum { DTV_POINTER = 8, DTV_ENTRY = 16, REGISTER_FS_BASE = 58 };
#define DTV_UNALLOCATED UINT64_MAX

/* "qSymbol::" asks which symbols are wanted, "qSymbol:VALUE:NAME" tells of one; VALUE may be empty.
 */
void handle_symbol(struct gdb_stub *s, const char *args)
{
    if (str_eq(args, ":")) {
        s->answer.len = 0;
        buf_str(&s->answer, "qSymbol:");
        hex_add_bytes(&s->answer, modid_symbol, strlen(modid_symbol));
        packet_send(s->link, buf_cstr(&s->answer));
        return;
    }
    if (!read_hex(&args, &s->modid_at))
        s->modid_at = 0;
    packet_send(s->link, "OK");
}

static struct err *read_word(struct gdb_stub *s, gaddr addr, void *out, size_t len)
{
    cleanup(buf_deinit) struct buf bytes = {0};
    TRY(read_memory(s, addr, len, &bytes));
    if (bytes.len < len)
        return err_new(ERR_FAULT, "nothing is mapped at 0x%llx",
                       (unsigned long long)(addr + bytes.len));
    memcpy(out, bytes.data, len);
    return NULL;
}

/* A statically linked program has no list, and is the only module. */
static struct err *module_number(struct gdb_stub *s, gaddr link_map, uint64_t *out)
{
    uint32_t field[3];
    *out = 1;
    if (!link_map)
        return NULL;
    if (!s->modid_at)
        return err_new(ERR_UNSUPPORTED,
                       "where the C library has thread-local variables is not known");
    TRY(read_word(s, s->modid_at, field, sizeof(field)));
    if (field[0] != 64)
        return err_new(ERR_UNSUPPORTED, "the C library numbers modules in %u bits", field[0]);
    return read_word(s, link_map + field[2], out, sizeof(*out));
}

static struct err *find_block(struct gdb_stub *s, gaddr link_map, gaddr *out)
{
    size_t at, digits;
    gaddr dtv;
    uint64_t number, count, fs_base;
    cleanup(buf_deinit) struct buf base = {0};
    TRY(fetch_registers(s));
    if (!registers_find(REGISTER_FS_BASE, &at, &digits))
        return err_new(ERR_UNSUPPORTED, "FS is not known");
    hex_read_bytes((const char *)s->registers.data + at, &base);
    if (base.len < sizeof(fs_base))
        return err_new(ERR_UNSUPPORTED, "FS is not known");
    fs_base = load_u64(base.data);
    TRY(module_number(s, link_map, &number));
    TRY(read_word(s, fs_base + DTV_POINTER, &dtv, sizeof(dtv)));
    TRY(read_word(s, dtv - DTV_ENTRY, &count, sizeof(count)));
    if (!number || number > count)
        return err_new(ERR_NOT_FOUND, "the thread has no variables of this module yet");
    TRY(read_word(s, dtv + number * DTV_ENTRY, out, sizeof(*out)));
    return *out && *out != DTV_UNALLOCATED
               ? NULL
               : err_new(ERR_NOT_FOUND, "the thread has no variables of this module yet");
}

/* "THREAD,OFFSET,LINK-MAP" */
void handle_thread_local(struct gdb_stub *s, const char *args)
{
    uint64_t tid, offset, link_map;
    const struct past_task *t = read_thread(&args, &tid) ? thread_by_tid(s, tid) : NULL;
    if (!t || *args++ != ',' || !read_hex(&args, &offset) || *args++ != ',' ||
        !read_hex(&args, &link_map)) {
        packet_send(s->link, "E01");
        return;
    }
    uint32_t general = s->general;
    gaddr block = 0;
    s->general = t->serial;
    struct err *e = find_block(s, link_map, &block);
    s->general = general;
    if (e) {
        send_error(s, e);
        return;
    }
    cleanup(freep) char *text = str_format("%llx", (unsigned long long)(block + offset));
    packet_send(s->link, text);
}
