/* Listeners: one descriptor for a poll loop, every order of ends, many threads, many listeners, refusals. */
#include "harness.h"

#include <limits.h>
#include <sys/epoll.h>


typedef struct {
    i2psock_controller *c;
    i2psock_dest *server, *client;
} world;

static void world_open(world *w, int keeper) {
    w->c = open_port(common.port, keeper);
    w->server = open_dest(w->c);
    w->client = open_dest(w->c);
}

static void world_close(world *w) {
    i2psock_dest_close(w->client);
    i2psock_dest_close(w->server);
    i2psock_controller_close(w->c);
}

/* ---- clients ---- */

typedef struct {
    i2psock_dest *from, *to;
    int count, first;
    i2psock_stream *streams[64];
} clients;

/* One after the other; each says its number. */
static void *connect_all(void *arg) {
    clients *k = (clients *) arg;
    int i;
    for (i = 0; i < k->count; i++) {
        int number = k->first + i;
        OK(i2psock_dest_connect(k->from, dest_text(k->to), NULL, HANG, &k->streams[i], &E));
        OK(i2psock_stream_send(k->streams[i], &number, sizeof number, 0, NULL, &E));
    }
    err_done();
    return NULL;
}

static void free_clients(clients *k) {
    int i;
    for (i = 0; i < k->count; i++) i2psock_stream_free(k->streams[i]);
}

static pthread_t start_clients(clients *k, const world *w, int first, int count) {
    memset(k, 0, sizeof *k);
    k->from = w->client;
    k->to = w->server;
    k->first = first;
    k->count = count;
    return start_thread(connect_all, k);
}

/* The number that the other end of an accepted stream has sent; frees the stream. */
static int number_of(i2psock_stream *s) {
    int number = -1;
    size_t n = 0;
    OK(i2psock_stream_set_nonblocking(s, 0, &E));
    OK(i2psock_stream_set_timeout(s, HANG, &E));
    OK(i2psock_stream_recv(s, &number, sizeof number, MSG_WAITALL, &n, &E));
    CHECK_INT(n, sizeof number);
    i2psock_stream_free(s);
    return number;
}

/* ---- one thread, one poll loop, everything in it ---- */

#define CLIENTS 20

static void poll_loop(int keeper) {
    world w;
    i2psock_listener *l;
    i2psock_pending *pending[CLIENTS];
    i2psock_stream *out[CLIENTS], *in[CLIENTS];
    int i, accepted = 0, done = 0, fd;
    long long end = now_ms() + HANG;
    world_open(&w, keeper);
    l = open_listener(w.server, 0);
    fd = i2psock_listener_fd(l);
    check_cloexec(fd);
    memset(out, 0, sizeof out);
    memset(in, 0, sizeof in);
    for (i = 0; i < CLIENTS; i++) OK(i2psock_dest_connect_start(w.client, dest_text(w.server), NULL, HANG, &pending[i], &E));
    while (done < CLIENTS) {
        struct pollfd p[1 + 3 * CLIENTS];
        int wait = i2psock_listener_timeout_ms(l);
        CHECK(now_ms() < end);
        if (keeper) CHECK_INT(wait, -1);
        memset(p, 0, sizeof p);
        p[0].fd = fd;
        p[0].events = POLLIN;
        for (i = 0; i < CLIENTS; i++) {
            p[1 + i].fd = -1;
            if (pending[i] != NULL) {
                int due = i2psock_pending_timeout_ms(pending[i]);
                p[1 + i].fd = i2psock_pending_fd(pending[i]);
                p[1 + i].events = (short) i2psock_pending_events(pending[i]);
                if (due >= 0 && (wait < 0 || due < wait)) wait = due;
            }
            p[1 + CLIENTS + i].fd = in[i] ? i2psock_stream_fd(in[i]) : -1;
            p[1 + 2 * CLIENTS + i].fd = out[i] ? i2psock_stream_fd(out[i]) : -1;
            p[1 + CLIENTS + i].events = p[1 + 2 * CLIENTS + i].events = POLLIN;
        }
        CHECK(poll(p, 1 + 3 * CLIENTS, wait) >= 0 || errno == EINTR);
        if (p[0].revents || i2psock_listener_timeout_ms(l) == 0) {
            i2psock_stream *s = (i2psock_stream *) 0x55;
            i2psock_status status = ST(ANY, i2psock_listener_accept(l, &s, &E));
            if (status == I2PSOCK_OK) {
                CHECK(accepted < CLIENTS);
                CHECK(fcntl(i2psock_stream_fd(s), F_GETFL) & O_NONBLOCK);
                check_cloexec(i2psock_stream_fd(s));
                CHECK_INT(i2psock_addr_equal(i2psock_stream_peer(s), i2psock_dest_addr(w.client)), 1);
                CHECK_STR(i2psock_stream_peer_text(s), i2psock_addr_host(i2psock_dest_addr(w.client)));
                in[accepted++] = s;
            } else {
                CHECK_INT(status, I2PSOCK_BLOCK);
                CHECK(s == NULL);
                /* With the keeper readable means that there is a stream, and nobody else takes them here. */
                CHECK(!keeper);
            }
        }
        for (i = 0; i < CLIENTS; i++) {
            char b[16];
            size_t n;
            if (pending[i] != NULL && ST(ANY, i2psock_pending_step(pending[i], &E)) == I2PSOCK_OK) {
                OK(i2psock_pending_finish_stream(pending[i], &out[i], &E));
                i2psock_pending_free(pending[i]);
                pending[i] = NULL;
                OK(i2psock_stream_send(out[i], "hello", 5, 0, NULL, &E));
            } else if (pending[i] != NULL) {
                CHECK(i2psock_pending_stage(pending[i]) != I2PSOCK_STAGE_FAILED);
            }
            if (p[1 + CLIENTS + i].revents && in[i] != NULL) {
                if (ST(ANY, i2psock_stream_recv(in[i], b, sizeof b, 0, &n, &E)) == I2PSOCK_OK) {
                    OK(i2psock_stream_send(in[i], b, n, 0, NULL, &E));
                } else {
                    CHECK_INT(i2psock_error_status(E), I2PSOCK_CLOSED);
                    i2psock_stream_free(in[i]);
                    in[i] = NULL;
                }
            }
            if (p[1 + 2 * CLIENTS + i].revents && out[i] != NULL) {
                OK(i2psock_stream_recv(out[i], b, 5, MSG_WAITALL, &n, &E));
                CHECK(n == 5 && memcmp(b, "hello", 5) == 0);
                i2psock_stream_free(out[i]);
                out[i] = NULL;
                done++;
            }
        }
        CHECK_INT(i2psock_listener_fd(l), fd);
    }
    CHECK_INT(accepted, CLIENTS);
    CHECK_INT(i2psock_listener_failures(l, NULL), 0);
    for (i = 0; i < CLIENTS; i++) i2psock_stream_free(in[i]);
    i2psock_listener_close(l);
    world_close(&w);
}
static void poll_with_keeper(void) { poll_loop(1); }
static void poll_without_keeper(void) { poll_loop(0); }

/* Edge-triggered: after BLOCK the next stream is told again, always. */
static void edges(int keeper) {
    world w;
    i2psock_listener *l;
    clients k[4];
    pthread_t t[4];
    struct epoll_event event;
    int i, e = epoll_create1(EPOLL_CLOEXEC), total = 0;
    char seen[40];
    CHECK(e >= 0);
    memset(seen, 0, sizeof seen);
    memset(&event, 0, sizeof event);
    world_open(&w, keeper);
    l = open_listener(w.server, 5);
    event.events = EPOLLIN | EPOLLET;
    CHECK(epoll_ctl(e, EPOLL_CTL_ADD, i2psock_listener_fd(l), &event) == 0);
    for (i = 0; i < 4; i++) t[i] = start_clients(&k[i], &w, i * 10, 10);
    for (;;) {
        i2psock_stream *s = NULL;
        int due, got;
        while (ST(ANY, i2psock_listener_accept(l, &s, &E)) == I2PSOCK_OK) {
            int number = number_of(s);
            CHECK(number >= 0 && number < 40 && !seen[number]);
            seen[number] = 1;
            total++;
        }
        CHECK(E == NULL);
        if (total == 40) break;
        due = i2psock_listener_timeout_ms(l);
        got = epoll_wait(e, &event, 1, due < 0 || due > HANG ? HANG : due);
        CHECK(got >= 0 || errno == EINTR);
        if (got == 0 && (due < 0 || due > HANG)) fail_at(__FILE__, __LINE__, "no edge after %d streams", total);
    }
    for (i = 0; i < 4; i++) {
        join_thread(t[i]);
        free_clients(&k[i]);
    }
    i2psock_listener_close(l);
    close(e);
    world_close(&w);
}
static void edges_with_keeper(void) { edges(1); }
static void edges_without_keeper(void) { edges(0); }

static void readable_exactly(void) {
    world w;
    i2psock_listener *l, *late = (i2psock_listener *) 0x55;
    i2psock_stream *s = NULL, *mine = NULL;
    char b[8];
    size_t n = 0;
    int i;
    world_open(&w, 1);
    l = open_listener(w.server, 0);
    CHECK_INT(i2psock_listener_timeout_ms(l), -1);
    for (i = 0; i < 3; i++) {
        clients k;
        pthread_t t;
        ST(I2PSOCK_BLOCK, i2psock_listener_accept(l, &s, &E));
        CHECK(s == NULL);
        CHECK(!readable(i2psock_listener_fd(l), 20));
        t = start_clients(&k, &w, 1, 1);
        CHECK(readable(i2psock_listener_fd(l), HANG));
        /* It stays readable, and looking does not take anything. */
        CHECK(readable(i2psock_listener_fd(l), 0));
        OK(i2psock_listener_accept(l, &s, &E));
        CHECK(!readable(i2psock_listener_fd(l), 0));
        join_thread(t);
        CHECK(readable(i2psock_stream_fd(s), HANG));
        OK(i2psock_stream_recv(s, b, sizeof b, 0, &n, &E));
        CHECK_INT(n, 4);
        ST(I2PSOCK_BLOCK, i2psock_stream_recv(s, b, sizeof b, 0, &n, &E));
        i2psock_stream_free(s);
        free_clients(&k);
    }
    /* The streams that are there do not end with the listener, only with the destination. */
    meet(w.client, w.server, l, &mine, &s);
    i2psock_listener_close(l);
    OK(i2psock_stream_send(mine, b, 4, 0, NULL, &E));
    number_of(s);
    i2psock_stream_free(mine);
    l = open_listener(w.server, 0);
    OK(i2psock_dest_shutdown(w.server, &E));
    for (i = 0; i < 3; i++) {
        CHECK(readable(i2psock_listener_fd(l), HANG));
        s = (i2psock_stream *) 0x55;
        ST(I2PSOCK_CLOSED, i2psock_listener_accept(l, &s, &E));
        CHECK(s == NULL);
        CHECK_INT(i2psock_error_operation(E), I2PSOCK_OP_ACCEPT);
    }
    ST(I2PSOCK_CLOSED, i2psock_listener_open(w.server, 0, NULL, &late, &E));
    CHECK(late == NULL);
    i2psock_listener_close(l);
    world_close(&w);
}

/* ---- refusals ---- */

static void wrong_arguments(void) {
    i2psock_controller *c = open_common();
    i2psock_dest *d = open_dest(c), *datagrams = open_style(c, I2PSOCK_DGRAM, NULL), *none = (i2psock_dest *) 0x55;
    i2psock_listener *l = (i2psock_listener *) 0x55;
    i2psock_options *o = i2psock_options_new();
    static const char *const foreign[][2] = {
        { "sam", "127.0.0.1:7656" }, { "in_depth", "1" }, { "nickname", "x" }, { "recover", "1" }, { "from_port", "1" },
        { "forward", "127.0.0.1:1" }, { "expires", "1" }, { "inbound.length", "1" },
    };
    static const char *const bad_accepts[] = { "0", "65", "-1", "x", "", "1 ", "99999999999" };
    size_t i;
    int fds = count_fds();
    ST(I2PSOCK_STATE, i2psock_listener_open(datagrams, 0, NULL, &l, &E));
    CHECK(l == NULL);
    CHECK_INT(i2psock_error_operation(E), I2PSOCK_OP_ACCEPT);
    ST(I2PSOCK_INVALID, i2psock_listener_open(d, -1, NULL, &l, &E));
    ST(I2PSOCK_INVALID, i2psock_listener_open(d, INT_MIN, NULL, &l, &E));
    CHECK_HAS(i2psock_error_message(E), "backlog");
    for (i = 0; i < sizeof foreign / sizeof foreign[0]; i++) {
        i2psock_options *f = i2psock_options_new();
        OK(i2psock_options_set(f, foreign[i][0], foreign[i][1], &E));
        l = (i2psock_listener *) 0x55;
        if (ST(ANY, i2psock_listener_open(d, 0, f, &l, &E)) != I2PSOCK_INVALID) fail_at(__FILE__, __LINE__, "%s is taken", foreign[i][0]);
        CHECK(l == NULL);
        CHECK_HAS(i2psock_error_message(E), foreign[i][0]);
        i2psock_options_free(f);
    }
    for (i = 0; i < sizeof bad_accepts / sizeof bad_accepts[0]; i++) {
        if (ST(ANY, i2psock_options_set(o, "accepts", bad_accepts[i], &E)) != I2PSOCK_INVALID) {
            fail_at(__FILE__, __LINE__, "accepts=\"%s\"", bad_accepts[i]);
        }
    }
    OK(i2psock_options_set_int(o, "accepts", 64, &E));
    ST(I2PSOCK_INVALID, i2psock_dest_open(c, NULL, I2PSOCK_STREAM, o, HANG, &none, &E));
    CHECK(none == NULL);
    CHECK_INT(count_fds(), fds);
    OK(i2psock_listener_open(d, INT_MAX, o, &l, &E));
    i2psock_options_free(o);
    i2psock_listener_close(l);
    i2psock_dest_close(d);
    i2psock_dest_close(datagrams);
    i2psock_controller_close(c);
}

/* A router that refuses accepts, until it is told to be good. */
static gate good_now = GATE_INIT;
static plan refusing, obliging;

static void two_moods(fake_conn *c) {
    c->arg = gate_wait(&good_now, 1, 0) ? &obliging : &refusing;
    plan_script(c);
}

static void refused(int keeper) {
    fake *f;
    i2psock_controller *c;
    i2psock_dest *d;
    i2psock_listener *l;
    i2psock_stream *s = NULL;
    int failures;
    memset(&refusing, 0, sizeof refusing);
    memset(&obliging, 0, sizeof obliging);
    refusing.accept = "STREAM STATUS RESULT=I2P_ERROR MESSAGE=\"not today\"\n";
    obliging.accept = STREAM_OK DEST_B " FROM_PORT=5 TO_PORT=6\n";
    good_now.count = 0;
    f = fake_start(two_moods, NULL);
    c = open_port(fake_port(f), keeper);
    d = open_dest(c);
    l = open_listener(d, 1);
    do {
        int due = i2psock_listener_timeout_ms(l);
        ST(I2PSOCK_BLOCK, i2psock_listener_accept(l, &s, &E));
        readable(i2psock_listener_fd(l), due < 0 || due > 20 ? 20 : due);
        err_prepare();
        failures = i2psock_listener_failures(l, &E);
        CHECK(E != POISON);
        CHECK((failures > 0) <= (E != NULL));
    } while (failures < 3);
    ERR(I2PSOCK_OP_ACCEPT, "I2P_ERROR", "not today");
    CHECK_INT(i2psock_error_status(E), I2PSOCK_NETWORK);
    CHECK_INT(i2psock_dest_state(d, NULL), I2PSOCK_STATE_READY);
    gate_open(&good_now);
    CHECK_INT(listener_next(l, &s), I2PSOCK_OK);
    CHECK_STR(i2psock_addr_base64(i2psock_stream_peer(s)), DEST_B);
    CHECK_INT(i2psock_stream_from_port(s) * 10 + i2psock_stream_to_port(s), 56);
    i2psock_stream_free(s);
    /* The reason of the last failure is kept, however long ago. */
    err_prepare();
    CHECK_INT(i2psock_listener_failures(l, &E), 0);
    ERR(I2PSOCK_OP_ACCEPT, "I2P_ERROR", "not today");
    i2psock_listener_close(l);
    i2psock_dest_close(d);
    i2psock_controller_close(c);
    fake_stop(f);
}
static void refused_with_keeper(void) { refused(1); }
static void refused_without_keeper(void) { refused(0); }

/* ---- ends ---- */

typedef struct { i2psock_listener *l; gate begun, told; } watcher;

/* Polls until the listener says that it is over. */
static void *watch_the_end(void *arg) {
    watcher *w = (watcher *) arg;
    gate_open(&w->begun);
    for (;;) {
        i2psock_stream *s = NULL;
        i2psock_status status;
        CHECK(readable(i2psock_listener_fd(w->l), HANG));
        status = ST(ANY, i2psock_listener_accept(w->l, &s, &E));
        if (status == I2PSOCK_CLOSED) break;
        i2psock_stream_free(s);
    }
    gate_open(&w->told);
    err_done();
    return NULL;
}

enum { LISTENER, DEST, CONTROLLER, ACCEPTED, CONNECTED, THINGS };

static void close_in_order(int keeper, const int *order) {
    world w;
    watcher watch = { NULL, GATE_INIT, GATE_INIT };
    i2psock_stream *in = NULL, *out = NULL;
    i2psock_pending *pending = NULL;
    pthread_t t = 0;
    int i, watched = 0;
    world_open(&w, keeper);
    watch.l = open_listener(w.server, 0);
    meet(w.client, w.server, watch.l, &out, &in);
    /* One more, which nobody fetches, or that is just coming. */
    OK(i2psock_dest_connect_start(w.client, dest_text(w.server), NULL, HANG, &pending, &E));
    /* Whoever polls the listener while it is freed has himself to blame. */
    for (i = 0; order[i] != LISTENER; i++) watched |= order[i] == DEST || order[i] == CONTROLLER;
    if (watched) {
        t = start_thread(watch_the_end, &watch);
        CHECK(gate_wait(&watch.begun, 1, HANG));
    }
    for (i = 0; i < THINGS; i++) {
        switch (order[i]) {
        case LISTENER: i2psock_listener_close(watch.l); break;
        case DEST: i2psock_dest_close(w.server); break;
        case CONTROLLER: i2psock_controller_close(w.c); break;
        case ACCEPTED: i2psock_stream_free(in); break;
        default: i2psock_stream_free(out);
        }
        if (watched && (order[i] == DEST || order[i] == CONTROLLER)) {
            CHECK(gate_wait(&watch.told, 1, HANG));
            join_thread(t);
            watched = 0;
        }
    }
    i2psock_pending_free(pending);
    i2psock_dest_close(w.client);
}

static void every_order(int keeper) {
    int number, fds = -1;
    long long end;
    for (number = 0; number < 120; number += under_valgrind() ? 11 : 1) {
        int order[THINGS], left[THINGS] = { 0, 1, 2, 3, 4 }, rest = number, i, j;
        for (i = 0; i < THINGS; i++) {
            int at = rest % (THINGS - i);
            rest /= THINGS - i;
            order[i] = left[at];
            for (j = at; j + 1 < THINGS - i; j++) left[j] = left[j + 1];
        }
        close_in_order(keeper, order);
        if (fds < 0) fds = quiet_fds();
        end = now_ms() + HANG;
        while (count_fds() != fds && now_ms() < end) pause_ms(1);
        if (count_fds() != fds) {
            fail_at(__FILE__, __LINE__, "order %d%d%d%d%d leaves %d descriptors", order[0], order[1], order[2], order[3], order[4], count_fds() - fds);
        }
    }
}
static void every_order_with_keeper(void) { every_order(1); }
static void every_order_without_keeper(void) { every_order(0); }

/* ---- several listeners ---- */

static void several_listeners(int keeper) {
    world w;
    i2psock_listener *l[3];
    clients k;
    pthread_t t;
    char seen[30];
    int i, total = 0;
    memset(seen, 0, sizeof seen);
    world_open(&w, keeper);
    for (i = 0; i < 3; i++) l[i] = open_listener(w.server, 2);
    t = start_clients(&k, &w, 0, 30);
    while (total < 30) {
        struct pollfd p[3];
        int due = HANG;
        for (i = 0; i < 3; i++) {
            int ms = l[i] ? i2psock_listener_timeout_ms(l[i]) : -1;
            p[i].fd = l[i] ? i2psock_listener_fd(l[i]) : -1;
            p[i].events = POLLIN;
            if (ms >= 0 && ms < due) due = ms;
        }
        CHECK(poll(p, 3, due) > 0 || due < HANG);
        for (i = 0; i < 3; i++) {
            i2psock_stream *s = NULL;
            int number;
            if (l[i] == NULL || ST(ANY, i2psock_listener_accept(l[i], &s, &E)) != I2PSOCK_OK) continue;
            number = number_of(s);
            CHECK(number >= 0 && number < 30 && !seen[number]);
            seen[number] = 1;
            total++;
        }
        /* What a listener that goes has not given, the others give. */
        if (total >= 10 && l[0] != NULL) {
            i2psock_listener_close(l[0]);
            l[0] = NULL;
        }
        if (total >= 20 && l[1] != NULL) {
            i2psock_listener_close(l[1]);
            l[1] = NULL;
        }
    }
    join_thread(t);
    free_clients(&k);
    for (i = 0; i < 3; i++) i2psock_listener_close(l[i]);
    world_close(&w);
}
static void several_with_keeper(void) { several_listeners(1); }
static void several_without_keeper(void) { several_listeners(0); }

/* Streams that nobody has fetched go to whoever asks next: one that waits already, a new one, and accept. */
static void left_over(void) {
    world w;
    int round;
    world_open(&w, 1);
    for (round = 0; round < 3; round++) {
        i2psock_listener *first = open_listener(w.server, 0), *second = NULL;
        i2psock_stream *s = NULL;
        clients k;
        pthread_t t = start_clients(&k, &w, 40 + round, 1);
        CHECK(readable(i2psock_listener_fd(first), HANG));
        join_thread(t);
        if (round == 0) second = open_listener(w.server, 0);
        i2psock_listener_close(first);
        if (round == 1) second = open_listener(w.server, 0);
        if (second != NULL) CHECK_INT(listener_next(second, &s), I2PSOCK_OK);
        else OK(i2psock_dest_accept(w.server, HANG, &s, &E));
        CHECK_INT(number_of(s), 40 + round);
        free_clients(&k);
        i2psock_listener_close(second);
    }
    world_close(&w);
}

/* ---- many threads on one listener ---- */

#define STREAMS 60
#define WORKERS 8

typedef struct { const i2psock_listener *l; pthread_mutex_t lock; int seen[STREAMS], total; } shop;

static void *take_streams(void *arg) {
    shop *at = (shop *) arg;
    for (;;) {
        i2psock_stream *s = NULL;
        i2psock_status status = listener_next(at->l, &s);
        int number;
        if (status == I2PSOCK_CLOSED) break;
        number = number_of(s);
        CHECK(number >= 0 && number < STREAMS);
        pthread_mutex_lock(&at->lock);
        at->seen[number]++;
        at->total++;
        pthread_mutex_unlock(&at->lock);
    }
    err_done();
    return NULL;
}

static void many_threads(int keeper) {
    world w;
    shop at;
    i2psock_listener *l;
    i2psock_options *o = i2psock_options_new();
    clients k[3];
    pthread_t t[WORKERS], clients_of[3];
    int i, total = 0;
    memset(&at, 0, sizeof at);
    pthread_mutex_init(&at.lock, NULL);
    world_open(&w, keeper);
    OK(i2psock_options_set_int(o, "accepts", 4, &E));
    OK(i2psock_listener_open(w.server, 10, o, &l, &E));
    i2psock_options_free(o);
    at.l = l;
    for (i = 0; i < WORKERS; i++) t[i] = start_thread(take_streams, &at);
    for (i = 0; i < 3; i++) clients_of[i] = start_clients(&k[i], &w, i * 20, 20);
    for (i = 0; i < 3; i++) join_thread(clients_of[i]);
    while (total < STREAMS) {
        pthread_mutex_lock(&at.lock);
        total = at.total;
        pthread_mutex_unlock(&at.lock);
        pause_ms(1);
    }
    OK(i2psock_dest_shutdown(w.server, &E));
    for (i = 0; i < WORKERS; i++) join_thread(t[i]);
    for (i = 0; i < STREAMS; i++) CHECK_INT(at.seen[i], 1);
    for (i = 0; i < 3; i++) free_clients(&k[i]);
    pthread_mutex_destroy(&at.lock);
    i2psock_listener_close(l);
    world_close(&w);
}
static void threads_with_keeper(void) { many_threads(1); }
static void threads_without_keeper(void) { many_threads(0); }

/* ---- descriptors ---- */

/* However many peers come, no more than the backlog have a descriptor here. */
static void backlog(int keeper) {
    enum { PEERS = 20, ROOM = 3 };
    world w;
    i2psock_listener *l;
    i2psock_pending *pending[PEERS];
    i2psock_options *o = i2psock_options_new();
    int i, before, done = 0, accepted = 0;
    long long calm = 0, end = now_ms() + HANG;
    world_open(&w, keeper);
    OK(i2psock_options_set_int(o, "accepts", 64, &E));
    OK(i2psock_listener_open(w.server, ROOM, o, &l, &E));
    i2psock_options_free(o);
    i2psock_listener_close(l);
    /* What it asked the router for is still there. */
    CHECK_INT(i2psock_listener_open(w.server, ROOM, NULL, &l, NULL), I2PSOCK_OK);
    i2psock_listener_close(l);
    i2psock_dest_close(w.server);
    w.server = open_dest(w.c);
    before = quiet_fds();
    l = open_listener(w.server, ROOM);
    /* Its own descriptors. */
    before += keeper ? 2 : 3;
    for (i = 0; i < PEERS; i++) OK(i2psock_dest_connect_start(w.client, dest_text(w.server), NULL, HANG, &pending[i], &E));
    while (accepted < PEERS) {
        int open = 0;
        CHECK(now_ms() < end);
        for (i = 0; i < PEERS; i++) {
            if (pending[i] == NULL) continue;
            if (ST(ANY, i2psock_pending_step(pending[i], &E)) == I2PSOCK_OK) {
                /* The peer's end goes, so that only those of the listener count. */
                i2psock_stream *s = NULL;
                OK(i2psock_pending_finish_stream(pending[i], &s, &E));
                i2psock_pending_free(pending[i]);
                pending[i] = NULL;
                i2psock_stream_free(s);
                done++;
                calm = now_ms() + 20;
            } else {
                CHECK(E == NULL);
                open += i2psock_pending_fd(pending[i]) >= 0;
            }
        }
        if (!keeper) {
            i2psock_state state;
            ST(ANY, i2psock_dest_service(w.server, &state, &E));
        }
        CHECK(count_fds() <= before + open + ROOM);
        CHECK(done <= accepted + ROOM);
        /* Full, and for a while nobody came: one goes. */
        if (done >= accepted + ROOM || done == PEERS) {
            if (now_ms() < calm) continue;
            CHECK(readable(i2psock_listener_fd(l), HANG));
            for (;;) {
                i2psock_stream *s = NULL;
                if (listener_next(l, &s) == I2PSOCK_OK) {
                    i2psock_stream_free(s);
                    accepted++;
                    break;
                }
            }
        }
    }
    i2psock_listener_close(l);
    world_close(&w);
}
static void backlog_with_keeper(void) { backlog(1); }
static void backlog_without_keeper(void) { backlog(0); }

/* The router connects to a port of ours, where it is not the only one who can. */
static void forwarded(int keeper) {
    world w;
    i2psock_options *o = i2psock_options_new();
    i2psock_listener *l;
    i2psock_stream *out, *in;
    world_open(&w, keeper);
    OK(i2psock_options_set(o, "stream_forward", "1", &E));
    OK(i2psock_listener_open(w.server, 0, o, &l, &E));
    meet(w.client, w.server, l, &out, &in);
    CHECK_INT(i2psock_stream_peer_verified(in), 0);
    CHECK_INT(i2psock_stream_peer_verified(out), 1);
    CHECK_INT(i2psock_addr_equal(i2psock_stream_peer(in), i2psock_dest_addr(w.client)), 1);
    i2psock_stream_free(out);
    i2psock_stream_free(in);
    i2psock_listener_close(l);
    OK(i2psock_options_set(o, "accepts", "2", &E));
    ST(I2PSOCK_INVALID, i2psock_listener_open(w.server, 0, o, &l, &E));
    i2psock_options_free(o);
    world_close(&w);
}
static void forwarded_with_keeper(void) { forwarded(1); }
static void forwarded_without_keeper(void) { forwarded(0); }

static void no_leak(int keeper) {
    world w;
    i2psock_listener *l = NULL;
    int i, before, rounds = under_valgrind() ? 60 : 200;
    world_open(&w, keeper);
    before = quiet_fds();
    for (i = 0; i < rounds; i++) {
        l = open_listener(w.server, i % 5);
        /* Sometimes it has got as far as to be asked. */
        if (i % 10 == 0) {
            i2psock_stream *out = NULL, *in = NULL;
            meet(w.client, w.server, l, &out, &in);
            i2psock_stream_free(in);
            i2psock_stream_free(out);
        }
        i2psock_listener_close(l);
    }
    /* An accept the router knows of is kept for the next one. */
    expect_fds_at_most(before + 1);
    i2psock_dest_close(w.server);
    w.server = open_dest(w.c);
    expect_fds(before);
    for (i = 0; i < rounds / 4; i++) {
        i2psock_dest *d = open_dest(w.c);
        l = open_listener(d, 0);
        if (i % 2) {
            i2psock_listener_close(l);
            i2psock_dest_close(d);
        } else {
            i2psock_dest_close(d);
            i2psock_listener_close(l);
        }
    }
    expect_fds(before);
    world_close(&w);
}
static void no_leak_with_keeper(void) { no_leak(1); }
static void no_leak_without_keeper(void) { no_leak(0); }

static const test_case tests[] = {
    T(poll_with_keeper), T(poll_without_keeper), T(edges_with_keeper), T(edges_without_keeper), T(readable_exactly),
    T(wrong_arguments), T(refused_with_keeper), T(refused_without_keeper), T_LONG(every_order_with_keeper),
    T_LONG(every_order_without_keeper), T(several_with_keeper), T(several_without_keeper), T(left_over),
    T(threads_with_keeper), T(threads_without_keeper), T(backlog_with_keeper), T(backlog_without_keeper),
    T(forwarded_with_keeper), T(forwarded_without_keeper), T_LONG(no_leak_with_keeper), T_LONG(no_leak_without_keeper),
};
MAIN(tests)
