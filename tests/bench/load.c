/*
 * load.c - sends through a relay to end.c and receives from there. usage: load PORT CONNECTIONS THERE BACK: MiB for all
 * connections together. Prints the seconds it took.
 */
#include "bench.h"

#include <pthread.h>
#include <sys/mman.h>
#include <sys/sendfile.h>

enum { PAGES = 1 << 20 };

static int port, zeros;
static struct wish wish;

static void *carry(void *arg) {
    struct wish left = wish;
    int fd = (int) (intptr_t) arg;

    send_whole(fd, &wish, sizeof wish);
    while (left.there > 0) {
        off_t offset = 0;
        ssize_t count = sendfile(fd, zeros, &offset, left.there < PAGES ? (size_t) left.there : PAGES);

        check(count > 0, "sendfile");
        left.there -= (uint64_t) count;
    }
    while (left.back > 0) {
        ssize_t count = recv(fd, NULL, left.back < PAGES ? (size_t) left.back : PAGES, MSG_TRUNC);

        check(count > 0, "recv");
        left.back -= (uint64_t) count;
    }
    close(fd);
    return NULL;
}

int main(int argc, char **argv) {
    pthread_t threads[64];
    struct wish none = {0, 1};
    int fds[64];
    char byte;
    int count, i;
    double begin;

    check(argc == 5 && atoi(argv[2]) > 0 && atoi(argv[2]) <= 64, "usage: load PORT CONNECTIONS THERE BACK");
    port = atoi(argv[1]);
    count = atoi(argv[2]);
    wish.there = ((uint64_t) atoi(argv[3]) << 20) / (uint64_t) count;
    wish.back = ((uint64_t) atoi(argv[4]) << 20) / (uint64_t) count + 1;
    zeros = memfd_create("zeros", MFD_CLOEXEC);
    check(zeros >= 0 && ftruncate(zeros, PAGES) == 0, "memfd");
    for (i = 0; i < count; i++) {
        /* Until an answer is here, the connection is being made. */
        fds[i] = connect_to(port);
        send_whole(fds[i], &none, sizeof none);
        check(recv(fds[i], &byte, 1, 0) == 1, "the first answer");
    }
    begin = seconds_of(CLOCK_MONOTONIC);
    for (i = 0; i < count; i++) {
        check(pthread_create(&threads[i], NULL, carry, (void *) (intptr_t) fds[i]) == 0, "pthread_create");
    }
    for (i = 0; i < count; i++) {
        pthread_join(threads[i], NULL);
    }
    printf("%.6f\n", seconds_of(CLOCK_MONOTONIC) - begin);
    return 0;
}
