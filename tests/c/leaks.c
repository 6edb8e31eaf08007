/* Descriptors: none left after anything, and none to be had. */
#include "harness.h"

#include <sys/resource.h>

static void again_and_again(void) {
    int i, fds, threads;
    pair p;
    for (i = 0; i < (under_valgrind() ? 5 : 40); i++) {
        pair_open(&p);
        pair_close(&p);
        if (i == 0) {
            fds = quiet_fds();
            threads = count_threads();
        }
    }
    expect_fds(fds);
    expect_threads(threads);
}

/* A destination's descriptors go when it is closed, not only with the controller. */
static void with_the_dest(void) {
    i2psock_controller *c = open_common();
    i2psock_dest *d = open_dest(c);
    int before, i;
    i2psock_dest_close(d);
    before = quiet_fds();
    for (i = 0; i < 20; i++) {
        i2psock_stream *s = NULL;
        i2psock_pending *n = NULL;
        i2psock_addr *a = NULL;
        d = open_dest(c);
        ST(I2PSOCK_TIMEOUT, i2psock_dest_accept(d, 5, &s, &E));
        OK(i2psock_dest_lookup(d, "ME", HANG, &a, &E));
        i2psock_addr_free(a);
        ST(I2PSOCK_NETWORK, i2psock_dest_connect(d, DEST_A, NULL, HANG, &s, &E));
        ST(ANY, i2psock_dest_connect_start(d, DEST_A, NULL, HANG, &n, &E));
        i2psock_pending_free(n);
        i2psock_dest_close(d);
        expect_fds(before);
    }
    i2psock_controller_close(c);
}

/* The same when the bridge took the session away. */
static void with_the_session(void) {
    i2psock_controller *c;
    i2psock_dest *d;
    bridge b;
    int before;
    long long end;
    i2psock_stream *s = NULL;
    bridge_start(&b, NULL);
    c = open_port(b.port, 1);
    d = open_dest(c);
    /* The bridge's own descriptor goes as well. */
    before = quiet_fds() - 1;
    end = now_ms() + HANG;
    /* Until an accept has got so far that it is kept. */
    do {
        CHECK(now_ms() < end);
        ST(I2PSOCK_TIMEOUT, i2psock_dest_accept(d, 20, &s, &E));
    } while (quiet_fds() != before + 2);
    bridge_stop(&b);
    while (i2psock_dest_state(d, NULL) != I2PSOCK_STATE_DEAD) pause_ms(1);
    ST(I2PSOCK_CLOSED, i2psock_dest_accept(d, HANG, &s, &E));
    /* The control socket and the accept that was given up are gone with the session. */
    expect_fds(before - 1);
    i2psock_dest_close(d);
    i2psock_controller_close(c);
}

static i2psock_status limited(i2psock_controller *c, i2psock_dest *d, int kind) {
    i2psock_dest *dest = NULL;
    i2psock_stream *s = NULL;
    i2psock_addr *a = NULL;
    i2psock_keys *k = NULL;
    i2psock_controller *other = NULL;
    i2psock_options *o;
    i2psock_status got = I2PSOCK_OK;
    switch (kind) {
    case 0:
        got = ST(ANY, i2psock_dest_open(c, NULL, I2PSOCK_STREAM, NULL, HANG, &dest, &E));
        break;
    case 1:
        got = ST(ANY, i2psock_dest_connect(d, DEST_A, NULL, HANG, &s, &E));
        break;
    case 2:
        got = ST(ANY, i2psock_dest_accept(d, 20, &s, &E));
        break;
    case 3:
        got = ST(ANY, i2psock_dest_lookup(d, "ME", HANG, &a, &E));
        break;
    case 4:
        got = ST(ANY, i2psock_keys_generate(c, 7, HANG, &k, &E));
        break;
    case 5:
        got = ST(ANY, i2psock_controller_check(c, HANG, &E));
        break;
    default:
        o = options_for_port(common.port);
        got = ST(ANY, i2psock_controller_open(o, &other, &E));
        i2psock_options_free(o);
    }
    if (kind != 5) CHECK((got == I2PSOCK_OK) == (dest != NULL || s != NULL || a != NULL || k != NULL || other != NULL));
    i2psock_dest_close(dest);
    i2psock_stream_free(s);
    i2psock_addr_free(a);
    i2psock_keys_free(k);
    i2psock_controller_close(other);
    return got;
}

/* 0, 1, 2 ... descriptors to be had: IO with EMFILE, and afterwards all is well. */
static void none_to_be_had(int keeper) {
    i2psock_controller *c = open_port(common.port, keeper);
    i2psock_dest *d = open_dest(c);
    struct rlimit old, now;
    int room, kind, before, highest, probe, refused = 0;
    CHECK(getrlimit(RLIMIT_NOFILE, &old) == 0);
    for (kind = 0; kind < 7; kind++) {
        for (room = 0; room < 5; room++) {
            i2psock_status got;
            before = quiet_fds();
            probe = dup(0);
            highest = probe;
            close(probe);
            now = old;
            now.rlim_cur = (rlim_t) (highest + room);
            CHECK(setrlimit(RLIMIT_NOFILE, &now) == 0);
            got = limited(c, d, kind);
            if (got == I2PSOCK_IO) {
                CHECK_INT(i2psock_error_os_error(E), EMFILE);
                refused++;
            } else {
                /* What a destination cannot reach or nobody calls is its usual answer. */
                CHECK(got == (kind == 1 ? I2PSOCK_NETWORK : kind == 2 ? I2PSOCK_TIMEOUT : I2PSOCK_OK));
            }
            if (room == 0 && kind != 2) CHECK_INT(got, I2PSOCK_IO);
            CHECK(setrlimit(RLIMIT_NOFILE, &old) == 0);
            if (kind != 2) expect_fds(before);
        }
    }
    CHECK(refused >= 6);
    CHECK_INT(i2psock_dest_state(d, NULL), I2PSOCK_STATE_READY);
    i2psock_dest_close(d);
    i2psock_controller_close(c);
}
static void none_to_be_had_with_keeper(void) { none_to_be_had(1); }
static void none_to_be_had_without_keeper(void) { none_to_be_had(0); }

/* More sessions than select(2) could bear, all kept alive by one thread. */
static void many_sessions(void) {
    bridge b;
    i2psock_controller *c;
    i2psock_dest *d[100];
    int i, count = under_valgrind() ? 20 : 100, threads = count_threads();
    i2psock_addr *a = NULL;
    bridge_start(&b, "--ping-every", "5", NULL);
    c = open_port(b.port, 1);
    for (i = 0; i < count; i++) d[i] = open_dest(c);
    CHECK_INT(count_threads(), threads + 1);
    for (i = 0; i < count; i++) {
        OK(i2psock_dest_lookup(d[i], "ME", HANG, &a, &E));
        CHECK_INT(i2psock_addr_equal(a, i2psock_dest_addr(d[i])), 1);
        i2psock_addr_free(a);
    }
    for (i = 0; i < count; i += 2) i2psock_dest_close(d[i]);
    i2psock_controller_close(c);
    for (i = 1; i < count; i += 2) {
        CHECK_INT(i2psock_dest_state(d[i], NULL), I2PSOCK_STATE_DEAD);
        i2psock_dest_close(d[i]);
    }
    bridge_stop(&b);
}

/* A program that gives up its right to open files after opening its destinations, as one in a sandbox does: there are more of
 * them than it may have descriptors now. */
static void limit_lowered_later(void) {
    bridge b;
    i2psock_controller *c;
    i2psock_dest *d[12];
    struct rlimit old, now;
    const int count = (int) (sizeof d / sizeof *d);
    int i;
    long long end = now_ms() + HANG;
    bridge_start(&b, NULL);
    c = open_port(b.port, 1);
    for (i = 0; i < count; i++) d[i] = open_dest(c);
    CHECK(getrlimit(RLIMIT_NOFILE, &old) == 0);
    now = old;
    now.rlim_cur = 8;
    CHECK(setrlimit(RLIMIT_NOFILE, &now) == 0);
    OK(i2psock_dest_shutdown(d[0], &E));
    bridge_stop(&b);
    /* The keeper notices that the sessions are lost. The state is asked for, so nothing else does. */
    for (i = 1; i < count; i++)
        while (i2psock_dest_state(d[i], NULL) != I2PSOCK_STATE_DEAD) {
            CHECK(now_ms() < end);
            pause_ms(1);
        }
    CHECK(setrlimit(RLIMIT_NOFILE, &old) == 0);
    for (i = 0; i < count; i++) i2psock_dest_close(d[i]);
    i2psock_controller_close(c);
}

static const test_case tests[] = {
    T(again_and_again), T(with_the_dest), T(with_the_session), T(none_to_be_had_with_keeper), T(none_to_be_had_without_keeper),
    T(many_sessions), T(limit_lowered_later),
};
MAIN(tests)
