/* Shifts the clock of a process that preloads this: its time of day is ahead by as many seconds as a file holds. The monotonic
 * clock is not touched. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <threads.h>
#include <time.h>
#include <unistd.h>

static volatile const int64_t *shift;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("FLUVIAL_TEST_CLOCK");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) {
        return;
    }
    void *memory = mmap(NULL, sizeof *shift, PROT_READ, MAP_SHARED, file, 0);
    if (memory != MAP_FAILED) {
        shift = memory;
    }
    close(file);
}

static int64_t seconds(void) {
    return shift ? *shift : 0;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int failed = (int)syscall(SYS_clock_gettime, clock, now);
    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
        now->tv_sec += seconds();
    }
    return failed;
}

int timespec_get(struct timespec *now, int base) {
    return base == TIME_UTC && clock_gettime(CLOCK_REALTIME, now) == 0 ? base : 0;
}

int gettimeofday(struct timeval *now, void *zone) {
    (void)zone;
    struct timespec exact;
    int failed = clock_gettime(CLOCK_REALTIME, &exact);
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return failed;
}

time_t time(time_t *seconds_of) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (seconds_of) {
        *seconds_of = now.tv_sec;
    }
    return now.tv_sec;
}

/* The kernel waits by its own clock. Times of the monotonic clock, which count from the machine's start, are left as they are. */
static struct timespec by_kernel(const struct timespec *until) {
    struct timespec real = *until;
    if (real.tv_sec > 1000000000) {
        real.tv_sec -= seconds();
    }
    return real;
}

int cnd_timedwait(cnd_t *condition, mtx_t *mutex, const struct timespec *until) {
    static int (*wait)(cnd_t *, mtx_t *, const struct timespec *);
    if (!wait) {
        wait = dlsym(RTLD_NEXT, "cnd_timedwait");
    }
    struct timespec real = by_kernel(until);
    return wait(condition, mutex, &real);
}

int pthread_cond_timedwait(pthread_cond_t *condition, pthread_mutex_t *mutex, const struct timespec *until) {
    static int (*wait)(pthread_cond_t *, pthread_mutex_t *, const struct timespec *);
    if (!wait) {
        /* Where there are two versions of it, its name alone finds the older one. */
        void *found = dlvsym(RTLD_NEXT, "pthread_cond_timedwait", "GLIBC_2.3.2");
        wait = found ? found : dlsym(RTLD_NEXT, "pthread_cond_timedwait");
    }
    struct timespec real = by_kernel(until);
    return wait(condition, mutex, &real);
}
