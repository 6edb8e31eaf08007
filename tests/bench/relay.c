/*
 * relay.c - a tunnel written by hand, to compare that of the library with: one epoll loop, splice(2), just enough SAM,
 * which it speaks while everything else waits. usage: relay client SAM_PORT ADDRESS ROOM, which prints "PORT number" of its own;
 * relay server SAM_PORT TARGET_PORT ROOM, which prints "ADDRESS destination". ROOM is the size of its pipes.
 */
#include "bench.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/epoll.h>

enum { TURN = 1 << 20 };

struct link;

/* A socket of a link, and the pipe for what comes from it. */
struct side {
    struct link *link;
    int fd, pipe[2];
    size_t held;
};

struct link {
    struct side sides[2];
};

static int room, poller, sam, door, waiting = -1, target;
static const char *address;
static struct link *gone[256];
static size_t gone_count;

static void watch(int fd, void *what, uint32_t events) {
    struct epoll_event event;

    memset(&event, 0, sizeof event);
    event.events = events;
    event.data.ptr = what;
    check(epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event) == 0, "epoll_ctl");
}

static void join_sockets(int a, int b) {
    struct link *link = (struct link *) calloc(1, sizeof *link);
    int i;

    check(link != NULL, "calloc");
    link->sides[0].fd = a;
    link->sides[1].fd = b;
    for (i = 0; i < 2; i++) {
        struct side *side = &link->sides[i];

        side->link = link;
        check(pipe2(side->pipe, O_CLOEXEC | O_NONBLOCK) == 0, "pipe2");
        fcntl(side->pipe[1], F_SETPIPE_SZ, room);
        fcntl(side->fd, F_SETFL, O_NONBLOCK);
    }
    for (i = 0; i < 2; i++) {
        watch(link->sides[i].fd, &link->sides[i], EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET);
    }
}

/* Moves what it can. Returns -1 at the end, 1 when there may be more. */
static int move(struct side *from, int to) {
    size_t budget = TURN;

    while (budget > 0) {
        if (from->held == 0) {
            ssize_t count = splice(from->fd, NULL, from->pipe[1], NULL, (size_t) room, SPLICE_F_NONBLOCK | SPLICE_F_MOVE);

            if (count <= 0) {
                return count < 0 && errno == EAGAIN ? 0 : -1;
            }
            from->held = (size_t) count;
        }
        while (from->held > 0) {
            ssize_t count = splice(from->pipe[0], NULL, to, NULL, from->held, SPLICE_F_NONBLOCK | SPLICE_F_MOVE);

            if (count <= 0) {
                return count < 0 && errno == EAGAIN ? 0 : -1;
            }
            from->held -= (size_t) count;
            budget -= (size_t) count < budget ? (size_t) count : budget;
        }
    }
    return 1;
}

static void end_link(struct link *link) {
    int i;

    for (i = 0; i < 2; i++) {
        close(link->sides[i].fd);
        close(link->sides[i].pipe[0]);
        close(link->sides[i].pipe[1]);
        link->sides[i].fd = -1;
    }
    /* There may still be an event of it. */
    gone[gone_count++] = link;
}

static void serve(struct link *link) {
    int there, back;

    if (link->sides[0].fd < 0) {
        return;
    }
    there = move(&link->sides[0], link->sides[1].fd);
    back = move(&link->sides[1], link->sides[0].fd);
    if (there < 0 || back < 0) {
        end_link(link);
    } else if (there + back > 0) {
        /* Others first; a new event for what is there already. */
        struct epoll_event event;

        memset(&event, 0, sizeof event);
        event.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET;
        event.data.ptr = &link->sides[0];
        epoll_ctl(poller, EPOLL_CTL_MOD, link->sides[0].fd, &event);
        event.data.ptr = &link->sides[1];
        epoll_ctl(poller, EPOLL_CTL_MOD, link->sides[1].fd, &event);
    }
}

static void accept_client(void) {
    int near = accept4(door, NULL, NULL, SOCK_CLOEXEC), far, one = 1;
    char command[2048], answer[1024];

    check(near >= 0, "accept");
    setsockopt(near, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    far = greet(sam);
    snprintf(command, sizeof command, "STREAM CONNECT ID=relay%d DESTINATION=%s SILENT=false\n", (int) getpid(), address);
    ask(far, command, answer, sizeof answer);
    join_sockets(near, far);
}

static void wait_for_peer(void) {
    char command[128], answer[1024];

    waiting = greet(sam);
    snprintf(command, sizeof command, "STREAM ACCEPT ID=relay%d SILENT=false\n", (int) getpid());
    ask(waiting, command, answer, sizeof answer);
    watch(waiting, &waiting, EPOLLIN);
}

static void accept_peer(void) {
    char peer[4096];
    int near = waiting;

    check(epoll_ctl(poller, EPOLL_CTL_DEL, near, NULL) == 0, "epoll_ctl");
    check(read_line(near, peer, sizeof peer) > 0, "peer");
    wait_for_peer();
    join_sockets(near, connect_to(target));
}

int main(int argc, char **argv) {
    int server = argc == 5 && strcmp(argv[1], "server") == 0, port = 0, session;
    char command[256], answer[4096];

    check(argc == 5, "usage: relay client SAM_PORT ADDRESS ROOM | relay server SAM_PORT TARGET_PORT ROOM");
    room = atoi(argv[4]);
    signal(SIGPIPE, SIG_IGN);
    sam = atoi(argv[2]);
    poller = epoll_create1(EPOLL_CLOEXEC);
    session = greet(sam);
    snprintf(command, sizeof command, "SESSION CREATE STYLE=STREAM ID=relay%d DESTINATION=TRANSIENT SIGNATURE_TYPE=7\n",
             (int) getpid());
    ask(session, command, answer, sizeof answer);
    if (server) {
        target = atoi(argv[3]);
        wait_for_peer();
        ask(session, "NAMING LOOKUP NAME=ME\n", answer, sizeof answer);
        printf("ADDRESS %s\n", strstr(answer, "VALUE=") + 6);
    } else {
        address = argv[3];
        door = bind_to(SOCK_STREAM, &port);
        watch(door, &door, EPOLLIN);
        printf("PORT %d\n", port);
    }
    fflush(stdout);
    for (;;) {
        struct epoll_event events[64];
        int count = epoll_wait(poller, events, 64, -1), i;

        for (i = 0; i < count; i++) {
            if (events[i].data.ptr == &door) {
                accept_client();
            } else if (events[i].data.ptr == &waiting) {
                accept_peer();
            } else {
                serve(((struct side *) events[i].data.ptr)->link);
            }
        }
        while (gone_count > 0) {
            free(gone[--gone_count]);
        }
    }
}
