/* Messages. One message lies in many mailboxes at once, and in the archive: each of them holds a reference. */
#pragma once

#include <stdint.h>

struct member;

struct message {
    char *subject;
    char *body;
    struct member *author;
    const char *list;
    int day;
    int number;
    uint8_t refs;
    uint8_t urgent;
};

/* A new message with one reference, which belongs to the caller. */
struct message *message_create(struct member *author, const char *list, int day,
                               const char *subject, const char *body);
void message_retain(struct message *message);
void message_release(struct message *message);
