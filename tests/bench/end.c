/*
 * end.c - the end of the line, as cheap as it can be: throws away what comes, and sends what is wanted from one page of
 * memory.
 * usage: end KEYS DESTINATION: prints "TARGET port", a TCP port, and "SAM port", where it speaks just enough SAM for a client
 * to get there over a bridge that costs next to nothing, and "UDP port", where datagrams go to and come from. KEYS are the
 * private keys and DESTINATION the address that everybody has. Ends with its standard input.
 */
#include "bench.h"

#include <pthread.h>
#include <sys/mman.h>
#include <sys/sendfile.h>

enum { PAGES = 1 << 20 };

static const char *keys, *destination;
static int zeros, udp;
static long commands;

/* Does what the wish at the beginning says, again and again, until the end. */
static void fulfil(int fd) {
    struct wish wish;

    while (recv(fd, &wish, sizeof wish, MSG_WAITALL) == (ssize_t) sizeof wish) {
        while (wish.there > 0) {
            /* Nowhere to copy it to. */
            ssize_t count = recv(fd, NULL, wish.there < PAGES ? (size_t) wish.there : PAGES, MSG_TRUNC);

            if (count <= 0) {
                return;
            }
            wish.there -= (uint64_t) count;
        }
        while (wish.back > 0) {
            off_t offset = 0;
            ssize_t count = sendfile(fd, zeros, &offset, wish.back < PAGES ? (size_t) wish.back : PAGES);

            if (count <= 0) {
                return;
            }
            wish.back -= (uint64_t) count;
        }
    }
}

static void *serve_target(void *arg) {
    int fd = (int) (intptr_t) arg;

    fulfil(fd);
    close(fd);
    return NULL;
}

static void reply(int fd, const char *begin, const char *end) {
    char line[4096];

    snprintf(line, sizeof line, "%s%s\n", begin, end);
    send_whole(fd, line, strlen(line));
}

/* Sends so many datagrams of 512 bytes as they come from a router. */
static void feed(const char *line) {
    struct sockaddr_in address;
    char datagram[2048];
    int port = 0, count = 0, len;

    check(sscanf(line, "FEED %d %d", &port, &count) == 2, "FEED");
    address = loopback(port);
    len = snprintf(datagram, sizeof datagram, "%s FROM_PORT=0 TO_PORT=0\n", destination);
    memset(datagram + len, 'x', 512);
    while (count-- > 0) {
        check(sendto(udp, datagram, (size_t) len + 512, 0, (struct sockaddr *) &address, sizeof address) > 0, "sendto");
    }
}

static void *serve_sam(void *arg) {
    int fd = (int) (intptr_t) arg;
    char line[8192], number[32];

    while (read_line(fd, line, sizeof line) > 0) {
        if (strncmp(line, "COUNT", 5) != 0 && strncmp(line, "FEED", 4) != 0) {
            __atomic_add_fetch(&commands, 1, __ATOMIC_RELAXED);
        }
        if (strncmp(line, "HELLO", 5) == 0) {
            reply(fd, "HELLO REPLY RESULT=OK VERSION=3.3", "");
        } else if (strncmp(line, "SESSION CREATE", 14) == 0) {
            reply(fd, "SESSION STATUS RESULT=OK DESTINATION=", keys);
        } else if (strncmp(line, "NAMING LOOKUP", 13) == 0) {
            reply(fd, "NAMING REPLY RESULT=OK NAME=ME VALUE=", destination);
        } else if (strncmp(line, "COUNT", 5) == 0) {
            snprintf(number, sizeof number, "%ld", __atomic_load_n(&commands, __ATOMIC_RELAXED));
            reply(fd, "RESULT=OK ", number);
        } else if (strncmp(line, "FEED", 4) == 0) {
            feed(line);
            reply(fd, "RESULT=OK", "");
        } else if (strncmp(line, "STREAM CONNECT", 14) == 0) {
            reply(fd, "STREAM STATUS RESULT=OK", "");
            fulfil(fd);
            break;
        } else if (strncmp(line, "STREAM ACCEPT", 13) == 0) {
            /* Somebody has come at once. */
            reply(fd, "STREAM STATUS RESULT=OK", "");
            reply(fd, destination, " FROM_PORT=0 TO_PORT=0");
            fulfil(fd);
            break;
        } else {
            fprintf(stderr, "end: %s?\n", line);
            break;
        }
    }
    close(fd);
    return NULL;
}

struct door {
    int fd;
    void *(*serve)(void *);
};

static void *open_door(void *arg) {
    const struct door *door = (const struct door *) arg;

    for (;;) {
        int one = 1;
        int fd = accept4(door->fd, NULL, NULL, SOCK_CLOEXEC);
        pthread_t thread;

        check(fd >= 0, "accept");
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        check(pthread_create(&thread, NULL, door->serve, (void *) (intptr_t) fd) == 0, "pthread_create");
        pthread_detach(thread);
    }
    return NULL;
}

int main(int argc, char **argv) {
    struct door target, sam;
    int target_port = 0, sam_port = 0, udp_port = 0;
    pthread_t thread;
    char byte;

    check(argc == 3, "usage: end KEYS DESTINATION");
    keys = argv[1];
    destination = argv[2];
    zeros = memfd_create("zeros", MFD_CLOEXEC);
    check(zeros >= 0 && ftruncate(zeros, PAGES) == 0, "memfd");
    target.fd = bind_to(SOCK_STREAM, &target_port);
    udp = bind_to(SOCK_DGRAM, &udp_port);
    target.serve = serve_target;
    sam.fd = bind_to(SOCK_STREAM, &sam_port);
    sam.serve = serve_sam;
    check(pthread_create(&thread, NULL, open_door, &target) == 0 && pthread_create(&thread, NULL, open_door, &sam) == 0,
          "pthread_create");
    printf("TARGET %d\nUDP %d\nSAM %d\n", target_port, udp_port, sam_port);
    fflush(stdout);
    while (read(STDIN_FILENO, &byte, 1) > 0) {
    }
    return 0;
}
