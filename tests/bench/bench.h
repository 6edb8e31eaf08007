/* bench.h - what the programs of this folder share. They are for measuring, and give up at any error. */
#ifndef BENCH_H
#define BENCH_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* What begins a connection to the end of a line: so many bytes follow, and so many are wanted then, at least one. */
struct wish {
    uint64_t there, back;
};

static void check(int right, const char *what) {
    if (!right) {
        perror(what);
        exit(1);
    }
}

static struct sockaddr_in loopback(int port) {
    struct sockaddr_in address;

    memset(&address, 0, sizeof address);
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons((uint16_t) port);
    return address;
}

static inline int connect_to(int port) {
    struct sockaddr_in address = loopback(port);
    int one = 1;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    check(fd >= 0 && connect(fd, (struct sockaddr *) &address, sizeof address) == 0, "connect");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return fd;
}

/* A socket of this type at a port that is free, or at this one. */
static inline int bind_to(int type, int *port) {
    struct sockaddr_in address = loopback(*port);
    socklen_t len = sizeof address;
    int one = 1;
    int fd = socket(AF_INET, type | SOCK_CLOEXEC, 0);

    check(fd >= 0, "socket");
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    check(bind(fd, (struct sockaddr *) &address, len) == 0, "bind");
    check(type != SOCK_STREAM || listen(fd, 128) == 0, "listen");
    check(getsockname(fd, (struct sockaddr *) &address, &len) == 0, "getsockname");
    *port = ntohs(address.sin_port);
    return fd;
}

static inline void send_whole(int fd, const void *data, size_t len) {
    const char *next = (const char *) data;

    while (len > 0) {
        ssize_t count = send(fd, next, len, MSG_NOSIGNAL);

        check(count > 0, "send");
        next += count;
        len -= (size_t) count;
    }
}

/* Reads a line and not a byte more: what follows is payload. Returns its length, or 0 at the end. */
static inline size_t read_line(int fd, char *line, size_t size) {
    size_t len = 0;

    while (len + 1 < size) {
        ssize_t seen = recv(fd, line + len, size - 1 - len, MSG_PEEK);
        char *end;

        if (seen <= 0) {
            return 0;
        }
        end = (char *) memchr(line + len, '\n', (size_t) seen);
        if (end != NULL) {
            seen = end + 1 - (line + len);
        }
        check(recv(fd, line + len, (size_t) seen, 0) == seen, "recv");
        len += (size_t) seen;
        if (end != NULL) {
            line[len - 1] = '\0';
            return len;
        }
    }
    check(0, "the line is too long");
    return 0;
}

/* Sends a command and reads its answer, which must be RESULT=OK. */
static inline void ask(int fd, const char *command, char *answer, size_t size) {
    send_whole(fd, command, strlen(command));
    if (read_line(fd, answer, size) == 0 || strstr(answer, "RESULT=OK") == NULL) {
        fprintf(stderr, "%s: no\n", command);
        exit(1);
    }
}

static inline int greet(int sam) {
    int fd = connect_to(sam);
    char answer[256];

    ask(fd, "HELLO VERSION MIN=3.1 MAX=3.3\n", answer, sizeof answer);
    return fd;
}

static inline double seconds_of(clockid_t clock) {
    struct timespec now;

    clock_gettime(clock, &now);
    return (double) now.tv_sec + (double) now.tv_nsec / 1e9;
}

#endif
