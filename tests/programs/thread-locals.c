/* Thread-local variables of the executable, some with an alignment of their own; report() is told what they hold. */
#include <pthread.h>
static __thread int count = 3;
static __thread long wide __attribute__((aligned(64)));
static __thread struct { char name[6]; short level; } who = {"none", -1};
static volatile long sink;
__attribute__((noinline)) static void report(int expected_count, long expected_wide, short expected_level){ sink += expected_count + expected_wide + expected_level; }
static void *work(void *a){ long id=(long)a;
  for(int i=0;i<id+2;i++){ count+=(int)id; wide=id*1000+i; who.level=(short)(10*id+i); report(count, wide, who.level); } return 0; }
int main(void){ pthread_t t[3]; for(long i=0;i<3;i++) pthread_create(&t[i],0,work,(void*)(i+1));
  for(int i=0;i<3;i++) pthread_join(t[i],0); report(count, wide, who.level); return 0; }
