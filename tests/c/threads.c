/* Many threads on the same handles. */
#include "harness.h"

#include <dirent.h>

#define ROUNDS 6

typedef struct {
    i2psock_controller *c;
    i2psock_dest *d;
    int number, result;
    gate *go;
} worker;

static pthread_mutex_t sum_lock = PTHREAD_MUTEX_INITIALIZER;
static int sent_sum, received_sum, accepted_count;

static void add(int *to, int value) {
    pthread_mutex_lock(&sum_lock);
    *to += value;
    pthread_mutex_unlock(&sum_lock);
}

static void *connector(void *arg) {
    worker *w = (worker *) arg;
    int i;
    for (i = 0; i < ROUNDS; i++) {
        i2psock_stream *s = NULL;
        int value = w->number * 100 + i, back = 0;
        size_t n;
        OK(i2psock_dest_connect(w->d, dest_text(w->d), NULL, HANG, &s, &E));
        OK(i2psock_stream_send(s, &value, sizeof value, 0, NULL, &E));
        OK(i2psock_stream_recv(s, &back, sizeof back, MSG_WAITALL, &n, &E));
        CHECK_INT(back, value);
        add(&sent_sum, value);
        OK(i2psock_stream_close(s, HANG, &E));
    }
    err_done();
    return NULL;
}

static void *acceptor(void *arg) {
    worker *w = (worker *) arg;
    int i;
    for (i = 0; i < ROUNDS; i++) {
        i2psock_stream *s = NULL;
        int value = 0;
        size_t n;
        OK(i2psock_dest_accept(w->d, HANG, &s, &E));
        OK(i2psock_stream_recv(s, &value, sizeof value, MSG_WAITALL, &n, &E));
        add(&received_sum, value);
        add(&accepted_count, 1);
        OK(i2psock_stream_send(s, &value, sizeof value, 0, NULL, &E));
        OK(i2psock_stream_close(s, HANG, &E));
    }
    err_done();
    return NULL;
}

static void *resolver(void *arg) {
    worker *w = (worker *) arg;
    int i;
    for (i = 0; i < ROUNDS * 3; i++) {
        i2psock_addr *a = NULL;
        char name[32];
        switch ((i + w->number) % 3) {
        case 0:
            OK(i2psock_dest_lookup(w->d, "ME", HANG, &a, &E));
            CHECK_INT(i2psock_addr_equal(a, i2psock_dest_addr(w->d)), 1);
            break;
        case 1:
            snprintf(name, sizeof name, "no%d.i2p", w->number);
            ST(I2PSOCK_NETWORK, i2psock_dest_lookup(w->d, name, HANG, &a, &E));
            break;
        default:
            OK(i2psock_controller_lookup(w->c, i2psock_addr_host(i2psock_dest_addr(w->d)), HANG, &a, &E));
            CHECK_INT(i2psock_addr_equal(a, i2psock_dest_addr(w->d)), 1);
        }
        i2psock_addr_free(a);
        CHECK_INT(i2psock_dest_state(w->d, NULL), I2PSOCK_STATE_READY);
    }
    err_done();
    return NULL;
}

static void fifty_on_one(int keeper) {
    i2psock_controller *c = open_port(common.port, keeper);
    i2psock_dest *d = open_dest(c);
    pthread_t t[50];
    worker w[50];
    int i;
    sent_sum = received_sum = accepted_count = 0;
    for (i = 0; i < 50; i++) {
        memset(&w[i], 0, sizeof w[i]);
        w[i].c = c;
        w[i].d = d;
        w[i].number = i;
        t[i] = start_thread(i < 20 ? connector : i < 40 ? acceptor : resolver, &w[i]);
    }
    for (i = 0; i < 50; i++) join_thread(t[i]);
    CHECK_INT(accepted_count, 20 * ROUNDS);
    CHECK_INT(received_sum, sent_sum);
    i2psock_dest_close(d);
    i2psock_controller_close(c);
}
static void with_keeper(void) { fifty_on_one(1); }
static void without_keeper(void) { fifty_on_one(0); }

static void *opener(void *arg) {
    worker *w = (worker *) arg;
    int i;
    for (i = 0; i < 4; i++) {
        i2psock_dest *d = open_dest(w->c);
        CHECK_INT(i2psock_dest_state(d, NULL), I2PSOCK_STATE_READY);
        i2psock_dest_close(d);
    }
    err_done();
    return NULL;
}

static void opening_and_closing(void) {
    i2psock_controller *c = open_common();
    pthread_t t[16];
    worker w;
    int i;
    w.c = c;
    for (i = 0; i < 16; i++) t[i] = start_thread(opener, &w);
    for (i = 0; i < 16; i++) join_thread(t[i]);
    i2psock_controller_close(c);
}

/* Whatever is under way when the session ends, ends with CLOSED, at once. */
static void *until_closed(void *arg) {
    worker *w = (worker *) arg;
    i2psock_status got = I2PSOCK_OK;
    gate_open(w->go);
    while (got == I2PSOCK_OK || got == I2PSOCK_NETWORK) {
        i2psock_stream *s = NULL;
        i2psock_addr *a = NULL;
        switch (w->number % 4) {
        case 0:
            got = ST(ANY, i2psock_dest_accept(w->d, -1, &s, &E));
            break;
        case 1:
            got = ST(ANY, i2psock_dest_connect(w->d, dest_text(w->d), NULL, -1, &s, &E));
            break;
        case 2:
            got = ST(ANY, i2psock_dest_lookup(w->d, "no.i2p", -1, &a, &E));
            break;
        default: {
            i2psock_pending *p = NULL;
            got = ST(ANY, i2psock_dest_accept_start(w->d, -1, &p, &E));
            if (got == I2PSOCK_OK) got = ST(ANY, i2psock_pending_wait(p, -1, &E));
            i2psock_pending_free(p);
        }
        }
        i2psock_stream_free(s);
        i2psock_addr_free(a);
    }
    w->result = (int) got;
    err_done();
    return NULL;
}

static void shutdown_under_load(int keeper) {
    int round;
    for (round = 0; round < 8; round++) {
        i2psock_controller *c = open_port(common.port, keeper);
        i2psock_dest *d = open_dest(c);
        pthread_t t[24];
        worker w[24];
        gate go = GATE_INIT;
        int i;
        long long start;
        for (i = 0; i < 24; i++) {
            w[i].c = c;
            w[i].d = d;
            w[i].number = i;
            w[i].go = &go;
            t[i] = start_thread(until_closed, &w[i]);
        }
        CHECK(gate_wait(&go, 24, HANG));
        pause_ms(round * 3);
        start = now_ms();
        OK(i2psock_dest_shutdown(d, &E));
        for (i = 0; i < 24; i++) {
            join_thread(t[i]);
            if (w[i].result != I2PSOCK_CLOSED) fail_at(__FILE__, __LINE__, "kind %d: %s", i % 4, i2psock_status_name(w[i].result));
        }
        CHECK(now_ms() - start < HANG);
        i2psock_dest_close(d);
        i2psock_controller_close(c);
    }
}
static void shutdown_with_keeper(void) { shutdown_under_load(1); }
static void shutdown_without_keeper(void) { shutdown_under_load(0); }

/* One thread waits for a pending, another shuts the destination. */
static void *wait_pending(void *arg) {
    worker *w = (worker *) arg;
    i2psock_pending *p = NULL;
    OK(i2psock_dest_accept_start(w->d, -1, &p, &E));
    while (i2psock_pending_stage(p) != I2PSOCK_STAGE_LISTENING) ST(I2PSOCK_BLOCK, i2psock_pending_wait(p, 1, &E));
    gate_open(w->go);
    if (ST(ANY, i2psock_pending_wait(p, -1, &E)) != I2PSOCK_CLOSED) {
        fail_at(__FILE__, __LINE__, "%s after %s: %s", i2psock_status_name((int) i2psock_error_status(E)),
                w->number ? "controller_close" : "dest_shutdown", i2psock_error_message(E));
    }
    i2psock_pending_free(p);
    err_done();
    return NULL;
}

static void shutdown_wakes_a_pending_wait(void) {
    int keeper, how;
    for (keeper = 0; keeper < 2; keeper++) {
        for (how = 0; how < 2; how++) {
            i2psock_controller *c = open_port(common.port, keeper);
            worker w;
            gate go = GATE_INIT;
            pthread_t t;
            w.d = open_dest(c);
            w.go = &go;
            w.number = how;
            t = start_thread(wait_pending, &w);
            CHECK(gate_wait(&go, 1, HANG));
            if (how == 0) OK(i2psock_dest_shutdown(w.d, &E));
            else i2psock_controller_close(c);
            join_thread(t);
            i2psock_dest_close(w.d);
            if (how == 0) i2psock_controller_close(c);
        }
    }
}

/* The background thread: one, with every signal blocked, and gone with the controller. */
static void the_keeper_thread(void) {
    int before = count_threads(), found = 0;
    i2psock_controller *c = open_common();
    i2psock_dest *d = open_dest(c), *e = open_dest(c);
    DIR *dir;
    struct dirent *entry;
    CHECK_INT(count_threads(), before + 1);
    dir = opendir("/proc/self/task");
    CHECK(dir != NULL);
    while ((entry = readdir(dir)) != NULL) {
        char path[512], line[256];
        FILE *file;
        if (entry->d_name[0] == '.' || atoi(entry->d_name) == (int) getpid()) continue;
        snprintf(path, sizeof path, "/proc/self/task/%s/status", entry->d_name);
        file = fopen(path, "r");
        CHECK(file != NULL);
        while (fgets(line, sizeof line, file) != NULL) {
            unsigned long long mask;
            if (sscanf(line, "SigBlk: %llx", &mask) == 1) {
                int number;
                found++;
                for (number = 1; number < 32; number++) {
                    if (number == SIGKILL || number == SIGSTOP) continue;
                    /* Valgrind keeps those for itself while it runs the thread's code. */
                    if (under_valgrind() && (number == SIGILL || number == SIGTRAP || number == SIGBUS
                        || number == SIGFPE || number == SIGSEGV || number == SIGSYS)) continue;
                    if (!(mask >> (number - 1) & 1)) fail_at(__FILE__, __LINE__, "signal %d is not blocked", number);
                }
            }
        }
        fclose(file);
    }
    closedir(dir);
    CHECK_INT(found, 1);
    i2psock_dest_close(d);
    i2psock_dest_close(e);
    i2psock_controller_close(c);
    expect_threads(before);
    c = open_port(common.port, 0);
    d = open_dest(c);
    CHECK_INT(count_threads(), before);
    i2psock_dest_close(d);
    i2psock_controller_close(c);
}

/* Handlers and masks of the program stay as they are. */
static void signals_untouched(void) {
    struct sigaction a;
    sigset_t before, after;
    int number;
    pair p;
    sigemptyset(&before);
    sigemptyset(&after);
    sigprocmask(SIG_SETMASK, NULL, &before);
    pair_open(&p);
    pair_close(&p);
    sigprocmask(SIG_SETMASK, NULL, &after);
    for (number = 1; number < 65; number++) CHECK_INT(sigismember(&after, number), sigismember(&before, number));
    for (number = 1; number < 32; number++) {
        if (number == SIGKILL || number == SIGSTOP) continue;
        CHECK(sigaction(number, NULL, &a) == 0);
        if (a.sa_handler != SIG_DFL && !under_valgrind()) fail_at(__FILE__, __LINE__, "signal %d is handled", number);
    }
}

static const test_case tests[] = {
    T_LONG(with_keeper), T_LONG(without_keeper), T(opening_and_closing), T_LONG(shutdown_with_keeper), T_LONG(shutdown_without_keeper),
    T(shutdown_wakes_a_pending_wait), T(the_keeper_thread), T(signals_untouched),
};
MAIN(tests)
