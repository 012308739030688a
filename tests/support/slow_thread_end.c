// Preloaded: a thread that has called end_slowly() ends some milliseconds later than Python believes, and only then gives
// back what it computed on. Who frees that meanwhile is found out here, for whether it does visible harm is a matter of
// luck: it does when the memory is in use again.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

// Ends the arena of one stream: void tbb::detail::r1::terminate(tbb::detail::d1::task_arena_base&)
#define TERMINATE "_ZN3tbb6detail2r19terminateERNS0_2d115task_arena_baseE"

extern int __cxa_thread_atexit_impl(void (*call)(void *), void *object, void *library);
extern void *__dso_handle;

static __thread int is_slow;
static atomic_int ending;

static void say(const char *text, size_t size)
{
    if (write(STDERR_FILENO, text, size) < 0)
        abort();
}

static void wait_a_while(void *milliseconds)
{
    static const char slow[] = "a thread ends slowly\n";
    say(slow, sizeof slow - 1);
    usleep((useconds_t)(size_t)milliseconds * 1000);
}

static void has_ended(void *unused)
{
    (void)unused;
    atomic_fetch_sub(&ending, 1);
}

// To be called before the thread computes: it then ends last of all.
void begin(void)
{
    is_slow = 1;
    atomic_fetch_add(&ending, 1);
    __cxa_thread_atexit_impl(has_ended, NULL, &__dso_handle);
}

// To be called when it has computed: it then waits before OpenVINO's part of its end, which was registered earlier.
void end_slowly(int milliseconds)
{
    __cxa_thread_atexit_impl(wait_a_while, (void *)(size_t)milliseconds, &__dso_handle);
}

void terminate_arena(void *arena) __asm__(TERMINATE);

void terminate_arena(void *arena)
{
    static const char wrong[] = "what a thread computed on is freed before it has ended\n";
    void *library = dlopen("libtbb.so.12", RTLD_LAZY | RTLD_NOLOAD);
    void (*real)(void *) = library ? (void (*)(void *))dlsym(library, TERMINATE) : NULL;
    if (!real)
        abort();
    if (!is_slow && atomic_load(&ending)) {
        say(wrong, sizeof wrong - 1);
        _exit(3);
    }
    real(arena);
}
