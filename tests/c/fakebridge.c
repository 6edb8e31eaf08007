/* Bridges that end, drip, talk too much or out of turn. */
#include "harness.h"

enum { OPEN, CONNECT, ACCEPT, LOOKUP, GENERATE, KINDS };

typedef struct {
    int kind;
    /* What is said instead of the greeting (`at` 0), the reply (1) or the peer line (2). */
    int at;
    const char *text;
    size_t length;
    int then_close, reset;
} cut;

#define NAMING_OK "NAMING REPLY RESULT=OK NAME=x.i2p VALUE=" DEST_B "\n"
#define GENERATE_OK "DEST REPLY PUB=" DEST_A " PRIV=" KEYS_A "\n"

static cut job;

static void cut_script(fake_conn *c) {
    char line[8192];
    const char *reply;
    int special = c->number >= (job.kind == CONNECT || job.kind == ACCEPT ? 2 : 1);
    if (!read_line(c, line, sizeof line)) return;
    if (special && job.at == 0) goto special_words;
    say(c, HELLO_OK);
    if (!read_line(c, line, sizeof line)) return;
    if (special && job.at == 1) goto special_words;
    reply = strncmp(line, "SESSION", 7) == 0 ? CREATE_OK : strncmp(line, "NAMING", 6) == 0 ? NAMING_OK : strncmp(line, "DEST", 4) == 0 ? GENERATE_OK : STREAM_OK;
    say(c, reply);
    if (special && job.at == 2 && strncmp(line, "STREAM ACCEPT", 13) == 0) goto special_words;
    wait_eof(c);
    return;
special_words:
    say_bytes(c, job.text, job.length);
    if (job.reset) say_reset(c);
    else if (!job.then_close) wait_eof(c);
}

/* Does the one thing and throws the result away. */
static i2psock_status do_it(i2psock_controller *c, i2psock_dest *d, int kind, int ms) {
    i2psock_dest *dest = NULL;
    i2psock_stream *s = NULL;
    i2psock_addr *a = NULL;
    i2psock_keys *k = NULL;
    i2psock_status got = I2PSOCK_INTERNAL;
    if (kind == OPEN) got = ST(ANY, i2psock_dest_open(c, NULL, I2PSOCK_STREAM, NULL, ms, &dest, &E));
    if (kind == CONNECT) got = ST(ANY, i2psock_dest_connect(d, DEST_B, NULL, ms, &s, &E));
    if (kind == ACCEPT) got = ST(ANY, i2psock_dest_accept(d, ms, &s, &E));
    if (kind == LOOKUP) got = ST(ANY, i2psock_controller_lookup(c, "x.i2p", ms, &a, &E));
    if (kind == GENERATE) got = ST(ANY, i2psock_keys_generate(c, 7, ms, &k, &E));
    CHECK((got == I2PSOCK_OK) == (dest != NULL || s != NULL || a != NULL || k != NULL));
    i2psock_dest_close(dest);
    i2psock_stream_free(s);
    i2psock_addr_free(a);
    i2psock_keys_free(k);
    return got;
}

static const char *full_text(int kind, int at) {
    static const char *const replies[] = { CREATE_OK, STREAM_OK, STREAM_OK, NAMING_OK, GENERATE_OK };
    return at == 0 ? HELLO_OK : at == 2 ? DEST_B " FROM_PORT=1 TO_PORT=2\n" : replies[kind];
}

/* The end of the connection after every byte of every reply. */
static void prefixes(int kind) {
    int at;
    for (at = 0; at <= (kind == ACCEPT ? 2 : 1); at++) {
        const char *text = full_text(kind, at);
        size_t n, all = strlen(text);
        fake *f;
        i2psock_controller *c;
        i2psock_dest *d = NULL;
        job.kind = kind;
        job.at = at;
        job.text = text;
        job.length = all;
        job.then_close = 1;
        job.reset = 0;
        f = fake_start(cut_script, NULL);
        c = open_port(fake_port(f), 1);
        if (kind == CONNECT || kind == ACCEPT) d = open_dest(c);
        for (n = 0; n < all; n += n < 60 || n > all - 20 ? 1 : under_valgrind() ? 101 : 13) {
            i2psock_status got;
            /* The matter of cut_in_the_result. */
            if ((n >= 6 && strncmp(text + n - 6, "RESULT", 6) == 0) || (n >= 7 && strncmp(text + n - 7, "RESULT=", 7) == 0) || (n >= 8 && strncmp(text + n - 8, "RESULT=O", 8) == 0)) continue;
            job.length = n;
            /* An accept that is dropped without a byte after its OK is asked for again. */
            if (at == 2 && n == 0) {
                CHECK_INT(do_it(c, d, kind, 300), I2PSOCK_TIMEOUT);
                continue;
            }
            got = do_it(c, d, kind, HANG);
            if (got != I2PSOCK_PROTOCOL && got != I2PSOCK_IO && got != I2PSOCK_CLOSED) {
                fail_at(__FILE__, __LINE__, "end after %zu bytes of \"%.30s\": %s", n, text, i2psock_status_name((int) got));
            }
        }
        if (d != NULL) CHECK_INT(i2psock_dest_state(d, NULL), I2PSOCK_STATE_READY);
        i2psock_dest_close(d);
        i2psock_controller_close(c);
        fake_stop(f);
    }
}

static void prefixes_of_open(void) { prefixes(OPEN); }
static void prefixes_of_connect(void) { prefixes(CONNECT); }
static void prefixes_of_accept(void) { prefixes(ACCEPT); }
static void prefixes_of_lookup(void) { prefixes(LOOKUP); }
static void prefixes_of_generate(void) { prefixes(GENERATE); }

static i2psock_status once(int kind, int at, const char *text, size_t length, int then_close, int reset, int ms);

/* A reply that ends in the middle of its RESULT: the router has not said "no", nor what. */
static void cut_in_the_result(void) {
    static const char *const texts[] = { "SESSION STATUS RESULT=O", "STREAM STATUS RESULT=O", "STREAM STATUS RESULT=O", "NAMING REPLY RESULT=O", "DEST REPLY RESULT=O" };
    int kind;
    for (kind = 0; kind < KINDS; kind++) {
        CHECK_INT(once(kind, 1, texts[kind], strlen(texts[kind]) - 2, 1, 0, HANG), I2PSOCK_PROTOCOL);
        CHECK_INT(once(kind, 1, texts[kind], strlen(texts[kind]) - 1, 1, 0, HANG), I2PSOCK_PROTOCOL);
        CHECK_INT(once(kind, 1, texts[kind], strlen(texts[kind]), 1, 0, HANG), I2PSOCK_PROTOCOL);
    }
}

static void empty_result(void) {
    int kind;
    static const char *const texts[] = { "SESSION STATUS RESULT=\n", "STREAM STATUS RESULT=\n", "STREAM STATUS RESULT=\"\"\n", "NAMING REPLY RESULT=\n", "DEST REPLY RESULT\n" };
    for (kind = 0; kind < KINDS; kind++) CHECK_INT(once(kind, 1, texts[kind], strlen(texts[kind]), 0, 0, HANG), I2PSOCK_PROTOCOL);
}

/* One reply of each kind, then open, and what it comes to. */
static i2psock_status once(int kind, int at, const char *text, size_t length, int then_close, int reset, int ms) {
    fake *f;
    i2psock_controller *c;
    i2psock_dest *d = NULL;
    i2psock_status got;
    job.kind = kind;
    job.at = at;
    job.text = text;
    job.length = length;
    job.then_close = then_close;
    job.reset = reset;
    f = fake_start(cut_script, NULL);
    c = open_port(fake_port(f), 1);
    if (kind == CONNECT || kind == ACCEPT) d = open_dest(c);
    got = do_it(c, d, kind, ms);
    i2psock_dest_close(d);
    i2psock_controller_close(c);
    fake_stop(f);
    return got;
}

static void resets(void) {
    int kind;
    for (kind = 0; kind < KINDS; kind++) {
        i2psock_status got = once(kind, 1, "STR", 3, 0, 1, HANG);
        CHECK(got == I2PSOCK_PROTOCOL || got == I2PSOCK_IO || got == I2PSOCK_CLOSED);
        got = once(kind, 0, "", 0, 0, 1, HANG);
        CHECK(got == I2PSOCK_PROTOCOL || got == I2PSOCK_IO || got == I2PSOCK_CLOSED);
    }
}

/* An error without a line feed before the end is an error with a meaning. */
static void refusals_without_line_feed(void) {
    static const char *const texts[] = { "SESSION STATUS RESULT=DUPLICATE_ID", "STREAM STATUS RESULT=CANT_REACH_PEER", "STREAM STATUS RESULT=I2P_ERROR",
        "NAMING REPLY RESULT=KEY_NOT_FOUND NAME=x.i2p", "DEST REPLY RESULT=I2P_ERROR MESSAGE=\"no\"" };
    int kind;
    for (kind = 0; kind < KINDS; kind++) {
        CHECK_INT(once(kind, 1, texts[kind], strlen(texts[kind]), 1, 0, HANG), I2PSOCK_NETWORK);
    }
}

static void too_long(void) {
    size_t size = 200000;
    char *big = big_text(size, 'a');
    int kind, at;
    for (kind = 0; kind < KINDS; kind++) {
        for (at = 0; at <= (kind == ACCEPT ? 2 : 1); at++) {
            /* Without an end. */
            memset(big, 'a', size);
            CHECK_INT(once(kind, at, big, size, 0, 0, HANG), I2PSOCK_PROTOCOL);
            /* A proper beginning. */
            memcpy(big, full_text(kind, at), 12);
            CHECK_INT(once(kind, at, big, size, 0, 0, HANG), I2PSOCK_PROTOCOL);
        }
    }
    /* Just below the cap it is a reply like any other. */
    memset(big, 'a', size);
    memcpy(big, "NAMING REPLY RESULT=OK NAME=x.i2p VALUE=" DEST_B " X=", strlen(NAMING_OK) + 2);
    big[65000] = '\n';
    CHECK_INT(once(LOOKUP, 1, big, 65001, 0, 0, HANG), I2PSOCK_OK);
    big[65000] = 'a';
    big[65537] = '\n';
    CHECK_INT(once(LOOKUP, 1, big, 65538, 0, 0, HANG), I2PSOCK_PROTOCOL);
    free(big);
}

static void silence(void) {
    int kind, at;
    for (kind = 0; kind < KINDS; kind++) {
        for (at = 0; at <= (kind == ACCEPT ? 2 : 1); at++) {
            long long start = now_ms();
            CHECK_INT(once(kind, at, "", 0, 0, 0, 120), I2PSOCK_TIMEOUT);
            CHECK(now_ms() - start >= 120 && now_ms() - start < HANG);
        }
    }
}

/* The controller's own limits, where the caller names none. */
static gate silent_now = GATE_INIT;

static void silent_after_hello(fake_conn *c) {
    char line[8192];
    if (!read_line(c, line, sizeof line)) return;
    say(c, HELLO_OK);
    if (!read_line(c, line, sizeof line)) return;
    if (!gate_wait(&silent_now, 1, 0)) say(c, CREATE_OK);
    wait_eof(c);
}

static void limits_of_the_options(void) {
    static const char *const names[] = { "open_timeout", "connect_timeout", "accept_timeout", "lookup_timeout", "generate_timeout" };
    int kind, all;
    for (all = 0; all < 2; all++) {
        /* Greetings have to come within that of all. */
        int limit = all ? 1000 : 120;
        for (kind = 0; kind < KINDS; kind++) {
            fake *f = fake_start(silent_after_hello, NULL);
            i2psock_options *o = options_for_port(fake_port(f));
            i2psock_controller *c = NULL;
            i2psock_dest *d = NULL;
            long long start, end = now_ms() + HANG;
            silent_now.count = 0;
            if (all && kind == ACCEPT) {
                /* sam_timeout is not for waiting for a peer. */
                OK(i2psock_options_set_int(o, "sam_timeout", 5000, &E));
                OK(i2psock_options_set_int(o, "accept_timeout", limit, &E));
            } else {
                OK(i2psock_options_set_int(o, all ? "sam_timeout" : names[kind], limit, &E));
            }
            /* On a busy machine that limit, which is not the one in question, may be too short for an answer. */
            while (ST(ANY, i2psock_controller_open(o, &c, &E)) == I2PSOCK_TIMEOUT) CHECK(now_ms() < end);
            while (ST(ANY, i2psock_dest_open(c, NULL, I2PSOCK_STREAM, NULL, HANG, &d, &E)) == I2PSOCK_TIMEOUT) CHECK(now_ms() < end);
            CHECK(d != NULL);
            gate_open(&silent_now);
            if (kind == LOOKUP) {
                i2psock_dest_close(d);
                d = NULL;
            }
            start = now_ms();
            CHECK_INT(do_it(c, d, kind, I2PSOCK_TIMEOUT_DEFAULT), I2PSOCK_TIMEOUT);
            CHECK(now_ms() - start >= limit - 1 && now_ms() - start < HANG);
            i2psock_dest_close(d);
            i2psock_controller_close(c);
            i2psock_options_free(o);
            fake_stop(f);
        }
    }
}

static void endless_drip(fake_conn *c) {
    char line[4096];
    int i;
    if (!read_line(c, line, sizeof line)) return;
    if (c->number == 0) {
        say(c, HELLO_OK);
        wait_eof(c);
        return;
    }
    /* A letter now and then does not push the limit back. */
    for (i = 0; say_slowly(c, i == 0 ? "H" : "E", 1, 50000); i++) { }
}

static void dripping_counts_as_silence(void) {
    fake *f = fake_start(endless_drip, NULL);
    i2psock_controller *c = open_port(fake_port(f), 1);
    long long start = now_ms();
    CHECK_INT(do_it(c, NULL, OPEN, 400), I2PSOCK_TIMEOUT);
    CHECK(now_ms() - start >= 400 && now_ms() - start < HANG);
    i2psock_controller_close(c);
    fake_stop(f);
}

static void other_topics(void) {
    static const char *const wrong[] = { "RAW RECEIVED SIZE=3\n", "DATAGRAM RECEIVED DESTINATION=x SIZE=1\n", "HELLO REPLY RESULT=OK VERSION=3.1\n", "QUIT STATUS RESULT=OK\n",
        "AUTH STATUS RESULT=OK\n", "STREAM STATUS\n", "SESSION STATUS\n", "NAMING REPLY\n", "\tSTREAM\n", "=x\n", "STREAM STATUS =x\n", "STREAM STATUS MESSAGE=\"open\n" };
    size_t i;
    int kind;
    for (kind = 0; kind < KINDS; kind++) {
        for (i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
            i2psock_status got = once(kind, 1, wrong[i], strlen(wrong[i]), 0, 0, HANG);
            if (got != I2PSOCK_PROTOCOL) fail_at(__FILE__, __LINE__, "kind %d, \"%s\": %s", kind, wrong[i], i2psock_status_name((int) got));
        }
        /* An error under another topic is the answer. */
        CHECK_INT(once(kind, 1, "SESSION STATUS RESULT=I2P_ERROR MESSAGE=\"late\"\n", 47, 0, 0, HANG), I2PSOCK_NETWORK);
        /* A NUL in a line. */
        CHECK_INT(once(kind, 1, "STREAM STATUS RESULT=OK\0X=1\n", 28, 0, 0, HANG), I2PSOCK_PROTOCOL);
    }
    CHECK_INT(once(LOOKUP, 1, "NAMING REPLY RESULT=OK NAME=y.i2p VALUE=" DEST_B "\n", strlen(NAMING_OK), 0, 0, HANG), I2PSOCK_PROTOCOL);
}

/* PING before each reply, whole and byte by byte: everything still works, and each is answered. */
static void echo_back(fake_conn *c, int accepted) {
    (void) accepted;
    wait_eof(c);
}

static void naming_plan(fake_conn *c, const char *line) {
    if (strncmp(line, "NAMING", 6) == 0) say(c, "PING in between\n" NAMING_OK);
    if (strncmp(line, "DEST GENERATE", 13) == 0) say(c, "PING in between\n" GENERATE_OK);
}

static void pings_everywhere(void) {
    int drip, kind;
    for (drip = 0; drip < 2; drip++) {
        plan p;
        fake *f;
        i2psock_controller *c;
        i2psock_dest *d = NULL;
        memset(&p, 0, sizeof p);
        p.ping = 1;
        p.drip = drip * 100;
        p.accept_more = DEST_B "\n";
        p.stream = echo_back;
        p.control = naming_plan;
        f = fake_plan(&p);
        c = open_port(fake_port(f), 1);
        OK(i2psock_dest_open(c, NULL, I2PSOCK_STREAM, NULL, HANG, &d, &E));
        for (kind = 0; kind < KINDS; kind++) CHECK_INT(do_it(c, d, kind, HANG), I2PSOCK_OK);
        CHECK(fake_saw(f, "PONG before 0", 0, HANG));
        CHECK(fake_saw(f, "PONG before 1", 1, HANG));
        CHECK(fake_saw(f, "PONG before 2", 1, HANG));
        CHECK(fake_saw(f, "PONG before 3", 1, HANG));
        CHECK(fake_saw(f, "PONG in between", 1, HANG));
        i2psock_dest_close(d);
        i2psock_controller_close(c);
        fake_stop(f);
    }
}

/* A storm of PINGs whose answers nobody reads: an end with an error, not memory without bounds, not a hang. */
static void storm_created(fake_conn *c) {
    char *storm = big_text(60000, 'p');
    int i;
    memcpy(storm, "PING ", 5);
    storm[59999] = '\n';
    for (i = 0; i < 400; i++) {
        ssize_t got = send(c->fd, storm, 60000, MSG_NOSIGNAL);
        if (got <= 0) break;
    }
    free(storm);
    wait_eof(c);
}

static void ping_storm(void) {
    plan p;
    fake *f;
    i2psock_controller *c;
    i2psock_dest *d;
    i2psock_stream *s = NULL;
    memset(&p, 0, sizeof p);
    p.created = storm_created;
    f = fake_plan(&p);
    c = open_port(fake_port(f), 1);
    d = open_dest(c);
    ST(I2PSOCK_CLOSED, i2psock_dest_accept(d, HANG, &s, &E));
    CHECK_INT(i2psock_dest_state(d, NULL), I2PSOCK_STATE_DEAD);
    i2psock_dest_close(d);
    i2psock_controller_close(c);
    fake_stop(f);
}

/* The same with a bridge that talks junk on the control socket: the session lives on. */
static void junk_created(fake_conn *c) {
    say(c, "\n\r\nfoo\nDATAGRAM RECEIVED SIZE=5 X=1\nPING\nDATAGRAM STATUS X=1\n=\n\"\n\x01\xff\nSTREAM STATUS RESULT=I2P_ERROR\nSESSION STATUS RESULT=OK\nPING end of junk\n");
}

static void junk_on_the_control_socket(void) {
    plan p;
    fake *f;
    i2psock_controller *c;
    i2psock_dest *d;
    i2psock_addr *a = NULL;
    memset(&p, 0, sizeof p);
    p.created = junk_created;
    p.control = naming_plan;
    f = fake_plan(&p);
    c = open_port(fake_port(f), 1);
    d = open_dest(c);
    CHECK(fake_saw(f, "PONG end of junk", 1, HANG));
    CHECK_INT(i2psock_dest_state(d, NULL), I2PSOCK_STATE_READY);
    OK(i2psock_dest_lookup(d, "x.i2p", HANG, &a, &E));
    i2psock_addr_free(a);
    i2psock_dest_close(d);
    i2psock_controller_close(c);
    fake_stop(f);
}

/* The loopback bridge at its worst. */
static void pieces_and_drips(void) {
    static const char *const args[][2] = { { "--split", "1" }, { "--split", "7" }, { "--drip", "1" } };
    size_t i;
    for (i = 0; i < 3; i++) {
        bridge b;
        i2psock_controller *c;
        i2psock_dest *d;
        i2psock_pending *n = NULL;
        i2psock_stream *s = NULL, *in = NULL;
        char text[6];
        size_t count;
        bridge_start(&b, args[i][0], args[i][1], NULL);
        c = open_port(b.port, 1);
        d = open_dest(c);
        OK(i2psock_dest_accept_start(d, -1, &n, &E));
        while (i2psock_pending_stage(n) != I2PSOCK_STAGE_LISTENING) ST(I2PSOCK_BLOCK, i2psock_pending_wait(n, 1, &E));
        OK(i2psock_dest_connect(d, dest_text(d), NULL, HANG, &s, &E));
        OK(i2psock_pending_wait(n, -1, &E));
        OK(i2psock_pending_finish_stream(n, &in, &E));
        i2psock_pending_free(n);
        OK(i2psock_stream_set_nonblocking(in, 0, &E));
        OK(i2psock_stream_send(s, "hello!", 6, 0, NULL, &E));
        OK(i2psock_stream_recv(in, text, 6, MSG_WAITALL, &count, &E));
        CHECK(memcmp(text, "hello!", 6) == 0);
        i2psock_stream_free(s);
        i2psock_stream_free(in);
        i2psock_dest_close(d);
        i2psock_controller_close(c);
        bridge_stop(&b);
    }
}

static const test_case tests[] = {
    T(prefixes_of_open), T(prefixes_of_connect), T(prefixes_of_accept), T(prefixes_of_lookup), T(prefixes_of_generate), T(cut_in_the_result),
    T(empty_result), T(limits_of_the_options), T(resets),
    T(refusals_without_line_feed), T(too_long), T(silence), T(dripping_counts_as_silence), T(other_topics), T(pings_everywhere),
    T(ping_storm), T(junk_on_the_control_socket), T_LONG(pieces_and_drips),
};
MAIN(tests)
