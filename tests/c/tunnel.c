/* Tunnels: every function of them from C, what a program's make_send may do wrong, and want of descriptors. */
#include "harness.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>

/* The library's calls come here: there is no memory for events of this descriptor. */
static volatile int unwatchable = -1, refusals;

#ifdef __cplusplus
extern "C" int epoll_ctl(int epoll, int operation, int fd, struct epoll_event *event) noexcept
#else
int epoll_ctl(int epoll, int operation, int fd, struct epoll_event *event)
#endif
{
    if (fd >= 0 && fd == unwatchable && operation == EPOLL_CTL_ADD) {
        refusals++;
        errno = ENOSPC;
        return -1;
    }
    return (int) syscall(SYS_epoll_ctl, epoll, operation, fd, event);
}

/* ---- sockets ---- */

static struct sockaddr_in here(int port) {
    struct sockaddr_in a;
    memset(&a, 0, sizeof a);
    a.sin_family = AF_INET;
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    a.sin_port = htons((uint16_t) port);
    return a;
}

static int tcp_listen(int *port) {
    struct sockaddr_in a = here(0);
    socklen_t length = sizeof a;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(fd >= 0);
    CHECK(bind(fd, (struct sockaddr *) &a, sizeof a) == 0 && listen(fd, 512) == 0);
    CHECK(getsockname(fd, (struct sockaddr *) &a, &length) == 0);
    *port = ntohs(a.sin_port);
    return fd;
}

static int tcp_socket(void) {
    struct timeval limit = { 60, 0 };
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(fd >= 0);
    limit.tv_sec *= slowness();
    CHECK(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit) == 0);
    CHECK(setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit) == 0);
    return fd;
}

static int try_connect(int fd, int port) {
    struct sockaddr_in a = here(port);
    return connect(fd, (struct sockaddr *) &a, sizeof a);
}

static int tcp_connect(int port) {
    int fd = tcp_socket();
    CHECK(try_connect(fd, port) == 0);
    return fd;
}

/* Small pieces, so that neither side ever has to wait for the other one to read. */
static void round_trip(int fd, unsigned seed, int size) {
    unsigned char out[8192], in[8192];
    while (size > 0) {
        int n = size < 8192 ? size : 8192, i;
        for (i = 0; i < n; i++) out[i] = (unsigned char) ((seed = seed * 1103515245u + 12345u) >> 16);
        CHECK_INT(send(fd, out, (size_t) n, MSG_NOSIGNAL), n);
        CHECK_INT(recv(fd, in, (size_t) n, MSG_WAITALL), n);
        CHECK(memcmp(in, out, (size_t) n) == 0);
        size -= n;
    }
}

/* The end or a reset, and not a time-out. */
static void expect_gone(int fd) {
    char b[4096];
    ssize_t n;
    do n = recv(fd, b, sizeof b, 0);
    while (n > 0);
    CHECK(n == 0 || errno == ECONNRESET);
    close(fd);
}

static void reset(int fd) {
    struct linger l = { 1, 0 };
    CHECK(setsockopt(fd, SOL_SOCKET, SO_LINGER, &l, sizeof l) == 0);
    close(fd);
}

/* Sends everything back, with one thread. */
typedef struct {
    int port, stop[2];
    pthread_t thread;
    struct pollfd fds[512];
} echo;

static void *echo_run(void *arg) {
    echo *e = (echo *) arg;
    int count = 2, i;
    char b[16384];
    while (!(e->fds[1].revents & (POLLIN | POLLHUP))) {
        CHECK(poll(e->fds, (nfds_t) count, -1) >= 0 || errno == EINTR);
        for (i = count - 1; i >= 2; i--) {
            ssize_t n;
            if (e->fds[i].revents == 0) continue;
            n = recv(e->fds[i].fd, b, sizeof b, MSG_DONTWAIT);
            if (n > 0) {
                ssize_t done = 0, now = 0;
                while (done < n && (now = send(e->fds[i].fd, b + done, (size_t) (n - done), MSG_NOSIGNAL)) > 0) done += now;
                if (done == n) continue;
            } else if (n < 0 && errno == EAGAIN) {
                continue;
            }
            close(e->fds[i].fd);
            e->fds[i] = e->fds[--count];
        }
        if (e->fds[0].revents && count < 512) {
            int fd = accept4(e->fds[0].fd, NULL, NULL, SOCK_CLOEXEC);
            /* Without descriptors: later. */
            if (fd < 0) pause_ms(10);
            else {
                e->fds[count].fd = fd;
                e->fds[count].revents = 0;
                e->fds[count++].events = POLLIN;
            }
        }
    }
    for (i = 0; i < count; i++) close(e->fds[i].fd);
    return NULL;
}

static void echo_start(echo *e) {
    memset(e, 0, sizeof *e);
    CHECK(pipe2(e->stop, O_CLOEXEC) == 0);
    e->fds[0].fd = tcp_listen(&e->port);
    e->fds[1].fd = e->stop[0];
    e->fds[0].events = e->fds[1].events = POLLIN;
    e->thread = start_thread(echo_run, e);
}

static void echo_stop(echo *e) {
    /* Closing would not do: a child may have it, too. */
    CHECK_INT(write(e->stop[1], "x", 1), 1);
    join_thread(e->thread);
    close(e->stop[1]);
}

/* ---- tunnels ---- */

static const char *text_of(int number) {
    static char text[32];
    snprintf(text, sizeof text, "%d", number);
    return text;
}

static i2psock_tunnel *server_of(i2psock_controller *c, int port, const i2psock_options *o) {
    i2psock_tunnel *t = NULL;
    OK(i2psock_tunnel_server(c, NULL, text_of(port), o, HANG, &t, &E));
    CHECK(t != NULL);
    return t;
}

static i2psock_tunnel *client_of(i2psock_controller *c, i2psock_tunnel *server, const i2psock_options *o) {
    i2psock_tunnel *t = NULL;
    OK(i2psock_tunnel_client(c, NULL, "0", i2psock_addr_base64(i2psock_tunnel_addr(server)), o, HANG, &t, &E));
    CHECK(i2psock_tunnel_port(t) > 0);
    return t;
}

static void wait_count(i2psock_tunnel *t, int which, long long least) {
    long long end = now_ms() + HANG;
    while ((long long) i2psock_tunnel_count(t, which) < least) {
        if (now_ms() > end) fail_at(__FILE__, __LINE__, "count %d stays at %lld, not %lld", which, (long long) i2psock_tunnel_count(t, which), least);
        pause_ms(1);
    }
}

static void wait_idle(i2psock_tunnel *t) {
    long long end = now_ms() + HANG;
    while (i2psock_tunnel_count(t, I2PSOCK_TUNNEL_NOW) != 0) {
        if (now_ms() > end) fail_at(__FILE__, __LINE__, "connections stay open");
        pause_ms(1);
    }
}

typedef struct {
    echo target;
    i2psock_controller *c;
    i2psock_tunnel *server, *client;
} both;

static void both_open(both *b) {
    echo_start(&b->target);
    b->c = open_common();
    b->server = server_of(b->c, b->target.port, NULL);
    b->client = client_of(b->c, b->server, NULL);
}

static void both_close(both *b) {
    i2psock_tunnel_close(b->client);
    i2psock_tunnel_close(b->server);
    i2psock_controller_close(b->c);
    echo_stop(&b->target);
}

static void server_and_client(void) {
    both b;
    int fd, i;
    both_open(&b);
    CHECK(strlen(i2psock_addr_base64(i2psock_tunnel_addr(b.server))) > 500);
    CHECK(i2psock_tunnel_addr(b.client) != NULL);
    CHECK(!i2psock_addr_equal(i2psock_tunnel_addr(b.server), i2psock_tunnel_addr(b.client)));
    CHECK_STR(i2psock_tunnel_name(b.server), "");
    CHECK_STR(i2psock_tunnel_remote(b.server), "");
    CHECK_STR(i2psock_tunnel_remote(b.client), i2psock_addr_base64(i2psock_tunnel_addr(b.server)));
    CHECK_INT(i2psock_tunnel_port(b.server), 0);
    err_prepare();
    CHECK_INT(i2psock_tunnel_state(b.server, &E), I2PSOCK_STATE_READY);
    CHECK(E == NULL);
    CHECK_INT(i2psock_tunnel_state(b.client, NULL), I2PSOCK_STATE_READY);
    for (i = 0; i < 5; i++) {
        fd = tcp_connect(i2psock_tunnel_port(b.client));
        round_trip(fd, (unsigned) i, 10000 << i);
        close(fd);
    }
    wait_idle(b.client);
    wait_idle(b.server);
    for (i = 0; i < 2; i++) {
        i2psock_tunnel *t = i ? b.server : b.client;
        CHECK_INT(i2psock_tunnel_count(t, I2PSOCK_TUNNEL_TOTAL), 5);
        CHECK_INT(i2psock_tunnel_count(t, I2PSOCK_TUNNEL_FAILED), 0);
        CHECK_INT(i2psock_tunnel_count(t, I2PSOCK_TUNNEL_REFUSED), 0);
        CHECK_INT(i2psock_tunnel_count(t, I2PSOCK_TUNNEL_EXPIRED), 0);
        CHECK_INT(i2psock_tunnel_count(t, I2PSOCK_TUNNEL_BYTES_OUT), 310000);
        CHECK_INT(i2psock_tunnel_count(t, I2PSOCK_TUNNEL_BYTES_IN), 310000);
        CHECK_INT(i2psock_tunnel_count(t, 0), 0);
        CHECK_INT(i2psock_tunnel_count(t, -1), 0);
        CHECK(i2psock_tunnel_next_error(t) == NULL);
        CHECK(!readable(i2psock_tunnel_fd(t), 0));
    }
    i = i2psock_tunnel_port(b.client);
    fd = tcp_connect(i);
    round_trip(fd, 1, 1000);
    both_close(&b);
    expect_gone(fd);
    fd = tcp_socket();
    CHECK(try_connect(fd, i) < 0 && errno == ECONNREFUSED);
    close(fd);
}

static i2psock_tunnel *finish(i2psock_pending *n) {
    i2psock_tunnel *t = (i2psock_tunnel *) 0x55;
    i2psock_dest *d = NULL;
    i2psock_status got;
    while ((got = ST(ANY, i2psock_pending_step(n, &E))) == I2PSOCK_BLOCK) {
        struct pollfd fd;
        fd.fd = i2psock_pending_fd(n);
        fd.events = i2psock_pending_events(n);
        fd.revents = 0;
        CHECK(poll(&fd, 1, i2psock_pending_timeout_ms(n)) >= 0);
    }
    CHECK_INT(got, I2PSOCK_OK);
    /* It is none. */
    ST(I2PSOCK_STATE, i2psock_pending_finish_dest(n, &d, &E));
    CHECK(d == NULL);
    OK(i2psock_pending_finish_tunnel(n, &t, &E));
    CHECK(t != NULL);
    i2psock_pending_free(n);
    return t;
}

static void by_pending(void) {
    int keeper;
    for (keeper = 0; keeper < 2; keeper++) {
        echo e;
        i2psock_controller *c = open_port(common.port, keeper);
        i2psock_tunnel *server, *client, *none = (i2psock_tunnel *) 0x55;
        i2psock_pending *n = NULL;
        int fd, port;
        echo_start(&e);
        OK(i2psock_tunnel_server_start(c, "", text_of(e.port), NULL, -1, &n, &E));
        server = finish(n);
        OK(i2psock_tunnel_client_start(c, NULL, "127.0.0.1:0", i2psock_addr_base64(i2psock_tunnel_addr(server)), NULL, -1, &n, &E));
        client = finish(n);
        fd = tcp_connect(i2psock_tunnel_port(client));
        round_trip(fd, 1, 50000);
        close(fd);
        /* One that is not finished; the port it has bound is free again. */
        OK(i2psock_dest_open_start(c, NULL, I2PSOCK_STREAM, NULL, HANG, &n, &E));
        OK(i2psock_pending_wait(n, -1, &E));
        ST(I2PSOCK_STATE, i2psock_pending_finish_tunnel(n, &none, &E));
        CHECK(none == NULL);
        i2psock_pending_free(n);
        port = free_port();
        OK(i2psock_tunnel_client_start(c, NULL, text_of(port), DEST_A, NULL, -1, &n, &E));
        i2psock_pending_free(n);
        OK(i2psock_tunnel_client(c, NULL, text_of(port), DEST_A, NULL, -1, &none, &E));
        i2psock_tunnel_close(none);
        i2psock_tunnel_close(client);
        i2psock_tunnel_close(server);
        i2psock_controller_close(c);
        echo_stop(&e);
    }
}

/* ---- i2psock_tunnel_new ---- */

enum { NONBLOCKING, BLOCKING, DIALLING, FAILING, NOTHING, BOTH, A_FILE, A_PIPE, NO_FD, LISTENING, UNCONNECTED, LOOKING, DIALLING_NOBODY, OPENING, KINDS };

typedef struct {
    volatile int kind;
    volatile int calls;
    int port;
    i2psock_controller *c;
    i2psock_dest *dest;
    const char *to;
} maker;

static int make_send(void *user, i2psock_fd *fd, i2psock_pending **pending) {
    maker *m = (maker *) user;
    struct sockaddr_in a = here(m->port);
    int fds[2], port;
    i2psock_status got = I2PSOCK_OK;
    m->calls++;
    CHECK_INT(*fd, -1);
    CHECK(*pending == NULL);
    switch (m->kind) {
    case BLOCKING:
        *fd = tcp_connect(m->port);
        break;
    case DIALLING:
        return i2psock_dest_connect_start(m->dest, m->to, NULL, -1, pending, NULL);
    case FAILING:
        return I2PSOCK_NETWORK;
    case NOTHING:
        break;
    case BOTH:
        *fd = tcp_connect(m->port);
        return i2psock_dest_connect_start(m->dest, m->to, NULL, -1, pending, NULL);
    case A_FILE:
        *fd = open("/dev/null", O_RDWR | O_CLOEXEC);
        break;
    case A_PIPE:
        CHECK(pipe2(fds, O_CLOEXEC) == 0);
        close(fds[0]);
        *fd = fds[1];
        break;
    case NO_FD:
        *fd = 1000000;
        break;
    case LISTENING:
        *fd = tcp_listen(&port);
        break;
    case UNCONNECTED:
        *fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        break;
    case LOOKING:
        return i2psock_dest_lookup_start(m->dest, "ME", -1, pending, NULL);
    case DIALLING_NOBODY:
        return i2psock_dest_connect_start(m->dest, DEST_B, NULL, -1, pending, NULL);
    case OPENING:
        return i2psock_dest_open_start(m->c, NULL, I2PSOCK_STREAM, NULL, -1, pending, NULL);
    default:
        *fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        CHECK(connect(*fd, (struct sockaddr *) &a, sizeof a) == 0 || errno == EINPROGRESS);
    }
    return got;
}

static void new_from_a_listener(void) {
    echo e;
    maker m;
    i2psock_controller *c = open_common();
    i2psock_dest *d = open_dest(c), *peer = open_dest(c);
    i2psock_listener *l = NULL;
    i2psock_stream *s = NULL, *in = NULL;
    i2psock_tunnel *t = NULL;
    char b[5] = "";
    memset(&m, 0, sizeof m);
    echo_start(&e);
    m.port = e.port;
    OK(i2psock_listener_open(d, 0, NULL, &l, &E));
    OK(i2psock_tunnel_new(l, -1, make_send, &m, NULL, &t, &E));
    CHECK(i2psock_tunnel_addr(t) == NULL);
    CHECK_STR(i2psock_tunnel_name(t), "");
    CHECK_STR(i2psock_tunnel_remote(t), "");
    CHECK_INT(i2psock_tunnel_port(t), 0);
    CHECK_INT(i2psock_tunnel_state(t, NULL), I2PSOCK_STATE_NONE);
    for (m.kind = NONBLOCKING; m.kind <= BLOCKING; m.kind++) {
        OK(i2psock_dest_connect(peer, dest_text(d), NULL, HANG, &s, &E));
        round_trip(i2psock_stream_fd(s), 3, 100000);
        i2psock_stream_free(s);
        s = NULL;
    }
    CHECK_INT(m.calls, 2);
    i2psock_tunnel_close(t);
    /* The listener is ours again. */
    OK(i2psock_dest_connect(peer, dest_text(d), NULL, HANG, &s, &E));
    CHECK(readable(i2psock_listener_fd(l), HANG));
    OK(i2psock_listener_accept(l, &in, &E));
    OK(i2psock_stream_send_all(s, "ours", 4, NULL, &E));
    CHECK_INT(recv(i2psock_stream_fd(in), b, 4, 0) < 0 ? errno == EAGAIN : 1, 1);
    i2psock_stream_free(s);
    i2psock_stream_free(in);
    i2psock_listener_close(l);
    i2psock_dest_close(d);
    i2psock_dest_close(peer);
    i2psock_controller_close(c);
    echo_stop(&e);
}

static void new_from_a_socket(void) {
    both b;
    maker m;
    i2psock_tunnel *t = NULL;
    int port, fd, other, listening = tcp_listen(&port), flags = fcntl(listening, F_GETFL);
    both_open(&b);
    memset(&m, 0, sizeof m);
    m.dest = open_dest(b.c);
    m.kind = DIALLING;
    m.to = i2psock_addr_base64(i2psock_tunnel_addr(b.server));
    CHECK(!(flags & O_NONBLOCK));
    OK(i2psock_tunnel_new(NULL, listening, make_send, &m, NULL, &t, &E));
    fd = tcp_connect(port);
    round_trip(fd, 1, 100000);
    i2psock_tunnel_close(t);
    expect_gone(fd);
    /* It is ours again, as it was. */
    CHECK_INT(fcntl(listening, F_GETFL), flags);
    fd = tcp_connect(port);
    other = accept4(listening, NULL, NULL, SOCK_CLOEXEC);
    CHECK(other >= 0);
    close(other);
    close(fd);
    close(listening);
    i2psock_dest_close(m.dest);
    both_close(&b);
}

static void new_from_a_path(void) {
    echo e;
    maker m;
    struct sockaddr_un a;
    struct timeval limit = { 60, 0 };
    i2psock_tunnel *t = NULL;
    i2psock_options *o = i2psock_options_new();
    int fd, listening = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    memset(&m, 0, sizeof m);
    memset(&a, 0, sizeof a);
    a.sun_family = AF_UNIX;
    snprintf(a.sun_path, sizeof a.sun_path, "/tmp/i2psock-tunnel-%d", (int) getpid());
    unlink(a.sun_path);
    CHECK(bind(listening, (struct sockaddr *) &a, sizeof a) == 0 && listen(listening, 5) == 0);
    echo_start(&e);
    m.port = e.port;
    m.kind = BLOCKING;
    OK(i2psock_options_set_int(o, "splice", 0, &E));
    OK(i2psock_options_set_int(o, "buffer_size", 777, &E));
    OK(i2psock_tunnel_new(NULL, listening, make_send, &m, o, &t, &E));
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit) == 0);
    CHECK(connect(fd, (struct sockaddr *) &a, sizeof a) == 0);
    round_trip(fd, 1, 100000);
    close(fd);
    i2psock_tunnel_close(t);
    i2psock_options_free(o);
    close(listening);
    unlink(a.sun_path);
    echo_stop(&e);
}

static void makers_that_fail(void) {
    both b;
    maker m;
    i2psock_tunnel *t = NULL;
    int port, fd, fds = 0, listening = tcp_listen(&port);
    both_open(&b);
    memset(&m, 0, sizeof m);
    m.c = b.c;
    m.dest = open_dest(b.c);
    m.port = b.target.port;
    m.to = i2psock_addr_base64(i2psock_tunnel_addr(b.server));
    OK(i2psock_tunnel_new(NULL, listening, make_send, &m, NULL, &t, &E));
    for (m.kind = FAILING; m.kind < KINDS; m.kind++) {
        i2psock_error *err;
        long long failed = (long long) i2psock_tunnel_count(t, I2PSOCK_TUNNEL_FAILED);
        fd = tcp_connect(port);
        expect_gone(fd);
        /* A socket that is not connected is simply one that has ended. */
        if (m.kind == UNCONNECTED) continue;
        wait_count(t, I2PSOCK_TUNNEL_FAILED, failed + 1);
        CHECK(readable(i2psock_tunnel_fd(t), HANG));
        err = i2psock_tunnel_next_error(t);
        CHECK(err != NULL && i2psock_error_status(err) != I2PSOCK_OK && i2psock_error_status(err) != I2PSOCK_INTERNAL);
        if (m.kind == FAILING) CHECK_INT(i2psock_error_status(err), I2PSOCK_NETWORK);
        if (m.kind == LOOKING) CHECK_INT(i2psock_error_status(err), I2PSOCK_STATE);
        i2psock_error_free(err);
    }
    wait_idle(t);
    CHECK_INT(m.calls, KINDS - FAILING);
    CHECK_INT(i2psock_tunnel_count(t, I2PSOCK_TUNNEL_TOTAL), KINDS - FAILING);
    CHECK(i2psock_tunnel_next_error(t) == NULL);
    /* It goes on, and more errors than are kept leave nothing behind. */
    m.kind = DIALLING;
    fd = tcp_connect(port);
    round_trip(fd, 1, 1000);
    close(fd);
    wait_idle(t);
    m.kind = FAILING;
    for (fds = 0; fds < 40; fds++) expect_gone(tcp_connect(port));
    i2psock_tunnel_close(t);
    i2psock_dest_close(m.dest);
    close(listening);
    both_close(&b);
}

static void wrong_arguments(void) {
    maker m;
    i2psock_controller *c = open_common();
    i2psock_dest *d = open_dest(c);
    i2psock_listener *l = NULL;
    i2psock_options *o = i2psock_options_new();
    i2psock_tunnel *t = (i2psock_tunnel *) 0x55;
    int port, fds[2], listening = tcp_listen(&port), plain = tcp_socket(), udp = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    int packets = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0), connected;
    memset(&m, 0, sizeof m);
    CHECK(pipe2(fds, O_CLOEXEC) == 0);
    OK(i2psock_listener_open(d, 0, NULL, &l, &E));
    connected = tcp_connect(port);
#define INVALID(call) do { t = (i2psock_tunnel *) 0x55; ST(I2PSOCK_INVALID, call); CHECK(t == NULL); } while (0)
    INVALID(i2psock_tunnel_new(NULL, plain, make_send, &m, NULL, &t, &E));
    INVALID(i2psock_tunnel_new(NULL, connected, make_send, &m, NULL, &t, &E));
    INVALID(i2psock_tunnel_new(NULL, udp, make_send, &m, NULL, &t, &E));
    INVALID(i2psock_tunnel_new(NULL, packets, make_send, &m, NULL, &t, &E));
    INVALID(i2psock_tunnel_new(NULL, fds[0], make_send, &m, NULL, &t, &E));
    close(fds[0]);
    INVALID(i2psock_tunnel_new(NULL, fds[0], make_send, &m, NULL, &t, &E));
    INVALID(i2psock_tunnel_new(NULL, -1, make_send, &m, NULL, &t, &E));
    INVALID(i2psock_tunnel_new(NULL, -2, make_send, &m, NULL, &t, &E));
    INVALID(i2psock_tunnel_new(l, listening, make_send, &m, NULL, &t, &E));
    INVALID(i2psock_tunnel_new(l, -1, NULL, &m, NULL, &t, &E));
    INVALID(i2psock_tunnel_server(c, NULL, "no port", NULL, 1000, &t, &E));
    INVALID(i2psock_tunnel_server(c, NULL, "1", NULL, -3, &t, &E));
    INVALID(i2psock_tunnel_client(c, NULL, "0", "no address", NULL, 1000, &t, &E));
    INVALID(i2psock_tunnel_client(c, NULL, "/tmp/x", DEST_A, NULL, 1000, &t, &E));
    OK(i2psock_options_set(o, "recover", "1", &E));
    INVALID(i2psock_tunnel_new(NULL, listening, make_send, &m, o, &t, &E));
    ST(I2PSOCK_IO, i2psock_tunnel_client(c, NULL, text_of(port), DEST_A, NULL, 1000, &t, &E));
    CHECK_INT(i2psock_error_os_error(E), EADDRINUSE);
    ST(I2PSOCK_IO, i2psock_tunnel_server(c, NULL, "no-such-host.invalid:1", NULL, 1000, &t, &E));
    /* And what is right. */
    m.kind = FAILING;
    OK(i2psock_tunnel_new(NULL, listening, make_send, &m, NULL, &t, &E));
    i2psock_tunnel_close(t);
    i2psock_options_free(o);
    i2psock_listener_close(l);
    close(fds[1]);
    close(listening);
    close(plain);
    close(connected);
    close(udp);
    close(packets);
    i2psock_dest_close(d);
    i2psock_controller_close(c);
}

static void owners_that_go_first(void) {
    both b;
    maker m;
    i2psock_dest *d;
    i2psock_listener *l = NULL;
    i2psock_tunnel *t = NULL;
    i2psock_error *err = NULL;
    int fd;
    both_open(&b);
    memset(&m, 0, sizeof m);
    d = open_dest(b.c);
    OK(i2psock_listener_open(d, 0, NULL, &l, &E));
    OK(i2psock_tunnel_new(l, -1, make_send, &m, NULL, &t, &E));
    fd = tcp_connect(i2psock_tunnel_port(b.client));
    round_trip(fd, 1, 1000);
    OK(i2psock_dest_shutdown(d, &E));
    CHECK(readable(i2psock_tunnel_fd(t), HANG));
    err = i2psock_tunnel_next_error(t);
    CHECK(err != NULL);
    CHECK_INT(i2psock_error_status(err), I2PSOCK_CLOSED);
    i2psock_error_free(err);
    CHECK(!readable(i2psock_tunnel_fd(b.server), 0));
    i2psock_controller_close(b.c);
    CHECK(readable(i2psock_tunnel_fd(b.server), HANG));
    expect_gone(fd);
    CHECK_INT(i2psock_tunnel_state(b.server, NULL), I2PSOCK_STATE_DEAD);
    expect_gone(tcp_connect(i2psock_tunnel_port(b.client)));
    wait_count(b.client, I2PSOCK_TUNNEL_FAILED, 1);
    i2psock_tunnel_close(t);
    i2psock_listener_close(l);
    i2psock_dest_close(d);
    i2psock_tunnel_close(b.server);
    i2psock_tunnel_close(b.client);
    echo_stop(&b.target);
}

/* The header forbids it; it must not bring the program down. */
static i2psock_tunnel *volatile suicidal;
static int make_no_more(void *user, i2psock_fd *fd, i2psock_pending **pending) {
    (void) fd;
    (void) pending;
    while (suicidal == NULL) pause_ms(1);
    i2psock_tunnel_close(suicidal);
    gate_open((gate *) user);
    return I2PSOCK_STATE;
}

static void closed_from_within(void) {
    gate g = GATE_INIT;
    i2psock_tunnel *t = NULL;
    int before = count_fds(), threads = count_threads(), port, listening = tcp_listen(&port), fd = tcp_connect(port);
    OK(i2psock_tunnel_new(NULL, listening, make_no_more, &g, NULL, &t, &E));
    suicidal = t;
    CHECK(gate_wait(&g, 1, HANG));
    expect_gone(fd);
    expect_threads(threads);
    close(listening);
    expect_fds(before);
}

/* ---- processes, threads, descriptors ---- */

static void child_of_fork(void) {
    both b;
    int fd, other, hold[2], status = 0, port;
    pid_t child;
    both_open(&b);
    fd = tcp_connect(i2psock_tunnel_port(b.client));
    round_trip(fd, 1, 1000);
    CHECK(pipe2(hold, O_CLOEXEC) == 0);
    fflush(NULL);
    child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        char c;
        i2psock_tunnel *t = (i2psock_tunnel *) 0x55;
        alarm((unsigned) (HANG / 1000));
        close(hold[1]);
        close(fd);
        E = NULL;
        ST(I2PSOCK_STATE, i2psock_tunnel_server(b.c, NULL, "1", NULL, 1000, &t, &E));
        CHECK(t == NULL);
        CHECK(i2psock_tunnel_addr(b.server) != NULL);
        i2psock_tunnel_close(b.client);
        i2psock_tunnel_close(b.server);
        i2psock_controller_close(b.c);
        err_done();
        /* Stays, with copies of all descriptors of the connections. */
        CHECK_INT(read(hold[0], &c, 1), 1);
        CHECK_INT(read(hold[0], &c, 1), 0);
        execl("/bin/true", "true", (char *) NULL);
        _exit(77);
    }
    close(hold[0]);
    CHECK_INT(write(hold[1], "x", 1), 1);
    /* The parent's go on. */
    round_trip(fd, 2, 100000);
    port = i2psock_tunnel_port(b.client);
    other = tcp_connect(port);
    round_trip(other, 3, 100000);
    close(other);
    /* One end leaves: the other one hears of it. */
    CHECK(shutdown(fd, SHUT_WR) == 0);
    expect_gone(fd);
    other = tcp_connect(port);
    round_trip(other, 3, 1000);
    both_close(&b);
    expect_gone(other);
    /* The port is free, too. */
    fd = tcp_socket();
    CHECK(try_connect(fd, port) < 0 && errno == ECONNREFUSED);
    close(fd);
    close(hold[1]);
    while (waitpid(child, &status, 0) < 0) CHECK(errno == EINTR);
    if (WIFSIGNALED(status)) fail_at(__FILE__, __LINE__, "the child died of signal %d", WTERMSIG(status));
    CHECK_INT(WEXITSTATUS(status), 0);
}

static void nothing_is_left(void) {
    echo e;
    i2psock_controller *c = open_common();
    int i, fds = 0, threads = 0;
    echo_start(&e);
    for (i = 0; i < (under_valgrind() ? 10 : 100); i++) {
        i2psock_tunnel *server = server_of(c, e.port, NULL), *client = client_of(c, server, NULL);
        int fd;
        if (i == 0) {
            threads = count_threads();
        }
        CHECK_INT(count_threads(), threads);
        fd = tcp_connect(i2psock_tunnel_port(client));
        round_trip(fd, (unsigned) i, 20000);
        if (i % 2) close(fd);
        i2psock_tunnel_close(i % 3 ? server : client);
        i2psock_tunnel_close(i % 3 ? client : server);
        if (!(i % 2)) expect_gone(fd);
        expect_threads(threads - 2);
        /* That of the target goes when it has seen the end. */
        if (i == 1) fds = quiet_fds();
        if (i > 1 && i % 10 == 0) expect_fds_at_most(fds);
    }
    i2psock_controller_close(c);
    echo_stop(&e);
}

/* Its thread has all signals blocked, and writing to somebody who has left ends no program. */
static unsigned long long blocked_by_tunnels(int *count) {
    unsigned long long all = ~0ull;
    struct dirent *entry;
    DIR *tasks = opendir("/proc/self/task");
    CHECK(tasks != NULL);
    *count = 0;
    while ((entry = readdir(tasks)) != NULL) {
        char path[320], line[256];
        int ours = 0;
        FILE *f;
        snprintf(path, sizeof path, "/proc/self/task/%s/status", entry->d_name);
        f = fopen(path, "r");
        if (f == NULL) continue;
        while (fgets(line, sizeof line, f) != NULL) {
            unsigned long long mask;
            if (strstr(line, "Name:\ti2psock-tunnel") == line) ours = 1;
            if (ours && sscanf(line, "SigBlk: %llx", &mask) == 1) {
                all &= mask;
                *count += 1;
            }
        }
        fclose(f);
    }
    closedir(tasks);
    return all;
}

static void signals(void) {
    both b;
    i2psock_options *o = i2psock_options_new();
    int i, splice, count;
    CHECK(signal(SIGPIPE, SIG_DFL) != SIG_ERR);
    both_open(&b);
    if (!under_valgrind()) {
        unsigned long long mask = 0;
        /* A thread gives itself its name. */
        long long end = now_ms() + HANG;
        while (mask = blocked_by_tunnels(&count), count < 2 && now_ms() < end) pause_ms(1);
        CHECK_INT(count, 2);
        for (i = 1; i < 32; i++) CHECK(i == SIGKILL || i == SIGSTOP || (mask & (1ull << (i - 1))));
    }
    for (splice = 0; splice < 2; splice++) {
        i2psock_tunnel *t;
        OK(i2psock_options_set_int(o, "splice", splice, &E));
        t = client_of(b.c, b.server, o);
        for (i = 0; i < (under_valgrind() ? 5 : 30); i++) {
            static char bytes[200000];
            int fd = tcp_connect(i2psock_tunnel_port(t));
            /* The echo of this meets a reset. */
            CHECK(send(fd, bytes, sizeof bytes, MSG_DONTWAIT | MSG_NOSIGNAL) > 0);
            if (i % 2) CHECK(readable(fd, HANG));
            reset(fd);
        }
        wait_idle(t);
        i2psock_tunnel_close(t);
    }
    wait_idle(b.server);
    i2psock_options_free(o);
    both_close(&b);
}

static long long cpu_ms(void) {
    struct rusage r;
    CHECK(getrusage(RUSAGE_SELF, &r) == 0);
    return (long long) (r.ru_utime.tv_sec + r.ru_stime.tv_sec) * 1000 + (r.ru_utime.tv_usec + r.ru_stime.tv_usec) / 1000;
}

/* Connections come while no descriptors are left, or just one: they wait, and go on when there are some. */
static void no_descriptors_left(void) {
    enum { CLIENTS = 20 };
    struct rlimit old, low;
    int left;
    /* It plays the limit itself: a connection that is accepted above it is closed at once. */
    if (under_valgrind()) return;
    CHECK(getrlimit(RLIMIT_NOFILE, &old) == 0);
    for (left = 0; left < 3; left++) {
        both b;
        int clients[CLIENTS], hoard[1024], hoarded = 0, i, port;
        long long used;
        both_open(&b);
        port = i2psock_tunnel_port(b.client);
        i = tcp_connect(port);
        round_trip(i, 1, 1000);
        close(i);
        wait_idle(b.client);
        wait_idle(b.server);
        /* What is closed after the count would be one more that can be had. */
        quiet_fds();
        for (i = 0; i < CLIENTS; i++) clients[i] = tcp_socket();
        low = old;
        low.rlim_cur = 256;
        CHECK(setrlimit(RLIMIT_NOFILE, &low) == 0);
        while (hoarded < 1024 && (i = fcntl(1, F_DUPFD_CLOEXEC, 3)) >= 0) hoard[hoarded++] = i;
        CHECK(hoarded > left && hoarded < 1024);
        for (i = 0; i < left; i++) close(hoard[--hoarded]);
        for (i = 0; i < CLIENTS; i++) CHECK(try_connect(clients[i], port) == 0);
        wait_count(b.client, I2PSOCK_TUNNEL_REFUSED, 2);
        used = cpu_ms();
        pause_ms(1000);
        used = cpu_ms() - used;
        if (used > 600) fail_at(__FILE__, __LINE__, "%lld ms of processor time in a second of waiting", used);
        CHECK(i2psock_tunnel_count(b.client, I2PSOCK_TUNNEL_TOTAL) <= 2);
        while (hoarded > 0) close(hoard[--hoarded]);
        CHECK(setrlimit(RLIMIT_NOFILE, &old) == 0);
        for (i = 0; i < CLIENTS; i++) {
            round_trip(clients[i], (unsigned) i, 10000);
            close(clients[i]);
        }
        CHECK_INT(i2psock_tunnel_count(b.client, I2PSOCK_TUNNEL_FAILED), 0);
        CHECK_INT(i2psock_tunnel_count(b.client, I2PSOCK_TUNNEL_TOTAL), CLIENTS + 1);
        wait_idle(b.client);
        both_close(&b);
    }
}

/* A full tunnel has room again, but the system has none to watch its listening socket for a while. */
static void no_memory_for_events(void) {
    echo e;
    maker m;
    i2psock_tunnel *t = NULL;
    i2psock_options *o = i2psock_options_new();
    int fd, port, listening = tcp_listen(&port);
    long long end, used;
    memset(&m, 0, sizeof m);
    echo_start(&e);
    m.port = e.port;
    m.kind = BLOCKING;
    OK(i2psock_options_set_int(o, "nconnect", 1, &E));
    OK(i2psock_tunnel_new(NULL, listening, make_send, &m, o, &t, &E));
    fd = tcp_connect(port);
    round_trip(fd, 1, 1000);
    refusals = 0;
    unwatchable = listening;
    close(fd);
    end = now_ms() + HANG;
    while (refusals == 0) {
        if (now_ms() > end) fail_at(__FILE__, __LINE__, "nobody tries to watch it");
        pause_ms(1);
    }
    used = cpu_ms();
    pause_ms(1000);
    used = cpu_ms() - used;
    if (!under_valgrind() && used > 600) fail_at(__FILE__, __LINE__, "%lld ms of processor time in a second of waiting", used);
    unwatchable = -1;
    fd = tcp_connect(port);
    round_trip(fd, 2, 1000);
    close(fd);
    i2psock_tunnel_close(t);
    i2psock_options_free(o);
    close(listening);
    echo_stop(&e);
}

static long resident_kb(void) {
    char line[256];
    long kb = -1;
    FILE *f = fopen("/proc/self/status", "r");
    CHECK(f != NULL);
    while (fgets(line, sizeof line, f) != NULL) if (sscanf(line, "VmRSS: %ld", &kb) == 1) break;
    fclose(f);
    CHECK(kb > 0);
    return kb;
}

/* A target that accepts and never reads, and many who write to it as much as they can. */
static void nobody_reads(void) {
    int clients[100], count = under_valgrind() ? 20 : 100, i, j, port, listening = tcp_listen(&port), fds, fd, quiet;
    static char bytes[65536];
    struct rlimit limit;
    both b;
    i2psock_tunnel *server, *client;
    long kb;
    long long start;
    CHECK(getrlimit(RLIMIT_NOFILE, &limit) == 0);
    limit.rlim_cur = limit.rlim_max < 4096 ? limit.rlim_max : 4096;
    CHECK(setrlimit(RLIMIT_NOFILE, &limit) == 0);
    both_open(&b);
    server = server_of(b.c, port, NULL);
    client = client_of(b.c, server, NULL);
    fds = count_fds();
    kb = resident_kb();
    for (i = 0; i < count; i++) clients[i] = tcp_connect(i2psock_tunnel_port(client));
    for (quiet = 0; quiet < 10; quiet++) {
        for (i = 0; i < count; i++) {
            for (j = 0; j < 4; j++) if (send(clients[i], bytes, sizeof bytes, MSG_DONTWAIT | MSG_NOSIGNAL) > 0) quiet = 0;
        }
        pause_ms(20);
    }
    wait_count(client, I2PSOCK_TUNNEL_NOW, count);
    wait_count(server, I2PSOCK_TUNNEL_NOW, count);
    /* Ours, and two sockets and a pipe in either tunnel. */
    if (count_fds() > fds + 9 * count + 20) fail_at(__FILE__, __LINE__, "%d descriptors", count_fds() - fds);
    if (!under_valgrind() && resident_kb() > kb + 32 * 1024) fail_at(__FILE__, __LINE__, "%ld kB more", resident_kb() - kb);
    /* Others go on. */
    fd = tcp_connect(i2psock_tunnel_port(b.client));
    round_trip(fd, 1, 100000);
    close(fd);
    /* Closing waits for none of them. */
    start = now_ms();
    i2psock_tunnel_close(client);
    i2psock_tunnel_close(server);
    CHECK(now_ms() - start < HANG);
    for (i = 0; i < count; i++) expect_gone(clients[i]);
    wait_idle(b.client);
    wait_idle(b.server);
    close(listening);
    both_close(&b);
}

static const test_case tests[] = {
    T(server_and_client), T(by_pending), T(new_from_a_listener), T(new_from_a_socket), T(new_from_a_path), T(makers_that_fail),
    T(wrong_arguments), T(owners_that_go_first), T(closed_from_within), T(child_of_fork), T_LONG(nothing_is_left), T(signals),
    T_LONG(no_descriptors_left), T(no_memory_for_events), T_LONG(nobody_reads),
};
MAIN(tests)
