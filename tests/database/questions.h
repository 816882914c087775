/* Questions of many kinds, to be asked of any recording: answers are compared as text. */
#ifndef DATABASE_QUESTIONS_H
#define DATABASE_QUESTIONS_H

#include "base/buf.h"
#include "query/query.h"

struct question {
    const char *name, *params;
};
extern const struct question questions[];
extern const size_t question_count;

/** Appends the rows, a line each, without what tells how the database is made. */
struct err *ask(struct query_engine *q, const struct question *what, struct buf *out) nodiscard;
/** Ends the program with an error's message. */
void must(struct err *e);

#endif
