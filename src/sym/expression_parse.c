/* The text of an expression, into a tree. C's grammar of expressions without assignments, by
 * precedence climbing, with casts told from parentheses by asking whether a name is a type; `as` of
 * Rust; `thing@n` of gdb for n things in a row. */
#include "sym/expression_int.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>

enum { MAX_NAME = 4096 };

enum token_kind {
    TOKEN_END,
    TOKEN_NAME,
    TOKEN_NUMBER,
    TOKEN_REAL,
    TOKEN_STRING,
    TOKEN_CHAR,
    TOKEN_REGISTER,
    TOKEN_OPERATOR
};

struct token {
    enum token_kind kind;
    unsigned column, op;
    const char *text; /* names, strings; in the compilation's pool */
    uint64_t number;
    const struct sym_type *type;
    double real;
};

struct parser {
    struct compilation *c;
    const char *start, *at;
    struct token token; /* the next one */
    unsigned depth;
    bool behind_operand; /* so that `.0` is a member */
    bool is_reference;   /* the type read last was T & */
};

struct err *err_at(const struct compilation *c, enum err_kind kind, unsigned column,
                   const char *format, ...)
{
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    return err_new(kind, "column %u: %s", column, text);
}

struct node *new_node(struct compilation *c, enum node_kind kind, unsigned column)
{
    struct node *n = sym_pool_alloc(&c->pool, sizeof(*n));
    n->kind = kind;
    n->column = column;
    c->node_count++;
    return n;
}

/* --- tokens --- */

static bool is_name_start(char ch)
{
    return isalpha((unsigned char)ch) || ch == '_' || (ch & 0x80);
}

static bool is_name_char(char ch)
{
    return is_name_start(ch) || isdigit((unsigned char)ch);
}

static char *text_between(struct parser *p, const char *from, const char *to)
{
    char *copy = sym_pool_alloc(&p->c->pool, (size_t)(to - from) + 1);
    memcpy(copy, from, (size_t)(to - from));
    return copy;
}

/* How the namespace without a name is written, in front of other names. It may as well be left out,
 * and is. */
static const char anonymous[] = "(anonymous namespace)::";

/* a, a::b, ::a */
static void take_name(struct parser *p)
{
    const char *from = p->at;
    for (;;) {
        if (str_starts(p->at, anonymous))
            p->at += strlen(anonymous);
        else if (p->at[0] == ':' && p->at[1] == ':' && str_starts(p->at + 2, anonymous))
            p->at += 2;
        else if (p->at[0] == ':' && p->at[1] == ':' && (is_name_start(p->at[2]) || p->at[2] == '~'))
            p->at += 2;
        else if (is_name_char(*p->at))
            p->at++;
        else
            break;
    }
    p->token.kind = TOKEN_NAME;
    char *text = text_between(p, from[0] == ':' ? from + 2 : from, p->at);
    for (char *at; (at = strstr(text, anonymous));)
        memmove(at, at + strlen(anonymous), strlen(at + strlen(anonymous)) + 1);
    p->token.text = text;
}

static struct err *take_number(struct parser *p)
{
    const char *from = p->at;
    bool is_hex = from[0] == '0' && (from[1] | 32) == 'x',
         is_binary = from[0] == '0' && (from[1] | 32) == 'b', is_real = false;
    while (isalnum((unsigned char)*p->at) || *p->at == '.' || *p->at == '_' || *p->at == '\'' ||
           ((*p->at == '+' || *p->at == '-') && !is_hex && !is_binary && (p->at[-1] | 32) == 'e')) {
        is_real |= *p->at == '.' || (!is_hex && !is_binary && (*p->at | 32) == 'e' &&
                                     (isdigit((unsigned char)p->at[1]) || strchr("+-", p->at[1])));
        p->at++;
    }
    char digits[80];
    size_t n = 0;
    for (const char *s = from; s < p->at && n < sizeof(digits) - 1; s++) {
        if (*s != '_' && *s != '\'')
            digits[n++] = *s;
    }
    digits[n] = 0;
    char *end;
    errno = 0;
    if (is_real) {
        p->token.kind = TOKEN_REAL;
        p->token.real = strtod(digits, &end);
        bool is_float = (*end | 32) == 'f';
        if (is_float)
            p->token.real = strtof(digits, &end);
        p->token.type = builtin(is_float ? "float" : "double");
        end += is_float;
        errno = isinf(p->token.real) ? ERANGE : 0; // what is near 0 is a number, too
    } else {
        p->token.kind = TOKEN_NUMBER;
        p->token.number = strtoull(is_binary ? digits + 2 : digits, &end, is_binary ? 2 : 0);
        bool is_unsigned = false, is_long = false;
        while (*end && strchr("uUlL", *end)) {
            is_unsigned |= (*end | 32) == 'u';
            is_long |= (*end | 32) == 'l';
            end++;
        }
        bool may_be_unsigned = is_unsigned || digits[0] == '0';
        uint64_t v = p->token.number;
        // C17 6.4.4.1: the first of the types in which it fits.
        p->token.type = builtin(!is_long && !is_unsigned && v <= INT32_MAX       ? "int"
                                : !is_long && may_be_unsigned && v <= UINT32_MAX ? "unsigned int"
                                : !is_unsigned && v <= INT64_MAX                 ? "long"
                                                                                 : "unsigned long");
    }
    if (*end || n == sizeof(digits) - 1 || end == digits || errno == ERANGE)
        return err_at(p->c, ERR_USAGE, p->token.column, "not a number: %.40s", digits);
    return NULL;
}

/* One character of a literal, with escapes. False: the literal is not closed. */
static bool take_char(struct parser *p, uint8_t *out)
{
    char ch = *p->at++;
    *out = (uint8_t)ch;
    if (ch != '\\')
        return ch != 0;
    static const char from[] = "ntrabfve0", to[] = "\n\t\r\a\b\f\v\033";
    ch = *p->at++;
    if (ch == 'x') {
        unsigned v = 0;
        for (int i = 0; i < 2 && isxdigit((unsigned char)*p->at); i++, p->at++)
            v = v * 16 + (unsigned)(isdigit((unsigned char)*p->at) ? *p->at - '0'
                                                                   : (*p->at | 32) - 'a' + 10);
        *out = (uint8_t)v;
        return true;
    }
    if (ch >= '0' && ch <= '7') {
        unsigned v = (unsigned)(ch - '0');
        for (int i = 0; i < 2 && *p->at >= '0' && *p->at <= '7'; i++)
            v = v * 8 + (unsigned)(*p->at++ - '0');
        *out = (uint8_t)v;
        return true;
    }
    const char *known = ch ? strchr(from, ch) : NULL;
    *out = known ? (uint8_t)to[known - from] : (uint8_t)ch;
    return ch != 0;
}

static struct err *take_literal(struct parser *p)
{
    char quote = *p->at++;
    struct buf text = {0};
    bool closed = true;
    while (closed && *p->at != quote) {
        uint8_t byte;
        closed = take_char(p, &byte);
        if (closed)
            buf_u8(&text, byte);
    }
    size_t len = text.len;
    uint8_t first = len ? text.data[0] : 0;
    p->token.text = text_between(p, (const char *)text.data, (const char *)text.data + len);
    buf_deinit(&text);
    if (!closed)
        return err_at(p->c, ERR_USAGE, p->token.column, "a %s that does not end",
                      quote == '"' ? "string" : "character");
    p->at++;
    p->token.kind = quote == '"' ? TOKEN_STRING : TOKEN_CHAR;
    p->token.number = (uint64_t)(int64_t)(int8_t)first;
    p->token.type = builtin("char");
    if (quote == '\'' && len != 1)
        return err_at(p->c, ERR_USAGE, p->token.column, "not one character");
    return NULL;
}

static struct err *advance(struct parser *p)
{
    static const char *const two[] = {"->", "<<", ">>", "<=", ">=", "==", "!=", "&&", "||", "++",
                                      "--", "+=", "-=", "*=", "/=", "%=", "&=", "|=", "^="};
    while (isspace((unsigned char)*p->at))
        p->at++;
    p->token = (struct token){.column = (unsigned)(p->at - p->start) + 1};
    char ch = *p->at;
    bool behind = p->behind_operand;
    p->behind_operand = false;
    if (!ch)
        return NULL;
    if (is_name_start(ch) || str_starts(p->at, anonymous) ||
        (ch == ':' && p->at[1] == ':' &&
         (is_name_start(p->at[2]) || str_starts(p->at + 2, anonymous)))) {
        take_name(p);
        p->behind_operand = true;
        return NULL;
    }
    if (isdigit((unsigned char)ch) || (ch == '.' && isdigit((unsigned char)p->at[1]) && !behind)) {
        p->behind_operand = true;
        return take_number(p);
    }
    if (ch == '"' || ch == '\'')
        return take_literal(p);
    if (ch == '$') {
        const char *from = ++p->at;
        while (is_name_char(*p->at))
            p->at++;
        p->token.kind = TOKEN_REGISTER;
        p->token.text = text_between(p, from, p->at);
        p->behind_operand = true;
        return NULL;
    }
    p->token.kind = TOKEN_OPERATOR;
    for (size_t i = 0; i < sizeof(two) / sizeof(two[0]); i++) {
        if (ch == two[i][0] && p->at[1] == two[i][1]) {
            p->token.op = OP2(two[i][0], two[i][1]);
            p->at += 2;
            return NULL;
        }
    }
    if (!strchr("+-*/%&|^~!<>=?:()[].,@", ch))
        return err_at(p->c, ERR_USAGE, p->token.column, "what is '%c' here?",
                      isprint((unsigned char)ch) ? ch : '?');
    p->token.op = (uint8_t)ch;
    p->at++;
    p->behind_operand = ch == ')' || ch == ']';
    return NULL;
}

static bool is_op(const struct parser *p, unsigned op)
{
    return p->token.kind == TOKEN_OPERATOR && p->token.op == op;
}

static bool is_word(const struct parser *p, const char *word)
{
    return p->token.kind == TOKEN_NAME && str_eq(p->token.text, word);
}

static struct err *unexpected(struct parser *p, const char *wanted)
{
    if (p->token.kind == TOKEN_END)
        return err_at(p->c, ERR_USAGE, p->token.column, "%s is missing", wanted);
    return err_at(p->c, ERR_USAGE, p->token.column, "%s is missing before '%.20s'", wanted,
                  p->start + p->token.column - 1);
}

static struct err *expect(struct parser *p, char op)
{
    char text[] = {'\'', op, '\'', 0};
    return is_op(p, (uint8_t)op) ? advance(p) : unexpected(p, text);
}

/* --- types --- */

static bool is_type_word(const char *word)
{
    static const char *const words[] = {"unsigned", "signed", "long", "short", "int",     "char",
                                        "float",    "double", "bool", "_Bool", "void",    "struct",
                                        "class",    "union",  "enum", "const", "volatile"};
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        if (str_eq(words[i], word))
            return true;
    }
    return false;
}

/* `<...>` behind a template's name, as far as its brackets match. */
const char *template_end(const char *at)
{
    int depth = 0;
    const char *from = at;
    for (; *at && at - from < MAX_NAME; at++) {
        at += str_starts(at, anonymous) ? strlen(anonymous) : 0;
        depth += *at == '<';
        depth -= *at == '>';
        if (depth == 0)
            return at + 1;
        if (strchr("();\"", *at))
            return NULL;
    }
    return NULL;
}

/* The end of "<int>", or of "<int>::inner<char>". NULL: no template's arguments are there. */
static const char *behind_arguments(const char *at)
{
    const char *end = *at == '<' ? template_end(at) : NULL;
    while (end && end[0] == ':' && end[1] == ':' && is_name_start(end[2])) {
        const char *inner = end + 2;
        while (is_name_char(*inner))
            inner++;
        end = inner;
        if (*inner == '<' && !(end = template_end(inner)))
            return inner;
    }
    return end;
}

/* Does a type begin here? Then reads it: words or a name, then * and &. *out NULL: no; nothing is
 * read. */
static struct err *parse_type(struct parser *p, const struct sym_type **out)
{
    struct parser before = *p;
    struct buf name = {0};
    bool any_word = false;
    struct err *e = NULL;
    *out = NULL;
    p->is_reference = false;
    while (!e && p->token.kind == TOKEN_NAME && name.len < MAX_NAME) {
        bool word = is_type_word(p->token.text);
        bool record = name.len == 7 && memcmp(name.data, "struct ", 7) == 0;
        record |= name.len == 6 &&
                  (memcmp(name.data, "union ", 6) == 0 || memcmp(name.data, "class ", 6) == 0);
        record |= name.len == 5 && memcmp(name.data, "enum ", 5) == 0;
        if (!word && name.len && !record)
            break;
        if (str_eq(p->token.text, "const") || str_eq(p->token.text, "volatile")) {
            e = advance(p);
            continue;
        }
        buf_printf(&name, "%s%s", name.len && name.data[name.len - 1] != ' ' ? " " : "",
                   p->token.text);
        const char *end = word ? NULL : behind_arguments(p->at);
        if (end) {
            buf_printf(&name, "%.*s", (int)(end - p->at), p->at);
            p->at = end;
        }
        if (word && (str_eq(p->token.text, "struct") || str_eq(p->token.text, "union") ||
                     str_eq(p->token.text, "class") || str_eq(p->token.text, "enum")))
            buf_u8(&name, ' ');
        any_word |= word;
        e = advance(p);
        if (!word)
            break;
    }
    const struct sym_type *type =
        !e && name.len && (any_word || !is_variable(p->c, buf_cstr(&name)))
            ? type_named(p->c, buf_cstr(&name))
            : NULL;
    if (!e && any_word && !type)
        e = err_at(p->c, ERR_NOT_FOUND, before.token.column, "there is no type %.100s",
                   buf_cstr(&name));
    while (!e && type &&
           (is_op(p, '*') || is_op(p, '&') || is_op(p, OP2('&', '&')) || is_word(p, "const"))) {
        if (is_op(p, '*'))
            type = pointer_to(p->c, type);
        p->is_reference |= is_op(p, '&') || is_op(p, OP2('&', '&'));
        e = advance(p);
    }
    buf_deinit(&name);
    if (!e && !type)
        *p = before;
    *out = type;
    return e;
}

/* --- the tree --- */

static struct err *parse_binary(struct parser *p, int least, struct node **out);
static struct err *parse_unary(struct parser *p, struct node **out);

static struct err *parse_whole(struct parser *p, struct node **out)
{
    if (++p->depth > MAX_DEPTH || p->c->node_count > MAX_NODES)
        return err_at(p->c, ERR_LIMIT, p->token.column,
                      "the expression is nested too deeply, or too long");
    TRY(parse_binary(p, 0, out));
    if (is_op(p, '?')) {
        struct node *n = new_node(p->c, NODE_CHOICE, p->token.column);
        n->a = *out;
        TRY(advance(p));
        TRY(parse_whole(p, &n->b));
        TRY(expect(p, ':'));
        TRY(parse_whole(p, &n->c));
        *out = n;
    }
    p->depth--;
    return NULL;
}

/* sizeof x, sizeof(type), contains(p, "text"), streq(p, "text") */
static struct err *parse_function(struct parser *p, struct node **out, bool *found)
{
    bool contains = is_word(p, "contains") || is_word(p, "$_contains"),
         equals = is_word(p, "streq");
    *found = contains || equals;
    if (!*found)
        return NULL;
    struct parser before = *p;
    struct node *n = new_node(p->c, NODE_STREQ, p->token.column);
    TRY(advance(p));
    if (!is_op(p, '(')) { // somebody's variable
        *p = before;
        *found = false;
        return NULL;
    }
    TRY(advance(p));
    TRY(parse_whole(p, &n->a));
    TRY(expect(p, ','));
    if (p->token.kind != TOKEN_STRING)
        return unexpected(p, "a string");
    n->text = p->token.text;
    n->number = contains;
    TRY(advance(p));
    *out = n;
    return expect(p, ')');
}

static struct err *parse_sizeof(struct parser *p, struct node **out)
{
    struct node *n = new_node(p->c, NODE_UNARY, p->token.column);
    const struct sym_type *type = NULL;
    n->op = 'z';
    *out = n;
    TRY(advance(p));
    struct parser before = *p;
    if (is_op(p, '(')) {
        TRY(advance(p));
        TRY(parse_type(p, &type));
    }
    if (!type) {
        *p = before;
        return parse_unary(p, &n->a);
    }
    n->kind = NODE_NUMBER;
    n->number = type->size;
    n->type = builtin("unsigned long");
    if (!type->size)
        return err_at(p->c, ERR_NOT_FOUND, n->column, "the size of %.100s is not known",
                      type->name);
    return expect(p, ')');
}

static struct err *no_reference(const struct parser *p, unsigned column)
{
    return p->is_reference
               ? err_at(p->c, ERR_UNSUPPORTED, column, "a cast to a reference; write *(T *)&x")
               : NULL;
}

/* static_cast<T>(x) and its like */
static struct err *parse_named_cast(struct parser *p, struct node **out)
{
    struct node *n = new_node(p->c, NODE_CAST, p->token.column);
    TRY(advance(p));
    TRY(expect(p, '<'));
    TRY(parse_type(p, &n->type));
    if (!n->type)
        return unexpected(p, "a type");
    TRY(no_reference(p, n->column));
    TRY(expect(p, '>'));
    TRY(expect(p, '('));
    TRY(parse_whole(p, &n->a));
    *out = n;
    return expect(p, ')');
}

/* The name that was read last, with what stands behind it if that is a template's arguments, and
 * those of a call: f<int>(1). */
static const char *with_template_arguments(struct parser *p)
{
    const char *name = p->token.text, *end = behind_arguments(p->at);
    if (!end || end[strspn(end, " ")] != '(' || is_known_variable(p->c, name))
        return name;
    cleanup(freep) char *whole = str_format("%s%.*s", name, (int)(end - p->at), p->at);
    p->at = end;
    return sym_pool_str(&p->c->pool, whole);
}

static struct err *parse_primary(struct parser *p, struct node **out)
{
    static const struct {
        const char *name;
        uint64_t value;
        const char *type;
    } constants[] = {
        {"true", 1, "bool"}, {"false", 0, "bool"}, {"nullptr", 0, "void *"}, {"NULL", 0, "void *"}};
    struct token t = p->token;
    bool found;
    struct node *n;
    if (t.kind == TOKEN_NUMBER || t.kind == TOKEN_CHAR) {
        n = new_node(p->c, NODE_NUMBER, t.column);
        n->number = t.number;
        n->type = t.type;
    } else if (t.kind == TOKEN_REAL) {
        n = new_node(p->c, NODE_REAL, t.column);
        n->real = t.real;
        n->type = t.type;
    } else if (t.kind == TOKEN_STRING || t.kind == TOKEN_REGISTER || t.kind == TOKEN_NAME) {
        TRY(parse_function(p, out, &found));
        if (found)
            return NULL;
        if (is_word(p, "static_cast") || is_word(p, "reinterpret_cast") || is_word(p, "const_cast"))
            return parse_named_cast(p, out);
        n = new_node(p->c,
                     t.kind == TOKEN_STRING     ? NODE_STRING
                     : t.kind == TOKEN_REGISTER ? NODE_REGISTER
                                                : NODE_NAME,
                     t.column);
        n->text = t.kind == TOKEN_NAME ? with_template_arguments(p) : t.text;
        for (size_t i = 0; t.kind == TOKEN_NAME && i < sizeof(constants) / sizeof(constants[0]);
             i++) {
            if (!str_eq(t.text, constants[i].name) || is_variable(p->c, t.text))
                continue;
            n->kind = NODE_NUMBER;
            n->number = constants[i].value;
            n->type = str_eq(constants[i].type, "bool") ? builtin("bool")
                                                        : pointer_to(p->c, builtin("void"));
        }
    } else if (is_op(p, '(')) {
        TRY(advance(p));
        TRY(parse_whole(p, out));
        return expect(p, ')');
    } else {
        return unexpected(p, "a value");
    }
    *out = n;
    return advance(p);
}

static struct err *parse_member(struct parser *p, struct node **out)
{
    struct node *n = new_node(p->c, NODE_MEMBER, p->token.column);
    n->a = *out;
    n->arrow = p->token.op == OP2('-', '>');
    p->behind_operand = true;
    TRY(advance(p));
    if (p->token.kind == TOKEN_NUMBER) { // a field of Rust's tuples
        char name[32];
        snprintf(name, sizeof(name), "__%llu", (unsigned long long)p->token.number);
        n->text = sym_pool_str(&p->c->pool, name);
    } else if (p->token.kind == TOKEN_NAME) {
        n->text = with_template_arguments(p);
    } else {
        return unexpected(p, "a member");
    }
    *out = n;
    p->behind_operand = true;
    return advance(p);
}

/* Behind what is called. */
static struct err *parse_call(struct parser *p, struct node **out)
{
    struct node *n = new_node(p->c, NODE_CALL, (*out)->column), *args[SYM_CALL_MOST_ARGUMENTS];
    n->a = *out;
    TRY(advance(p));
    while (!is_op(p, ')')) {
        if (n->arg_count == SYM_CALL_MOST_ARGUMENTS - 1)
            return err_at(p->c, ERR_LIMIT, p->token.column, "too many arguments");
        if (n->arg_count)
            TRY(expect(p, ','));
        TRY(parse_whole(p, &args[n->arg_count]));
        n->arg_count++;
        if (!is_op(p, ',') && !is_op(p, ')'))
            return unexpected(p, "',' or ')'");
    }
    TRY(advance(p));
    n->args = sym_pool_alloc(&p->c->pool, (n->arg_count + 1) * sizeof(*n->args));
    memcpy(n->args, args, n->arg_count * sizeof(*args));
    *out = n;
    return NULL;
}

static struct err *parse_postfix(struct parser *p, struct node **out)
{
    TRY(parse_primary(p, out));
    for (;;) {
        unsigned column = p->token.column;
        if (p->c->node_count > MAX_NODES)
            return err_at(p->c, ERR_LIMIT, column, "the expression is too long");
        if (is_op(p, '.') || is_op(p, OP2('-', '>'))) {
            TRY(parse_member(p, out));
        } else if (is_op(p, '[')) {
            struct node *sum = new_node(p->c, NODE_BINARY, column),
                        *n = new_node(p->c, NODE_UNARY, column);
            sum->op = '+';
            sum->indexes = true;
            sum->a = *out;
            TRY(advance(p));
            TRY(parse_whole(p, &sum->b));
            TRY(expect(p, ']'));
            n->op = '*';
            n->a = sum;
            *out = n;
        } else if (is_op(p, '(')) {
            TRY(parse_call(p, out));
        } else if (is_op(p, OP2('+', '+')) || is_op(p, OP2('-', '-'))) {
            return err_at(p->c, ERR_UNSUPPORTED, column, "the past cannot be changed");
        } else {
            return NULL;
        }
    }
}

static struct err *parse_unary_inner(struct parser *p, struct node **out)
{
    unsigned column = p->token.column;
    if (p->token.kind == TOKEN_OPERATOR && p->token.op < 256 &&
        strchr("-~!&*+", (int)p->token.op)) {
        struct node *n = new_node(p->c, NODE_UNARY, column);
        n->op = p->token.op;
        TRY(advance(p));
        *out = n;
        return parse_unary(p, &n->a);
    }
    if (is_op(p, OP2('+', '+')) || is_op(p, OP2('-', '-')))
        return err_at(p->c, ERR_UNSUPPORTED, column, "the past cannot be changed");
    if (is_word(p, "sizeof"))
        return parse_sizeof(p, out);
    if (is_op(p, '(')) {
        struct parser before = *p;
        const struct sym_type *type;
        TRY(advance(p));
        TRY(parse_type(p, &type));
        if (type && is_op(p, ')')) {
            struct node *n = new_node(p->c, NODE_CAST, column);
            n->type = type;
            TRY(no_reference(p, column));
            TRY(advance(p));
            *out = n;
            return parse_unary(p, &n->a);
        }
        *p = before;
    }
    return parse_postfix(p, out);
}

static struct err *parse_unary(struct parser *p, struct node **out)
{
    if (++p->depth > MAX_DEPTH || p->c->node_count > MAX_NODES)
        return err_at(p->c, ERR_LIMIT, p->token.column,
                      "the expression is nested too deeply, or too long");
    TRY(parse_unary_inner(p, out));
    p->depth--;
    return NULL;
}

/* What binds more tightly than any operator of two: gdb's @, so many things in a row from this one
 * on; Rust's `as`. */
static struct err *parse_operand(struct parser *p, struct node **out)
{
    TRY(parse_unary(p, out));
    if (is_op(p, '@')) {
        struct node *n = new_node(p->c, NODE_ARRAY, p->token.column);
        n->a = *out;
        TRY(advance(p));
        if (p->token.kind != TOKEN_NUMBER || !p->token.number || p->token.number > 4096)
            return unexpected(p, "a number from 1 to 4096");
        n->number = p->token.number;
        *out = n;
        TRY(advance(p));
    }
    while (is_word(p, "as")) { // Rust
        struct node *n = new_node(p->c, NODE_CAST, p->token.column);
        n->a = *out;
        TRY(advance(p));
        TRY(parse_type(p, &n->type));
        if (!n->type)
            return unexpected(p, "a type");
        *out = n;
    }
    return NULL;
}

static int precedence(const struct parser *p)
{
    static const struct {
        unsigned op;
        int level;
    } levels[] = {{OP2('|', '|'), 1}, {OP2('&', '&'), 2}, {'|', 3},           {'^', 4},
                  {'&', 5},           {OP2('=', '='), 6}, {OP2('!', '='), 6}, {'<', 7},
                  {'>', 7},           {OP2('<', '='), 7}, {OP2('>', '='), 7}, {OP2('<', '<'), 8},
                  {OP2('>', '>'), 8}, {'+', 9},           {'-', 9},           {'*', 10},
                  {'/', 10},          {'%', 10}};
    for (size_t i = 0; p->token.kind == TOKEN_OPERATOR && i < sizeof(levels) / sizeof(levels[0]);
         i++) {
        if (levels[i].op == p->token.op)
            return levels[i].level;
    }
    return -1;
}

static struct err *parse_binary(struct parser *p, int least, struct node **out)
{
    TRY(parse_operand(p, out));
    for (int level; (level = precedence(p)) >= 0 && level >= least;) {
        struct node *n = new_node(p->c, NODE_BINARY, p->token.column);
        if (p->c->node_count > MAX_NODES)
            return err_at(p->c, ERR_LIMIT, n->column, "the expression is too long");
        n->op = p->token.op;
        n->a = *out;
        TRY(advance(p));
        TRY(parse_binary(p, level + 1, &n->b));
        *out = n;
    }
    return NULL;
}

struct err *parse_expression(struct compilation *c, struct node **out)
{
    struct parser p = {.c = c, .start = c->request->text, .at = c->request->text};
    if (strlen(p.start) > MAX_TEXT)
        return err_at(c, ERR_LIMIT, MAX_TEXT, "the expression is too long");
    TRY(advance(&p));
    TRY(parse_whole(&p, out));
    if (p.token.kind == TOKEN_END)
        return NULL;
    bool assigns = is_op(&p, '=') || (p.token.kind == TOKEN_OPERATOR && p.token.op >> 8 == '=');
    if (assigns)
        return err_at(c, ERR_UNSUPPORTED, p.token.column,
                      "the past cannot be changed (for equality: ==)");
    return err_at(c, ERR_USAGE, p.token.column, "what is '%.20s' here?",
                  p.start + p.token.column - 1);
}
