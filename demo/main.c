/* postbox: a month in the life of a small mailing list server. Members join lists, post and receive; every ten days
 * each of them is sent a digest. All that happens follows from one seed. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "digest.h"
#include "mailbox.h"
#include "message.h"
#include "table.h"

enum { MEMBERS = 270, ARCHIVE_MAX = 96, DAYS = 30, DIGEST_EVERY = 10, ANNOUNCEMENT_DAY = 3 };

struct list {
    const char *name;
    unsigned one_in; // one member in so many has joined
    unsigned posts_a_day;
    struct member *members[MEMBERS];
    size_t count;
};

static struct list lists[] = {
    {.name = "everyone", .one_in = 1, .posts_a_day = 0},
    {.name = "gardening", .one_in = 14, .posts_a_day = 3},
    {.name = "cycling", .one_in = 12, .posts_a_day = 2},
    {.name = "board-games", .one_in = 16, .posts_a_day = 2},
    {.name = "choir", .one_in = 20, .posts_a_day = 1},
};
enum { LISTS = sizeof lists / sizeof lists[0] };

static struct member *members[MEMBERS];
static struct table members_by_address;

/* The newest messages of all lists; each holds a reference. */
static struct message *archive[ARCHIVE_MAX];
static size_t archive_next;

static uint32_t seed = 20240229;

static uint32_t pick(uint32_t bound)
{
    seed ^= seed << 13;
    seed ^= seed >> 17;
    seed ^= seed << 5;
    return seed % bound;
}

static const char *const first_names[] = {"Ada",   "Bela",  "Carl", "Dora",  "Emil", "Frida",
                                          "Georg", "Hanna", "Ivo",  "Jana",  "Karl", "Lotte",
                                          "Max",   "Nora",  "Otto", "Paula", "Rosa", "Sven"};
static const char *const last_names[] = {"Abel",   "Brandt", "Clausen", "Dietz",  "Engel",
                                         "Fischer", "Graf",   "Huber",   "Jansen", "Keller",
                                         "Lorenz", "Maurer", "Nowak",   "Peters", "Richter"};
static const char *const topics[] = {"meeting on Thursday", "the old shed",  "a lost umbrella",
                                     "spring cleaning",     "next excursion", "new opening hours"};
static const char *const sentences[] = {
    "Does anybody know whether we still meet at noon?",
    "I would gladly bring the big tent if it is needed.",
    "Thanks to all who helped to carry the tables.",
    "Please remember to return the keys.",
    "The weather does not look good, so better wait a day.",
    "Count me in.",
};
#define COUNT(array) (sizeof(array) / sizeof *(array))

static void load_members(void)
{
    table_init(&members_by_address);
    for (size_t i = 0; i < MEMBERS; i++) {
        const char *first = first_names[i % COUNT(first_names)];
        const char *last = last_names[i / COUNT(first_names)];
        members[i] = member_create(first, last);
        table_put(&members_by_address, members[i]->address, members[i]);
        for (size_t l = 0; l < LISTS; l++)
            if (pick(lists[l].one_in) == 0)
                lists[l].members[lists[l].count++] = members[i];
    }
    for (size_t l = 0; l < LISTS; l++)
        printf("list %s: %zu members\n", lists[l].name, lists[l].count);
}

/* Takes over the caller's reference. */
static void archive_put(struct message *message)
{
    if (archive[archive_next])
        message_release(archive[archive_next]);
    archive[archive_next] = message;
    archive_next = (archive_next + 1) % ARCHIVE_MAX;
}

static void post(struct list *list, struct member *author, int day, const char *subject,
                 const char *body)
{
    struct message *message = message_create(author, list->name, day, subject, body);
    for (size_t i = 0; i < list->count; i++)
        mailbox_put(&list->members[i]->mailbox, message);
    archive_put(message);
}

static void post_something(struct list *list, int day)
{
    struct member *author = list->members[pick((uint32_t)list->count)];
    char subject[64];
    snprintf(subject, sizeof subject, "%s%s", pick(3) ? "Re: " : "", topics[pick(COUNT(topics))]);
    post(list, author, day, subject, sentences[pick(COUNT(sentences))]);
}

static void announce(int day)
{
    struct member *secretary = table_get(&members_by_address, "p.keller@example.org");
    post(&lists[0], secretary, day, "Welcome to the new list server",
         "From today on all lists are served by postbox.");
    printf("day %d: %s wrote to everyone\n", day, secretary->name);
}

static void send_digests(int day)
{
    for (size_t i = 0; i < MEMBERS; i++)
        digest_order(members[i]);
    size_t lines = digest_wait();
    printf("day %d: digests with %zu lines sent\n", day, lines);
}

static void run_day(int day)
{
    size_t posts = 0;
    if (day == ANNOUNCEMENT_DAY)
        announce(day);
    for (size_t l = 0; l < LISTS; l++)
        for (unsigned i = 0; i < lists[l].posts_a_day; i++, posts++)
            post_something(&lists[l], day);
    printf("day %d: %zu posts\n", day, posts);
    if (day % DIGEST_EVERY == 0)
        send_digests(day);
}

int main(void)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    load_members();
    digest_start();
    for (int day = 1; day <= DAYS; day++)
        run_day(day);
    digest_stop();

    for (size_t i = 0; i < ARCHIVE_MAX; i++)
        if (archive[i])
            message_release(archive[i]);
    for (size_t i = 0; i < MEMBERS; i++)
        member_destroy(members[i]);
    table_deinit(&members_by_address);
    printf("the month is over\n");
    return 0;
}
