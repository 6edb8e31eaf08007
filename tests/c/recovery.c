/* A bridge that goes away and comes back: what a poll loop sees, with the keeper and without. */
#include "harness.h"

#include <sys/epoll.h>


/* A server with a listener and a client of it, with the keeper or without. */
typedef struct {
    i2psock_controller *c;
    i2psock_dest *server, *client;
    i2psock_listener *l;
    /* The descriptors as they were at first, and an epoll that was told of the listener's once. */
    int server_fd, client_fd, listener_fd, epoll;
    char *address;
    /* Changes of the server's state since the last look, as bits. */
    int seen, last;
    /* The highest attempt so far. */
    int attempts;
} side;

static void side_open(side *s, int port, int keeper) {
    struct epoll_event event;
    memset(s, 0, sizeof *s);
    memset(&event, 0, sizeof event);
    s->c = open_port(port, keeper);
    s->server = open_recovering(s->c);
    s->client = open_recovering(s->c);
    s->l = open_listener(s->server, 0);
    s->server_fd = i2psock_dest_fd(s->server);
    s->client_fd = i2psock_dest_fd(s->client);
    s->listener_fd = i2psock_listener_fd(s->l);
    s->address = strdup(dest_text(s->server));
    s->epoll = epoll_create1(EPOLL_CLOEXEC);
    event.events = EPOLLIN;
    CHECK(epoll_ctl(s->epoll, EPOLL_CTL_ADD, s->listener_fd, &event) == 0);
}

static void side_close(side *s) {
    close(s->epoll);
    i2psock_listener_close(s->l);
    i2psock_dest_close(s->server);
    i2psock_dest_close(s->client);
    i2psock_controller_close(s->c);
    free(s->address);
}

static void service(side *s, const i2psock_dest *d) {
    for (;;) {
        i2psock_state state = I2PSOCK_STATE_NONE;
        i2psock_status status = ST(ANY, i2psock_dest_service(d, &state, &E));
        if (status == I2PSOCK_BLOCK) return;
        CHECK_INT(status, I2PSOCK_OK);
        if (d == s->server) {
            /* A change is one. */
            CHECK((int) state != s->last);
            /* The way back is always the same, however quick the router is. */
            if (state == I2PSOCK_STATE_READY && s->last != 0) CHECK_INT(s->last, I2PSOCK_STATE_BUILDING);
            if (state == I2PSOCK_STATE_BUILDING) CHECK_INT(s->last, I2PSOCK_STATE_CONNECTING);
            if (state == I2PSOCK_STATE_CONNECTING) CHECK_INT(s->last, I2PSOCK_STATE_RECOVERING);
            s->seen |= 1 << state;
            s->last = (int) state;
        }
    }
}

/* What a poll loop does: poll with the descriptors and times that are told, then service; until `done`, for all sides. */
static void serve(side *sides, int count, int (*done)(side *)) {
    long long end = now_ms() + HANG;
    int i, left;
    do {
        struct pollfd p[8];
        int wait = HANG;
        left = 0;
        for (i = 0; i < count; i++) {
            const i2psock_dest *both[2];
            int j;
            both[0] = sides[i].server;
            both[1] = sides[i].client;
            for (j = 0; j < 2; j++) {
                int due = i2psock_dest_timeout_ms(both[j]);
                p[2 * i + j].fd = i2psock_dest_fd(both[j]);
                p[2 * i + j].events = POLLIN;
                if (due >= 0 && due < wait) wait = due;
            }
        }
        poll(p, (nfds_t) (2 * count), wait);
        for (i = 0; i < count; i++) {
            int attempt;
            service(&sides[i], sides[i].server);
            service(&sides[i], sides[i].client);
            attempt = i2psock_dest_attempt(sides[i].server);
            if (attempt > sides[i].attempts) sides[i].attempts = attempt;
            CHECK_INT(i2psock_dest_fd(sides[i].server), sides[i].server_fd);
            CHECK_INT(i2psock_dest_fd(sides[i].client), sides[i].client_fd);
            CHECK_INT(i2psock_listener_fd(sides[i].l), sides[i].listener_fd);
            left += !done(&sides[i]);
        }
        if (now_ms() > end) {
            fail_at(__FILE__, __LINE__, "%d sides are not there yet: %s, %s", left, i2psock_state_name((int) i2psock_dest_state(sides[0].server, NULL)),
                    i2psock_state_name((int) i2psock_dest_state(sides[count - 1].server, NULL)));
        }
    } while (left > 0);
}

static int is_ready(side *s) {
    return i2psock_dest_state(s->server, NULL) == I2PSOCK_STATE_READY && i2psock_dest_state(s->client, NULL) == I2PSOCK_STATE_READY
        && s->last == I2PSOCK_STATE_READY;
}
static int is_lost(side *s) {
    return i2psock_dest_state(s->server, NULL) != I2PSOCK_STATE_READY && i2psock_dest_state(s->client, NULL) != I2PSOCK_STATE_READY
        && s->seen & 1 << I2PSOCK_STATE_RECOVERING;
}
static int has_failed_once(side *s) { return is_lost(s) && i2psock_dest_attempt(s->server) >= 2 && i2psock_dest_attempt(s->client) >= 2; }

/* One stream from the client to the server, through the epoll that knows the listener from the beginning. */
static void check_stream(side *s, i2psock_stream **out, i2psock_stream **in) {
    struct epoll_event event;
    char b[8];
    size_t n = 0;
    CHECK_STR(dest_text(s->server), s->address);
    meet(s->client, s->server, s->l, out, in);
    CHECK_INT(i2psock_addr_equal(i2psock_stream_peer(*in), i2psock_dest_addr(s->client)), 1);
    OK(i2psock_stream_send(*in, "hello", 5, 0, NULL, &E));
    OK(i2psock_stream_recv(*out, b, 5, MSG_WAITALL, &n, &E));
    CHECK(n == 5 && memcmp(b, "hello", 5) == 0);
    epoll_wait(s->epoll, &event, 1, 0);
}

/* That the epoll still tells of the listener. */
static void check_epoll(side *s, i2psock_stream **out, i2psock_stream **in) {
    struct epoll_event event;
    i2psock_pending *p = NULL;
    long long end = now_ms() + HANG;
    *in = NULL;
    OK(i2psock_dest_connect_start(s->client, s->address, NULL, HANG, &p, &E));
    while (*in == NULL) {
        int due = i2psock_listener_timeout_ms(s->l);
        CHECK(now_ms() < end);
        ST(ANY, i2psock_pending_step(p, &E));
        CHECK(E == NULL);
        if (epoll_wait(s->epoll, &event, 1, due >= 0 && due < 5 ? due : 5) > 0 || due == 0) {
            ST(ANY, i2psock_listener_accept(s->l, in, &E));
            CHECK(E == NULL);
        }
    }
    OK(i2psock_pending_wait(p, -1, &E));
    OK(i2psock_pending_finish_stream(p, out, &E));
    i2psock_pending_free(p);
}

static int is_building(side *s) {
    return i2psock_dest_state(s->server, NULL) == I2PSOCK_STATE_BUILDING && i2psock_dest_state(s->client, NULL) == I2PSOCK_STATE_BUILDING;
}

/* Between the sessions: everything says why, and nothing hangs. */
static void check_between(side *s) {
    i2psock_stream *t = (i2psock_stream *) 0x55;
    i2psock_addr *a = NULL;
    i2psock_listener *more = NULL;
    i2psock_state state;
    err_prepare();
    state = i2psock_dest_state(s->server, &E);
    CHECK(state == I2PSOCK_STATE_RECOVERING || state == I2PSOCK_STATE_CONNECTING || state == I2PSOCK_STATE_BUILDING);
    CHECK(E != NULL && E != POISON);
    CHECK(*i2psock_error_message(E) != 0);
    CHECK(i2psock_dest_attempt(s->server) >= 1);
    ST(I2PSOCK_CLOSED, i2psock_dest_connect(s->client, s->address, NULL, HANG, &t, &E));
    ERR(I2PSOCK_OP_CONNECT, "", "opened again");
    CHECK(t == NULL);
    ST(I2PSOCK_CLOSED, i2psock_dest_accept(s->server, HANG, &t, &E));
    ST(I2PSOCK_CLOSED, i2psock_dest_lookup(s->server, "ME", HANG, &a, &E));
    ST(I2PSOCK_BLOCK, i2psock_listener_accept(s->l, &t, &E));
    /* One may begin to listen just now, too. */
    OK(i2psock_listener_open(s->server, 0, NULL, &more, &E));
    i2psock_listener_close(more);
}

#define STREAMS 100

static i2psock_stream *outs[2][STREAMS], *ins[2][STREAMS];

/* Three times in a row; the first time with streams open and connects under way. */
static void killed_three_times(void) {
    bridge b;
    side sides[2];
    i2psock_pending *connecting[2], *accepting[2];
    i2psock_dest *deaf[2];
    int round, i, j, streams = under_valgrind() ? 20 : STREAMS, attempts = 0;
    long long born = 0;
    char byte[4];
    size_t n;
    bridge_start_to_stay(&b);
    for (i = 0; i < 2; i++) {
        side_open(&sides[i], b.port, i);
        /* Nobody accepts there. */
        deaf[i] = open_dest(sides[i].c);
    }
    serve(sides, 2, is_ready);
    for (i = 0; i < 2; i++) {
        CHECK_INT(sides[i].seen, 1 << I2PSOCK_STATE_READY);
        CHECK_INT(i2psock_dest_attempt(sides[i].server), 0);
        for (j = 0; j < streams; j++) check_stream(&sides[i], &outs[i][j], &ins[i][j]);
        OK(i2psock_dest_connect_start(sides[i].client, dest_text(deaf[i]), NULL, I2PSOCK_TIMEOUT_NONE, &connecting[i], &E));
        OK(i2psock_dest_accept_start(sides[i].client, I2PSOCK_TIMEOUT_NONE, &accepting[i], &E));
        while (i2psock_pending_stage(connecting[i]) != I2PSOCK_STAGE_WORKING) ST(I2PSOCK_BLOCK, i2psock_pending_wait(connecting[i], 1, &E));
        while (i2psock_pending_stage(accepting[i]) != I2PSOCK_STAGE_LISTENING) ST(I2PSOCK_BLOCK, i2psock_pending_wait(accepting[i], 1, &E));
    }
    for (round = 0; round < 3; round++) {
        for (i = 0; i < 2; i++) sides[i].seen = sides[i].attempts = 0;
        /* Sessions that are lost soon after one another: the pauses grow. After one that lived for a minute they begin anew. */
        attempts = round > 0 && now_ms() - born < 59000 ? attempts + 1 : 1;
        bridge_stop(&b);
        serve(sides, 2, is_lost);
        for (i = 0; i < 2; i++) check_between(&sides[i]);
        if (round == 0) {
            for (i = 0; i < 2; i++) {
                ST(I2PSOCK_CLOSED, i2psock_pending_wait(connecting[i], HANG, &E));
                ERR(I2PSOCK_OP_CONNECT, "", "lost");
                ST(I2PSOCK_CLOSED, i2psock_pending_wait(accepting[i], HANG, &E));
                ERR(I2PSOCK_OP_ACCEPT, "", "lost");
                i2psock_pending_free(connecting[i]);
                i2psock_pending_free(accepting[i]);
                for (j = 0; j < streams; j++) {
                    CHECK(readable(i2psock_stream_fd(outs[i][j]), HANG) && readable(i2psock_stream_fd(ins[i][j]), HANG));
                    ST(I2PSOCK_CLOSED, i2psock_stream_recv(outs[i][j], byte, sizeof byte, 0, &n, &E));
                    ST(I2PSOCK_CLOSED, i2psock_stream_recv(ins[i][j], byte, sizeof byte, 0, &n, &E));
                    i2psock_stream_free(outs[i][j]);
                    i2psock_stream_free(ins[i][j]);
                }
                /* The one that is not opened again. */
                if (i == 0) ST(ANY, i2psock_dest_service(deaf[i], NULL, &E));
                while (i2psock_dest_state(deaf[i], NULL) != I2PSOCK_STATE_DEAD) pause_ms(1);
                i2psock_dest_close(deaf[i]);
            }
        }
        born = now_ms();
        bridge_start_again(&b, NULL, NULL);
        serve(sides, 2, is_ready);
        for (i = 0; i < 2; i++) {
            CHECK(sides[i].seen & 1 << I2PSOCK_STATE_RECOVERING);
            CHECK(sides[i].seen & 1 << I2PSOCK_STATE_CONNECTING);
            CHECK(sides[i].seen & 1 << I2PSOCK_STATE_BUILDING);
            CHECK(!(sides[i].seen & 1 << I2PSOCK_STATE_DEAD));
            err_prepare();
            CHECK_INT(i2psock_dest_state(sides[i].server, &E), I2PSOCK_STATE_READY);
            CHECK(E == NULL);
            CHECK(sides[i].attempts >= attempts);
            check_epoll(&sides[i], &outs[i][0], &ins[i][0]);
            check_stream(&sides[i], &outs[i][1], &ins[i][1]);
            for (j = 0; j < 2; j++) {
                i2psock_stream_free(outs[i][j]);
                i2psock_stream_free(ins[i][j]);
            }
        }
    }
    for (i = 0; i < 2; i++) side_close(&sides[i]);
    bridge_stop(&b);
}

/* A stream nobody has fetched goes to the next listener. */
static void check_left_over(side *s) {
    i2psock_pending *p = NULL;
    i2psock_stream *out = NULL, *in = NULL;
    long long end = now_ms() + HANG;
    i2psock_status status;
    OK(i2psock_dest_connect_start(s->client, s->address, NULL, HANG, &p, &E));
    /* The bridge says so when the stream has been accepted. */
    while ((status = ST(ANY, i2psock_pending_step(p, &E))) == I2PSOCK_BLOCK) {
        CHECK(now_ms() < end);
        service(s, s->server);
        pause_ms(1);
    }
    CHECK_INT(status, I2PSOCK_OK);
    OK(i2psock_pending_finish_stream(p, &out, &E));
    i2psock_pending_free(p);
    while (!readable(s->listener_fd, 20)) service(s, s->server);
    i2psock_listener_close(s->l);
    s->l = open_listener(s->server, 0);
    CHECK_INT(listener_next(s->l, &in), I2PSOCK_OK);
    i2psock_stream_free(in);
    i2psock_stream_free(out);
}

/* An attempt that finds nobody is counted, and tells why; the next one comes by itself. */
static void nobody_there_for_a_while(void) {
    bridge b;
    side sides[2];
    int i;
    i2psock_stream *in, *out;
    bridge_start_to_stay(&b);
    for (i = 0; i < 2; i++) side_open(&sides[i], b.port, i);
    bridge_stop(&b);
    serve(sides, 2, has_failed_once);
    for (i = 0; i < 2; i++) {
        err_prepare();
        i2psock_dest_state(sides[i].server, &E);
        CHECK_INT(i2psock_error_status(E), I2PSOCK_IO);
        CHECK_INT(i2psock_error_os_error(E), ECONNREFUSED);
        check_between(&sides[i]);
    }
    bridge_start_again(&b, NULL, NULL);
    serve(sides, 2, is_ready);
    for (i = 0; i < 2; i++) {
        CHECK(sides[i].attempts >= 2);
        check_stream(&sides[i], &out, &in);
        i2psock_stream_free(in);
        i2psock_stream_free(out);
        check_left_over(&sides[i]);
        side_close(&sides[i]);
    }
    bridge_stop(&b);
}

/* While it is being opened again a named destination keeps its name, and its address afterwards. */
static void name_is_kept(void) {
    char *folder = folder_new();
    bridge b;
    i2psock_controller *c, *other;
    i2psock_dest *alice, *again, *d = NULL, *client;
    i2psock_listener *l;
    i2psock_stream *in = NULL, *out = NULL;
    char *address;
    long long end;
    bridge_start_to_stay(&b);
    c = open_store(b.port, 1, folder);
    other = open_store(b.port, 1, folder);
    alice = open_named(c, "alice");
    address = strdup(dest_text(alice));
    l = open_listener(alice, 0);
    bridge_stop(&b);
    while (i2psock_dest_state(alice, NULL) == I2PSOCK_STATE_READY) pause_ms(1);
    /* In the middle of it: others are refused, and here it is shared. */
    ST(I2PSOCK_STATE, i2psock_dest_open(other, "alice", I2PSOCK_STREAM, NULL, HANG, &d, &E));
    again = open_named(c, "alice");
    CHECK_STR(dest_text(again), address);
    i2psock_dest_close(alice);
    CHECK(i2psock_dest_state(again, NULL) != I2PSOCK_STATE_DEAD);
    bridge_start_again(&b, NULL, NULL);
    client = open_dest(c);
    /* All that is waited for is a stream: nobody services it. */
    end = now_ms() + HANG;
    while (i2psock_dest_state(again, NULL) != I2PSOCK_STATE_READY) {
        CHECK(now_ms() < end);
        pause_ms(5);
    }
    meet(client, again, l, &out, &in);
    CHECK_STR(dest_text(again), address);
    i2psock_stream_free(in);
    i2psock_stream_free(out);
    i2psock_listener_close(l);
    i2psock_dest_close(client);
    i2psock_dest_close(again);
    /* Lost and closed without waiting for anything: it is free at once. */
    alice = open_named(other, "alice");
    bridge_stop(&b);
    i2psock_dest_close(alice);
    bridge_start_again(&b, NULL, NULL);
    alice = open_named(c, "alice");
    CHECK_STR(dest_text(alice), address);
    i2psock_dest_close(alice);
    i2psock_controller_close(c);
    i2psock_controller_close(other);
    free(address);
    bridge_stop(&b);
    folder_remove(folder);
}

static void *until_the_end(void *arg) {
    const i2psock_listener *l = (const i2psock_listener *) arg;
    for (;;) {
        i2psock_stream *s = NULL;
        i2psock_status status;
        CHECK(readable(i2psock_listener_fd(l), HANG));
        status = ST(ANY, i2psock_listener_accept(l, &s, &E));
        if (status == I2PSOCK_CLOSED) break;
        CHECK_INT(status, I2PSOCK_BLOCK);
    }
    err_done();
    return NULL;
}

/* What is closed in the middle of a recovery is over: during the pause, and while tunnels are being built. */
static void closed_in_the_middle(void) {
    int how;
    for (how = 0; how < 3; how++) {
        int i, fds = count_fds();
        side sides[2];
        bridge b;
        pthread_t t[2];
        bridge_start_to_stay(&b);
        for (i = 0; i < 2; i++) side_open(&sides[i], b.port, i);
        bridge_stop(&b);
        if (how == 0) {
            serve(sides, 2, is_lost);
        } else {
            bridge_start_again(&b, "--build-delay", "600000");
            serve(sides, 2, is_building);
        }
        for (i = 0; i < 2; i++) t[i] = start_thread(until_the_end, sides[i].l);
        for (i = 0; i < 2; i++) {
            if (how == 2) {
                i2psock_dest_close(sides[i].server);
                sides[i].server = NULL;
            } else {
                i2psock_controller_close(sides[i].c);
                sides[i].c = NULL;
            }
            join_thread(t[i]);
            if (how != 2) {
                i2psock_state state = I2PSOCK_STATE_NONE;
                CHECK_INT(i2psock_dest_state(sides[i].server, NULL), I2PSOCK_STATE_DEAD);
                CHECK(readable(i2psock_dest_fd(sides[i].server), HANG));
                while (ST(ANY, i2psock_dest_service(sides[i].server, &state, &E)) == I2PSOCK_OK) sides[i].last = (int) state;
                CHECK_INT(sides[i].last, I2PSOCK_STATE_DEAD);
            }
            side_close(&sides[i]);
        }
        bridge_stop(&b);
        CHECK_INT(count_fds(), fds);
    }
}

static const test_case tests[] = {
    T_LONG(killed_three_times), T_LONG(nobody_there_for_a_while), T_LONG(name_is_kept), T_LONG(closed_in_the_middle),
};
MAIN(tests)
