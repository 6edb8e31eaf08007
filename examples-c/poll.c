/*
 * poll.c - one poll loop for everything: destinations that are opened, an accept, a connect, the two streams that come
 * of them, datagrams, a pipe and an ordinary TCP connection.
 *
 * What arrives on the accepted stream goes into the pipe and is answered; the answer arrives on the connected stream and
 * goes into the TCP connection. A destination of its own sends a datagram to itself, again and again until it arrives.
 * When every descriptor has had its say, the program ends.
 */
#define _POSIX_C_SOURCE 200809L
#include "common.h"

#include <arpa/inet.h>
#include <errno.h>
#include <limits.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static const char usage[] =
    "usage: poll [OPTION]... [ADDRESS]\n"
    "Accepts a stream, connects one, receives a datagram, and reads a pipe and a TCP socket, all in one poll loop;\n"
    "ends when it has seen all of them. Connects to ADDRESS; without it, to itself from a second destination.\n"
    "\n"
    "  --limit SECONDS  give up after so long (600)\n"
    "  --sam HOST:PORT  SAM bridge of the router (127.0.0.1:7656, or what I2P_SAM_ADDRESS says)\n"
    "  --wait SECONDS   how long to wait for a router that is not there yet (0)\n"
    "  --udp HOST:PORT  where the bridge takes datagrams (the host of --sam, port 7655)\n"
    "  --set KEY=VALUE  an option of the destinations, such as inbound.length=1; may be repeated\n";

static const char message[] = "Hello, there!";
static const char answer[] = "Hello, how are you?";

/* What the loop waits for: first the operations in progress, then the descriptors that carry something. */
enum source {
    OPEN_LISTENER,
    OPEN_CALLER,
    OPEN_MAILBOX,
    ACCEPT,
    CONNECT,
    PENDINGS, /* so many */
    INCOMING = PENDINGS,
    OUTGOING,
    DATAGRAMS,
    PIPE,
    TCP,
    LISTENER_SESSION,
    CALLER_SESSION,
    MAILBOX_SESSION,
    SOURCES
};

/* What must have happened before the program ends. */
enum {
    SEEN_ACCEPT = 1,
    SEEN_CONNECT = 2,
    SEEN_MESSAGE = 4,
    SEEN_ANSWER = 8,
    SEEN_PIPE = 16,
    SEEN_TCP = 32,
    SEEN_DATAGRAM = 64,
    SEEN_ALL = 127
};

struct loop {
    i2psock_controller *controller;
    i2psock_dest *listener, *caller, *mailbox; /* the last one for datagrams */
    i2psock_pending *pending[PENDINGS];
    i2psock_stream *incoming, *outgoing;
    i2psock_dgram *dgram;
    i2psock_from *from;
    int pipe[2]; /* read end, write end */
    int tcp[2];  /* the two ends of a connection */
    const char *address;
    const char *to_send; /* on the outgoing stream */
    size_t left;
    int64_t call_at; /* when to connect again; -1: not now */
    int64_t post_at; /* when to send the datagram again; -1: not now */
    int retries;
    unsigned seen;
    int failed;
};

static void fail(struct loop *loop, const char *what, i2psock_error *err) {
    complain(what, err);
    loop->failed = 1;
}

static void fail_system(struct loop *loop, const char *what) {
    fprintf(stderr, "poll: %s: %s\n", what, strerror(errno));
    loop->failed = 1;
}

/* The listening destination also calls when there is an address to call. */
static const i2psock_dest *calling_dest(const struct loop *loop) {
    return loop->address != NULL ? loop->listener : loop->caller;
}

static void start_accept(struct loop *loop) {
    i2psock_error *err = NULL;

    if (i2psock_dest_accept_start(loop->listener, I2PSOCK_TIMEOUT_NONE, &loop->pending[ACCEPT], &err)) {
        fail(loop, "accept", err);
    }
}

static void start_connect(struct loop *loop) {
    const char *address = loop->address;
    i2psock_error *err = NULL;

    if (address == NULL) {
        address = i2psock_addr_base64(i2psock_dest_addr(loop->listener));
    }
    loop->call_at = -1;
    if (i2psock_dest_connect_start(calling_dest(loop), address, NULL, I2PSOCK_TIMEOUT_DEFAULT, &loop->pending[CONNECT],
                                   &err)) {
        fail(loop, "connect", err);
    }
}

/* An operation has ended well. Takes what it has made, and starts what can be started now. */
static void finished(struct loop *loop, enum source source) {
    i2psock_pending *pending = loop->pending[source];
    i2psock_error *err = NULL;

    switch (source) {
    case OPEN_LISTENER:
        if (i2psock_pending_finish_dest(pending, &loop->listener, &err)) {
            fail(loop, "listening destination", err);
            break;
        }
        printf("listening destination is open: %s\n", i2psock_addr_host(i2psock_dest_addr(loop->listener)));
        start_accept(loop);
        break;
    case OPEN_CALLER:
        if (i2psock_pending_finish_dest(pending, &loop->caller, &err)) {
            fail(loop, "calling destination", err);
            break;
        }
        printf("calling destination is open\n");
        break;
    case OPEN_MAILBOX:
        if (i2psock_pending_finish_dest(pending, &loop->mailbox, &err)
            || i2psock_dest_bind(loop->mailbox, &loop->dgram, &err)
            || i2psock_dgram_set_nonblocking(loop->dgram, 1, &err)) {
            fail(loop, "destination for datagrams", err);
            break;
        }
        printf("destination for datagrams is open\n");
        loop->post_at = now_ms();
        break;
    case ACCEPT:
        if (i2psock_pending_finish_stream(pending, &loop->incoming, &err)) {
            fail(loop, "accept", err);
            break;
        }
        printf("accepted a stream from %s\n", i2psock_stream_peer_text(loop->incoming));
        loop->seen |= SEEN_ACCEPT;
        break;
    case CONNECT:
        if (i2psock_pending_finish_stream(pending, &loop->outgoing, &err)) {
            fail(loop, "connect", err);
            break;
        }
        printf("connected to %s\n", i2psock_stream_peer_text(loop->outgoing));
        loop->seen |= SEEN_CONNECT;
        loop->to_send = message;
        loop->left = sizeof message - 1;
        break;
    default:
        break;
    }
}

static void step(struct loop *loop, enum source source) {
    static const char *const names[PENDINGS] = {"listening destination", "calling destination",
                                                "destination for datagrams", "accept", "connect"};
    i2psock_error *err = NULL;
    i2psock_status status = i2psock_pending_step(loop->pending[source], &err);

    if (status == I2PSOCK_BLOCK) {
        return;
    }
    if (status == I2PSOCK_OK) {
        finished(loop, source);
    } else if (source == CONNECT && worth_retrying(err) && loop->retries-- > 0) {
        complain("connect, not yet", err);
        loop->call_at = now_ms() + 2000;
    } else {
        fail(loop, names[source], err);
    }
    i2psock_pending_free(loop->pending[source]);
    loop->pending[source] = NULL;
}

/* Something has come in: into the pipe with it, and an answer back. */
static void serve_incoming(struct loop *loop) {
    char data[4096];
    size_t count = 0;
    i2psock_error *err = NULL;
    i2psock_status status = i2psock_stream_recv(loop->incoming, data, sizeof data, 0, &count, &err);

    if (status == I2PSOCK_BLOCK) {
        return;
    }
    if (status == I2PSOCK_OK) {
        printf("incoming stream: ");
        print_bytes(data, count);
        putchar('\n');
        loop->seen |= SEEN_MESSAGE;
        /* The pipe is empty, so that this does not block; neither does the answer, which is shorter than any buffer. */
        if (write(loop->pipe[1], data, count) != (ssize_t) count) {
            fail_system(loop, "pipe");
        }
        status = i2psock_stream_send_all(loop->incoming, answer, sizeof answer - 1, NULL, &err);
    }
    if (status != I2PSOCK_OK) {
        /* Somebody came and went: no reason to end. */
        complain("incoming stream", err);
    }
    /* The bridge is on this machine and takes the answer at once; a second is plenty. */
    if (i2psock_stream_close(loop->incoming, 1000, &err)) {
        complain("incoming stream", err);
    }
    loop->incoming = NULL;
    start_accept(loop); /* the next one, please */
}

static void send_outgoing(struct loop *loop) {
    size_t sent = 0;
    i2psock_error *err = NULL;
    i2psock_status status = i2psock_stream_send_all(loop->outgoing, loop->to_send, loop->left, &sent, &err);

    loop->to_send += sent;
    loop->left -= sent;
    if (status != I2PSOCK_OK && status != I2PSOCK_BLOCK) {
        fail(loop, "outgoing stream", err);
    } else if (loop->left == 0) {
        printf("outgoing stream: everything is sent\n");
    }
}

/* The answer goes into the TCP connection. */
static void read_outgoing(struct loop *loop) {
    char data[4096];
    size_t count = 0;
    i2psock_error *err = NULL;
    i2psock_status status = i2psock_stream_recv(loop->outgoing, data, sizeof data, 0, &count, &err);

    if (status == I2PSOCK_BLOCK) {
        return;
    }
    if (status == I2PSOCK_OK) {
        printf("outgoing stream: ");
        print_bytes(data, count);
        putchar('\n');
        loop->seen |= SEEN_ANSWER;
        if (send(loop->tcp[1], data, count, MSG_NOSIGNAL) != (ssize_t) count) {
            fail_system(loop, "TCP");
        }
        return;
    }
    if (status == I2PSOCK_CLOSED && (loop->seen & SEEN_ANSWER) != 0) {
        printf("outgoing stream: the end\n");
        i2psock_error_free(err);
    } else {
        fail(loop, "outgoing stream", err);
    }
    i2psock_stream_free(loop->outgoing);
    loop->outgoing = NULL;
}

/* Sends the datagram. Nobody tells whether it arrives, so it is sent again if it is not there in two seconds. */
static void send_datagram(struct loop *loop) {
    const char *address = i2psock_addr_base64(i2psock_dgram_dest(loop->dgram));
    i2psock_error *err = NULL;
    i2psock_status status =
        i2psock_dgram_send_to(loop->dgram, address, message, sizeof message - 1, 0, NULL, &err);

    /* I2PSOCK_BLOCK is as good as lost on the way: there will be another one. */
    if (status != I2PSOCK_OK && status != I2PSOCK_BLOCK) {
        fail(loop, "datagram", err);
    }
    loop->post_at = now_ms() + 2000;
}

static void read_datagram(struct loop *loop) {
    char data[4096];
    size_t count = 0;
    const i2psock_addr *sender;
    i2psock_error *err = NULL;
    i2psock_status status = i2psock_dgram_recv_from(loop->dgram, data, sizeof data, 0, &count, loop->from, &err);

    if (status == I2PSOCK_BLOCK) {
        return; /* what came was not from the bridge */
    }
    if (status != I2PSOCK_OK) {
        fail(loop, "datagrams", err);
        return;
    }
    sender = i2psock_from_addr(loop->from);
    printf("datagram from %s: ", sender != NULL ? i2psock_addr_host(sender) : "somebody");
    print_bytes(data, count);
    putchar('\n');
    if (i2psock_addr_equal(sender, i2psock_dgram_dest(loop->dgram))) {
        loop->seen |= SEEN_DATAGRAM;
        loop->post_at = -1;
    }
}

/* Reads what is ordinary in this loop. */
static void read_plain(struct loop *loop, int fd, const char *name, unsigned seen) {
    char data[4096];
    ssize_t count = read(fd, data, sizeof data);

    if (count > 0) {
        printf("%s: ", name);
        print_bytes(data, (size_t) count);
        putchar('\n');
        loop->seen |= seen;
    } else if (count == 0 || (errno != EAGAIN && errno != EINTR)) {
        fail_system(loop, name);
    }
}

/* The session has news. */
static void service(struct loop *loop, const i2psock_dest *dest, const char *name) {
    i2psock_state state = I2PSOCK_STATE_NONE;
    i2psock_error *err = NULL;
    i2psock_status status = i2psock_dest_service(dest, &state, &err);

    if (status == I2PSOCK_BLOCK) {
        return;
    }
    if (status == I2PSOCK_OK && state == I2PSOCK_STATE_DEAD) {
        i2psock_dest_state(dest, &err); /* why */
        fail(loop, name, err);
    } else if (status != I2PSOCK_OK) {
        fail(loop, name, err);
    } else {
        printf("%s: %s\n", name, state == I2PSOCK_STATE_READY ? "ready" : "in another state now");
    }
}

static int earlier(int a, int b) {
    return a < 0 ? b : b < 0 ? a : a < b ? a : b;
}

static int until(int64_t when) {
    int64_t left = when - now_ms();

    return left < 0 ? 0 : left > INT_MAX ? INT_MAX : (int) left;
}

/* Says what to wait for, and returns how long at most. poll() skips a descriptor that is -1. */
static int arrange(const struct loop *loop, struct pollfd *fds, int64_t deadline) {
    int timeout = until(deadline);
    int i;

    for (i = 0; i < SOURCES; i++) {
        fds[i].fd = -1;
        fds[i].events = POLLIN;
        fds[i].revents = 0;
    }
    for (i = 0; i < PENDINGS; i++) {
        if (loop->pending[i] != NULL) {
            /* Asked anew every time: after a step it may be another descriptor. */
            fds[i].fd = i2psock_pending_fd(loop->pending[i]);
            fds[i].events = (short) i2psock_pending_events(loop->pending[i]);
            timeout = earlier(timeout, i2psock_pending_timeout_ms(loop->pending[i]));
        }
    }
    fds[INCOMING].fd = i2psock_stream_fd(loop->incoming);
    fds[OUTGOING].fd = i2psock_stream_fd(loop->outgoing);
    if (loop->left > 0) {
        fds[OUTGOING].events = POLLIN | POLLOUT;
    }
    fds[DATAGRAMS].fd = i2psock_dgram_fd(loop->dgram);
    fds[PIPE].fd = loop->pipe[0];
    fds[TCP].fd = loop->tcp[0];
    fds[LISTENER_SESSION].fd = i2psock_dest_fd(loop->listener);
    fds[CALLER_SESSION].fd = i2psock_dest_fd(loop->caller);
    fds[MAILBOX_SESSION].fd = i2psock_dest_fd(loop->mailbox);
    if (loop->call_at >= 0) {
        timeout = earlier(timeout, until(loop->call_at));
    }
    if (loop->post_at >= 0) {
        timeout = earlier(timeout, until(loop->post_at));
    }
    return timeout;
}

static void dispatch(struct loop *loop, const struct pollfd *fds) {
    int i;

    for (i = 0; i < PENDINGS; i++) {
        /* A step without an event does no harm, and tells when an operation's time is over. */
        if (loop->pending[i] != NULL && (fds[i].revents != 0 || i2psock_pending_timeout_ms(loop->pending[i]) == 0)) {
            step(loop, (enum source) i);
        }
    }
    if (loop->incoming != NULL && fds[INCOMING].revents != 0) {
        serve_incoming(loop);
    }
    if (loop->outgoing != NULL && loop->left > 0 && (fds[OUTGOING].revents & ~POLLIN) != 0) {
        send_outgoing(loop);
    }
    if (loop->outgoing != NULL && (fds[OUTGOING].revents & ~POLLOUT) != 0) {
        read_outgoing(loop);
    }
    if (fds[DATAGRAMS].revents != 0) {
        read_datagram(loop);
    }
    if (fds[PIPE].revents != 0) {
        read_plain(loop, loop->pipe[0], "pipe", SEEN_PIPE);
    }
    if (fds[TCP].revents != 0) {
        read_plain(loop, loop->tcp[0], "TCP connection", SEEN_TCP);
    }
    if (fds[LISTENER_SESSION].revents != 0) {
        service(loop, loop->listener, "listening destination");
    }
    if (fds[CALLER_SESSION].revents != 0) {
        service(loop, loop->caller, "calling destination");
    }
    if (fds[MAILBOX_SESSION].revents != 0) {
        service(loop, loop->mailbox, "destination for datagrams");
    }
}

/* Connects once somebody listens. */
static void call_if_ready(struct loop *loop) {
    int listening = loop->pending[ACCEPT] != NULL
                    && i2psock_pending_stage(loop->pending[ACCEPT]) == I2PSOCK_STAGE_LISTENING;
    int ready = calling_dest(loop) != NULL && (loop->address != NULL || listening);

    if (ready && loop->call_at >= 0 && now_ms() >= loop->call_at) {
        start_connect(loop);
    }
}

static void run(struct loop *loop, int64_t deadline) {
    while (loop->seen != SEEN_ALL && !loop->failed) {
        struct pollfd fds[SOURCES];

        if (poll(fds, SOURCES, arrange(loop, fds, deadline)) < 0) {
            if (errno != EINTR) {
                fail_system(loop, "poll");
            }
            continue;
        }
        if (now_ms() >= deadline) {
            note("the time is over");
            loop->failed = 1;
            return;
        }
        dispatch(loop, fds);
        call_if_ready(loop);
        if (loop->post_at >= 0 && now_ms() >= loop->post_at) {
            send_datagram(loop);
        }
        fflush(stdout);
    }
}

/* A TCP connection of this program with itself, ends[0] and ends[1]. */
static int tcp_pair(int *ends) {
    struct sockaddr_in address;
    socklen_t len = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    int ok;

    memset(&address, 0, sizeof address);
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    ok = listener >= 0 && bind(listener, (struct sockaddr *) &address, len) == 0 && listen(listener, 1) == 0
         && getsockname(listener, (struct sockaddr *) &address, &len) == 0
         && (ends[1] = socket(AF_INET, SOCK_STREAM, 0)) >= 0 && connect(ends[1], (struct sockaddr *) &address, len) == 0
         && (ends[0] = accept(listener, NULL, NULL)) >= 0;
    if (listener >= 0) {
        int error = errno;

        close(listener);
        errno = error;
    }
    return ok ? 0 : -1;
}

static void close_fd(int fd) {
    if (fd >= 0) {
        close(fd);
    }
}

int main(int argc, char **argv) {
    struct settings settings;
    struct loop loop;
    i2psock_error *err = NULL;
    int arguments, i;
    int limit = 600;
    struct option options[] = {
        {"--limit", NULL, OPTION_NUMBER}, {"--udp", NULL, OPTION_CONTROLLER}, {NULL, NULL, 0}};

    options[0].value = &limit;
    settings_read(&settings, &arguments, argc, argv, options, usage);
    if (arguments > 1) {
        usage_error(&settings, "there is an argument too many");
    }
    memset(&loop, 0, sizeof loop);
    loop.pipe[0] = loop.pipe[1] = loop.tcp[0] = loop.tcp[1] = -1;
    loop.address = arguments == 1 ? argv[1] : NULL;
    loop.retries = 10;
    loop.post_at = -1;
    loop.from = i2psock_from_new();
    if (pipe(loop.pipe) != 0) {
        fail_system(&loop, "pipe");
    } else if (tcp_pair(loop.tcp) != 0) {
        fail_system(&loop, "TCP");
    } else if (i2psock_controller_open(settings.controller, &loop.controller, &err)) {
        fail(&loop, "no SAM bridge", err);
    } else if (i2psock_dest_open_start(loop.controller, NULL, I2PSOCK_STREAM, settings.dest, I2PSOCK_TIMEOUT_DEFAULT,
                                       &loop.pending[OPEN_LISTENER], &err)) {
        fail(&loop, "listening destination", err);
    } else if (loop.address == NULL
               && i2psock_dest_open_start(loop.controller, NULL, I2PSOCK_STREAM, settings.dest, I2PSOCK_TIMEOUT_DEFAULT,
                                          &loop.pending[OPEN_CALLER], &err)) {
        fail(&loop, "calling destination", err);
    } else if (i2psock_dest_open_start(loop.controller, NULL, I2PSOCK_DGRAM, settings.dest, I2PSOCK_TIMEOUT_DEFAULT,
                                       &loop.pending[OPEN_MAILBOX], &err)) {
        fail(&loop, "destination for datagrams", err);
    } else {
        run(&loop, now_ms() + (int64_t) limit * 1000);
    }
    if (!loop.failed) {
        printf("everything was seen\n");
    }

    i2psock_stream_free(loop.incoming);
    i2psock_stream_free(loop.outgoing);
    for (i = 0; i < PENDINGS; i++) {
        i2psock_pending_free(loop.pending[i]);
    }
    i2psock_dgram_free(loop.dgram);
    i2psock_from_free(loop.from);
    i2psock_dest_close(loop.mailbox);
    i2psock_dest_close(loop.caller);
    i2psock_dest_close(loop.listener);
    i2psock_controller_close(loop.controller);
    settings_free(&settings);
    for (i = 0; i < 2; i++) {
        close_fd(loop.pipe[i]);
        close_fd(loop.tcp[i]);
    }
    return loop.failed ? EXIT_FAILED : EXIT_DONE;
}
