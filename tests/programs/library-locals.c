/* Thread-local variables of a library that is linked, of one that is loaded and unloaded, and of one that takes its place. */
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
void linked_work(long id);
static void *library;
static pthread_barrier_t barrier;

static void *function(const char *name)
{
    void *f = dlsym(library, name);
    if (!f)
        exit(1);
    return f;
}

static void *load(const char *name)
{
    library = dlopen(name, RTLD_NOW);
    if (!library)
        puts(dlerror());
    return library;
}

static void *run(void *arg)
{
    long id = (long)arg;
    linked_work(id);
    ((void (*)(long))function("first_work"))(id);
    pthread_barrier_wait(&barrier);
    pthread_barrier_wait(&barrier); // the first one is unloaded, the second one loaded
    ((void (*)(void))function("second_idle"))();
    if (id != 2)
        ((void (*)(long))function("second_work"))(id);
    linked_work(100 * id);
    return NULL;
}

int main(void)
{
    pthread_t threads[2];
    pthread_barrier_init(&barrier, NULL, 3);
    load("libfirst.so");
    for (long i = 0; i < 2; i++)
        pthread_create(&threads[i], NULL, run, (void *)(i + 1));
    pthread_barrier_wait(&barrier);
    dlclose(library);
    load("libsecond.so");
    pthread_barrier_wait(&barrier);
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    linked_work(5);
    return 0;
}
