/* A library with thread-local variables; PART is its name, START what they begin with. NAME(report) is told what they hold, NAME(idle) does not use them. */
#define NAME2(part, x) part##_##x
#define NAME1(part, x) NAME2(part, x)
#define NAME(x) NAME1(PART, x)
static __thread long count = START;
static __thread struct { char name[6]; short level; } who = {"none", -1};
static volatile long sink;
__attribute__((noinline)) void NAME(report)(long expected_count, short expected_level) { sink += expected_count + expected_level; }
__attribute__((noinline)) void NAME(idle)(void) { sink++; }
void NAME(work)(long id) { count += id; who.level = (short)(10 * id); NAME(report)(count, who.level); }
