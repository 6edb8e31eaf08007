/* Error objects, and the log hook: what it shows and what it never shows. */
#include "harness.h"

static void an_error_of_each_family(void) {
    i2psock_controller *c = open_common();
    i2psock_dest *d = open_dest(c);
    i2psock_stream *s = NULL;
    i2psock_addr *a = NULL;
    ST(I2PSOCK_INVALID, i2psock_addr_parse("x", -1, &a, &E));
    ERR(I2PSOCK_OP_NONE, "", "");
    CHECK_INT(i2psock_error_os_error(E), 0);
    ST(I2PSOCK_NETWORK, i2psock_dest_connect(d, DEST_A, NULL, HANG, &s, &E));
    ERR(I2PSOCK_OP_CONNECT, "CANT_REACH_PEER", "timed out");
    CHECK_STR(i2psock_error_operation_name(E), "connect");
    ST(I2PSOCK_NETWORK, i2psock_dest_connect(d, "nosuch.i2p", NULL, HANG, &s, &E));
    ERR(I2PSOCK_OP_CONNECT, "KEY_NOT_FOUND", "INVALID_KEY");
    ST(I2PSOCK_NETWORK, i2psock_dest_lookup(d, "nosuch.i2p", HANG, &a, &E));
    ERR(I2PSOCK_OP_LOOKUP, "KEY_NOT_FOUND", "");
    CHECK_STR(i2psock_error_operation_name(E), "lookup");
    ST(I2PSOCK_TIMEOUT, i2psock_dest_accept(d, 30, &s, &E));
    ERR(I2PSOCK_OP_ACCEPT, "", "30 ms");
    CHECK_STR(i2psock_error_operation_name(E), "accept");
    /* The handle may go, the error stays. */
    i2psock_dest_close(d);
    i2psock_controller_close(c);
    CHECK_HAS(i2psock_error_message(E), "30 ms");
}

static void results_of_streams(void) {
    static const struct { const char *reply; int status; const char *tag, *text; } cases[] = {
        { "STREAM STATUS RESULT=CANT_REACH_PEER MESSAGE=\"LeaseSet not found\"\n", I2PSOCK_NETWORK, "CANT_REACH_PEER", "LeaseSet not found" },
        { "STREAM STATUS RESULT=TIMEOUT\n", I2PSOCK_NETWORK, "TIMEOUT", "TIMEOUT" },
        { "STREAM STATUS RESULT=INVALID_KEY MESSAGE=timeout\n", I2PSOCK_NETWORK, "INVALID_KEY", "timeout" },
        /* It does not know the session any more. */
        { "STREAM STATUS RESULT=INVALID_ID\n", I2PSOCK_CLOSED, "INVALID_ID", "lost" },
        { "STREAM STATUS RESULT=PEER_NOT_FOUND MESSAGE=\n", I2PSOCK_NETWORK, "PEER_NOT_FOUND", "" },
        { "STREAM STATUS RESULT=CONNECTION_REFUSED FLAG MESSAGE=\"a=b c=d\"\n", I2PSOCK_NETWORK, "CONNECTION_REFUSED", "a=b c=d" },
        { "STREAM STATUS MESSAGE=OK\n", I2PSOCK_PROTOCOL, "", "RESULT" },
        { "STREAM RESULT=OK\n", I2PSOCK_PROTOCOL, "", "" },
    };
    size_t i;
    for (i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        plan p;
        fake *f;
        i2psock_controller *c;
        i2psock_dest *d;
        i2psock_stream *s = NULL;
        memset(&p, 0, sizeof p);
        p.connect = cases[i].reply;
        f = fake_plan(&p);
        c = open_port(fake_port(f), 1);
        d = open_dest(c);
        ST(cases[i].status, i2psock_dest_connect(d, DEST_B, NULL, HANG, &s, &E));
        ERR(I2PSOCK_OP_CONNECT, cases[i].tag, cases[i].text);
        CHECK(s == NULL);
        i2psock_dest_close(d);
        i2psock_controller_close(c);
        fake_stop(f);
    }
}

/* ---- the log ---- */

typedef struct {
    pthread_mutex_t lock;
    char text[65536];
    int lines;
    i2psock_controller *c;
    i2psock_dest *d;
    int wrong;
} journal;

static void note(void *user, const char *text) {
    journal *j = (journal *) user;
    pthread_mutex_lock(&j->lock);
    if (strchr(text, '\n') != NULL || strchr(text, '\r') != NULL) j->wrong = 1;
    if (strlen(j->text) + strlen(text) + 2 < sizeof j->text) {
        strcat(j->text, text);
        strcat(j->text, "\n");
    }
    j->lines++;
    pthread_mutex_unlock(&j->lock);
}

static void re_enter(void *user, const char *text) {
    journal *j = (journal *) user;
    i2psock_addr *a = (i2psock_addr *) 0x55;
    i2psock_stream *s = (i2psock_stream *) 0x55;
    i2psock_error *err = NULL;
    (void) text;
    if (j->lines++ > 20) return;
    if (i2psock_controller_check(j->c, 1000, &err) != I2PSOCK_STATE || err == NULL) j->wrong = 1;
    i2psock_error_free(err);
    if (i2psock_controller_set_log(j->c, NULL, NULL, NULL) != I2PSOCK_STATE) j->wrong = 2;
    if (i2psock_controller_lookup(j->c, DEST_A, 1000, &a, NULL) != I2PSOCK_STATE || a != NULL) j->wrong = 3;
    if (j->d != NULL && (i2psock_dest_accept(j->d, 1000, &s, NULL) != I2PSOCK_STATE || s != NULL)) j->wrong = 4;
    if (i2psock_addr_parse(DEST_A, -1, &a, NULL) != I2PSOCK_STATE) j->wrong = 5;
    if (j->d != NULL && i2psock_dest_style(j->d) != I2PSOCK_STREAM) j->wrong = 6;
    i2psock_controller_close(j->c);
}

static journal *new_journal(void) {
    journal *j = (journal *) calloc(1, sizeof *j);
    CHECK(j != NULL);
    pthread_mutex_init(&j->lock, NULL);
    return j;
}

/* What the keeper receives it may show after the call has returned. */
static void wait_for_line(journal *j, const char *text) {
    long long end = now_ms() + HANG;
    int there;
    do {
        CHECK(now_ms() < end);
        pause_ms(1);
        pthread_mutex_lock(&j->lock);
        there = strstr(j->text, text) != NULL;
        pthread_mutex_unlock(&j->lock);
    } while (!there);
}

static void log_shows_and_hides(void) {
    bridge b;
    i2psock_options *o, *d_options = i2psock_options_new();
    i2psock_controller *c = NULL;
    i2psock_dest *d = NULL, *again = NULL;
    i2psock_keys *k = NULL, *made = NULL;
    i2psock_addr *a = NULL;
    i2psock_stream *s = NULL;
    journal *j = new_journal();
    char secret[65];
    int before;
    bridge_start(&b, "--user", "alice", "--password", "sesame-open", NULL);
    o = options_for_port(b.port);
    OK(i2psock_options_set(o, "user", "alice", &E));
    OK(i2psock_options_set(o, "password", "sesame-open", &E));
    OK(i2psock_controller_open(o, &c, &E));
    i2psock_options_free(o);
    OK(i2psock_controller_set_log(c, note, j, &E));
    OK(i2psock_dest_open(c, NULL, I2PSOCK_STREAM, NULL, HANG, &d, &E));
    k = i2psock_dest_keys(d);
    OK(i2psock_keys_generate(c, 7, HANG, &made, &E));
    OK(i2psock_options_set_keys(d_options, made, &E));
    OK(i2psock_dest_open(c, NULL, I2PSOCK_STREAM, d_options, HANG, &again, &E));
    OK(i2psock_dest_lookup(d, "ME", HANG, &a, &E));
    ST(I2PSOCK_NETWORK, i2psock_dest_connect(d, DEST_A, NULL, HANG, &s, &E));
    wait_for_line(j, "<- NAMING REPLY");
    pthread_mutex_lock(&j->lock);
    CHECK_INT(j->wrong, 0);
    CHECK_HAS(j->text, "-> HELLO VERSION MIN=");
    CHECK_HAS(j->text, "<- HELLO REPLY RESULT=OK");
    CHECK_HAS(j->text, "-> SESSION CREATE");
    CHECK_HAS(j->text, "<- SESSION STATUS RESULT=OK");
    CHECK_HAS(j->text, "-> DEST GENERATE");
    CHECK_HAS(j->text, "NAMING LOOKUP NAME=ME");
    CHECK_HAS(j->text, "CANT_REACH_PEER");
    CHECK_HAS_NOT(j->text, "sesame");
    CHECK_HAS_NOT(j->text, "alice");
    /* No piece of the private part of any key. */
    {
        i2psock_keys *all[2];
        size_t i, at;
        all[0] = k;
        all[1] = made;
        for (i = 0; i < 2; i++) {
            const char *text = i2psock_keys_base64(all[i]);
            for (at = 524; at + 12 <= strlen(text); at += 4) {
                memcpy(secret, text + at, 12);
                secret[12] = 0;
                if (strcmp(secret, "AAAAAAAAAAAA") != 0) CHECK_HAS_NOT(j->text, secret);
            }
        }
    }
    before = j->lines;
    pthread_mutex_unlock(&j->lock);
    OK(i2psock_controller_set_log(c, NULL, NULL, &E));
    OK(i2psock_controller_check(c, HANG, &E));
    CHECK_INT(j->lines, before);
    i2psock_addr_free(a);
    i2psock_keys_free(k);
    i2psock_keys_free(made);
    i2psock_options_free(d_options);
    i2psock_dest_close(d);
    i2psock_dest_close(again);
    i2psock_controller_close(c);
    bridge_stop(&b);
    free(j);
}

static void log_re_entry(void) {
    journal *j = new_journal();
    i2psock_controller *c = open_common();
    i2psock_dest *d;
    i2psock_addr *a = NULL;
    j->c = c;
    OK(i2psock_controller_set_log(c, re_enter, j, &E));
    d = open_dest(c);
    CHECK(j->lines > 0);
    CHECK_INT(j->wrong, 0);
    j->lines = 0;
    j->d = d;
    OK(i2psock_dest_lookup(d, "ME", HANG, &a, &E));
    CHECK(j->lines > 0);
    CHECK_INT(j->wrong, 0);
    i2psock_addr_free(a);
    OK(i2psock_controller_set_log(c, NULL, NULL, &E));
    /* Outside the hook everything works as before. */
    OK(i2psock_controller_check(c, HANG, &E));
    i2psock_dest_close(d);
    i2psock_controller_close(c);
    free(j);
}

/* A hook that is slow does not stop others: no lock is held. */
static gate in_hook = GATE_INIT, leave_hook = GATE_INIT;
static pthread_t slow_thread;
static int slow_known;

static void slow_hook(void *user, const char *text) {
    (void) user;
    if (strstr(text, "slow.i2p") != NULL && !slow_known) {
        slow_known = 1;
        slow_thread = pthread_self();
        gate_open(&in_hook);
        gate_wait(&leave_hook, 1, HANG);
    }
}

static void *slow_lookup(void *arg) {
    i2psock_addr *a = NULL;
    ST(I2PSOCK_NETWORK, i2psock_dest_lookup((i2psock_dest *) arg, "slow.i2p", HANG, &a, &E));
    err_done();
    return NULL;
}

static void slow_hook_stops_nobody(void) {
    i2psock_controller *c = open_common();
    i2psock_dest *d = open_dest(c), *other;
    i2psock_stream *s = NULL;
    pthread_t t;
    OK(i2psock_controller_set_log(c, slow_hook, NULL, &E));
    t = start_thread(slow_lookup, d);
    CHECK(gate_wait(&in_hook, 1, HANG));
    other = open_dest(c);
    ST(I2PSOCK_TIMEOUT, i2psock_dest_accept(d, 50, &s, &E));
    OK(i2psock_controller_check(c, HANG, &E));
    CHECK_INT(i2psock_dest_state(d, NULL), I2PSOCK_STATE_READY);
    OK(i2psock_controller_set_log(c, NULL, NULL, &E));
    i2psock_dest_close(other);
    gate_open(&leave_hook);
    join_thread(t);
    i2psock_dest_close(d);
    i2psock_controller_close(c);
}

static const test_case tests[] = {
    T(an_error_of_each_family), T(results_of_streams), T(log_shows_and_hides), T(log_re_entry), T(slow_hook_stops_nobody),
};
MAIN(tests)
