#include "mailbox.h"

#include <stdio.h>
#include <stdlib.h>

static void drop_oldest(struct mailbox *mailbox)
{
    struct message *message = mailbox->messages[mailbox->oldest];
    mailbox->messages[mailbox->oldest] = NULL;
    mailbox->oldest = (mailbox->oldest + 1) % MAILBOX_MAX;
    mailbox->count--;
    mailbox->dropped++;
    message_release(message);
}

void mailbox_put(struct mailbox *mailbox, struct message *message)
{
    if (mailbox->count == MAILBOX_MAX)
        drop_oldest(mailbox);
    message_retain(message);
    mailbox->messages[(mailbox->oldest + mailbox->count) % MAILBOX_MAX] = message;
    mailbox->count++;
}

struct message *mailbox_at(const struct mailbox *mailbox, size_t position)
{
    return mailbox->messages[(mailbox->oldest + position) % MAILBOX_MAX];
}

struct member *member_create(const char *first, const char *last)
{
    struct member *member = calloc(1, sizeof *member);
    snprintf(member->name, sizeof member->name, "%s %s", first, last);
    snprintf(member->address, sizeof member->address, "%c.%s@example.org", first[0] | 0x20, last);
    for (char *c = member->address; *c; c++)
        if (*c >= 'A' && *c <= 'Z')
            *c |= 0x20;
    return member;
}

void member_destroy(struct member *member)
{
    while (member->mailbox.count)
        drop_oldest(&member->mailbox);
    free(member);
}
