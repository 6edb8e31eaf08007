/* fork(2): in the child nothing works on the parent's handles, and nothing disturbs the parent. */
#include "harness.h"

typedef struct {
    pair p;
    i2psock_pending *accepting, *looking, *opening, *done;
    /* Lookups on connections of their own, as the session's is busy, and more than there may be at a time. */
    i2psock_pending *asking[12];
    i2psock_dest *no_keeper_dest;
    i2psock_controller *no_keeper;
} world;

static void *accept_later(void *arg) {
    world *w = (world *) arg;
    i2psock_stream *s = NULL;
    OK(i2psock_dest_accept(w->p.there, HANG, &s, &E));
    i2psock_stream_free(s);
    err_done();
    return NULL;
}

static void world_open(world *w) {
    char name[16];
    int i;
    memset(w, 0, sizeof *w);
    pair_open(&w->p);
    w->no_keeper = open_port(common.port, 0);
    w->no_keeper_dest = open_dest(w->no_keeper);
    OK(i2psock_dest_accept_start(w->p.here, -1, &w->accepting, &E));
    while (i2psock_pending_stage(w->accepting) != I2PSOCK_STAGE_LISTENING) ST(I2PSOCK_BLOCK, i2psock_pending_wait(w->accepting, 1, &E));
    OK(i2psock_dest_lookup_start(w->p.here, "ME", HANG, &w->looking, &E));
    OK(i2psock_dest_open_start(w->p.controller, NULL, I2PSOCK_STREAM, NULL, HANG, &w->opening, &E));
    OK(i2psock_controller_lookup_start(w->p.controller, DEST_B, HANG, &w->done, &E));
    for (i = 0; i < 12; i++) {
        snprintf(name, sizeof name, "n%d.i2p", i);
        OK(i2psock_dest_lookup_start(w->p.there, name, HANG, &w->asking[i], &E));
    }
}

static void world_close(world *w) {
    int i;
    for (i = 0; i < 12; i++) i2psock_pending_free(w->asking[i]);
    i2psock_pending_free(w->accepting);
    i2psock_pending_free(w->looking);
    i2psock_pending_free(w->opening);
    i2psock_pending_free(w->done);
    i2psock_dest_close(w->no_keeper_dest);
    i2psock_controller_close(w->no_keeper);
    pair_close(&w->p);
}

static void parent_works(world *w) {
    char b[4];
    size_t n;
    i2psock_addr *a = NULL;
    i2psock_dest *d = NULL;
    i2psock_stream *s = NULL;
    pthread_t t;
    int i;
    OK(i2psock_stream_send(w->p.out, "ping", 4, 0, NULL, &E));
    OK(i2psock_stream_recv(w->p.in, b, 4, MSG_WAITALL, &n, &E));
    OK(i2psock_stream_send(w->p.in, "pong", 4, 0, NULL, &E));
    OK(i2psock_stream_recv(w->p.out, b, 4, MSG_WAITALL, &n, &E));
    OK(i2psock_pending_wait(w->looking, -1, &E));
    OK(i2psock_pending_finish_addr(w->looking, &a, &E));
    i2psock_addr_free(a);
    OK(i2psock_pending_wait(w->opening, -1, &E));
    OK(i2psock_pending_finish_dest(w->opening, &d, &E));
    i2psock_dest_close(d);
    for (i = 11; i >= 0; i--) ST(I2PSOCK_NETWORK, i2psock_pending_wait(w->asking[i], -1, &E));
    OK(i2psock_dest_lookup(w->p.there, "ME", HANG, &a, &E));
    i2psock_addr_free(a);
    OK(i2psock_dest_lookup(w->no_keeper_dest, "ME", HANG, &a, &E));
    i2psock_addr_free(a);
    t = start_thread(accept_later, w);
    OK(i2psock_dest_connect(w->p.here, dest_text(w->p.there), NULL, HANG, &s, &E));
    join_thread(t);
    i2psock_stream_free(s);
    s = NULL;
    /* The accept that listened before the fork still does. */
    OK(i2psock_dest_connect(w->p.there, dest_text(w->p.here), NULL, HANG, &s, &E));
    OK(i2psock_pending_wait(w->accepting, HANG, &E));
    i2psock_stream_free(s);
    CHECK_INT(i2psock_dest_state(w->p.here, NULL), I2PSOCK_STATE_READY);
    CHECK_INT(i2psock_dest_state(w->no_keeper_dest, NULL), I2PSOCK_STATE_READY);
}

#define STATE(call) ST(I2PSOCK_STATE, call)

static void child_tries_everything(void *arg) {
    world *w = (world *) arg;
    i2psock_controller *c = w->p.controller;
    i2psock_dest *d = w->p.here, *no_dest = (i2psock_dest *) 0x55;
    i2psock_stream *s = w->p.out, *no_stream = (i2psock_stream *) 0x55;
    i2psock_pending *n = w->accepting, *no_pending = (i2psock_pending *) 0x55;
    i2psock_addr *a = (i2psock_addr *) 0x55;
    i2psock_keys *k = (i2psock_keys *) 0x55;
    i2psock_state state = I2PSOCK_STATE_DEAD;
    i2psock_fd fd = 5;
    char b[4];
    size_t count = 5;
    int keeper;
    STATE(i2psock_controller_check(c, 1000, &E));
    STATE(i2psock_controller_lookup(c, "x.i2p", 1000, &a, &E));
    CHECK(a == NULL);
    STATE(i2psock_controller_lookup(c, DEST_A, 1000, &a, &E));
    STATE(i2psock_controller_lookup_start(c, "x.i2p", 1000, &no_pending, &E));
    CHECK(no_pending == NULL);
    STATE(i2psock_controller_set_log(c, NULL, NULL, &E));
    STATE(i2psock_keys_generate(c, 7, 1000, &k, &E));
    CHECK(k == NULL);
    STATE(i2psock_dest_open(c, NULL, I2PSOCK_STREAM, NULL, 1000, &no_dest, &E));
    CHECK(no_dest == NULL);
    STATE(i2psock_dest_open_start(c, NULL, I2PSOCK_STREAM, NULL, 1000, &no_pending, &E));
    for (keeper = 0; keeper < 2; keeper++) {
        STATE(i2psock_dest_connect(d, DEST_A, NULL, 1000, &no_stream, &E));
        CHECK(no_stream == NULL);
        STATE(i2psock_dest_connect_start(d, DEST_A, NULL, 1000, &no_pending, &E));
        STATE(i2psock_dest_accept(d, 1000, &no_stream, &E));
        STATE(i2psock_dest_accept_start(d, 1000, &no_pending, &E));
        STATE(i2psock_dest_lookup(d, "ME", 1000, &a, &E));
        STATE(i2psock_dest_lookup(d, DEST_A, 1000, &a, &E));
        STATE(i2psock_dest_lookup_start(d, "ME", 1000, &no_pending, &E));
        STATE(i2psock_dest_service(d, &state, &E));
        CHECK_INT(state, I2PSOCK_STATE_NONE);
        STATE(i2psock_dest_shutdown(d, &E));
        d = w->no_keeper_dest;
    }
    STATE(i2psock_pending_step(n, &E));
    STATE(i2psock_pending_wait(n, 1000, &E));
    STATE(i2psock_pending_finish_stream(n, &no_stream, &E));
    STATE(i2psock_pending_step(w->looking, &E));
    STATE(i2psock_pending_finish_addr(w->looking, &a, &E));
    STATE(i2psock_pending_step(w->asking[11], &E));
    i2psock_pending_timeout_ms(w->asking[11]);
    CHECK(i2psock_pending_stage_name(w->asking[5]) != NULL);
    STATE(i2psock_pending_finish_dest(w->opening, &no_dest, &E));
    STATE(i2psock_pending_step(w->done, &E));
    STATE(i2psock_pending_finish_addr(w->done, &a, &E));
    CHECK(a == NULL);
    STATE(i2psock_stream_take_fd(s, &fd, &E));
    CHECK_INT(fd, -1);
    STATE(i2psock_stream_send(s, "x", 1, 0, &count, &E));
    CHECK_INT(count, 0);
    STATE(i2psock_stream_send_all(s, "x", 1, &count, &E));
    STATE(i2psock_stream_recv(s, b, 4, MSG_DONTWAIT, &count, &E));
    STATE(i2psock_stream_set_nonblocking(s, 1, &E));
    STATE(i2psock_stream_set_timeout(s, 1, &E));
    STATE(i2psock_stream_shutdown(s, &E));
    /* Getters go on telling. */
    CHECK(dest_text(w->p.here) != NULL);
    CHECK_STR(i2psock_dest_name(w->p.here), "");
    CHECK(i2psock_stream_peer(s) != NULL);
    CHECK(i2psock_controller_version(c) != NULL);
    CHECK(i2psock_pending_stage_name(n) != NULL);
    k = i2psock_dest_keys(w->p.here);
    CHECK(k != NULL);
    i2psock_keys_free(k);
    /* What needs no handle of the parent works. */
    OK(i2psock_addr_parse(DEST_A, 7, &a, &E));
    i2psock_addr_free(a);
    err_done();
}

static void every_call_is_state(void) {
    world w;
    world_open(&w);
    CHECK_INT(in_child(child_tries_everything, &w), 0);
    parent_works(&w);
    world_close(&w);
}

static int base_fds;

static void child_frees_all(void *arg) {
    world *w = (world *) arg;
    world_close(w);
    if (count_fds() != base_fds) fail_at(__FILE__, __LINE__, "%d descriptors are left in the child, %d were before the first handle", count_fds(), base_fds);
}

static void child_closes_stream_slowly(void *arg) {
    world *w = (world *) arg;
    CHECK(i2psock_stream_close(w->p.out, 1000, NULL) == I2PSOCK_STATE);
    CHECK(i2psock_stream_close(w->p.in, -1, NULL) == I2PSOCK_STATE);
    w->p.in = w->p.out = NULL;
    i2psock_controller_close(w->p.controller);
    w->p.controller = NULL;
    i2psock_dest_close(w->p.here);
    w->p.here = NULL;
    i2psock_dest_close(w->p.there);
    w->p.there = NULL;
}

static void free_in_the_child(void) {
    world w;
    int tries;
    base_fds = count_fds();
    world_open(&w);
    CHECK_INT(in_child(child_closes_stream_slowly, &w), 0);
    /* What the keeper had locked at that moment stays open. When it is at rest that is nothing, but it may begin at any time. */
    for (tries = 0; quiet_fds(), in_child(child_frees_all, &w) != 0; tries++) CHECK(tries < 20);
    parent_works(&w);
    world_close(&w);
}

static void child_leaves_the_epoll_alone(void *arg) {
    world *w = (world *) arg;
    i2psock_dest_close(w->no_keeper_dest);
    i2psock_controller_close(w->no_keeper);
}

static void without_keeper(void) {
    world w;
    bridge b;
    int i;
    i2psock_state state;
    i2psock_controller *mine;
    bridge_start(&b, "--ping-every", "20", NULL);
    world_open(&w);
    mine = w.no_keeper;
    i2psock_dest_close(w.no_keeper_dest);
    w.no_keeper = open_port(b.port, 0);
    w.no_keeper_dest = open_dest(w.no_keeper);
    i2psock_controller_close(mine);
    CHECK_INT(in_child(child_leaves_the_epoll_alone, &w), 0);
    OK(i2psock_dest_service(w.no_keeper_dest, &state, &E));
    /* The parent's descriptor still tells when the bridge has spoken. */
    for (i = 0; i < 3; i++) {
        CHECK(readable(i2psock_dest_fd(w.no_keeper_dest), HANG));
        ST(I2PSOCK_BLOCK, i2psock_dest_service(w.no_keeper_dest, &state, &E));
    }
    parent_works(&w);
    world_close(&w);
    bridge_stop(&b);
}

/* A child may of course begin anew. */
static void child_opens_its_own(void *arg) {
    world *w = (world *) arg;
    i2psock_controller *c = open_common();
    i2psock_dest *d = open_dest(c);
    i2psock_addr *a = NULL;
    OK(i2psock_dest_lookup(d, "ME", HANG, &a, &E));
    i2psock_addr_free(a);
    i2psock_dest_close(d);
    i2psock_controller_close(c);
    world_close(w);
    err_done();
}

static void anew_in_the_child(void) {
    world w;
    world_open(&w);
    CHECK_INT(in_child(child_opens_its_own, &w), 0);
    parent_works(&w);
    world_close(&w);
}

/* ---- the keeper and other threads are busy when it happens ---- */

static volatile int stop_busy;

static void *busy(void *arg) {
    i2psock_dest *d = (i2psock_dest *) arg;
    while (!stop_busy) {
        i2psock_addr *a = NULL;
        i2psock_stream *s = NULL;
        OK(i2psock_dest_lookup(d, "ME", HANG, &a, &E));
        i2psock_addr_free(a);
        ST(I2PSOCK_TIMEOUT, i2psock_dest_accept(d, 1, &s, &E));
    }
    err_done();
    return NULL;
}

static void child_frees_and_looks(void *arg) {
    world *w = (world *) arg;
    i2psock_dest_state(w->p.here, NULL);
    i2psock_dest_close(w->p.here);
    i2psock_dest_close(w->p.there);
    i2psock_controller_close(w->p.controller);
}

static void with_busy_threads(void) {
    world w;
    bridge b;
    pthread_t t[3];
    int i, rounds = under_valgrind() ? 20 : 150;
    bridge_start(&b, "--ping-every", "1", NULL);
    memset(&w, 0, sizeof w);
    w.p.controller = open_port(b.port, 1);
    w.p.here = open_dest(w.p.controller);
    w.p.there = open_dest(w.p.controller);
    stop_busy = 0;
    for (i = 0; i < 3; i++) t[i] = start_thread(busy, i ? w.p.here : w.p.there);
    for (i = 0; i < rounds; i++) CHECK_INT(in_child(child_frees_and_looks, &w), 0);
    stop_busy = 1;
    for (i = 0; i < 3; i++) join_thread(t[i]);
    CHECK_INT(i2psock_dest_state(w.p.here, NULL), I2PSOCK_STATE_READY);
    CHECK_INT(i2psock_dest_state(w.p.there, NULL), I2PSOCK_STATE_READY);
    i2psock_dest_close(w.p.here);
    i2psock_dest_close(w.p.there);
    i2psock_controller_close(w.p.controller);
    bridge_stop(&b);
}

/* ---- listeners, names and recovery ---- */

/* What a server has: a name, shared by two handles, a listener with a stream nobody has fetched, opens under way. */
typedef struct {
    i2psock_controller *c;
    i2psock_dest *alice, *again, *client;
    i2psock_listener *l, *idle;
    i2psock_pending *opening, *waiting, *accepting;
    i2psock_stream *out, *in;
    int fds;
} server;

static void server_open(server *s, const bridge *b, int keeper, const char *folder) {
    memset(s, 0, sizeof *s);
    s->fds = count_fds();
    s->c = open_store(b->port, keeper, folder);
    s->alice = open_named(s->c, "alice");
    s->again = open_named(s->c, "alice");
    s->client = open_recovering(s->c);
    s->l = open_listener(s->alice, 4);
    meet(s->client, s->alice, s->l, &s->out, &s->in);
    s->idle = open_listener(s->client, 0);
}

/* In two orders: the one a program would choose, and the other way round. */
static void server_free(server *s, int backwards) {
    int i;
    for (i = 0; i < 10; i++) {
        switch (backwards ? 9 - i : i) {
        case 0: i2psock_pending_free(s->waiting); break;
        case 1: i2psock_pending_free(s->opening); break;
        case 2: i2psock_pending_free(s->accepting); break;
        case 3: i2psock_stream_free(s->in); break;
        case 4: i2psock_stream_free(s->out); break;
        case 5: i2psock_listener_close(s->idle); break;
        case 6: i2psock_listener_close(s->l); break;
        case 7: i2psock_dest_close(s->again); i2psock_dest_close(s->alice); break;
        case 8: i2psock_dest_close(s->client); break;
        default: i2psock_controller_close(s->c);
        }
    }
}

enum { FREES, FREES_BACKWARDS, TRIES, EXECS, KINDS };

static void child_of_server(server *s, int kind) {
    if (kind == FREES || kind == FREES_BACKWARDS) server_free(s, kind == FREES_BACKWARDS);
    if (kind == EXECS) check_all_cloexec();
    if (kind == TRIES) {
        i2psock_stream *t = (i2psock_stream *) 0x55;
        i2psock_listener *l = (i2psock_listener *) 0x55;
        i2psock_dest *d = (i2psock_dest *) 0x55;
        i2psock_state state = I2PSOCK_STATE_DEAD;
        STATE(i2psock_listener_accept(s->l, &t, &E));
        CHECK(t == NULL);
        STATE(i2psock_listener_open(s->alice, 0, NULL, &l, &E));
        CHECK(l == NULL);
        STATE(i2psock_dest_open(s->c, "alice", I2PSOCK_STREAM, NULL, 1000, &d, &E));
        CHECK(d == NULL);
        STATE(i2psock_dest_service(s->alice, &state, &E));
        STATE(i2psock_dest_shutdown(s->again, &E));
        /* Getters do not wait for threads that are not here. */
        CHECK(i2psock_listener_fd(s->l) >= 0);
        CHECK(i2psock_dest_fd(s->alice) >= 0);
        i2psock_listener_timeout_ms(s->l);
        i2psock_dest_timeout_ms(s->alice);
        CHECK(i2psock_dest_state(s->alice, NULL) != I2PSOCK_STATE_NONE);
        CHECK(i2psock_dest_attempt(s->alice) >= 0);
        CHECK(i2psock_listener_failures(s->l, NULL) >= 0);
        CHECK_STR(i2psock_dest_name(s->alice), "alice");
        CHECK(dest_text(s->alice) != NULL);
        err_done();
    }
}

/* A child of each kind, one after the other: whatever they do, it is only their own. */
static void fork_all_kinds(server *s) {
    int kind, status;
    for (kind = 0; kind < KINDS; kind++) {
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) {
            E = NULL;
            alarm((unsigned) (HANG / 1000));
            child_of_server(s, kind);
            execl("/bin/true", "true", (char *) NULL);
            _exit(77);
        }
        while (waitpid(child, &status, 0) < 0) CHECK(errno == EINTR);
        if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
            fail_at(__FILE__, __LINE__, "child %d: %s %d", kind, WIFSIGNALED(status) ? "signal" : "exit", WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
        }
    }
}

static void server_works(server *s) {
    i2psock_stream *out = NULL, *in = NULL;
    char b[4];
    size_t n = 0;
    meet(s->client, s->again, s->l, &out, &in);
    OK(i2psock_stream_send(in, "ping", 4, 0, NULL, &E));
    OK(i2psock_stream_recv(out, b, 4, MSG_WAITALL, &n, &E));
    i2psock_stream_free(out);
    i2psock_stream_free(in);
    CHECK_INT(i2psock_dest_state(s->alice, NULL), I2PSOCK_STATE_READY);
}

static void name_is_ours(const bridge *b, const char *folder) {
    i2psock_controller *other = open_store(b->port, 1, folder);
    i2psock_dest *d = NULL;
    STATE(i2psock_dest_open(other, "alice", I2PSOCK_STREAM, NULL, HANG, &d, &E));
    i2psock_controller_close(other);
}

static void a_named_server(int keeper) {
    char *folder = folder_new();
    server s;
    bridge b;
    int i, rounds = under_valgrind() ? 3 : 15;
    bridge_start(&b, "--ping-every", "1", NULL);
    server_open(&s, &b, keeper, folder);
    for (i = 0; i < rounds; i++) {
        OK(i2psock_dest_open_start(s.c, "Bob", I2PSOCK_STREAM, NULL, HANG, &s.opening, &E));
        OK(i2psock_dest_open_start(s.c, "Bob", I2PSOCK_STREAM, NULL, HANG, &s.waiting, &E));
        OK(i2psock_dest_accept_start(s.client, -1, &s.accepting, &E));
        fork_all_kinds(&s);
        OK(i2psock_pending_wait(s.opening, -1, &E));
        OK(i2psock_pending_wait(s.waiting, -1, &E));
        i2psock_pending_free(s.opening);
        i2psock_pending_free(s.waiting);
        i2psock_pending_free(s.accepting);
        s.opening = s.waiting = s.accepting = NULL;
        server_works(&s);
        if (i == 0 || i + 1 == rounds) name_is_ours(&b, folder);
    }
    server_free(&s, 0);
    CHECK_INT(count_fds(), s.fds);
    bridge_stop(&b);
    folder_remove(folder);
}
static void server_with_keeper(void) { a_named_server(1); }
static void server_without_keeper(void) { a_named_server(0); }

/* Getters do not wait for threads that are not there any more, whatever those were doing just then. */
static void *asking(void *arg) {
    const server *s = (const server *) arg;
    while (!stop_busy) {
        i2psock_dest_state(s->alice, NULL);
        i2psock_dest_attempt(s->alice);
        i2psock_listener_failures(s->l, NULL);
        i2psock_dest_timeout_ms(s->client);
        i2psock_listener_timeout_ms(s->l);
        i2psock_stream_fd(s->in);
        i2psock_stream_unsent(s->in);
    }
    return NULL;
}

static void getters_in_the_child(void) {
    char *folder = folder_new();
    int keeper;
    for (keeper = 0; keeper < 2; keeper++) {
        server s;
        pthread_t t[4];
        int i, status, rounds = under_valgrind() ? 20 : 200;
        server_open(&s, &common, keeper, folder);
        stop_busy = 0;
        for (i = 0; i < 4; i++) t[i] = start_thread(asking, &s);
        for (i = 0; i < rounds; i++) {
            pid_t child = fork();
            CHECK(child >= 0);
            if (child == 0) {
                alarm((unsigned) (HANG / 1000));
                i2psock_dest_timeout_ms(s.alice);
                CHECK(i2psock_dest_state(s.alice, NULL) != I2PSOCK_STATE_NONE);
                CHECK(i2psock_dest_attempt(s.alice) >= 0);
                CHECK(i2psock_listener_failures(s.l, NULL) >= 0);
                i2psock_listener_timeout_ms(s.l);
                CHECK(i2psock_stream_fd(s.in) >= 0);
                i2psock_stream_unsent(s.in);
                server_free(&s, i % 2);
                execl("/bin/true", "true", (char *) NULL);
                _exit(77);
            }
            while (waitpid(child, &status, 0) < 0) CHECK(errno == EINTR);
            if (!WIFEXITED(status)) fail_at(__FILE__, __LINE__, "child %d died of signal %d", i, WTERMSIG(status));
            CHECK_INT(WEXITSTATUS(status), 0);
        }
        stop_busy = 1;
        for (i = 0; i < 4; i++) join_thread(t[i]);
        server_works(&s);
        server_free(&s, 0);
    }
    folder_remove(folder);
}

/* The same while the session is being opened again: the parent's goes on. */
static void while_recovering(void) {
    char *folder = folder_new(), *other_folder = folder_new();
    server s[2];
    bridge b;
    int i, ready, rounds = 0;
    bridge_start_to_stay(&b);
    for (i = 0; i < 2; i++) server_open(&s[i], &b, i, i ? folder : other_folder);
    bridge_stop(&b);
    for (i = 0; i < 2; i++) {
        while (i2psock_dest_state(s[i].alice, NULL) == I2PSOCK_STATE_READY) {
            i2psock_state state;
            if (i == 0) ST(ANY, i2psock_dest_service(s[i].alice, &state, &E));
            pause_ms(1);
        }
        fork_all_kinds(&s[i]);
    }
    bridge_start_again(&b, "--build-delay", "300");
    do {
        ready = 1;
        for (i = 0; i < 2; i++) {
            if (!i) {
                i2psock_state state;
                while (ST(ANY, i2psock_dest_service(s[i].alice, &state, &E)) == I2PSOCK_OK) { }
                while (ST(ANY, i2psock_dest_service(s[i].client, &state, &E)) == I2PSOCK_OK) { }
            }
            ready &= i2psock_dest_state(s[i].alice, NULL) == I2PSOCK_STATE_READY && i2psock_dest_state(s[i].client, NULL) == I2PSOCK_STATE_READY;
        }
        if (rounds++ < (under_valgrind() ? 3 : 50)) fork_all_kinds(&s[rounds % 2]);
        else pause_ms(5);
    } while (!ready);
    for (i = 0; i < 2; i++) {
        server_works(&s[i]);
        name_is_ours(&b, i ? folder : other_folder);
        server_free(&s[i], 1);
    }
    bridge_stop(&b);
    folder_remove(folder);
    folder_remove(other_folder);
}

/* A child that lives on with all it inherited does not keep the name from its parent. */
static void a_child_that_stays(void) {
    char *folder = folder_new();
    i2psock_controller *c = open_store(common.port, 1, folder);
    i2psock_dest *alice = open_named(c, "alice");
    int i, status;
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        alarm((unsigned) (HANG / 1000));
        for (;;) pause();
    }
    for (i = 0; i < 2; i++) {
        i2psock_dest_close(alice);
        alice = open_named(c, "alice");
    }
    i2psock_dest_close(alice);
    i2psock_controller_close(c);
    CHECK(kill(child, SIGKILL) == 0);
    while (waitpid(child, &status, 0) < 0) CHECK(errno == EINTR);
    folder_remove(folder);
}

static const test_case tests[] = {
    T(every_call_is_state), T(free_in_the_child), T(without_keeper), T(anew_in_the_child), T_LONG(with_busy_threads),
    T_LONG(server_with_keeper), T_LONG(server_without_keeper), T_LONG(getters_in_the_child), T_LONG(while_recovering), T(a_child_that_stays),
};
MAIN(tests)
