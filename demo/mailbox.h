/* Members and their mailboxes. A mailbox keeps the newest messages and drops the oldest when it is full. */
#pragma once

#include <stddef.h>

#include "message.h"

enum { MAILBOX_MAX = 32 };

struct mailbox {
    struct message *messages[MAILBOX_MAX]; // a ring; each holds a reference
    size_t oldest;
    size_t count;
    size_t dropped;
};

struct member {
    char name[32];
    char address[48];
    struct mailbox mailbox;
    size_t digests;
};

struct member *member_create(const char *first, const char *last);
void member_destroy(struct member *member);

/* Puts a message into the mailbox, which takes a reference of its own. */
void mailbox_put(struct mailbox *mailbox, struct message *message);
/* The message at a position, 0 being the oldest. Borrowed. */
struct message *mailbox_at(const struct mailbox *mailbox, size_t position);
