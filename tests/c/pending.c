/* Operations driven by the program's own poll loop; giving up; accepts that are given up and taken up again. */
#include "harness.h"

#include <sys/epoll.h>

#define BLOCK(call) ST(I2PSOCK_BLOCK, call)

/* The loop of the header, with everything checked that it promises. Returns the final status. */
static i2psock_status drive(i2psock_pending *n) {
    long long end = now_ms() + HANG;
    uint64_t generation = i2psock_pending_generation(n);
    int last_stage = 0;
    for (;;) {
        i2psock_status got = ST(ANY, i2psock_pending_step(n, &E));
        struct pollfd p;
        int wait;
        CHECK(i2psock_pending_generation(n) >= generation);
        generation = i2psock_pending_generation(n);
        CHECK((int) i2psock_pending_stage(n) >= last_stage);
        last_stage = (int) i2psock_pending_stage(n);
        CHECK(i2psock_pending_stage_name(n) != NULL && *i2psock_pending_stage_name(n));
        if (got != I2PSOCK_BLOCK) {
            CHECK_INT(i2psock_pending_fd(n), -1);
            CHECK_INT(i2psock_pending_events(n), 0);
            CHECK_INT(i2psock_pending_timeout_ms(n), 0);
            CHECK_INT(i2psock_pending_stage(n), got == I2PSOCK_OK ? I2PSOCK_STAGE_DONE : I2PSOCK_STAGE_FAILED);
            return got;
        }
        p.fd = i2psock_pending_fd(n);
        p.events = (short) i2psock_pending_events(n);
        CHECK(p.fd >= 0);
        CHECK(p.events != 0 && (p.events & ~(POLLIN | POLLOUT)) == 0);
        check_cloexec(p.fd);
        wait = i2psock_pending_timeout_ms(n);
        CHECK(wait >= -1);
        if (wait < 0 || wait > 5000) wait = 5000;
        CHECK(poll(&p, 1, wait) >= 0);
        CHECK(now_ms() < end);
    }
}

static void all_kinds(int keeper) {
    i2psock_controller *c = open_port(common.port, keeper);
    i2psock_pending *n = NULL, *m = NULL;
    i2psock_dest *d = NULL;
    i2psock_stream *s = NULL, *in = NULL;
    i2psock_addr *a = NULL;
    OK(i2psock_dest_open_start(c, NULL, I2PSOCK_STREAM, NULL, HANG, &n, &E));
    ST(ANY, i2psock_pending_finish_stream(n, &s, &E));
    CHECK_INT(i2psock_error_status(E), I2PSOCK_STATE);
    CHECK_INT(drive(n), I2PSOCK_OK);
    /* Of the wrong kind: refused, and nothing is lost. */
    ST(I2PSOCK_STATE, i2psock_pending_finish_stream(n, &s, &E));
    ST(I2PSOCK_STATE, i2psock_pending_finish_addr(n, &a, &E));
    OK(i2psock_pending_step(n, &E));
    OK(i2psock_pending_wait(n, 0, &E));
    CHECK_STR(i2psock_pending_reply(n, "RESULT"), "OK");
    OK(i2psock_pending_finish_dest(n, &d, &E));
    {
        i2psock_dest *again = (i2psock_dest *) 0x55;
        ST(I2PSOCK_STATE, i2psock_pending_finish_dest(n, &again, &E));
        CHECK(again == NULL);
    }
    i2psock_pending_free(n);
    CHECK_INT(i2psock_dest_state(d, NULL), I2PSOCK_STATE_READY);
    OK(i2psock_dest_accept_start(d, -1, &n, &E));
    CHECK_INT(i2psock_pending_timeout_ms(n) == 0, 0);
    while (i2psock_pending_stage(n) != I2PSOCK_STAGE_LISTENING) {
        struct pollfd p;
        p.fd = i2psock_pending_fd(n);
        p.events = (short) i2psock_pending_events(n);
        CHECK(poll(&p, 1, HANG) == 1);
        BLOCK(i2psock_pending_step(n, &E));
    }
    /* With nothing to wait for but the peer; without a keeper the router is asked for a sign of life once a minute. */
    CHECK(i2psock_pending_timeout_ms(n) == -1 || i2psock_pending_timeout_ms(n) > 30000);
    CHECK_STR(i2psock_pending_stage_name(n), "waiting for a peer");
    CHECK(!readable(i2psock_pending_fd(n), 50));
    OK(i2psock_dest_connect_start(d, dest_text(d), NULL, HANG, &m, &E));
    CHECK_INT(drive(m), I2PSOCK_OK);
    CHECK(readable(i2psock_pending_fd(n), HANG));
    CHECK_INT(drive(n), I2PSOCK_OK);
    OK(i2psock_pending_finish_stream(m, &s, &E));
    OK(i2psock_pending_finish_stream(n, &in, &E));
    CHECK(fcntl(i2psock_stream_fd(s), F_GETFL) & O_NONBLOCK);
    CHECK(fcntl(i2psock_stream_fd(in), F_GETFL) & O_NONBLOCK);
    i2psock_pending_free(n);
    i2psock_pending_free(m);
    OK(i2psock_stream_send(s, "abc", 3, 0, NULL, &E));
    CHECK(readable(i2psock_stream_fd(in), HANG));
    i2psock_stream_free(s);
    i2psock_stream_free(in);
    OK(i2psock_dest_lookup_start(d, "ME", HANG, &n, &E));
    CHECK_INT(drive(n), I2PSOCK_OK);
    OK(i2psock_pending_finish_addr(n, &a, &E));
    CHECK_INT(i2psock_addr_equal(a, i2psock_dest_addr(d)), 1);
    i2psock_addr_free(a);
    i2psock_pending_free(n);
    /* A bridge may be so quick that the start knows already. */
    while (ST(ANY, i2psock_dest_lookup_start(d, "nosuch.i2p", HANG, &n, &E)) != I2PSOCK_OK) ERR(I2PSOCK_OP_LOOKUP, "KEY_NOT_FOUND", "");
    CHECK_INT(drive(n), I2PSOCK_NETWORK);
    ERR(I2PSOCK_OP_LOOKUP, "KEY_NOT_FOUND", "");
    ST(I2PSOCK_NETWORK, i2psock_pending_step(n, &E));
    ST(I2PSOCK_NETWORK, i2psock_pending_wait(n, -1, &E));
    ST(I2PSOCK_NETWORK, i2psock_pending_finish_addr(n, &a, &E));
    ERR(I2PSOCK_OP_LOOKUP, "KEY_NOT_FOUND", "");
    CHECK(a == NULL);
    CHECK(i2psock_pending_reply(n, "RESULT") != NULL);
    i2psock_pending_free(n);
    while (ST(ANY, i2psock_dest_connect_start(d, DEST_A, NULL, HANG, &n, &E)) != I2PSOCK_OK) ERR(I2PSOCK_OP_CONNECT, "CANT_REACH_PEER", "");
    CHECK_INT(drive(n), I2PSOCK_NETWORK);
    ERR(I2PSOCK_OP_CONNECT, "CANT_REACH_PEER", "");
    CHECK_STR(i2psock_pending_reply(n, "RESULT"), "CANT_REACH_PEER");
    CHECK(i2psock_pending_reply(n, "MESSAGE") != NULL);
    i2psock_pending_free(n);
    i2psock_dest_close(d);
    i2psock_controller_close(c);
}
static void with_keeper(void) { all_kinds(1); }
static void without_keeper(void) { all_kinds(0); }

static void waits(void) {
    i2psock_controller *c = open_common();
    i2psock_dest *d = open_dest(c);
    i2psock_pending *n = NULL;
    i2psock_stream *s = NULL;
    long long start = now_ms();
    OK(i2psock_dest_accept_start(d, HANG, &n, &E));
    ST(I2PSOCK_INVALID, i2psock_pending_wait(n, -2, &E));
    BLOCK(i2psock_pending_wait(n, 0, &E));
    BLOCK(i2psock_pending_wait(n, 50, &E));
    CHECK(now_ms() - start >= 50);
    ST(I2PSOCK_STATE, i2psock_pending_finish_stream(n, &s, &E));
    CHECK(i2psock_pending_timeout_ms(n) > 0 && i2psock_pending_timeout_ms(n) <= HANG - 50);
    i2psock_pending_free(n);
    start = now_ms();
    OK(i2psock_dest_accept_start(d, 500, &n, &E));
    CHECK(i2psock_pending_timeout_ms(n) <= 500);
    ST(I2PSOCK_TIMEOUT, i2psock_pending_wait(n, -1, &E));
    ERR(I2PSOCK_OP_ACCEPT, "", "500 ms");
    CHECK(now_ms() - start >= 500 && now_ms() - start < HANG);
    ST(I2PSOCK_TIMEOUT, i2psock_pending_step(n, &E));
    ST(I2PSOCK_TIMEOUT, i2psock_pending_finish_stream(n, &s, &E));
    CHECK(s == NULL);
    i2psock_pending_free(n);
    ST(I2PSOCK_INVALID, i2psock_dest_accept_start(d, -3, &n, &E));
    ST(I2PSOCK_INVALID, i2psock_dest_connect_start(d, DEST_A, NULL, -3, &n, &E));
    ST(I2PSOCK_INVALID, i2psock_dest_lookup_start(d, "x.i2p", -2147483647 - 1, &n, &E));
    /* A limit beyond all time. */
    OK(i2psock_dest_accept_start(d, 2147483647, &n, &E));
    BLOCK(i2psock_pending_wait(n, 10, &E));
    CHECK(i2psock_pending_timeout_ms(n) > 2000000000);
    i2psock_pending_free(n);
    i2psock_dest_close(d);
    i2psock_controller_close(c);
}

/* Edge-triggered epoll, told anew when the generation rises. */
static void with_epoll(void) {
    i2psock_controller *c = open_common();
    i2psock_pending *n = NULL;
    i2psock_dest *d = NULL;
    int epoll = epoll_create1(EPOLL_CLOEXEC), rounds = 0;
    uint64_t known = 0;
    i2psock_status got;
    OK(i2psock_dest_open_start(c, NULL, I2PSOCK_STREAM, NULL, HANG, &n, &E));
    while ((got = ST(ANY, i2psock_pending_step(n, &E))) == I2PSOCK_BLOCK) {
        struct epoll_event event;
        memset(&event, 0, sizeof event);
        event.events = EPOLLET;
        if (i2psock_pending_events(n) & POLLIN) event.events |= EPOLLIN;
        if (i2psock_pending_events(n) & POLLOUT) event.events |= EPOLLOUT;
        CHECK(epoll_ctl(epoll, i2psock_pending_generation(n) != known ? EPOLL_CTL_ADD : EPOLL_CTL_MOD, i2psock_pending_fd(n), &event) == 0);
        known = i2psock_pending_generation(n);
        CHECK(epoll_wait(epoll, &event, 1, 5000) == 1);
        CHECK(++rounds < 1000);
    }
    CHECK_INT(got, I2PSOCK_OK);
    OK(i2psock_pending_finish_dest(n, &d, &E));
    i2psock_pending_free(n);
    close(epoll);
    i2psock_dest_close(d);
    i2psock_controller_close(c);
}

/* ---- accepts that are given up ---- */

typedef struct { i2psock_controller *c; i2psock_dest *to; int count; int failed; } caller;

static void *call_many(void *arg) {
    caller *who = (caller *) arg;
    i2psock_dest *d = open_dest(who->c);
    int i;
    for (i = 0; i < who->count; i++) {
        i2psock_stream *s = NULL;
        char text[16];
        size_t count = 0;
        OK(i2psock_dest_connect(d, dest_text(who->to), NULL, HANG, &s, &E));
        snprintf(text, sizeof text, "%04d", i);
        OK(i2psock_stream_send(s, text, 4, 0, NULL, &E));
        OK(i2psock_stream_recv(s, text, 1, 0, &count, &E));
        i2psock_stream_free(s);
    }
    i2psock_dest_close(d);
    err_done();
    return NULL;
}

static void accept_in_a_loop(int port, int limit) {
    i2psock_controller *c = open_port(port, 1);
    i2psock_dest *d = open_dest(c);
    caller who;
    pthread_t t;
    int got = 0, timeouts = 0;
    long long end = now_ms() + HANG;
    /* Nobody is there yet. */
    i2psock_stream *s = NULL;
    ST(I2PSOCK_TIMEOUT, i2psock_dest_accept(d, limit, &s, &E));
    who.c = c;
    who.to = d;
    who.count = under_valgrind() ? 8 : 30;
    t = start_thread(call_many, &who);
    while (got < who.count) {
        i2psock_status status = ST(ANY, i2psock_dest_accept(d, limit, &s, &E));
        char text[16];
        size_t n;
        if (now_ms() > end) fail_at(__FILE__, __LINE__, "only %d of %d streams with accepts of %d ms, %d of them in vain", got, who.count, limit, timeouts);
        if (status == I2PSOCK_TIMEOUT) {
            timeouts++;
            continue;
        }
        CHECK_INT(status, I2PSOCK_OK);
        CHECK((fcntl(i2psock_stream_fd(s), F_GETFL) & O_NONBLOCK) == 0);
        OK(i2psock_stream_recv(s, text, 4, MSG_WAITALL, &n, &E));
        text[4] = 0;
        CHECK_INT(atoi(text), got);
        OK(i2psock_stream_send(s, "!", 1, 0, NULL, &E));
        OK(i2psock_stream_close(s, HANG, &E));
        got++;
    }
    join_thread(t);
    i2psock_dest_close(d);
    i2psock_controller_close(c);
}

static void short_accepts(void) { accept_in_a_loop(common.port, 1); }
static void longer_accepts(void) { accept_in_a_loop(common.port, 7); }
/* A limit of 0 is a poll: in a loop it gets there too. */
static void accepts_without_waiting(void) { accept_in_a_loop(common.port, 0); }

static void accepts_on(const char *personality, int limit) {
    bridge b;
    bridge_start(&b, "--personality", personality, NULL);
    accept_in_a_loop(b.port, limit);
    bridge_stop(&b);
}
static void short_accepts_emissary(void) { accepts_on("emissary", 3); }
static void short_accepts_i2pd(void) { accepts_on("i2pd-2.58", 3); }

/* A bridge whose replies drip: the limit always runs out in the middle of the greeting. */
static void drip_stream(fake_conn *c, int accepted) {
    (void) accepted;
    say(c, "payload");
    wait_eof(c);
}

static void accepts_shorter_than_the_greeting(void) {
    plan p;
    fake *f;
    i2psock_controller *c;
    i2psock_dest *d;
    i2psock_stream *s = NULL;
    long long end;
    int tries = 0;
    memset(&p, 0, sizeof p);
    p.hello = HELLO_OK;
    p.accept_more = DEST_B "\n";
    p.stream = drip_stream;
    p.drip = 1000;
    f = fake_plan(&p);
    c = open_port(fake_port(f), 1);
    d = open_dest(c);
    end = now_ms() + HANG;
    while (ST(ANY, i2psock_dest_accept(d, 20, &s, &E)) == I2PSOCK_TIMEOUT) {
        tries++;
        if (now_ms() > end) fail_at(__FILE__, __LINE__, "%d accepts of 20 ms, and never a stream: %d connections", tries, fake_connections(f));
    }
    CHECK(s != NULL && tries > 0);
    i2psock_stream_free(s);
    i2psock_dest_close(d);
    i2psock_controller_close(c);
    fake_stop(f);
}

static void freed_after_completion(void) {
    i2psock_controller *c = open_common();
    i2psock_dest *d = open_dest(c), *other = open_dest(c);
    i2psock_pending *n = NULL;
    i2psock_stream *s = NULL, *in = NULL;
    char b[8];
    size_t count;
    int how;
    for (how = 0; how < 3; how++) {
        OK(i2psock_dest_accept_start(d, -1, &n, &E));
        while (i2psock_pending_stage(n) != I2PSOCK_STAGE_LISTENING) BLOCK(i2psock_pending_wait(n, 1, &E));
        OK(i2psock_dest_connect(other, dest_text(d), NULL, HANG, &s, &E));
        OK(i2psock_stream_send(s, "kept", 4, 0, NULL, &E));
        /* 0: the program never saw it; 1: done, not fetched. */
        if (how == 0) CHECK(readable(i2psock_pending_fd(n), HANG));
        if (how == 1) OK(i2psock_pending_wait(n, HANG, &E));
        i2psock_pending_free(n);
        if (how == 2) {
            /* Through a second pending that is given up as well. */
            OK(i2psock_dest_accept_start(d, -1, &n, &E));
            OK(i2psock_pending_wait(n, HANG, &E));
            i2psock_pending_free(n);
        }
        OK(i2psock_dest_accept(d, HANG, &in, &E));
        CHECK((fcntl(i2psock_stream_fd(in), F_GETFL) & O_NONBLOCK) == 0);
        CHECK_INT(i2psock_addr_equal(i2psock_stream_peer(in), i2psock_dest_addr(other)), 1);
        OK(i2psock_stream_recv(in, b, 4, MSG_WAITALL, &count, &E));
        CHECK(count == 4 && memcmp(b, "kept", 4) == 0);
        i2psock_stream_free(s);
        i2psock_stream_free(in);
    }
    i2psock_dest_close(d);
    i2psock_dest_close(other);
    i2psock_controller_close(c);
}

/* ---- peer lines ---- */

static int accept_number;

static void bad_peers(fake_conn *c, int accepted) {
    static const char *const lines[] = {
        "not-a-destination FROM_PORT=1\n", "\n", DEST_B " FROM_PORT=x\n", BAD_TRUNCATED_DEST "\n", KEYS_A "\n", "\x01\x02\xff\n",
        "STREAM STATUS RESULT=I2P_ERROR MESSAGE=\"Router restart\"\n", "STREAM STATUS RESULT=ALREADY_ACCEPTING\n", DEST_B " FROM_PORT=65536\n",
    };
    int k = __sync_fetch_and_add(&accept_number, 1);
    (void) accepted;
    if (k < 9) say(c, lines[k]);
    else say(c, "PING 5\n" DEST_B " UNKNOWN=1\r\nhi");
    wait_eof(c);
}

static void peer_lines(void) {
    static const struct { int status; const char *tag, *text; } wanted[] = {
        { I2PSOCK_PROTOCOL, "", "not-a-destination" }, { I2PSOCK_PROTOCOL, "", "" }, { I2PSOCK_PROTOCOL, "", "port" }, { I2PSOCK_PROTOCOL, "", "" },
        { I2PSOCK_PROTOCOL, "", "" }, { I2PSOCK_PROTOCOL, "", "" }, { I2PSOCK_NETWORK, "I2P_ERROR", "Router restart" },
        { I2PSOCK_NETWORK, "ALREADY_ACCEPTING", "" }, { I2PSOCK_PROTOCOL, "", "port" },
    };
    plan p;
    fake *f;
    i2psock_controller *c;
    i2psock_dest *d;
    i2psock_stream *s = NULL;
    int i;
    char b[2];
    size_t n;
    memset(&p, 0, sizeof p);
    p.stream = bad_peers;
    accept_number = 0;
    f = fake_plan(&p);
    c = open_port(fake_port(f), 1);
    d = open_dest(c);
    for (i = 0; i < 9; i++) {
        ST(wanted[i].status, i2psock_dest_accept(d, HANG, &s, &E));
        ERR(I2PSOCK_OP_ACCEPT, wanted[i].tag, wanted[i].text);
        CHECK_HAS_NOT(i2psock_error_message(E), "qkJstRzgXTHeJCf");
        CHECK_INT(i2psock_dest_state(d, NULL), I2PSOCK_STATE_READY);
    }
    OK(i2psock_dest_accept(d, 3000 * slowness(), &s, &E));
    OK(i2psock_stream_recv(s, b, 2, MSG_WAITALL, &n, &E));
    CHECK(memcmp(b, "hi", 2) == 0);
    i2psock_stream_free(s);
    i2psock_dest_close(d);
    i2psock_controller_close(c);
    fake_stop(f);
}

/* ---- cancelling at every stage ---- */

typedef struct { int at; gate reached; gate go_on; } stopper;
static stopper stop_here;

static void stop_script(fake_conn *c) {
    char line[8192];
    int stage = 0;
    /* 0: before HELLO is answered; 1: after; 2: the command is there; 3: half the answer; 4: answered. */
    static const char *const answers[] = { CREATE_OK, STREAM_OK, STREAM_OK DEST_B, "NAMING REPLY RESULT=OK NAME=x.i2p VALUE=" DEST_B "\n" };
    const char *answer = answers[1];
    if (!read_line(c, line, sizeof line)) return;
    if (c->number < 2) {
        /* The controller's own, and the first destination's. */
        say(c, HELLO_OK);
        if (!read_line(c, line, sizeof line)) return;
        say(c, CREATE_OK);
        if (!read_line(c, line, sizeof line)) return;
    } else {
        if (stage++ < stop_here.at) say(c, HELLO_OK);
        else goto stop;
        if (!read_line(c, line, sizeof line)) return;
    }
    if (strncmp(line, "SESSION", 7) == 0) answer = answers[0];
    if (strncmp(line, "STREAM ACCEPT", 13) == 0) answer = answers[2];
    if (strncmp(line, "NAMING", 6) == 0) answer = answers[3];
    if (stop_here.at < 2) goto stop;
    if (stop_here.at == 2) goto stop;
    say_bytes(c, answer, stop_here.at == 3 ? strlen(answer) / 2 : strlen(answer));
stop:
    gate_open(&stop_here.reached);
    wait_eof(c);
}

static void cancelled(int keeper) {
    int kind, fds = 0, threads = 0, round;
    /* The first round warms up whatever is allocated once. */
    for (round = 0; round < 2; round++) {
        for (kind = 0; kind < 5; kind++) {
            int at;
            for (at = 0; at < 5; at++) {
                fake *f;
                i2psock_controller *c;
                i2psock_dest *d;
                i2psock_pending *n = NULL;
                stopper fresh = { 0, GATE_INIT, GATE_INIT };
                int fds_open, threads_open;
                stop_here = fresh;
                stop_here.at = at;
                fds = count_fds();
                threads = count_threads();
                f = fake_start(stop_script, NULL);
                c = open_port(fake_port(f), keeper);
                d = open_dest(c);
                fds_open = count_fds();
                threads_open = count_threads();
                if (kind == 0) OK(i2psock_dest_open_start(c, NULL, I2PSOCK_STREAM, NULL, HANG, &n, &E));
                if (kind == 1) OK(i2psock_dest_connect_start(d, DEST_B, NULL, HANG, &n, &E));
                if (kind == 2) OK(i2psock_dest_accept_start(d, HANG, &n, &E));
                if (kind == 3) OK(i2psock_dest_lookup_start(d, "x.i2p", HANG, &n, &E));
                if (kind == 4) {
                    /* A controller's lookup has a connection of its own when no destination is open. */
                    i2psock_dest_close(d);
                    d = NULL;
                    OK(i2psock_controller_lookup_start(c, "x.i2p", HANG, &n, &E));
                }
                while (!gate_wait(&stop_here.reached, 1, 0)) ST(ANY, i2psock_pending_wait(n, 1, &E));
                if (round == 0) ST(ANY, i2psock_pending_wait(n, 2, &E));
                if (at % 2 == 0) {
                    i2psock_pending_free(n);
                    i2psock_dest_close(d);
                    i2psock_controller_close(c);
                } else {
                    i2psock_controller_close(c);
                    i2psock_dest_close(d);
                    ST(ANY, i2psock_pending_step(n, &E));
                    i2psock_pending_free(n);
                }
                (void) fds_open;
                (void) threads_open;
                fake_stop(f);
                CHECK_INT(count_fds(), fds);
                expect_threads(threads);
            }
        }
    }
}
static void cancel_with_keeper(void) { cancelled(1); }
static void cancel_without_keeper(void) { cancelled(0); }

/* A parked accept does not keep the destination's descriptors when that is closed. */
static void parked_are_closed(void) {
    i2psock_controller *c = open_common();
    i2psock_dest *d = open_dest(c);
    i2psock_pending *n[5];
    int i, before = count_fds();
    for (i = 0; i < 5; i++) {
        OK(i2psock_dest_accept_start(d, -1, &n[i], &E));
        while (i2psock_pending_stage(n[i]) != I2PSOCK_STAGE_LISTENING) BLOCK(i2psock_pending_wait(n[i], 1, &E));
    }
    for (i = 0; i < 5; i++) i2psock_pending_free(n[i]);
    CHECK_INT(count_fds(), before + 5);
    /* The next ones are the same connections. */
    for (i = 0; i < 5; i++) OK(i2psock_dest_accept_start(d, -1, &n[i], &E));
    /* Each has its connection and a descriptor that watches those of all. */
    CHECK_INT(count_fds(), before + 10);
    for (i = 0; i < 5; i++) CHECK_INT(i2psock_pending_stage(n[i]), I2PSOCK_STAGE_LISTENING);
    i2psock_dest_close(d);
    for (i = 0; i < 5; i++) {
        ST(I2PSOCK_CLOSED, i2psock_pending_step(n[i], &E));
        i2psock_pending_free(n[i]);
    }
    i2psock_controller_close(c);
}

static void dest_that_nobody_fetched(void) {
    i2psock_controller *c = open_common();
    i2psock_pending *n = NULL, *m = NULL;
    i2psock_dest *d = NULL;
    int before = count_fds();
    OK(i2psock_dest_open_start(c, NULL, I2PSOCK_STREAM, NULL, HANG, &n, &E));
    OK(i2psock_pending_wait(n, -1, &E));
    i2psock_pending_free(n);
    CHECK_INT(count_fds(), before);
    /* Closing the controller ends one that is done, but not fetched. */
    OK(i2psock_dest_open_start(c, NULL, I2PSOCK_STREAM, NULL, HANG, &n, &E));
    OK(i2psock_pending_wait(n, -1, &E));
    OK(i2psock_dest_open_start(c, NULL, I2PSOCK_STREAM, NULL, HANG, &m, &E));
    i2psock_controller_close(c);
    if (ST(ANY, i2psock_pending_finish_dest(n, &d, &E)) == I2PSOCK_OK) {
        CHECK_INT(i2psock_dest_state(d, NULL), I2PSOCK_STATE_DEAD);
        i2psock_dest_close(d);
    } else {
        CHECK_INT(i2psock_error_status(E), I2PSOCK_CLOSED);
    }
    i2psock_pending_free(n);
    d = NULL;
    /* Unless it was done before. */
    if (ST(ANY, i2psock_pending_wait(m, -1, &E)) != I2PSOCK_OK) {
        CHECK_INT(i2psock_error_status(E), I2PSOCK_CLOSED);
        ST(I2PSOCK_CLOSED, i2psock_pending_finish_dest(m, &d, &E));
        CHECK(d == NULL);
    }
    i2psock_pending_free(m);
}

static const test_case tests[] = {
    T(with_keeper), T(without_keeper), T(waits), T(with_epoll), T(short_accepts), T(longer_accepts), T(accepts_without_waiting),
    T(short_accepts_emissary), T(short_accepts_i2pd), T(accepts_shorter_than_the_greeting), T(freed_after_completion), T(peer_lines),
    T_LONG(cancel_with_keeper), T_LONG(cancel_without_keeper), T(parked_are_closed), T(dest_that_nobody_fetched),
};
MAIN(tests)
