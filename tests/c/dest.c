/* Destinations: open, getters, keys, life and death, control socket, lookup. */
#include "harness.h"

static void getters(void) {
    i2psock_controller *c = open_common();
    i2psock_options *o = i2psock_options_new();
    i2psock_dest *d = NULL, *other;
    i2psock_state state = I2PSOCK_STATE_NONE;
    i2psock_keys *k;
    i2psock_addr *a;
    OK(i2psock_options_set(o, "nickname", "my-label", &E));
    OK(i2psock_dest_open(c, "", I2PSOCK_STREAM, o, I2PSOCK_TIMEOUT_NONE, &d, &E));
    CHECK_STR(i2psock_dest_nickname(d), "my-label");
    CHECK_STR(i2psock_dest_name(d), "");
    CHECK_INT(i2psock_dest_style(d), I2PSOCK_STREAM);
    CHECK_INT(i2psock_addr_sig_type(i2psock_dest_addr(d)), 7);
    CHECK_INT(i2psock_dest_timeout_ms(d), -1);
    err_prepare();
    CHECK_INT(i2psock_dest_state(d, &E), I2PSOCK_STATE_READY);
    CHECK(E == NULL);
    check_cloexec(i2psock_dest_fd(d));
    CHECK(readable(i2psock_dest_fd(d), 0));
    OK(i2psock_dest_service(d, &state, &E));
    CHECK_INT(state, I2PSOCK_STATE_READY);
    ST(I2PSOCK_BLOCK, i2psock_dest_service(d, &state, &E));
    CHECK_INT(state, I2PSOCK_STATE_NONE);
    CHECK(!readable(i2psock_dest_fd(d), 0));
    k = i2psock_dest_keys(d);
    a = i2psock_keys_addr(k);
    CHECK_INT(i2psock_addr_equal(a, i2psock_dest_addr(d)), 1);
    other = open_dest(c);
    CHECK_INT(i2psock_addr_equal(a, i2psock_dest_addr(other)), 0);
    CHECK(strcmp(i2psock_dest_nickname(other), "my-label") != 0);
    CHECK(strchr(i2psock_dest_nickname(other), ' ') == NULL && *i2psock_dest_nickname(other));
    i2psock_dest_close(other);

    /* Opened again with its own keys it has the same address. */
    ST(I2PSOCK_OK, i2psock_options_set_keys(o, k, &E));
    other = NULL;
    /* Waited for up to the limit: it may be about to end. */
    ST(I2PSOCK_NETWORK, i2psock_dest_open(c, NULL, I2PSOCK_STREAM, o, 300, &other, &E));
    ERR(I2PSOCK_OP_CREATE, "DUPLICATED_DEST", "");
    CHECK(other == NULL);
    i2psock_dest_close(d);
    OK(i2psock_dest_open(c, NULL, I2PSOCK_STREAM, o, HANG, &other, &E));
    CHECK_INT(i2psock_addr_equal(a, i2psock_dest_addr(other)), 1);
    i2psock_dest_close(other);
    /* Keys and a type for new keys contradict each other. */
    OK(i2psock_options_set_int(o, "signature_type", 7, &E));
    ST(I2PSOCK_INVALID, i2psock_dest_open(c, NULL, I2PSOCK_STREAM, o, HANG, &other, &E));
    i2psock_keys_free(k);
    i2psock_addr_free(a);
    i2psock_options_free(o);
    i2psock_controller_close(c);
}

static void wrong_arguments(void) {
    i2psock_controller *c = open_common();
    i2psock_dest *d = (i2psock_dest *) 0x55;
    ST(I2PSOCK_INVALID, i2psock_dest_open(c, NULL, 6, NULL, HANG, &d, &E));
    CHECK(d == NULL);
    ST(I2PSOCK_INVALID, i2psock_dest_open(c, NULL, 0, NULL, HANG, &d, &E));
    ST(I2PSOCK_INVALID, i2psock_dest_open(c, NULL, 99, NULL, HANG, &d, &E));
    ST(I2PSOCK_INVALID, i2psock_dest_open(c, NULL, -1, NULL, HANG, &d, &E));
    ST(I2PSOCK_INVALID, i2psock_dest_open(c, NULL, I2PSOCK_STREAM, NULL, -3, &d, &E));
    i2psock_controller_close(c);
}

static void create_errors(void) {
    static const struct { const char *reply; int status; const char *tag, *text; } cases[] = {
        { "SESSION STATUS RESULT=DUPLICATED_DEST\n", I2PSOCK_NETWORK, "DUPLICATED_DEST", "DUPLICATED_DEST" },
        { "SESSION STATUS RESULT=DUPLICATE_DEST MESSAGE=\"in use\"\n", I2PSOCK_NETWORK, "DUPLICATED_DEST", "in use" },
        { "SESSION STATUS RESULT=DUPLICATE_ID\n", I2PSOCK_NETWORK, "DUPLICATED_ID", "" },
        { "SESSION STATUS RESULT=INVALID_KEY MESSAGE=oops\n", I2PSOCK_NETWORK, "INVALID_KEY", "oops" },
        { "SESSION STATUS RESULT=I2P_ERROR MESSAGE=\"say \\\"hi\\\" to c:\\\\x\"\n", I2PSOCK_NETWORK, "I2P_ERROR", "say \"hi\" to c:\\x" },
        { "SESSION STATUS RESULT=SOMETHING_NEW\n", I2PSOCK_NETWORK, "SOMETHING_NEW", "" },
        { "SESSION STATUS RESULT=OK\n", I2PSOCK_PROTOCOL, "", "" },
        { "SESSION STATUS RESULT=OK DESTINATION=\n", I2PSOCK_PROTOCOL, "", "" },
        { "SESSION STATUS RESULT=OK DESTINATION=" DEST_A "\n", I2PSOCK_PROTOCOL, "", "" },
        { "SESSION STATUS RESULT=OK DESTINATION=" BAD_TRUNCATED_DEST "\n", I2PSOCK_PROTOCOL, "", "" },
        { "SESSION STATUS DESTINATION=" KEYS_A "\n", I2PSOCK_PROTOCOL, "", "" },
        { "STREAM STATUS RESULT=OK\n", I2PSOCK_PROTOCOL, "", "STREAM STATUS" },
        { "STREAM STATUS RESULT=I2P_ERROR MESSAGE=\"other topic\"\n", I2PSOCK_NETWORK, "I2P_ERROR", "other topic" },
        { "SESSION RESULT=I2P_ERROR MESSAGE=\"no action\"\n", I2PSOCK_NETWORK, "I2P_ERROR", "no action" },
        { "SESSION RESULT=OK DESTINATION=" KEYS_A "\n", I2PSOCK_PROTOCOL, "", "" },
        { "SESSION STATUS RESULT=OK RESULT=OK DESTINATION=" KEYS_A "\n", I2PSOCK_PROTOCOL, "", "" },
        { "SESSION STATUS RESULT=\"OK\n", I2PSOCK_PROTOCOL, "", "" },
        { "SESSION STATUS RESULT=I2P_ERROR MESSAGE=\"\xff\xfe\x1b[0m\"\n", I2PSOCK_NETWORK, "I2P_ERROR", "" },
        { "SESSION STATUS RESULT=I2P\xff MESSAGE=x\n", I2PSOCK_PROTOCOL, "", "" },
        { "\x01\x02\x03\n", I2PSOCK_PROTOCOL, "", "" },
    };
    size_t i;
    for (i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        plan p;
        fake *f;
        i2psock_controller *c;
        i2psock_dest *d = NULL;
        memset(&p, 0, sizeof p);
        p.create = cases[i].reply;
        f = fake_plan(&p);
        c = open_port(fake_port(f), 1);
        ST(cases[i].status, i2psock_dest_open(c, NULL, I2PSOCK_STREAM, NULL, HANG, &d, &E));
        ERR(I2PSOCK_OP_CREATE, cases[i].tag, cases[i].text);
        CHECK_HAS_NOT(i2psock_error_message(E), "\x1b");
        CHECK_HAS_NOT(i2psock_error_message(E), "qkJstRzgXTHeJCf");
        CHECK(d == NULL);
        i2psock_controller_close(c);
        fake_stop(f);
    }
}

static void nothing_of_keys_in_replies(void) {
    plan p;
    fake *f;
    i2psock_controller *c;
    i2psock_pending *n = NULL;
    i2psock_dest *d = NULL;
    memset(&p, 0, sizeof p);
    f = fake_plan(&p);
    c = open_port(fake_port(f), 1);
    OK(i2psock_dest_open_start(c, NULL, I2PSOCK_STREAM, NULL, HANG, &n, &E));
    OK(i2psock_pending_wait(n, -1, &E));
    CHECK_STR(i2psock_pending_reply(n, "RESULT"), "OK");
    CHECK(i2psock_pending_reply(n, "DESTINATION") == NULL);
    CHECK(i2psock_pending_reply(n, "NOTHING") == NULL);
    CHECK(i2psock_pending_reply(n, "result") == NULL);
    CHECK(i2psock_pending_reply(n, "\xff") == NULL);
    OK(i2psock_pending_finish_dest(n, &d, &E));
    CHECK_STR(i2psock_addr_base64(i2psock_dest_addr(d)), DEST_A);
    i2psock_pending_free(n);
    i2psock_dest_close(d);
    i2psock_controller_close(c);
    fake_stop(f);
}

static gate may_die = GATE_INIT;

static void dies_when_told(fake_conn *c) {
    const char *last = (const char *) ((const plan *) c->arg)->user;
    gate_wait(&may_die, 1, HANG);
    if (last) say(c, last);
    shutdown(c->fd, SHUT_RDWR);
}

typedef struct { i2psock_dest *d; int what; i2psock_status status; gate *about; } waiter;

static void *wait_for_it(void *arg) {
    waiter *w = (waiter *) arg;
    i2psock_stream *s = NULL;
    i2psock_addr *a = NULL;
    gate_open(w->about);
    if (w->what == 0) w->status = ST(ANY, i2psock_dest_accept(w->d, -1, &s, &E));
    if (w->what == 1) w->status = ST(ANY, i2psock_dest_connect(w->d, DEST_B, NULL, -1, &s, &E));
    if (w->what == 2) w->status = ST(ANY, i2psock_dest_lookup(w->d, "x.i2p", -1, &a, &E));
    CHECK(s == NULL && a == NULL);
    err_done();
    return NULL;
}

static void ignore_line(fake_conn *c, const char *line) {
    (void) c;
    (void) line;
}

/* Steps until the first request is there: later nobody does. */
static void until_asked(fake *f, i2psock_pending *n, const char *request) {
    long long end = now_ms() + HANG;
    while (fake_lines(f, request) == 0) {
        CHECK_INT(ST(ANY, i2psock_pending_wait(n, 5, &E)), I2PSOCK_BLOCK);
        CHECK(now_ms() < end);
    }
}

/* Everything that waits for a session ends with CLOSED when the session does. `how` 0: the router; 1: shutdown; 2: close
 * of the controller is for stream.c. */
static void death(int keeper, int how, const char *last_words) {
    plan p;
    fake *f;
    i2psock_controller *c;
    i2psock_dest *d;
    i2psock_pending *n[3] = { NULL, NULL, NULL };
    i2psock_stream *s = NULL, *live = NULL;
    i2psock_addr *a = NULL;
    i2psock_state state = I2PSOCK_STATE_NONE;
    waiter w[3];
    pthread_t threads[3];
    gate about = GATE_INIT;
    int i;
    memset(&p, 0, sizeof p);
    p.created = how == 0 ? dies_when_told : NULL;
    p.control = ignore_line;
    p.user = (void *) last_words;
    p.connect = "";
    p.accept = "";
    may_die.count = 0;
    f = fake_plan(&p);
    c = open_port(fake_port(f), keeper);
    d = open_dest(c);
    OK(i2psock_dest_service(d, &state, &E));
    CHECK(!readable(i2psock_dest_fd(d), 0));
    OK(i2psock_dest_accept_start(d, -1, &n[0], &E));
    OK(i2psock_dest_connect_start(d, DEST_B, NULL, -1, &n[1], &E));
    OK(i2psock_dest_lookup_start(d, "x.i2p", -1, &n[2], &E));
    until_asked(f, n[0], "STREAM ACCEPT");
    until_asked(f, n[1], "STREAM CONNECT");
    for (i = 0; i < 3; i++) {
        w[i].d = d;
        w[i].what = i;
        w[i].about = &about;
        threads[i] = start_thread(wait_for_it, &w[i]);
    }
    CHECK(gate_wait(&about, 3, HANG));
    CHECK(fake_saw(f, "STREAM CONNECT", 2, HANG) && fake_saw(f, "STREAM ACCEPT", 2, HANG));
    if (how == 0) gate_open(&may_die);
    else OK(i2psock_dest_shutdown(d, &E));
    for (i = 0; i < 3; i++) {
        join_thread(threads[i]);
        CHECK_INT(w[i].status, I2PSOCK_CLOSED);
    }
    for (i = 0; i < 3; i++) {
        /* The one that was asked when the router spoke is the matter of lookup_when_the_session_dies. */
        if (i == 2 && last_words != NULL) {
            CHECK(ST(ANY, i2psock_pending_wait(n[i], HANG, &E)) != I2PSOCK_OK);
            continue;
        }
        CHECK_INT(ST(ANY, i2psock_pending_wait(n[i], HANG, &E)), I2PSOCK_CLOSED);
        CHECK_INT(ST(ANY, i2psock_pending_step(n[i], &E)), I2PSOCK_CLOSED);
        CHECK_INT(i2psock_pending_stage(n[i]), I2PSOCK_STAGE_FAILED);
        CHECK_INT(i2psock_pending_fd(n[i]), -1);
        CHECK_INT(i2psock_pending_events(n[i]), 0);
        CHECK_INT(i2psock_pending_timeout_ms(n[i]), 0);
    }
    CHECK(readable(i2psock_dest_fd(d), HANG));
    OK(i2psock_dest_service(d, &state, &E));
    CHECK_INT(state, I2PSOCK_STATE_DEAD);
    ST(I2PSOCK_BLOCK, i2psock_dest_service(d, &state, &E));
    CHECK(!readable(i2psock_dest_fd(d), 0));
    err_prepare();
    CHECK_INT(i2psock_dest_state(d, &E), I2PSOCK_STATE_DEAD);
    CHECK(E != NULL && E != POISON);
    CHECK_INT(i2psock_error_status(E), I2PSOCK_CLOSED);
    CHECK(*i2psock_error_message(E) != 0);
    if (last_words) CHECK_HAS(i2psock_error_message(E), "Router restart");
    ST(I2PSOCK_CLOSED, i2psock_dest_connect(d, DEST_B, NULL, HANG, &s, &E));
    CHECK_INT(i2psock_error_operation(E), I2PSOCK_OP_CONNECT);
    ST(I2PSOCK_CLOSED, i2psock_dest_accept(d, HANG, &s, &E));
    CHECK_INT(i2psock_error_operation(E), I2PSOCK_OP_ACCEPT);
    ST(I2PSOCK_CLOSED, i2psock_dest_lookup(d, "y.i2p", HANG, &a, &E));
    CHECK_INT(i2psock_error_operation(E), I2PSOCK_OP_LOOKUP);
    ST(I2PSOCK_CLOSED, i2psock_dest_lookup(d, "ME", HANG, &a, &E));
    CHECK_STR(dest_text(d), DEST_A);
    OK(i2psock_dest_shutdown(d, &E));
    for (i = 0; i < 3; i++) i2psock_pending_free(n[i]);
    i2psock_stream_free(live);
    i2psock_dest_close(d);
    i2psock_controller_close(c);
    fake_stop(f);
}

static void killed_with_keeper(void) { death(1, 0, NULL); }
static void killed_without_keeper(void) { death(0, 0, NULL); }
static void killed_with_a_word(void) { death(1, 0, "SESSION STATUS RESULT=I2P_ERROR MESSAGE=\"Router restart\"\n"); }
static void killed_with_half_a_line(void) { death(1, 0, "SESSION STATUS RESULT=I2P_ERROR MESSAGE=\"Router restart\""); }
static void shut_down_with_keeper(void) { death(1, 1, NULL); }
static void shut_down_without_keeper(void) { death(0, 1, NULL); }

/* CLOSED: "the destination was closed or lost", whether the lookup was on the wire or still in the queue. */
static void lookup_when_the_session_dies(void) {
    plan p;
    fake *f;
    i2psock_controller *c;
    i2psock_dest *d;
    i2psock_pending *n[2] = { NULL, NULL };
    int i;
    static char words[] = "SESSION STATUS RESULT=I2P_ERROR MESSAGE=\"Router restart\"\n";
    memset(&p, 0, sizeof p);
    p.created = dies_when_told;
    p.control = ignore_line;
    p.user = words;
    may_die.count = 0;
    f = fake_plan(&p);
    c = open_port(fake_port(f), 1);
    d = open_dest(c);
    for (i = 0; i < 2; i++) OK(i2psock_dest_lookup_start(d, "x.i2p", -1, &n[i], &E));
    gate_open(&may_die);
    for (i = 1; i >= 0; i--) {
        ST(I2PSOCK_CLOSED, i2psock_pending_wait(n[i], HANG, &E));
        CHECK_HAS(i2psock_error_message(E), "Router restart");
        i2psock_pending_free(n[i]);
    }
    i2psock_dest_close(d);
    i2psock_controller_close(c);
    fake_stop(f);
}

/* ---- PING ---- */

#define PINGS 4
static const char *const pings[PINGS] = { "PING", "PING 1763750000000", "PING a  \"b  c=d\\", "PING  two spaces " };
static const char *const pongs[PINGS] = { "PONG", "PONG 1763750000000", "PONG a  \"b  c=d\\", "PONG  two spaces " };
static gate ponged = GATE_INIT;

static void ping_created(fake_conn *c) {
    char line[512];
    int i;
    for (i = 0; i < PINGS; i++) {
        say(c, pings[i]);
        say(c, "\n");
        do {
            if (!read_line(c, line, sizeof line)) return;
        } while (strncmp(line, "NAMING", 6) == 0);
        CHECK_STR(line, pongs[i]);
    }
    gate_open(&ponged);
}

static void pinged(int keeper, int how) {
    plan p;
    fake *f;
    i2psock_controller *c;
    i2psock_dest *d;
    i2psock_state state;
    memset(&p, 0, sizeof p);
    p.created = ping_created;
    p.control = ignore_line;
    p.connect = "";
    ponged.count = 0;
    f = fake_plan(&p);
    c = open_port(fake_port(f), keeper);
    d = open_dest(c);
    OK(i2psock_dest_service(d, &state, &E));
    if (how == 0) {
        CHECK(gate_wait(&ponged, 1, HANG));
    } else if (how == 1) {
        long long end = now_ms() + HANG;
        while (!gate_wait(&ponged, 1, 0)) {
            CHECK(now_ms() < end);
            if (readable(i2psock_dest_fd(d), 20)) ST(I2PSOCK_BLOCK, i2psock_dest_service(d, &state, &E));
        }
    } else {
        /* A single call that blocks without a keeper does it as well. */
        gate about = GATE_INIT;
        pthread_t thread;
        waiter w;
        w.d = d;
        w.what = how - 2;
        w.about = &about;
        thread = start_thread(wait_for_it, &w);
        CHECK(gate_wait(&ponged, 1, HANG));
        OK(i2psock_dest_shutdown(d, &E));
        join_thread(thread);
        CHECK_INT(w.status, I2PSOCK_CLOSED);
    }
    i2psock_dest_close(d);
    i2psock_controller_close(c);
    fake_stop(f);
}

static void ping_keeper(void) { pinged(1, 0); }
static void ping_service(void) { pinged(0, 1); }
static void ping_in_accept(void) { pinged(0, 2); }
static void ping_in_connect(void) { pinged(0, 3); }
static void ping_in_lookup(void) { pinged(0, 4); }

/* ---- lookup ---- */

static void lookups(void) {
    bridge b;
    i2psock_controller *c;
    i2psock_dest *d;
    i2psock_addr *a = NULL;
    i2psock_pending *n = NULL;
    bridge_start(&b, "--host", "example.i2p=" DEST_B, NULL);
    c = open_port(b.port, 1);
    /* Without a destination: directly. */
    OK(i2psock_controller_lookup(c, "example.i2p", HANG, &a, &E));
    CHECK_STR(i2psock_addr_base64(a), DEST_B);
    i2psock_addr_free(a);
    ST(I2PSOCK_NETWORK, i2psock_controller_lookup(c, "nosuch.i2p", HANG, &a, &E));
    ERR(I2PSOCK_OP_LOOKUP, "KEY_NOT_FOUND", "");
    OK(i2psock_controller_lookup(c, DEST_A, HANG, &a, &E));
    CHECK_STR(i2psock_addr_base64(a), DEST_A);
    i2psock_addr_free(a);
    ST(I2PSOCK_INVALID, i2psock_controller_lookup(c, "ME", HANG, &a, &E));
    d = open_dest(c);
    OK(i2psock_controller_lookup(c, "EXAMPLE.i2p", HANG, &a, &E));
    CHECK_STR(i2psock_addr_base64(a), DEST_B);
    i2psock_addr_free(a);
    OK(i2psock_dest_lookup(d, "ME", HANG, &a, &E));
    CHECK_INT(i2psock_addr_equal(a, i2psock_dest_addr(d)), 1);
    i2psock_addr_free(a);
    OK(i2psock_dest_lookup(d, i2psock_addr_host(i2psock_dest_addr(d)), HANG, &a, &E));
    CHECK_INT(i2psock_addr_equal(a, i2psock_dest_addr(d)), 1);
    i2psock_addr_free(a);
    OK(i2psock_dest_lookup(d, DEST_DSA, 0, &a, &E));
    CHECK_STR(i2psock_addr_base64(a), DEST_DSA);
    i2psock_addr_free(a);
    a = (i2psock_addr *) 0x55;
    ST(I2PSOCK_NETWORK, i2psock_dest_lookup(d, HOST_RED, HANG, &a, &E));
    CHECK(a == NULL);
    ST(I2PSOCK_NETWORK, i2psock_dest_lookup(d, "nosuch.i2p", HANG, &a, &E));
    ERR(I2PSOCK_OP_LOOKUP, "KEY_NOT_FOUND", "");
    OK(i2psock_dest_lookup_start(d, "example.i2p", HANG, &n, &E));
    ST(ANY, i2psock_pending_finish_addr(n, &a, &E));
    if (i2psock_pending_stage(n) != I2PSOCK_STAGE_DONE) CHECK(a == NULL);
    i2psock_addr_free(a);
    OK(i2psock_pending_wait(n, -1, &E));
    CHECK_STR(i2psock_pending_reply(n, "NAME"), "example.i2p");
    CHECK_STR(i2psock_pending_reply(n, "VALUE"), DEST_B);
    CHECK_INT(i2psock_pending_stage(n), I2PSOCK_STAGE_DONE);
    i2psock_pending_free(n);
    OK(i2psock_controller_lookup_start(c, DEST_A, HANG, &n, &E));
    OK(i2psock_pending_step(n, &E));
    OK(i2psock_pending_finish_addr(n, &a, &E));
    i2psock_addr_free(a);
    ST(I2PSOCK_STATE, i2psock_pending_finish_addr(n, &a, &E));
    CHECK(a == NULL);
    i2psock_pending_free(n);
    i2psock_dest_close(d);
    /* The closed destination is not asked any more. */
    OK(i2psock_controller_lookup(c, "example.i2p", HANG, &a, &E));
    i2psock_addr_free(a);
    i2psock_controller_close(c);
    bridge_stop(&b);
}

static void slow_names(fake_conn *c, const char *line) {
    /* hang.i2p is answered only when late.i2p is asked for ... which never comes while it is outstanding. */
    if (strcmp(line, "NAMING LOOKUP NAME=hang.i2p") == 0) {
        say(c, "PING hanging\n");
    } else if (strncmp(line, "NAMING LOOKUP NAME=good.i2p", 27) == 0) {
        say(c, "NAMING REPLY RESULT=OK NAME=good.i2p VALUE=" DEST_B "\n");
    }
}

static void hanging_lookup(int keeper) {
    plan p;
    fake *f;
    i2psock_controller *c;
    i2psock_dest *d;
    i2psock_addr *a = NULL;
    long long start;
    memset(&p, 0, sizeof p);
    p.control = slow_names;
    f = fake_plan(&p);
    c = open_port(fake_port(f), keeper);
    d = open_dest(c);
    OK(i2psock_dest_lookup(d, "good.i2p", HANG, &a, &E));
    i2psock_addr_free(a);
    start = now_ms();
    ST(I2PSOCK_TIMEOUT, i2psock_dest_lookup(d, "hang.i2p", 200, &a, &E));
    ERR(I2PSOCK_OP_LOOKUP, "", "200 ms");
    CHECK(now_ms() - start >= 200);
    CHECK(fake_saw(f, "PONG hanging", 1, HANG));
    /* The router still has that question. Another goes on a connection of its own and does not wait. */
    OK(i2psock_dest_lookup(d, "good.i2p", HANG, &a, &E));
    CHECK_STR(i2psock_addr_base64(a), DEST_B);
    i2psock_addr_free(a);
    CHECK_INT(i2psock_dest_state(d, NULL), I2PSOCK_STATE_READY);
    CHECK_INT(fake_lines(f, "NAME=good.i2p"), 2);
    i2psock_dest_close(d);
    i2psock_controller_close(c);
    fake_stop(f);
}
static void hanging_with_keeper(void) { hanging_lookup(1); }
static void hanging_without_keeper(void) { hanging_lookup(0); }

static gate answer_now = GATE_INIT;

static void late_names(fake_conn *c, const char *line) {
    if (strcmp(line, "NAMING LOOKUP NAME=first.i2p") == 0) {
        gate_wait(&answer_now, 1, HANG);
        /* Not even the name is told: it is still the answer to the first question. */
        say(c, "NAMING REPLY RESULT=OK VALUE=" DEST_A "\n");
    } else if (strcmp(line, "NAMING LOOKUP NAME=second.i2p") == 0) {
        /* A stray answer to the first one, once more, then the right one. */
        say(c, "NAMING REPLY RESULT=OK NAME=first.i2p VALUE=" DEST_A "\nSTREAM STATUS RESULT=OK\nNAMING REPLY RESULT=OK NAME=second.i2p VALUE=" DEST_B "\n");
    }
}

static void late_reply(int keeper) {
    plan p;
    fake *f;
    i2psock_controller *c;
    i2psock_dest *d;
    i2psock_addr *a = NULL;
    i2psock_pending *n = NULL;
    memset(&p, 0, sizeof p);
    p.control = late_names;
    answer_now.count = 0;
    f = fake_plan(&p);
    c = open_port(fake_port(f), keeper);
    d = open_dest(c);
    OK(i2psock_dest_lookup_start(d, "first.i2p", HANG, &n, &E));
    CHECK_INT(i2psock_pending_stage(n), I2PSOCK_STAGE_WORKING);
    CHECK(fake_saw(f, "NAME=first.i2p", 1, HANG));
    i2psock_pending_free(n);
    OK(i2psock_dest_lookup_start(d, "second.i2p", HANG, &n, &E));
    /* On a connection of its own it gets the stray answer, so it waits for its turn on the session's. */
    do ST(I2PSOCK_BLOCK, i2psock_pending_wait(n, 30, &E));
    while (fake_lines(f, "NAME=second.i2p") == 0);
    CHECK_INT(fake_lines(f, "NAME=second.i2p"), 1);
    gate_open(&answer_now);
    OK(i2psock_pending_wait(n, -1, &E));
    CHECK_INT(fake_lines(f, "NAME=second.i2p"), 2);
    OK(i2psock_pending_finish_addr(n, &a, &E));
    CHECK_STR(i2psock_addr_base64(a), DEST_B);
    i2psock_addr_free(a);
    i2psock_pending_free(n);
    i2psock_dest_close(d);
    i2psock_controller_close(c);
    fake_stop(f);
}
static void late_with_keeper(void) { late_reply(1); }
static void late_without_keeper(void) { late_reply(0); }

/* The controller asks through a destination; when that one is closed meanwhile, the name is not the worse for it. */
static void *close_dest(void *arg) {
    waiter *w = (waiter *) arg;
    i2psock_addr *a = NULL;
    gate_open(w->about);
    w->status = ST(ANY, i2psock_controller_lookup((const i2psock_controller *) (void *) w->d, "good.i2p", HANG, &a, &E));
    i2psock_addr_free(a);
    err_done();
    return NULL;
}

static gate not_on_session = GATE_INIT;
static void only_direct(fake_conn *c, const char *line) {
    /* The session's own connection (number 1) never answers; another one does. */
    if (c->number == 1) gate_open(&not_on_session);
    else slow_names(c, line);
}

static void controller_lookup_survives_a_dest(void) {
    plan p;
    fake *f;
    i2psock_controller *c;
    i2psock_dest *d;
    waiter w;
    pthread_t thread;
    gate about = GATE_INIT;
    memset(&p, 0, sizeof p);
    p.control = only_direct;
    f = fake_plan(&p);
    c = open_port(fake_port(f), 1);
    d = open_dest(c);
    w.d = (i2psock_dest *) (void *) c;
    w.about = &about;
    thread = start_thread(close_dest, &w);
    CHECK(gate_wait(&not_on_session, 1, HANG));
    i2psock_dest_close(d);
    join_thread(thread);
    CHECK_INT(w.status, I2PSOCK_OK);
    i2psock_controller_close(c);
    fake_stop(f);
}

static void bad_naming_replies(fake_conn *c, const char *line) {
    char reply[2048];
    int k = atoi(line + 20);
    static const char *const values[] = { "VALUE=", "VALUE=abc", "", "VALUE=" BAD_CERT_LEN_PAST_END, "VALUE=" KEYS_A, "VALUE=\xff" };
    if (strncmp(line, "NAMING", 6) != 0) return;
    if (k < 6) {
        snprintf(reply, sizeof reply, "NAMING REPLY RESULT=OK NAME=x%d.i2p %s\n", k, values[k]);
    } else if (k == 6) {
        snprintf(reply, sizeof reply, "NAMING REPLY RESULT=INVALID_KEY NAME=x6.i2p\n");
    } else {
        snprintf(reply, sizeof reply, "NAMING REPLY RESULT=OK NAME=X%d.I2P VALUE=%s\n", k, DEST_A);
    }
    say(c, reply);
}

static void lookup_replies(void) {
    plan p;
    fake *f;
    i2psock_controller *c;
    i2psock_dest *d;
    i2psock_addr *a = NULL;
    int k, on_session;
    char name[32];
    memset(&p, 0, sizeof p);
    p.control = bad_naming_replies;
    f = fake_plan(&p);
    c = open_port(fake_port(f), 1);
    d = open_dest(c);
    for (on_session = 1; on_session >= 0; on_session--) {
        for (k = 0; k < 8; k++) {
            int want = k == 7 ? I2PSOCK_OK : k == 6 ? I2PSOCK_NETWORK : I2PSOCK_PROTOCOL;
            /* A line that is no line is ignored on the session's socket: the lookup then runs into its limit. */
            if (k == 5 && on_session) continue;
            snprintf(name, sizeof name, "x%d.i2p", k);
            if (on_session) ST(want, i2psock_dest_lookup(d, name, HANG, &a, &E));
            else ST(want, i2psock_controller_lookup(c, name, HANG, &a, &E));
            if (k == 6) ERR(I2PSOCK_OP_LOOKUP, "KEY_NOT_FOUND", "INVALID_KEY");
            i2psock_addr_free(a);
        }
        if (on_session) {
            i2psock_dest_close(d);
            d = NULL;
        }
    }
    i2psock_controller_close(c);
    fake_stop(f);
}

static void jam_once(fake_conn *c, const char *line) {
    if (strstr(line, "NAME=bad.i2p") != NULL) say(c, "NAMING REPLY RESULT=OK NAME=bad.i2p VALUE=\xff\n");
    if (strstr(line, "NAME=good.i2p") != NULL) say(c, "NAMING REPLY RESULT=OK NAME=good.i2p VALUE=" DEST_B "\n");
}

/* An answer that cannot be read is an answer: the next question can be asked. */
static void unreadable_answer(void) {
    plan p;
    fake *f;
    i2psock_controller *c;
    i2psock_dest *d;
    i2psock_addr *a = NULL;
    memset(&p, 0, sizeof p);
    p.control = jam_once;
    f = fake_plan(&p);
    c = open_port(fake_port(f), 1);
    d = open_dest(c);
    CHECK(ST(ANY, i2psock_dest_lookup(d, "bad.i2p", 500, &a, &E)) != I2PSOCK_OK);
    OK(i2psock_dest_lookup(d, "good.i2p", HANG, &a, &E));
    i2psock_addr_free(a);
    i2psock_dest_close(d);
    i2psock_controller_close(c);
    fake_stop(f);
}

static const test_case tests[] = {
    T(getters), T(wrong_arguments), T(create_errors), T(nothing_of_keys_in_replies), T(killed_with_keeper), T(killed_without_keeper),
    T(killed_with_a_word), T(killed_with_half_a_line), T(lookup_when_the_session_dies), T(shut_down_with_keeper), T(shut_down_without_keeper), T(ping_keeper),
    T(ping_service), T(ping_in_accept), T(ping_in_connect), T(ping_in_lookup), T(lookups), T(hanging_with_keeper),
    T(hanging_without_keeper), T(late_with_keeper), T(late_without_keeper), T(controller_lookup_survives_a_dest), T(lookup_replies),
    T(unreadable_answer),
};
MAIN(tests)
