#define _GNU_SOURCE
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
int main(void){ char f[]="/tmp/pernosco-mmap-XXXXXX"; int fd=mkstemp(f); ftruncate(fd,8192);
  volatile int *s=mmap(0,8192,PROT_READ|PROT_WRITE,MAP_SHARED,fd,0), *an=mmap(0,4096,PROT_READ|PROT_WRITE,MAP_SHARED|MAP_ANONYMOUS,-1,0);
  pid_t p=fork();
  if(!p){ for(int i=0;i<10;i++){ while(s[0]!=2*i+1) sched_yield(); an[i]=i*i; s[0]=2*i+2; } _exit(0);}
  long sum=0; for(int i=0;i<10;i++){ s[0]=2*i+1; while(s[0]!=2*i+2) sched_yield(); sum+=an[i]; }
  int st; waitpid(p,&st,0); char buf[16]; pread(fd,buf,4,0); msync((void*)s,8192,MS_SYNC);
  char *ro=mmap(0,4096,PROT_READ,MAP_PRIVATE,fd,0); printf("sum %ld last %d %d\n",sum,s[0],ro[0]); unlink(f); return 0; }
