/* Opening a controller: every kind of bridge, and everything that is none. */
#include "harness.h"

#include <sys/stat.h>
#include <sys/un.h>

static void dead_port(void) {
    i2psock_options *o;
    i2psock_controller *c = (i2psock_controller *) 0x55;
    /* Nobody gets this one by chance. */
    o = options_for_port(1);
    ST(I2PSOCK_IO, i2psock_controller_open(o, &c, &E));
    ERR(I2PSOCK_OP_HANDSHAKE, "", "127.0.0.1:1");
    CHECK_HAS(i2psock_error_message(E), "router running");
    CHECK_INT(i2psock_error_os_error(E), ECONNREFUSED);
    CHECK_STR(i2psock_error_operation_name(E), "handshake");
    CHECK(c == NULL);
    i2psock_options_free(o);
}

typedef struct { const char *text; int then_close; } talk;

static void talker(fake_conn *c) {
    const talk *t = (const talk *) c->arg;
    char line[4096];
    read_line(c, line, sizeof line);
    say(c, t->text);
    if (!t->then_close) wait_eof(c);
}

/* Opens at a server that answers HELLO with `text`; returns how long it took. */
static long long open_at(const char *text, int then_close, int status, int limit_ms) {
    talk t;
    fake *f;
    i2psock_options *o;
    i2psock_controller *c = NULL;
    long long start = now_ms(), took;
    t.text = text;
    t.then_close = then_close;
    f = fake_start(talker, &t);
    o = options_for_port(fake_port(f));
    if (limit_ms > 0) OK(i2psock_options_set_int(o, "hello_timeout", limit_ms, &E));
    ST(status, i2psock_controller_open(o, &c, &E));
    took = now_ms() - start;
    CHECK(c == NULL);
    i2psock_options_free(o);
    fake_stop(f);
    return took;
}

static void not_sam(void) {
    open_at("HTTP/1.1 400 Bad Request\r\nServer: x\r\n\r\n", 0, I2PSOCK_PROTOCOL, 0);
    ERR(I2PSOCK_OP_HANDSHAKE, "", "HTTP/1.1 400");
    open_at("\x15\x03\x01\x02\x02\x28", 0, I2PSOCK_PROTOCOL, 0);
    ERR(I2PSOCK_OP_HANDSHAKE, "", "TLS");
    open_at("\x16\x03\x01", 0, I2PSOCK_PROTOCOL, 0);
    open_at("SSH-2.0-OpenSSH_9.2\r\n", 0, I2PSOCK_PROTOCOL, 0);
    ERR(I2PSOCK_OP_HANDSHAKE, "", "SSH-2.0");
    open_at("220 mail ESMTP\r\n", 0, I2PSOCK_PROTOCOL, 0);
    open_at("", 1, I2PSOCK_PROTOCOL, 0);
    ERR(I2PSOCK_OP_HANDSHAKE, "", "HELLO");
    open_at("\x1b[2J\x07 evil terminal\n", 1, I2PSOCK_PROTOCOL, 0);
    CHECK_HAS_NOT(i2psock_error_message(E), "\x1b");
    open_at("HELLO REPLY RESULT=OK\n", 0, I2PSOCK_PROTOCOL, 0);
    open_at("HELLO REPLY VERSION=3.1\n", 0, I2PSOCK_PROTOCOL, 0);
    open_at("HELLO REPLY RESULT=OK VERSION=abc\n", 0, I2PSOCK_PROTOCOL, 0);
    open_at("HELLO\n", 0, I2PSOCK_PROTOCOL, 0);
    open_at("HELLO REPLY RESULT=OK RESULT=OK VERSION=3.1\n", 0, I2PSOCK_PROTOCOL, 0);
    open_at("STREAM STATUS RESULT=OK VERSION=3.1\n", 0, I2PSOCK_PROTOCOL, 0);
    open_at("HELLO REPLY RESULT=OK VERSION=3.9\n", 0, I2PSOCK_NETWORK, 0);
    open_at("HELLO REPLY RESULT=OK VERSION=2.0\n", 0, I2PSOCK_NETWORK, 0);
}

static void silent_server(void) {
    long long took = open_at("", 0, I2PSOCK_TIMEOUT, 300);
    ERR(I2PSOCK_OP_HANDSHAKE, "", "127.0.0.1");
    CHECK(took >= 290 && took < HANG);
    took = open_at("HELLO REPLY RESULT=OK VERS", 0, I2PSOCK_TIMEOUT, 300);
    CHECK(took >= 290 && took < HANG);
}

static void never_accepts(void) {
    /* A full backlog: the connection itself hangs. */
    struct sockaddr_storage a;
    socklen_t length = sizeof a;
    fake *f = fake_start(wait_eof, NULL);
    i2psock_options *o;
    i2psock_controller *c = NULL;
    int listener, extra[8], i;
    long long start;
    int port;
    fake_stop(f);
    listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(listen(listener, 0) == 0);
    CHECK(getsockname(listener, (struct sockaddr *) &a, &length) == 0);
    port = ((unsigned char *) &a)[2] * 256 + ((unsigned char *) &a)[3];
    for (i = 0; i < 8; i++) {
        extra[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (connect(extra[i], (struct sockaddr *) &a, length) != 0) CHECK(errno == EINPROGRESS);
    }
    o = options_for_port(port);
    OK(i2psock_options_set_int(o, "tcp_timeout", 300, &E));
    start = now_ms();
    ST(I2PSOCK_TIMEOUT, i2psock_controller_open(o, &c, &E));
    CHECK(now_ms() - start >= 290 && now_ms() - start < HANG);
    ERR(I2PSOCK_OP_HANDSHAKE, "", "127.0.0.1");
    i2psock_options_free(o);
    for (i = 0; i < 8; i++) close(extra[i]);
    close(listener);
}

static void closing_servers(fake_conn *c) {
    char line[512];
    if (*(const int *) c->arg == 1) read_line(c, line, sizeof line);
    if (*(const int *) c->arg == 2) say_reset(c);
}

static void closes_at_once(void) {
    int how;
    for (how = 0; how < 3; how++) {
        fake *f = fake_start(closing_servers, &how);
        i2psock_options *o = options_for_port(fake_port(f));
        i2psock_controller *c = NULL;
        i2psock_status got = ST(ANY, i2psock_controller_open(o, &c, &E));
        CHECK(got == I2PSOCK_PROTOCOL || got == I2PSOCK_IO);
        CHECK(c == NULL);
        CHECK_INT(i2psock_error_operation(E), I2PSOCK_OP_HANDSHAKE);
        i2psock_options_free(o);
        fake_stop(f);
    }
}

static void old_bridge(fake_conn *c) {
    char line[512];
    if (!read_line(c, line, sizeof line)) return;
    if (strstr(line, "MIN=3.0") != NULL && c->arg == NULL) {
        say(c, "HELLO REPLY RESULT=OK VERSION=3.0\n");
        if (!read_line(c, line, sizeof line)) return;
        say(c, CREATE_OK);
        wait_eof(c);
    } else {
        say(c, "HELLO REPLY RESULT=NOVERSION\n");
    }
}

static void no_version(void) {
    fake *f = fake_start(old_bridge, NULL);
    i2psock_controller *c = open_port(fake_port(f), 1);
    i2psock_options *o, *d = i2psock_options_new();
    i2psock_dest *dest = NULL;
    CHECK_STR(i2psock_controller_version(c), "3.0");
    CHECK_INT(fake_lines(f, "MIN=3.1 MAX=3.3"), 1);
    CHECK_INT(fake_lines(f, "MIN=3.0 MAX=3.3"), 1);
    /* It remembers. */
    OK(i2psock_controller_check(c, HANG, &E));
    CHECK_INT(fake_lines(f, "MIN=3.1 MAX=3.3"), 1);
    /* Ports came with 3.2. */
    OK(i2psock_options_set_int(d, "from_port", 1, &E));
    ST(I2PSOCK_UNSUPPORTED, i2psock_dest_open(c, NULL, I2PSOCK_STREAM, d, HANG, &dest, &E));
    OK(i2psock_dest_open(c, NULL, I2PSOCK_STREAM, NULL, HANG, &dest, &E));
    i2psock_dest_close(dest);
    i2psock_controller_close(c);
    fake_stop(f);
    i2psock_options_free(d);

    f = fake_start(old_bridge, f);
    o = options_for_port(fake_port(f));
    c = NULL;
    ST(I2PSOCK_NETWORK, i2psock_controller_open(o, &c, &E));
    ERR(I2PSOCK_OP_HANDSHAKE, "NOVERSION", "3.0");
    CHECK_INT(fake_connections(f), 2);
    /* Who names a lowest version means it. */
    OK(i2psock_options_set(o, "version_min", "3.2", &E));
    ST(I2PSOCK_NETWORK, i2psock_controller_open(o, &c, &E));
    CHECK_INT(fake_connections(f), 3);
    CHECK_INT(fake_lines(f, "MIN=3.2 MAX=3.3"), 1);
    i2psock_options_free(o);
    o = options_for_port(fake_port(f));
    OK(i2psock_options_set(o, "version_max", "3.0", &E));
    ST(I2PSOCK_NETWORK, i2psock_controller_open(o, &c, &E));
    CHECK_INT(fake_lines(f, "MIN=3.0 MAX=3.0"), 1);
    CHECK_INT(fake_connections(f), 4);
    i2psock_options_free(o);
    fake_stop(f);
}

static void versions(void) {
    static const char *const known[] = { "3.0", "3.1", "3.2", "3.3" };
    size_t i;
    for (i = 0; i < 4; i++) {
        i2psock_options *o = options_for_port(common.port);
        i2psock_controller *c = NULL;
        OK(i2psock_options_set(o, "version_max", known[i], &E));
        OK(i2psock_controller_open(o, &c, &E));
        CHECK_STR(i2psock_controller_version(c), known[i]);
        i2psock_controller_close(c);
        i2psock_options_free(o);
    }
}

static void credentials(void) {
    bridge b;
    i2psock_options *o;
    i2psock_controller *c = NULL;
    i2psock_dest *d;
    bridge_start(&b, "--user", "al \"ice", "--password", "p\\w\"d #\xc3\xa4", NULL);
    o = options_for_port(b.port);
    ST(I2PSOCK_NETWORK, i2psock_controller_open(o, &c, &E));
    ERR(I2PSOCK_OP_HANDSHAKE, "I2P_ERROR", "user");
    OK(i2psock_options_set(o, "user", "al \"ice", &E));
    OK(i2psock_options_set(o, "password", "wrong-secret", &E));
    ST(I2PSOCK_NETWORK, i2psock_controller_open(o, &c, &E));
    CHECK_HAS_NOT(i2psock_error_message(E), "wrong-secret");
    OK(i2psock_options_set(o, "password", "p\\w\"d #\xc3\xa4", &E));
    OK(i2psock_controller_open(o, &c, &E));
    /* Every connection logs in. */
    d = open_dest(c);
    OK(i2psock_controller_check(c, I2PSOCK_TIMEOUT_DEFAULT, &E));
    i2psock_dest_close(d);
    i2psock_controller_close(c);
    i2psock_options_free(o);
    {
        char *big = big_text(100 * 1024, 'p');
        o = options_for_port(b.port);
        OK(i2psock_options_set(o, "user", "x", &E));
        if (ST(ANY, i2psock_options_set(o, "password", big, &E)) == I2PSOCK_OK) {
            ST(I2PSOCK_INVALID, i2psock_controller_open(o, &c, &E));
        }
        free(big);
        i2psock_options_free(o);
    }
    bridge_stop(&b);
}

static void stream_over(i2psock_dest *d) {
    i2psock_pending *n = NULL;
    i2psock_stream *s = NULL, *in = NULL;
    char *big = big_text(3 << 20, 'u'), b[4096];
    size_t got = 0, n_sent = 0, n_got;
    OK(i2psock_dest_accept_start(d, -1, &n, &E));
    while (i2psock_pending_stage(n) != I2PSOCK_STAGE_LISTENING) ST(I2PSOCK_BLOCK, i2psock_pending_wait(n, 1, &E));
    OK(i2psock_dest_connect(d, dest_text(d), NULL, HANG, &s, &E));
    OK(i2psock_pending_wait(n, HANG, &E));
    OK(i2psock_pending_finish_stream(n, &in, &E));
    i2psock_pending_free(n);
    OK(i2psock_stream_set_nonblocking(s, 1, &E));
    OK(i2psock_stream_set_nonblocking(in, 0, &E));
    ST(I2PSOCK_BLOCK, i2psock_stream_send_all(s, big, 3 << 20, &n_sent, &E));
    CHECK(n_sent > 0);
    while (got < n_sent) {
        OK(i2psock_stream_recv(in, b, sizeof b, 0, &n_got, &E));
        got += n_got;
    }
    OK(i2psock_stream_close(s, HANG, &E));
    ST(I2PSOCK_CLOSED, i2psock_stream_recv(in, b, sizeof b, 0, &n_got, &E));
    i2psock_stream_free(in);
    free(big);
}

static void address_forms(void) {
    bridge b;
    char path[64], text[128];
    i2psock_options *o;
    i2psock_controller *c = NULL;
    i2psock_dest *d;
    fake *six;
    plan p;
    snprintf(path, sizeof path, "/tmp/i2psock-test-%d.sock", (int) getpid());
    unlink(path);
    bridge_start(&b, "--unix", path, NULL);
    o = i2psock_options_new();
    OK(i2psock_options_set(o, "sam", path, &E));
    OK(i2psock_controller_open(o, &c, &E));
    CHECK_STR(i2psock_controller_address(c), path);
    CHECK_STR(i2psock_controller_udp_address(c), "127.0.0.1:7655");
    d = open_dest(c);
    CHECK_INT(i2psock_dest_state(d, NULL), I2PSOCK_STATE_READY);
    stream_over(d);
    i2psock_dest_close(d);
    i2psock_controller_close(c);
    /* localhost may be ::1 first, where nobody listens. */
    snprintf(text, sizeof text, "localhost:%d", b.port);
    OK(i2psock_options_set(o, "sam", text, &E));
    OK(i2psock_options_set(o, "udp", "[::1]:99", &E));
    OK(i2psock_controller_open(o, &c, &E));
    CHECK_STR(i2psock_controller_address(c), text);
    CHECK_STR(i2psock_controller_udp_address(c), "[::1]:99");
    i2psock_controller_close(c);
    bridge_stop(&b);
    unlink(path);
    OK(i2psock_options_set(o, "sam", path, &E));
    ST(I2PSOCK_IO, i2psock_controller_open(o, &c, &E));
    CHECK_INT(i2psock_error_os_error(E), ENOENT);
    i2psock_options_free(o);

    memset(&p, 0, sizeof p);
    six = fake_start_at(AF_INET6, plan_script, &p);
    if (six == NULL) {
        printf("SKIP: no IPv6 here\n");
        return;
    }
    o = i2psock_options_new();
    snprintf(text, sizeof text, "[::1]:%d", fake_port(six));
    OK(i2psock_options_set(o, "sam", text, &E));
    OK(i2psock_controller_open(o, &c, &E));
    CHECK_STR(i2psock_controller_udp_address(c), "[::1]:7655");
    i2psock_controller_close(c);
    i2psock_options_free(o);
    fake_stop(six);
}

static void no_such_host(void) {
    i2psock_options *o = i2psock_options_new();
    i2psock_controller *c = NULL;
    OK(i2psock_options_set(o, "sam", "no-such-host.invalid:7656", &E));
    ST(ANY, i2psock_controller_open(o, &c, &E));
    CHECK(c == NULL);
    CHECK_INT(i2psock_error_status(E), I2PSOCK_IO);
    CHECK_HAS(i2psock_error_message(E), "no-such-host.invalid");
    i2psock_options_free(o);
}

static void check_again(void) {
    bridge b;
    i2psock_controller *c;
    bridge_start(&b, NULL);
    c = open_port(b.port, 1);
    OK(i2psock_controller_check(c, HANG, &E));
    OK(i2psock_controller_check(c, I2PSOCK_TIMEOUT_NONE, &E));
    ST(I2PSOCK_INVALID, i2psock_controller_check(c, -3, &E));
    bridge_stop(&b);
    ST(I2PSOCK_IO, i2psock_controller_check(c, HANG, &E));
    ERR(I2PSOCK_OP_HANDSHAKE, "", "no SAM bridge");
    i2psock_controller_close(c);
}

/* The greeting in every piecing, with a carriage return, with strange blanks, with PING before. */
static void odd_greetings(void) {
    static const char *const good[] = {
        "HELLO REPLY RESULT=OK VERSION=3.1\r\n", "HELLO  REPLY \t VERSION=3.1   RESULT=OK  \n", "PING 1\nHELLO REPLY RESULT=OK VERSION=3.1\n",
        "HELLO REPLY RESULT=OK VERSION=\"3.1\" X Y= Z=\"a b\"\n",
    };
    size_t i;
    for (i = 0; i < sizeof good / sizeof good[0]; i++) {
        int drip;
        for (drip = 0; drip < 2; drip++) {
            plan p;
            fake *f;
            i2psock_controller *c;
            memset(&p, 0, sizeof p);
            p.hello = good[i];
            p.drip = drip * 300;
            f = fake_plan(&p);
            c = open_port(fake_port(f), 1);
            CHECK_STR(i2psock_controller_version(c), "3.1");
            i2psock_controller_close(c);
            fake_stop(f);
        }
    }
}

static const test_case tests[] = {
    T(dead_port), T(not_sam), T(silent_server), T(never_accepts), T(closes_at_once), T(no_version), T(versions),
    T(credentials), T(address_forms), T(no_such_host), T(check_again), T(odd_greetings),
};
MAIN(tests)
