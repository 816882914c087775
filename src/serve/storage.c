#include "serve/storage.h"

#include "base/buf.h"

#include <sqlite3.h>
#include <sys/stat.h>
#include <time.h>

/* All of it is sent to each new client. */
enum { MAX_KEYS = 20000, MAX_PAGES = 8192, PAGE_BYTES = 4096 };

struct storage {
    sqlite3 *db;
    char *trace;
};

static struct err *failed(struct storage *s, const char *what)
{
    return err_new(ERR_OS, "storage: %s: %s", what, sqlite3_errmsg(s->db));
}

struct err *storage_prepare(const char *dir)
{
    struct stat st;
    if (stat(dir, &st) != 0 && mkdir(dir, 0700) != 0)
        return err_os("cannot create storage directory %s", dir);
    if (stat(dir, &st) == 0 && !S_ISDIR(st.st_mode))
        return err_new(ERR_OS, "storage directory %s: not a directory", dir);
    return access(dir, W_OK | X_OK) != 0 ? err_os("cannot write to storage directory %s", dir)
                                         : NULL;
}

struct err *storage_open(const char *dir, const char *trace, struct storage **out)
{
    cleanup(storage_closep) struct storage *s = xnew(struct storage);
    s->trace = xstrdup(trace);
    cleanup(freep) char *path = dir ? str_format("%s/pernosco.sqlite", dir) : xstrdup(":memory:");
    if (sqlite3_open_v2(path, &s->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, NULL) !=
        SQLITE_OK)
        return err_new(ERR_OS, "cannot open %s: %s", path, sqlite3_errmsg(s->db));
    sqlite3_busy_timeout(s->db, 2000);
    cleanup(freep) char *bounds =
        str_format("pragma page_size=%d; pragma max_page_count=%d", PAGE_BYTES, MAX_PAGES);
    if (sqlite3_exec(s->db, bounds, NULL, NULL, NULL) != SQLITE_OK ||
        sqlite3_exec(s->db,
                     "pragma journal_mode=wal; pragma synchronous=full; pragma temp_store=memory;"
                     "create table if not exists stored(trace text not null, key text not null, "
                     "value text not null,"
                     " created integer not null, primary key(trace, key))",
                     NULL, NULL, NULL) != SQLITE_OK)
        return err_new(ERR_OS, "%s: %s", path, sqlite3_errmsg(s->db));
    *out = steal(s);
    return NULL;
}

void storage_close(struct storage *s)
{
    if (!s)
        return;
    sqlite3_close(s->db);
    free(s->trace);
    free(s);
}

/* Runs a statement with text parameters; the first column of the first row, if wanted, as an
 * integer. */
static struct err *execute(struct storage *s, const char *sql, const char *const *params,
                           size_t count, int64_t *out)
{
    sqlite3_stmt *statement;
    if (sqlite3_prepare_v2(s->db, sql, -1, &statement, NULL) != SQLITE_OK)
        return failed(s, "prepare");
    for (size_t i = 0; i < count; i++)
        sqlite3_bind_text(statement, (int)i + 1, params[i], -1, SQLITE_STATIC);
    int status = sqlite3_step(statement);
    if (status == SQLITE_ROW && out)
        *out = sqlite3_column_int64(statement, 0);
    struct err *e = NULL;
    if (status == SQLITE_FULL)
        e = err_new(ERR_LIMIT, "the storage is full: %s", sqlite3_errmsg(s->db));
    else if (status != SQLITE_ROW && status != SQLITE_DONE)
        e = failed(s, "step");
    sqlite3_finalize(statement);
    return e;
}

struct err *storage_put(struct storage *s, const char *key, const char *value, int64_t *created_out)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    cleanup(freep) char *created =
        str_format("%lld", (long long)now.tv_sec * 1000 + now.tv_nsec / 1000000);
    int64_t count = 0;
    const char *others[] = {s->trace, key};
    TRY(execute(s, "select count(*) from stored where trace = ?1 and key != ?2", others, 2,
                &count));
    if (count >= MAX_KEYS)
        return err_new(ERR_LIMIT, "too much is stored");
    const char *params[] = {s->trace, key, value, created};
    TRY(execute(s,
                "insert into stored values(?1, ?2, ?3, cast(?4 as integer)) on conflict do update "
                "set value = ?3",
                params, 4, NULL));
    return execute(s, "select created from stored where trace = ?1 and key = ?2", params, 2,
                   created_out);
}

struct err *storage_delete(struct storage *s, const char *key)
{
    const char *params[] = {s->trace, key};
    return execute(s, "delete from stored where trace = ?1 and key = ?2", params, 2, NULL);
}

struct err *storage_each(struct storage *s,
                         void (*visit)(void *ctx, const char *key, const char *value,
                                       int64_t created),
                         void *ctx)
{
    sqlite3_stmt *statement;
    if (sqlite3_prepare_v2(s->db,
                           "select key, value, created from stored where trace = ?1 order by key",
                           -1, &statement, NULL) != SQLITE_OK)
        return failed(s, "prepare");
    sqlite3_bind_text(statement, 1, s->trace, -1, SQLITE_STATIC);
    int status;
    while ((status = sqlite3_step(statement)) == SQLITE_ROW)
        visit(ctx, (const char *)sqlite3_column_text(statement, 0),
              (const char *)sqlite3_column_text(statement, 1), sqlite3_column_int64(statement, 2));
    struct err *e = status == SQLITE_DONE ? NULL : failed(s, "step");
    sqlite3_finalize(statement);
    return e;
}
