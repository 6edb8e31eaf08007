/* Named destinations: an address that stays, one session for all handles of a name, one owner at a time. */
#include "harness.h"

#include <dirent.h>


static i2psock_status try_named(i2psock_controller *c, const char *name, int style, const char *key, const char *value, i2psock_dest **out) {
    i2psock_options *o = i2psock_options_new();
    i2psock_status status;
    if (key != NULL) CHECK(i2psock_options_set(o, key, value, NULL) == I2PSOCK_OK);
    *out = (i2psock_dest *) 0x55;
    status = ST(ANY, i2psock_dest_open(c, name, style, o, HANG, out, &E));
    CHECK((status == I2PSOCK_OK) == (*out != NULL));
    i2psock_options_free(o);
    return status;
}

/* Refused with STATE, with words that tell which destination it is about. */
static void check_refused(int line, i2psock_controller *c, const char *name, int style, const char *key, const char *value) {
    i2psock_dest *d;
    i2psock_status status = try_named(c, name, style, key, value, &d);
    check_int(__FILE__, line, "the status", status, I2PSOCK_STATE);
    check_int(__FILE__, line, "the operation", i2psock_error_operation(E), I2PSOCK_OP_CREATE);
    check_has(__FILE__, line, "the message", i2psock_error_message(E), name, 1);
}
#define REFUSED(c, name, style, key, value) check_refused(__LINE__, c, name, style, key, value)

static char *address_of(const i2psock_dest *d) { return strdup(dest_text(d)); }

/* That streams come to it. */
static void check_alive(i2psock_controller *c, i2psock_dest *d) {
    i2psock_dest *client = open_dest(c);
    i2psock_stream *in = NULL, *out = NULL;
    i2psock_listener *l = open_listener(d, 0);
    meet(client, d, l, &out, &in);
    i2psock_stream_free(in);
    i2psock_stream_free(out);
    i2psock_listener_close(l);
    i2psock_dest_close(client);
}

static void without_a_folder(void) {
    i2psock_controller *c = open_common();
    i2psock_dest *d;
    int style;
    for (style = I2PSOCK_STREAM; style <= I2PSOCK_DGRAM3; style++) {
        CHECK_INT(try_named(c, "alice", style, NULL, NULL, &d), I2PSOCK_INVALID);
        CHECK_HAS(i2psock_error_message(E), "key_store");
    }
    /* Without a name none is needed. */
    CHECK_INT(try_named(c, "", I2PSOCK_STREAM, NULL, NULL, &d), I2PSOCK_OK);
    CHECK_STR(i2psock_dest_name(d), "");
    i2psock_dest_close(d);
    i2psock_controller_close(c);
}

/* i2p.sam: socket("Bob", SOCK_DGRAM, in_depth=2, out_depth=5). */
static void the_example_of_i2p_sam(void) {
    plan p;
    fake *f;
    char *folder = folder_new(), *line;
    int round;
    memset(&p, 0, sizeof p);
    f = fake_plan(&p);
    for (round = 0; round < 2; round++) {
        i2psock_controller *c = open_store(fake_port(f), 1, folder);
        i2psock_options *o = i2psock_options_new();
        i2psock_dest *d = NULL;
        OK(i2psock_options_set_int(o, "in_depth", 2, &E));
        OK(i2psock_options_set_int(o, "out_depth", 5, &E));
        OK(i2psock_dest_open(c, "Bob", I2PSOCK_DGRAM, o, HANG, &d, &E));
        CHECK_STR(i2psock_dest_name(d), "Bob");
        CHECK_INT(i2psock_dest_style(d), I2PSOCK_DGRAM);
        CHECK_STR(dest_text(d), DEST_A);
        i2psock_options_free(o);
        i2psock_dest_close(d);
        i2psock_controller_close(c);
    }
    CHECK_INT(fake_lines(f, "SESSION CREATE STYLE=DATAGRAM"), 2);
    CHECK_INT(fake_lines(f, " inbound.length=2"), 2);
    CHECK_INT(fake_lines(f, " outbound.length=5"), 2);
    /* New keys the first time, those the second time. The name itself is nothing for the router. */
    CHECK_INT(fake_lines(f, "DESTINATION=TRANSIENT"), 1);
    CHECK_INT(fake_lines(f, "DESTINATION=" KEYS_A), 1);
    line = fake_copy(f, "SESSION CREATE");
    CHECK_HAS_NOT(line, "Bob");
    free(line);
    fake_stop(f);
    folder_remove(folder);
}

static void the_address_stays(void) {
    char *folder = folder_new(), *address = NULL, *other = NULL;
    int round;
    for (round = 0; round < 4; round++) {
        i2psock_controller *c = open_store(common.port, round % 2, folder);
        i2psock_dest *alice = open_named(c, "alice"), *bob = open_named(c, "Bob");
        i2psock_keys *k = i2psock_dest_keys(alice);
        i2psock_addr *a = i2psock_keys_addr(k);
        CHECK_INT(i2psock_addr_equal(a, i2psock_dest_addr(alice)), 1);
        if (round == 0) {
            address = address_of(alice);
            other = address_of(bob);
            CHECK(strcmp(address, other) != 0);
        }
        CHECK_STR(dest_text(alice), address);
        CHECK_STR(dest_text(bob), other);
        i2psock_addr_free(a);
        i2psock_keys_free(k);
        i2psock_dest_close(alice);
        /* Through the same controller, and with another style. */
        CHECK_INT(try_named(c, "alice", round % 2 ? I2PSOCK_RAW : I2PSOCK_STREAM, "nickname", "x", &alice), I2PSOCK_OK);
        CHECK_STR(dest_text(alice), address);
        CHECK_STR(i2psock_dest_nickname(alice), "x");
        i2psock_dest_close(bob);
        i2psock_dest_close(alice);
        i2psock_controller_close(c);
    }
    free(address);
    free(other);
    folder_remove(folder);
}

static void no_name(void) {
    char *folder = folder_new();
    i2psock_controller *c = open_store(common.port, 1, folder);
    i2psock_dest *a, *b;
    DIR *dir;
    struct dirent *entry;
    CHECK_INT(try_named(c, "", I2PSOCK_STREAM, NULL, NULL, &a), I2PSOCK_OK);
    CHECK_INT(try_named(c, NULL, I2PSOCK_STREAM, NULL, NULL, &b), I2PSOCK_OK);
    CHECK_STR(i2psock_dest_name(a), "");
    CHECK_STR(i2psock_dest_name(b), "");
    CHECK_INT(i2psock_addr_equal(i2psock_dest_addr(a), i2psock_dest_addr(b)), 0);
    /* They leave nothing behind. */
    dir = opendir(folder);
    CHECK(dir != NULL);
    while ((entry = readdir(dir)) != NULL) CHECK(entry->d_name[0] == '.' && strchr("./", entry->d_name[1]) != NULL);
    closedir(dir);
    i2psock_dest_close(a);
    i2psock_dest_close(b);
    i2psock_controller_close(c);
    folder_remove(folder);
}

static void names_that_are_none(void) {
    static const char *const bad[] = {
        "a/b", "/", "../x", "..", ".", ".hidden", "a\\b", "a\nb", "\t", "\x7f", " a", "a ", "alice.dat", "\xff\xfe",
    };
    static const char *const good[] = { "a", "A", "a.b", "-", "Bob the 2nd", "z\xc3\xbc" };
    char *folder = folder_new(), *text = big_text(65, 'x');
    i2psock_controller *c = open_store(common.port, 1, folder);
    i2psock_dest *d;
    size_t i;
    int fds = count_fds();
    for (i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        if (try_named(c, bad[i], I2PSOCK_STREAM, NULL, NULL, &d) != I2PSOCK_INVALID) fail_at(__FILE__, __LINE__, "\"%s\" is taken", bad[i]);
        CHECK_HAS(i2psock_error_message(E), "name");
    }
    CHECK_INT(try_named(c, text, I2PSOCK_STREAM, NULL, NULL, &d), I2PSOCK_INVALID);
    CHECK_INT(count_fds(), fds);
    for (i = 0; i < sizeof good / sizeof good[0]; i++) i2psock_dest_close(open_named(c, good[i]));
    text[64] = 0;
    i2psock_dest_close(open_named(c, text));
    free(text);
    i2psock_controller_close(c);
    folder_remove(folder);
}

/* ---- several handles ---- */

static void handles_share(int keeper) {
    char *folder = folder_new();
    plan p;
    fake *f;
    i2psock_controller *c, *real;
    i2psock_dest *d[3];
    i2psock_stream *in = NULL, *out = NULL, *none = NULL;
    i2psock_listener *l;
    i2psock_dest *client;
    char b[4];
    size_t count;
    int i;
    /* That it is one session is seen from the router's side. */
    memset(&p, 0, sizeof p);
    f = fake_plan(&p);
    c = open_store(fake_port(f), keeper, folder);
    for (i = 0; i < 3; i++) d[i] = open_named(c, "Bob");
    CHECK_INT(fake_lines(f, "SESSION CREATE"), 1);
    for (i = 0; i < 3; i++) i2psock_dest_close(d[i]);
    d[0] = open_named(c, "Bob");
    CHECK_INT(fake_lines(f, "SESSION CREATE"), 2);
    i2psock_dest_close(d[0]);
    i2psock_controller_close(c);
    fake_stop(f);

    real = open_store(common.port, keeper, folder);
    for (i = 0; i < 3; i++) {
        d[i] = open_named(real, "alice");
        CHECK(i == 0 || d[i] != d[0]);
        CHECK_STR(dest_text(d[i]), dest_text(d[0]));
        CHECK_INT(i2psock_dest_state(d[i], NULL), I2PSOCK_STATE_READY);
    }
    /* What began through one handle goes on when that one is closed. */
    client = open_dest(real);
    l = open_listener(d[0], 0);
    meet(client, d[0], l, &out, &in);
    i2psock_dest_close(d[0]);
    OK(i2psock_stream_send(in, "abc", 3, 0, NULL, &E));
    OK(i2psock_stream_recv(out, b, 3, MSG_WAITALL, &count, &E));
    i2psock_dest_close(d[1]);
    ST(I2PSOCK_BLOCK, i2psock_listener_accept(l, &none, &E));
    i2psock_stream_free(in);
    i2psock_stream_free(out);
    /* So does the listener that the first one opened. */
    meet(client, d[2], l, &out, &in);
    /* The last one ends it all. */
    i2psock_dest_close(d[2]);
    ST(I2PSOCK_CLOSED, i2psock_stream_recv(out, b, 3, 0, &count, &E));
    ST(I2PSOCK_CLOSED, i2psock_listener_accept(l, &none, &E));
    i2psock_listener_close(l);
    i2psock_stream_free(in);
    i2psock_stream_free(out);
    i2psock_dest_close(client);
    i2psock_controller_close(real);
    folder_remove(folder);
}
static void share_with_keeper(void) { handles_share(1); }
static void share_without_keeper(void) { handles_share(0); }

static void shut_down_for_all(void) {
    char *folder = folder_new();
    i2psock_controller *c = open_store(common.port, 1, folder);
    i2psock_dest *one = open_named(c, "alice"), *two = open_named(c, "alice"), *anew;
    i2psock_stream *s = NULL;
    i2psock_state state;
    OK(i2psock_dest_service(two, &state, &E));
    CHECK_INT(state, I2PSOCK_STATE_READY);
    OK(i2psock_dest_shutdown(one, &E));
    CHECK(readable(i2psock_dest_fd(two), HANG));
    OK(i2psock_dest_service(two, &state, &E));
    CHECK_INT(state, I2PSOCK_STATE_DEAD);
    ST(I2PSOCK_CLOSED, i2psock_dest_accept(two, HANG, &s, &E));
    /* The name is free, whatever handles are left of before. */
    anew = open_named(c, "alice");
    CHECK_STR(dest_text(anew), dest_text(one));
    CHECK_INT(i2psock_dest_state(two, NULL), I2PSOCK_STATE_DEAD);
    i2psock_dest_close(one);
    i2psock_dest_close(two);
    check_alive(c, anew);
    i2psock_dest_close(anew);
    i2psock_controller_close(c);
    folder_remove(folder);
}

static void what_does_not_fit(void) {
    char *folder = folder_new(), *fresh = folder_new();
    i2psock_controller *c = open_store(common.port, 1, folder);
    i2psock_options *o = i2psock_options_new();
    i2psock_dest *alice, *d = NULL, *stranger;
    i2psock_keys *k;
    int fds;
    CHECK_INT(try_named(c, "alice", I2PSOCK_STREAM, "in_depth", "2", &alice), I2PSOCK_OK);
    fds = quiet_fds();
    REFUSED(c, "alice", I2PSOCK_DGRAM, NULL, NULL);
    REFUSED(c, "alice", I2PSOCK_RAW, "in_depth", "2");
    REFUSED(c, "alice", I2PSOCK_STREAM, "in_depth", "3");
    CHECK_HAS(i2psock_error_message(E), "in_depth");
    REFUSED(c, "alice", I2PSOCK_STREAM, "out_depth", "2");
    REFUSED(c, "alice", I2PSOCK_STREAM, "i2cp.gzip", "false");
    REFUSED(c, "alice", I2PSOCK_STREAM, "recover", "0");
    REFUSED(c, "alice", I2PSOCK_STREAM, "signature_type", "11");
    /* What it has fits, and so does asking for nothing, or for what is so anyway. */
    CHECK_INT(try_named(c, "alice", I2PSOCK_STREAM, "in_depth", "2", &d), I2PSOCK_OK);
    i2psock_dest_close(d);
    CHECK_INT(try_named(c, "alice", I2PSOCK_STREAM, "recover", "1", &d), I2PSOCK_OK);
    i2psock_dest_close(d);
    CHECK_INT(try_named(c, "alice", I2PSOCK_STREAM, "signature_type", "7", &d), I2PSOCK_OK);
    i2psock_dest_close(d);
    /* Keys of somebody else, and those it has. */
    stranger = open_dest(c);
    k = i2psock_dest_keys(stranger);
    OK(i2psock_options_set_keys(o, k, &E));
    i2psock_keys_free(k);
    i2psock_dest_close(stranger);
    ST(I2PSOCK_STATE, i2psock_dest_open(c, "alice", I2PSOCK_STREAM, o, HANG, &d, &E));
    CHECK_HAS(i2psock_error_message(E), "alice");
    ERR(I2PSOCK_OP_CREATE, "", "keys");
    k = i2psock_dest_keys(alice);
    OK(i2psock_options_set_keys(o, k, &E));
    OK(i2psock_dest_open(c, "alice", I2PSOCK_STREAM, o, HANG, &d, &E));
    i2psock_dest_close(d);
    i2psock_keys_free(k);
    expect_fds(fds);
    check_alive(c, alice);
    i2psock_dest_close(alice);
    i2psock_controller_close(c);
    /* With keys of its own from the start, in a folder that has none yet. */
    c = open_store(common.port, 1, fresh);
    OK(i2psock_dest_open(c, "alice", I2PSOCK_STREAM, o, HANG, &alice, &E));
    i2psock_options_free(o);
    d = open_named(c, "alice");
    CHECK_STR(dest_text(d), dest_text(alice));
    i2psock_dest_close(d);
    i2psock_dest_close(alice);
    i2psock_controller_close(c);
    folder_remove(folder);
    folder_remove(fresh);
}

/* ---- one owner ---- */

static void another_controller(void) {
    char *folder = folder_new();
    i2psock_controller *one = open_store(common.port, 1, folder), *two = open_store(common.port, 0, folder);
    i2psock_dest *alice = open_named(one, "alice"), *again = open_named(one, "alice"), *bob = open_named(two, "Bob");
    int fds = count_fds();
    REFUSED(two, "alice", I2PSOCK_STREAM, NULL, NULL);
    REFUSED(one, "Bob", I2PSOCK_STREAM, NULL, NULL);
    CHECK_INT(count_fds(), fds);
    i2psock_dest_close(alice);
    REFUSED(two, "alice", I2PSOCK_STREAM, NULL, NULL);
    i2psock_dest_close(again);
    alice = open_named(two, "alice");
    REFUSED(one, "alice", I2PSOCK_STREAM, NULL, NULL);
    /* Shut down is as good as closed. */
    OK(i2psock_dest_shutdown(alice, &E));
    again = open_named(one, "alice");
    i2psock_dest_close(alice);
    REFUSED(two, "alice", I2PSOCK_STREAM, NULL, NULL);
    /* So is the end of the controller. */
    i2psock_controller_close(one);
    alice = open_named(two, "alice");
    i2psock_dest_close(again);
    i2psock_dest_close(alice);
    i2psock_dest_close(bob);
    i2psock_controller_close(two);
    folder_remove(folder);
}

static void tell(int fd) { CHECK(write(fd, "x", 1) == 1); }
static void hear(int fd) {
    char b;
    CHECK(readable(fd, HANG));
    CHECK(read(fd, &b, 1) == 1);
}

static void another_process(void) {
    char *folder = folder_new(), *address;
    i2psock_controller *c;
    i2psock_dest *d;
    int to[2], from[2], status;
    pid_t child;
    CHECK(pipe2(to, O_CLOEXEC) == 0 && pipe2(from, O_CLOEXEC) == 0);
    fflush(NULL);
    child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        alarm((unsigned) (HANG / 1000));
        c = open_store(common.port, 1, folder);
        hear(to[0]);
        REFUSED(c, "alice", I2PSOCK_STREAM, NULL, NULL);
        tell(from[1]);
        hear(to[0]);
        d = open_named(c, "alice");
        tell(from[1]);
        /* It is killed with the name in its hands. */
        for (;;) pause();
    }
    c = open_store(common.port, 1, folder);
    d = open_named(c, "alice");
    address = address_of(d);
    tell(to[1]);
    hear(from[0]);
    i2psock_dest_close(d);
    tell(to[1]);
    hear(from[0]);
    REFUSED(c, "alice", I2PSOCK_STREAM, NULL, NULL);
    CHECK(kill(child, SIGKILL) == 0);
    while (waitpid(child, &status, 0) < 0) CHECK(errno == EINTR);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    d = open_named(c, "alice");
    CHECK_STR(dest_text(d), address);
    i2psock_dest_close(d);
    i2psock_controller_close(c);
    free(address);
    close(to[0]);
    close(to[1]);
    close(from[0]);
    close(from[1]);
    folder_remove(folder);
}

/* ---- threads ---- */

typedef struct { i2psock_controller *c; const char *address; } shop;

static void *open_and_close(void *arg) {
    const shop *at = (const shop *) arg;
    int i;
    for (i = 0; i < (under_valgrind() ? 2 : 6); i++) {
        i2psock_dest *d = NULL;
        OK(i2psock_dest_open(at->c, "Bob", I2PSOCK_STREAM, NULL, 6 * HANG, &d, &E));
        CHECK_STR(dest_text(d), at->address);
        CHECK_INT(i2psock_dest_state(d, NULL), I2PSOCK_STATE_READY);
        i2psock_dest_close(d);
    }
    err_done();
    return NULL;
}

static void fifty(i2psock_controller *c, const char *address) {
    pthread_t t[50];
    shop at;
    int i;
    at.c = c;
    at.address = address;
    for (i = 0; i < 50; i++) t[i] = start_thread(open_and_close, &at);
    for (i = 0; i < 50; i++) join_thread(t[i]);
}

static void fifty_threads(int keeper) {
    char *folder = folder_new(), *address;
    plan p;
    fake *f;
    i2psock_controller *c;
    i2psock_dest *d;
    int fds;
    /* While somebody has it, it is one session. */
    memset(&p, 0, sizeof p);
    f = fake_plan(&p);
    c = open_store(fake_port(f), keeper, folder);
    d = open_named(c, "Bob");
    fifty(c, DEST_A);
    CHECK_INT(fake_lines(f, "SESSION CREATE"), 1);
    i2psock_dest_close(d);
    i2psock_controller_close(c);
    fake_stop(f);
    folder_remove(folder);
    /* And otherwise sessions come and go, one at a time: a second one would be DUPLICATED_DEST. */
    folder = folder_new();
    c = open_store(common.port, keeper, folder);
    d = open_named(c, "Bob");
    address = address_of(d);
    i2psock_dest_close(d);
    fds = quiet_fds();
    fifty(c, address);
    expect_fds(fds);
    i2psock_controller_close(c);
    free(address);
    folder_remove(folder);
}
static void fifty_with_keeper(void) { fifty_threads(1); }
static void fifty_without_keeper(void) { fifty_threads(0); }

/* ---- one poll loop, several opens of one name ---- */

#define OPENS 3

static void poll_opens(i2psock_pending **n) {
    long long end = now_ms() + HANG;
    int i, left;
    for (;;) {
        struct pollfd p[OPENS];
        int wait = HANG;
        left = 0;
        CHECK(now_ms() < end);
        for (i = 0; i < OPENS; i++) {
            p[i].fd = -1;
            p[i].events = 0;
            if (n[i] == NULL) continue;
            if (ST(ANY, i2psock_pending_step(n[i], &E)) != I2PSOCK_OK) {
                CHECK(E == NULL);
                left++;
            }
        }
        if (left == 0) return;
        for (i = 0; i < OPENS; i++) {
            int due;
            if (n[i] == NULL) continue;
            due = i2psock_pending_timeout_ms(n[i]);
            p[i].fd = i2psock_pending_fd(n[i]);
            p[i].events = (short) i2psock_pending_events(n[i]);
            if (i2psock_pending_stage(n[i]) != I2PSOCK_STAGE_DONE && due >= 0 && due < wait) wait = due;
        }
        /* Nothing but what the pendings tell is waited for. */
        if (poll(p, OPENS, wait) == 0 && wait == HANG) fail_at(__FILE__, __LINE__, "%d opens wait for nothing", left);
    }
}

static void opened_at_once(int keeper) {
    char *folder = folder_new();
    bridge b;
    i2psock_controller *c;
    int round, i;
    bridge_start(&b, "--build-delay", "30", NULL);
    c = open_store(b.port, keeper, folder);
    /* The last rounds give one of them up, the one that asks the router among others. */
    for (round = 0; round < 1 + OPENS; round++) {
        i2psock_pending *n[OPENS];
        i2psock_dest *d[OPENS] = { NULL, NULL, NULL };
        const char *text = NULL;
        int fds = quiet_fds();
        for (i = 0; i < OPENS; i++) OK(i2psock_dest_open_start(c, "alice", I2PSOCK_STREAM, NULL, HANG, &n[i], &E));
        if (round > 0) {
            i2psock_pending_free(n[round - 1]);
            n[round - 1] = NULL;
        }
        poll_opens(n);
        for (i = 0; i < OPENS; i++) {
            if (n[i] == NULL) continue;
            OK(i2psock_pending_finish_dest(n[i], &d[i], &E));
            i2psock_pending_free(n[i]);
            if (text == NULL) text = dest_text(d[i]);
            CHECK_STR(dest_text(d[i]), text);
        }
        for (i = 0; i < OPENS; i++) i2psock_dest_close(d[i]);
        expect_fds(fds);
    }
    i2psock_controller_close(c);
    bridge_stop(&b);
    folder_remove(folder);
}
static void opened_with_keeper(void) { opened_at_once(1); }
static void opened_without_keeper(void) { opened_at_once(0); }

/* Everything about a name that is being opened ends with the controller. */
static void closed_while_waiting(void) {
    char *folder = folder_new();
    i2psock_pending *n[2] = { NULL, NULL };
    i2psock_controller *c;
    bridge b;
    int i;
    bridge_start(&b, "--build-delay", "600000", NULL);
    c = open_store(b.port, 1, folder);
    for (i = 0; i < 2; i++) {
        OK(i2psock_dest_open_start(c, "alice", I2PSOCK_STREAM, NULL, I2PSOCK_TIMEOUT_NONE, &n[i], &E));
        ST(I2PSOCK_BLOCK, i2psock_pending_wait(n[i], 10, &E));
    }
    i2psock_controller_close(c);
    for (i = 0; i < 2; i++) ST(I2PSOCK_CLOSED, i2psock_pending_wait(n[i], HANG, &E));
    for (i = 0; i < 2; i++) i2psock_pending_free(n[i]);
    /* The name is nobody's any more. */
    c = open_store(common.port, 1, folder);
    i2psock_dest_close(open_named(c, "alice"));
    i2psock_controller_close(c);
    bridge_stop(&b);
    folder_remove(folder);
}

/* ---- a router that does not let go at once ---- */

static i2psock_controller *open_patient(int port, const char *folder, int delay) {
    i2psock_options *o = options_for_port(port);
    i2psock_controller *c = NULL;
    OK(i2psock_options_set(o, "key_store", folder, &E));
    OK(i2psock_options_set_int(o, "reopen_delay", delay, &E));
    OK(i2psock_controller_open(o, &c, &E));
    i2psock_options_free(o);
    return c;
}

typedef struct {
    int port;
    const char *folder;
} killed;

/* A process that ends without closing anything: in_child() lets another program take its place. */
static void open_and_die(void *arg) {
    const killed *k = (const killed *) arg;
    i2psock_controller *c = open_patient(k->port, k->folder, 1500);
    CHECK(open_named(c, "alice") != NULL);
}

/* Opens the name, and finds out whether that had to wait for the router. */
static i2psock_dest *open_watched(i2psock_controller *c, int *waited) {
    i2psock_pending *n = NULL;
    i2psock_dest *d = NULL;
    i2psock_status status;
    *waited = 0;
    OK(i2psock_dest_open_start(c, "alice", I2PSOCK_STREAM, NULL, HANG, &n, &E));
    while ((status = i2psock_pending_wait(n, 1, NULL)) == I2PSOCK_BLOCK) {
        if (i2psock_pending_stage(n) != I2PSOCK_STAGE_LETTING_GO) continue;
        *waited = 1;
        CHECK_HAS(i2psock_pending_stage_name(n), "let go of the last session");
    }
    CHECK_INT(status, I2PSOCK_OK);
    OK(i2psock_pending_finish_dest(n, &d, &E));
    i2psock_pending_free(n);
    return d;
}

static void too_soon(void) {
    char *folder = folder_new();
    i2psock_controller *c, *other;
    i2psock_pending *n = NULL;
    i2psock_dest *d;
    i2psock_stream *stream = NULL;
    i2psock_status status;
    bridge b;
    killed k;
    int waited;
    bridge_start(&b, "--personality", "i2pd-2.45", "--keep-closed", "700", "--park", "60000", NULL);
    c = open_patient(b.port, folder, 1500);
    d = open_watched(c, &waited);
    CHECK_INT(waited, 0);
    i2psock_dest_close(d);
    /* The limit of the caller counts, and nothing is left behind. */
    ST(I2PSOCK_TIMEOUT, i2psock_dest_open(c, "alice", I2PSOCK_STREAM, NULL, 100, &d, &E));
    CHECK_HAS(i2psock_error_message(E), "let go of the last session");
    OK(i2psock_dest_open_start(c, "alice", I2PSOCK_STREAM, NULL, HANG, &n, &E));
    ST(I2PSOCK_BLOCK, i2psock_pending_wait(n, 50, &E));
    i2psock_pending_free(n);
    d = open_watched(c, &waited);
    CHECK_INT(waited, 1);
    check_alive(c, d);
    i2psock_dest_close(d);
    /* Another process had the name, and was killed. */
    k.port = b.port;
    k.folder = folder;
    CHECK_INT(in_child(open_and_die, &k), 0);
    d = open_watched(c, &waited);
    CHECK_INT(waited, 1);
    check_alive(c, d);
    i2psock_dest_close(d);
    /* Without the delay the session dies, and is opened again when the router says so. */
    other = open_patient(b.port, folder, 0);
    d = open_watched(other, &waited);
    CHECK_INT(waited, 0);
    do {
        status = ST(ANY, i2psock_dest_connect(d, "nobody.i2p", NULL, HANG, &stream, &E));
        CHECK(status == I2PSOCK_NETWORK || status == I2PSOCK_CLOSED);
    } while (status != I2PSOCK_CLOSED);
    ERR(I2PSOCK_OP_CONNECT, "INVALID_ID", "lost");
    CHECK_INT(i2psock_dest_state(d, NULL), I2PSOCK_STATE_RECOVERING);
    CHECK(i2psock_dest_attempt(d) >= 1);
    i2psock_dest_close(d);
    i2psock_controller_close(other);
    i2psock_controller_close(c);
    bridge_stop(&b);
    folder_remove(folder);
}

static const test_case tests[] = {
    T(without_a_folder), T(the_example_of_i2p_sam), T(the_address_stays), T(no_name), T(names_that_are_none),
    T(share_with_keeper), T(share_without_keeper), T(shut_down_for_all), T(what_does_not_fit), T(another_controller),
    T(another_process), T_LONG(fifty_with_keeper), T_LONG(fifty_without_keeper), T(opened_with_keeper),
    T(opened_without_keeper), T(closed_while_waiting), T(too_soon),
};
MAIN(tests)
