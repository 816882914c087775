#include "message.h"

#include <stdlib.h>
#include <string.h>

static char *copy_text(const char *text)
{
    size_t size = strlen(text) + 1;
    return memcpy(malloc(size), text, size);
}

static void message_destroy(struct message *message)
{
    free(message->subject);
    free(message->body);
    free(message);
}

struct message *message_create(struct member *author, const char *list, int day,
                               const char *subject, const char *body)
{
    static int last_number;
    struct message *message = calloc(1, sizeof *message);
    message->author = author;
    message->list = list;
    message->day = day;
    message->number = ++last_number;
    message->subject = copy_text(subject);
    message->body = copy_text(body);
    message->refs = 1;
    return message;
}

void message_retain(struct message *message)
{
    message->refs++;
}

void message_release(struct message *message)
{
    if (--message->refs == 0)
        message_destroy(message);
}
