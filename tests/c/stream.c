/* Streams as sockets: every flag, every mode, every end. Over the loopback bridge where two real ends are needed, over
 * a scripted one where the other end has to misbehave. */
#include "harness.h"

#include <sys/time.h>

#define CLOSED(call) ST(I2PSOCK_CLOSED, call)
#define BLOCK(call) ST(I2PSOCK_BLOCK, call)

/* ---- a stream whose other end is the test itself: a fake bridge that hands its socket over ---- */

static gate handed = GATE_INIT, hand_back = GATE_INIT;
static int far_end;
static fake_conn *far_conn;

static void hand_over(fake_conn *c, int accepted) {
    (void) accepted;
    far_end = c->fd;
    far_conn = c;
    gate_open(&handed);
    gate_wait(&hand_back, 1, HANG);
}

typedef struct {
    plan p;
    fake *f;
    i2psock_controller *c;
    i2psock_dest *d;
    i2psock_stream *s;
} lab;

static void lab_open(lab *l) {
    memset(l, 0, sizeof *l);
    l->p.stream = hand_over;
    handed.count = hand_back.count = 0;
    l->f = fake_plan(&l->p);
    l->c = open_port(fake_port(l->f), 1);
    l->d = open_dest(l->c);
    OK(i2psock_dest_connect(l->d, DEST_B, NULL, HANG, &l->s, &E));
    CHECK(gate_wait(&handed, 1, HANG));
}

static void lab_close(lab *l) {
    gate_open(&hand_back);
    i2psock_stream_free(l->s);
    i2psock_dest_close(l->d);
    i2psock_controller_close(l->c);
    fake_stop(l->f);
}

/* However much a system would let a sending socket hold of its own accord, this is less than a test sends. */
static void small_room(const lab *l) {
    int size = 16384;
    CHECK(setsockopt(i2psock_stream_fd(l->s), SOL_SOCKET, SO_SNDBUF, &size, sizeof size) == 0);
}

static size_t far_read(char *buffer, size_t size) {
    size_t done = 0;
    while (done < size) {
        ssize_t count = recv(far_end, buffer + done, size - done, 0);
        if (count <= 0) break;
        done += (size_t) count;
    }
    return done;
}

/* ---- echo ---- */

typedef struct { pair *p; size_t total; int odd; } copy_job;

static unsigned char byte_at(size_t i) { return (unsigned char) ((i * 2654435761u) >> 13); }

static void *echo_side(void *arg) {
    copy_job *job = (copy_job *) arg;
    static char buffer[70001];
    size_t count = 0, size = 1;
    for (;;) {
        i2psock_status got = ST(ANY, i2psock_stream_recv(job->p->in, buffer, size, 0, &count, &E));
        if (got == I2PSOCK_CLOSED) break;
        CHECK_INT(got, I2PSOCK_OK);
        CHECK(count > 0 && count <= size);
        OK(i2psock_stream_send_all(job->p->in, buffer, count, NULL, &E));
        size = size * 3 % 70001 + 1;
    }
    err_done();
    return NULL;
}

static void *send_side(void *arg) {
    copy_job *job = (copy_job *) arg;
    static unsigned char buffer[65537];
    size_t done = 0, size = 1, sent, i;
    while (done < job->total) {
        if (size > job->total - done) size = job->total - done;
        for (i = 0; i < size; i++) buffer[i] = byte_at(done + i);
        OK(i2psock_stream_send(job->p->out, buffer, size, done % 3 ? 0 : MSG_NOSIGNAL, &sent, &E));
        CHECK_INT(sent, size);
        done += sent;
        size = (size * 5 + 7) % 65537 + 1;
    }
    err_done();
    return NULL;
}

static void echo_ten_mebibytes(void) {
    pair p;
    copy_job job;
    pthread_t echo, send;
    static unsigned char buffer[33333];
    size_t done = 0, count = 0, i;
    pair_open(&p);
    job.p = &p;
    job.total = under_valgrind() ? 1 << 20 : 10 << 20;
    echo = start_thread(echo_side, &job);
    send = start_thread(send_side, &job);
    while (done < job.total) {
        OK(i2psock_stream_recv(p.out, buffer, done % sizeof buffer + 1, done % 2 ? MSG_WAITALL : 0, &count, &E));
        for (i = 0; i < count; i++) {
            if (buffer[i] != byte_at(done + i)) fail_at(__FILE__, __LINE__, "byte %zu is wrong", done + i);
        }
        done += count;
        /* MSG_WAITALL must not wait for more than there will be. */
        if (job.total - done < sizeof buffer) break;
    }
    while (done < job.total) {
        OK(i2psock_stream_recv(p.out, buffer, sizeof buffer, 0, &count, &E));
        for (i = 0; i < count; i++) CHECK(buffer[i] == byte_at(done + i));
        done += count;
    }
    CHECK_INT(done, job.total);
    join_thread(send);
    OK(i2psock_stream_close(p.out, HANG, &E));
    p.out = NULL;
    join_thread(echo);
    pair_close(&p);
}

static void peers_and_ports(void) {
    pair p;
    i2psock_stream *s = NULL, *in = NULL;
    i2psock_options *o = i2psock_options_new();
    i2psock_pending *n = NULL;
    pair_open(&p);
    CHECK_INT(i2psock_addr_equal(i2psock_stream_peer(p.out), i2psock_dest_addr(p.there)), 1);
    CHECK_INT(i2psock_addr_equal(i2psock_stream_peer(p.in), i2psock_dest_addr(p.here)), 1);
    CHECK_INT(i2psock_stream_peer_verified(p.out), 1);
    CHECK_INT(i2psock_stream_peer_verified(p.in), 1);
    CHECK_STR(i2psock_stream_peer_text(p.in), i2psock_addr_host(i2psock_dest_addr(p.here)));
    CHECK_STR(i2psock_stream_peer_text(p.out), i2psock_addr_host(i2psock_dest_addr(p.there)));
    CHECK_INT(i2psock_stream_from_port(p.out), -1);
    CHECK_INT(i2psock_stream_to_port(p.out), -1);
    check_cloexec(i2psock_stream_fd(p.out));
    check_cloexec(i2psock_stream_fd(p.in));
    CHECK((fcntl(i2psock_stream_fd(p.out), F_GETFL) & O_NONBLOCK) == 0);
    CHECK((fcntl(i2psock_stream_fd(p.in), F_GETFL) & O_NONBLOCK) == 0);
    OK(i2psock_options_set_int(o, "from_port", 1234, &E));
    OK(i2psock_options_set_int(o, "to_port", 80, &E));
    OK(i2psock_dest_accept_start(p.there, HANG, &n, &E));
    while (i2psock_pending_stage(n) != I2PSOCK_STAGE_LISTENING) {
        CHECK(readable(i2psock_pending_fd(n), HANG));
        BLOCK(i2psock_pending_step(n, &E));
    }
    OK(i2psock_dest_connect(p.here, i2psock_addr_host(i2psock_dest_addr(p.there)), o, HANG, &s, &E));
    OK(i2psock_pending_wait(n, -1, &E));
    OK(i2psock_pending_finish_stream(n, &in, &E));
    i2psock_pending_free(n);
    CHECK((fcntl(i2psock_stream_fd(in), F_GETFL) & O_NONBLOCK) != 0);
    CHECK_INT(i2psock_stream_from_port(s), 1234);
    CHECK_INT(i2psock_stream_to_port(s), 80);
    CHECK_INT(i2psock_stream_from_port(in), 1234);
    CHECK_INT(i2psock_stream_to_port(in), 80);
    CHECK(i2psock_stream_peer(s) == NULL);
    CHECK_STR(i2psock_stream_peer_text(s), i2psock_addr_host(i2psock_dest_addr(p.there)));
    i2psock_options_free(o);
    i2psock_stream_free(s);
    i2psock_stream_free(in);
    pair_close(&p);
}

/* ---- flags and modes ---- */

static void flags(void) {
    lab l;
    char b[64];
    size_t n = 9;
    lab_open(&l);
    n = 9;
    BLOCK(i2psock_stream_recv(l.s, b, 10, MSG_DONTWAIT, &n, &E));
    CHECK_INT(n, 0);
    CHECK(send(far_end, "0123456789", 10, 0) == 10);
    CHECK(readable(i2psock_stream_fd(l.s), HANG));
    OK(i2psock_stream_recv(l.s, b, 4, MSG_PEEK, &n, &E));
    CHECK(n == 4 && memcmp(b, "0123", 4) == 0);
    OK(i2psock_stream_recv(l.s, b, 64, MSG_PEEK | MSG_DONTWAIT, &n, &E));
    CHECK_INT(n, 10);
    OK(i2psock_stream_recv(l.s, b, 4, 0, &n, &E));
    CHECK(n == 4 && memcmp(b, "0123", 4) == 0);
    OK(i2psock_stream_recv(l.s, b, 6, MSG_WAITALL, &n, &E));
    CHECK(n == 6 && memcmp(b, "456789", 6) == 0);
    ST(I2PSOCK_INVALID, i2psock_stream_recv(l.s, b, 4, MSG_OOB, &n, &E));
    ST(I2PSOCK_INVALID, i2psock_stream_recv(l.s, b, 4, MSG_TRUNC, &n, &E));
    ST(I2PSOCK_INVALID, i2psock_stream_recv(l.s, b, 4, -1, &n, &E));
    ST(I2PSOCK_INVALID, i2psock_stream_send(l.s, b, 4, MSG_OOB, &n, &E));
    ST(I2PSOCK_INVALID, i2psock_stream_send(l.s, b, 4, MSG_PEEK, &n, &E));
    OK(i2psock_stream_send(l.s, "ab", 2, MSG_MORE, &n, &E));
    OK(i2psock_stream_send(l.s, "cd", 2, MSG_DONTWAIT, &n, &E));
    CHECK(far_read(b, 4) == 4 && memcmp(b, "abcd", 4) == 0);
    lab_close(&l);
}

/* Sends when somebody waits for it, and has been disturbed by so many signals. */
typedef struct { int after_signals; const char *text; } later;
static pid_t sleeper;
static void wait_for_signals(int more);

static void *send_later(void *arg) {
    later *j = (later *) arg;
    expect_asleep(sleeper);
    wait_for_signals(j->after_signals);
    CHECK(send(far_end, j->text, strlen(j->text), 0) == (ssize_t) strlen(j->text));
    return NULL;
}

static void time_limits(void) {
    lab l;
    char b[64];
    size_t n = 9;
    long long start;
    pthread_t t;
    later j;
    static const int flag_sets[] = { 0, MSG_WAITALL, MSG_PEEK, MSG_PEEK | MSG_WAITALL };
    size_t i;
    int before;
    lab_open(&l);
    ST(I2PSOCK_INVALID, i2psock_stream_set_timeout(l.s, -2, &E));
    before = fcntl(i2psock_stream_fd(l.s), F_GETFL);
    OK(i2psock_stream_set_timeout(l.s, 80, &E));
    for (i = 0; i < 4; i++) {
        start = now_ms();
        n = 9;
        ST(I2PSOCK_TIMEOUT, i2psock_stream_recv(l.s, b, 10, flag_sets[i], &n, &E));
        CHECK_INT(i2psock_error_operation(E), I2PSOCK_OP_RECEIVE);
        CHECK_INT(n, 0);
        CHECK(now_ms() - start >= 79 && now_ms() - start < HANG);
        BLOCK(i2psock_stream_recv(l.s, b, 10, flag_sets[i] | MSG_DONTWAIT, &n, &E));
    }
    CHECK_INT(fcntl(i2psock_stream_fd(l.s), F_GETFL), before);
    /* What came before the limit is not lost. */
    CHECK(send(far_end, "abc", 3, 0) == 3);
    CHECK(readable(i2psock_stream_fd(l.s), HANG));
    OK(i2psock_stream_recv(l.s, b, 10, MSG_WAITALL | MSG_PEEK, &n, &E));
    CHECK_INT(n, 3);
    OK(i2psock_stream_recv(l.s, b, 10, MSG_WAITALL, &n, &E));
    CHECK(n == 3 && memcmp(b, "abc", 3) == 0);
    /* What comes within the limit ends the waiting. */
    OK(i2psock_stream_set_timeout(l.s, HANG, &E));
    j.after_signals = 0;
    sleeper = thread_number();
    j.text = "late";
    t = start_thread(send_later, &j);
    OK(i2psock_stream_recv(l.s, b, 4, MSG_WAITALL, &n, &E));
    CHECK_INT(n, 4);
    join_thread(t);
    OK(i2psock_stream_set_timeout(l.s, 0, &E));
    ST(I2PSOCK_TIMEOUT, i2psock_stream_recv(l.s, b, 4, 0, &n, &E));
    /* Non-blocking: BLOCK, whatever the limit. */
    OK(i2psock_stream_set_timeout(l.s, HANG, &E));
    OK(i2psock_stream_set_nonblocking(l.s, 1, &E));
    CHECK(fcntl(i2psock_stream_fd(l.s), F_GETFL) & O_NONBLOCK);
    for (i = 0; i < 4; i++) {
        start = now_ms();
        BLOCK(i2psock_stream_recv(l.s, b, 10, flag_sets[i], &n, &E));
        CHECK(now_ms() - start < HANG);
    }
    OK(i2psock_stream_set_nonblocking(l.s, 0, &E));
    CHECK(!(fcntl(i2psock_stream_fd(l.s), F_GETFL) & O_NONBLOCK));
    OK(i2psock_stream_set_timeout(l.s, -1, &E));
    t = start_thread(send_later, &j);
    OK(i2psock_stream_recv(l.s, b, 4, MSG_WAITALL, &n, &E));
    join_thread(t);
    lab_close(&l);
}

/* "Does not touch the descriptor": what the program has set there stays. */
static void the_programs_own_time_limit(void) {
    lab l;
    char b[8];
    size_t n;
    struct timeval mine, now;
    socklen_t length = sizeof now;
    lab_open(&l);
    mine.tv_sec = 25;
    mine.tv_usec = 0;
    CHECK(setsockopt(i2psock_stream_fd(l.s), SOL_SOCKET, SO_RCVTIMEO, &mine, sizeof mine) == 0);
    OK(i2psock_stream_set_timeout(l.s, 50, &E));
    ST(I2PSOCK_TIMEOUT, i2psock_stream_recv(l.s, b, 8, 0, &n, &E));
    ST(I2PSOCK_TIMEOUT, i2psock_stream_recv(l.s, b, 8, MSG_PEEK | MSG_WAITALL, &n, &E));
    CHECK(getsockopt(i2psock_stream_fd(l.s), SOL_SOCKET, SO_RCVTIMEO, &now, &length) == 0);
    if (now.tv_sec != 25) fail_at(__FILE__, __LINE__, "SO_RCVTIMEO of the program was changed to %ld s", (long) now.tv_sec);
    lab_close(&l);
}

static void send_limits(void) {
    lab l;
    size_t size = 8 << 20, n, done = 0, got = 0;
    char *big = big_text(size, 'x');
    char buffer[65536];
    long long start, end = now_ms() + HANG;
    i2psock_status status;
    lab_open(&l);
    small_room(&l);
    /* Nobody reads. */
    OK(i2psock_stream_set_timeout(l.s, 100, &E));
    start = now_ms();
    ST(I2PSOCK_TIMEOUT, i2psock_stream_send_all(l.s, big, size, &n, &E));
    CHECK_INT(i2psock_error_operation(E), I2PSOCK_OP_SEND);
    CHECK(now_ms() - start >= 99 && now_ms() - start < HANG);
    CHECK(n > 0 && n < size);
    done = n;
    /* The system may find more room at any moment: what it takes then is counted, until it takes nothing. */
    do {
        CHECK(now_ms() < end);
        n = 7;
        status = ST(ANY, i2psock_stream_send(l.s, big, size, 0, &n, &E));
        CHECK(n < size);
        CHECK_INT(status, n > 0 ? I2PSOCK_OK : I2PSOCK_TIMEOUT);
        done += n;
    } while (status == I2PSOCK_OK);
    do {
        CHECK(now_ms() < end);
        n = 7;
        status = ST(ANY, i2psock_stream_send(l.s, big, size, MSG_DONTWAIT, &n, &E));
        CHECK(n < size);
        CHECK_INT(status, n > 0 ? I2PSOCK_OK : I2PSOCK_BLOCK);
        done += n;
    } while (status == I2PSOCK_OK);
    OK(i2psock_stream_set_nonblocking(l.s, 1, &E));
    do {
        CHECK(now_ms() < end);
        n = 7;
        BLOCK(i2psock_stream_send_all(l.s, big, size, &n, &E));
        CHECK(n < size);
        done += n;
    } while (n > 0);
    /* Nothing was lost, nothing came twice: all of it, and then the end. */
    OK(i2psock_stream_set_nonblocking(l.s, 0, &E));
    CHECK(shutdown(i2psock_stream_fd(l.s), SHUT_WR) == 0);
    for (;;) {
        ssize_t count = recv(far_end, buffer, sizeof buffer, 0);
        CHECK(count >= 0);
        if (count == 0) break;
        got += (size_t) count;
    }
    CHECK_INT(got, done);
    lab_close(&l);
    free(big);
}

static gate drained = GATE_INIT;
static size_t drain_total;

static void *drain_far(void *arg) {
    size_t got = 0;
    static unsigned char buffer[65536];
    (void) arg;
    while (got < drain_total) {
        ssize_t count = recv(far_end, buffer, sizeof buffer, 0), i;
        CHECK(count > 0);
        for (i = 0; i < count; i++) CHECK(buffer[i] == byte_at(got + (size_t) i));
        got += (size_t) count;
    }
    gate_open(&drained);
    return NULL;
}

static void send_all_without_blocking(void) {
    lab l;
    size_t left = 4 << 20, sent = 0, i, blocks = 0;
    unsigned char *data = (unsigned char *) malloc(left), *at = data;
    pthread_t t;
    int started = 0;
    for (i = 0; i < left; i++) data[i] = byte_at(i);
    drain_total = left;
    lab_open(&l);
    small_room(&l);
    OK(i2psock_stream_set_nonblocking(l.s, 1, &E));
    memset(&t, 0, sizeof t);
    /* The loop of the header. */
    while (left > 0) {
        i2psock_status status = ST(ANY, i2psock_stream_send_all(l.s, at, left, &sent, &E));
        at += sent;
        left -= sent;
        if (status == I2PSOCK_BLOCK) {
            if (!started) {
                CHECK(sent > 0);
                started = 1;
                t = start_thread(drain_far, NULL);
            }
            blocks++;
            CHECK(writable(i2psock_stream_fd(l.s), HANG));
        } else {
            CHECK_INT(status, I2PSOCK_OK);
        }
    }
    CHECK(blocks > 0);
    CHECK(gate_wait(&drained, 1, HANG));
    join_thread(t);
    lab_close(&l);
    free(data);
}

/* ---- signals ---- */

static volatile sig_atomic_t signals, enough;
static void on_signal(int number) { (void) number; signals++; }

/* Until it is enough. */
static void *pester(void *arg) {
    pthread_t *target = (pthread_t *) arg;
    while (!enough) {
        pause_ms(5);
        pthread_kill(*target, SIGUSR1);
    }
    return NULL;
}

static void catch_signals(void) {
    struct sigaction a;
    signals = enough = 0;
    memset(&a, 0, sizeof a);
    a.sa_handler = on_signal;
    CHECK(sigaction(SIGUSR1, &a, NULL) == 0);
}

static void wait_for_signals(int more) {
    int until = signals + more;
    long long end = now_ms() + HANG;
    while (signals < until) {
        CHECK(now_ms() < end);
        pause_ms(5);
    }
}

static void *drain_slowly(void *arg) {
    char buffer[65536];
    size_t got = 0;
    (void) arg;
    /* Not before some have come while nothing more fits. */
    expect_asleep(sleeper);
    wait_for_signals(20);
    while (got < drain_total) {
        ssize_t count = recv(far_end, buffer, sizeof buffer, 0);
        CHECK(count > 0);
        got += (size_t) count;
    }
    return NULL;
}

/* "On a blocking stream all of `len` bytes", and EINTR is retried. */
static void interrupted_send(void) {
    lab l;
    size_t size = 8 << 20, n = 0;
    char *big = big_text(size, 'x');
    pthread_t me = pthread_self(), t, drain;
    catch_signals();
    lab_open(&l);
    small_room(&l);
    drain_total = size;
    sleeper = thread_number();
    t = start_thread(pester, &me);
    drain = start_thread(drain_slowly, NULL);
    OK(i2psock_stream_send(l.s, big, size, 0, &n, &E));
    enough = 1;
    join_thread(t);
    CHECK(signals >= 20);
    if (n != size) fail_at(__FILE__, __LINE__, "a signal cut a blocking send short: %zu of %zu", n, size);
    join_thread(drain);
    lab_close(&l);
    free(big);
}

static void interrupted_waits(void) {
    lab l;
    char b[8];
    size_t n;
    pthread_t me = pthread_self(), t;
    i2psock_stream *s = NULL;
    i2psock_addr *a = NULL;
    i2psock_pending *p = NULL;
    long long start;
    catch_signals();
    lab_open(&l);
    t = start_thread(pester, &me);
    start = now_ms();
    OK(i2psock_stream_set_timeout(l.s, 150, &E));
    OK(i2psock_dest_accept_start(l.d, -1, &p, &E));
    /* Again, should the machine have had no time to disturb any of them. */
    do {
        long long began = now_ms();
        CHECK(began - start < HANG);
        ST(I2PSOCK_TIMEOUT, i2psock_stream_recv(l.s, b, 8, 0, &n, &E));
        ST(I2PSOCK_TIMEOUT, i2psock_stream_recv(l.s, b, 8, MSG_PEEK | MSG_WAITALL, &n, &E));
        ST(I2PSOCK_TIMEOUT, i2psock_dest_accept(l.d, 150, &s, &E));
        ST(I2PSOCK_TIMEOUT, i2psock_dest_lookup(l.d, "x.i2p", 150, &a, &E));
        BLOCK(i2psock_pending_wait(p, 100, &E));
        CHECK(now_ms() - began >= 690);
    } while (signals <= 10);
    i2psock_pending_free(p);
    enough = 1;
    join_thread(t);
    lab_close(&l);
}

static void interrupted_waitall(void) {
    lab l;
    char b[8];
    size_t n = 0;
    pthread_t me = pthread_self(), t, late;
    later j;
    catch_signals();
    lab_open(&l);
    CHECK(send(far_end, "ab", 2, 0) == 2);
    j.after_signals = 20;
    sleeper = thread_number();
    j.text = "cdef";
    late = start_thread(send_later, &j);
    t = start_thread(pester, &me);
    OK(i2psock_stream_recv(l.s, b, 6, MSG_WAITALL, &n, &E));
    enough = 1;
    if (n != 6) fail_at(__FILE__, __LINE__, "a signal cut MSG_WAITALL short: %zu of 6", n);
    join_thread(late);
    join_thread(t);
    lab_close(&l);
}

/* ---- ends ---- */

static void closed_every_time(const lab *l, int os_error) {
    static const int flags[] = { 0, MSG_DONTWAIT, MSG_PEEK, MSG_WAITALL, MSG_WAITALL | MSG_PEEK };
    char b[64];
    size_t n, k;
    int i;
    for (i = 0; i < 3; i++) {
        for (k = 0; k < sizeof flags / sizeof flags[0]; k++) {
            n = 7;
            CLOSED(i2psock_stream_recv(l->s, b, sizeof b, flags[k], &n, &E));
            CHECK_INT(n, 0);
            CHECK_INT(i2psock_error_operation(E), I2PSOCK_OP_RECEIVE);
            CHECK_INT(i2psock_error_os_error(E), os_error);
        }
        CLOSED(i2psock_stream_send(l->s, "x", 1, 0, &n, &E));
        CHECK_INT(n, 0);
        CHECK_INT(i2psock_error_operation(E), I2PSOCK_OP_SEND);
        CHECK_INT(i2psock_error_os_error(E), os_error);
        CLOSED(i2psock_stream_send(l->s, "x", 1, MSG_DONTWAIT, NULL, &E));
        CLOSED(i2psock_stream_send_all(l->s, "x", 1, &n, &E));
        CHECK_INT(n, 0);
        CHECK_INT(i2psock_error_os_error(E), os_error);
    }
}

static void end_of_stream(void) {
    lab l;
    char b[16];
    size_t n;
    int mode;
    for (mode = 0; mode < 3; mode++) {
        lab_open(&l);
        if (mode == 1) OK(i2psock_stream_set_timeout(l.s, HANG, &E));
        if (mode == 2) OK(i2psock_stream_set_nonblocking(l.s, 1, &E));
        CHECK(send(far_end, "last", 4, 0) == 4);
        CHECK(shutdown(far_end, SHUT_RDWR) == 0);
        CHECK(readable(i2psock_stream_fd(l.s), HANG));
        /* Payload first, then the end. A short MSG_WAITALL is no error. */
        OK(i2psock_stream_recv(l.s, b, 1, 0, &n, &E));
        OK(i2psock_stream_recv(l.s, b, sizeof b, mode == 2 ? 0 : MSG_WAITALL, &n, &E));
        CHECK(n == 3 && memcmp(b, "ast", 3) == 0);
        /* It may come a little later. */
        CHECK(readable(i2psock_stream_fd(l.s), HANG));
        closed_every_time(&l, 0);
        lab_close(&l);
    }
}

/* A transfer that was cut off never looks whole, whichever call meets the reset first. */
static void reset(void) {
    lab l;
    struct pollfd p;
    char b[16];
    size_t n;
    int mode;
    for (mode = 0; mode < 6; mode++) {
        lab_open(&l);
        if (mode % 3 == 1) OK(i2psock_stream_set_timeout(l.s, HANG, &E));
        if (mode % 3 == 2) OK(i2psock_stream_set_nonblocking(l.s, 1, &E));
        if (mode < 3) CHECK(send(far_end, "cut", 3, 0) == 3);
        say_reset(far_conn);
        p.fd = i2psock_stream_fd(l.s);
        p.events = 0;
        CHECK(poll(&p, 1, HANG) == 1);
        if (mode < 3) {
            OK(i2psock_stream_recv(l.s, b, sizeof b, mode == 2 ? 0 : MSG_WAITALL, &n, &E));
            CHECK_INT(n, 3);
        } else {
            CLOSED(i2psock_stream_send(l.s, "x", 1, 0, &n, &E));
            CHECK_INT(i2psock_error_os_error(E), ECONNRESET);
        }
        closed_every_time(&l, ECONNRESET);
        ST(I2PSOCK_CLOSED, i2psock_stream_close(l.s, HANG, &E));
        CHECK_INT(i2psock_error_os_error(E), ECONNRESET);
        l.s = NULL;
        lab_close(&l);
    }
}

static void shut(void) {
    lab l;
    char b[4];
    size_t n;
    lab_open(&l);
    CHECK(send(far_end, "unread", 6, 0) == 6);
    CHECK(readable(i2psock_stream_fd(l.s), HANG));
    OK(i2psock_stream_shutdown(l.s, &E));
    closed_every_time(&l, 0);
    OK(i2psock_stream_shutdown(l.s, &E));
    CLOSED(i2psock_stream_recv(l.s, b, 4, 0, &n, &E));
    /* The other side sees it. */
    CHECK(readable(far_end, HANG));
    CHECK(recv(far_end, b, 1, 0) <= 0);
    CHECK(i2psock_stream_fd(l.s) >= 0);
    CHECK_STR(i2psock_stream_peer_text(l.s), HOST_B);
    lab_close(&l);
}

typedef struct { lab *l; int what; i2psock_status status; gate started; pid_t number; } blocked;

static void *block_on(void *arg) {
    blocked *b = (blocked *) arg;
    static char buffer[1 << 20];
    char byte;
    size_t n;
    b->number = thread_number();
    gate_open(&b->started);
    if (b->what == 0) b->status = ST(ANY, i2psock_stream_recv(b->l->s, &byte, 1, 0, &n, &E));
    if (b->what == 1) {
        do {
            b->status = ST(ANY, i2psock_stream_send_all(b->l->s, buffer, sizeof buffer, &n, &E));
        } while (b->status == I2PSOCK_OK);
    }
    err_done();
    return NULL;
}

static void shutdown_wakes(void) {
    int how, limit;
    for (limit = 0; limit < 2; limit++) {
        for (how = 0; how < 4; how++) {
            lab l;
            blocked b[2];
            pthread_t t[2];
            int i;
            lab_open(&l);
            if (limit) OK(i2psock_stream_set_timeout(l.s, HANG, &E));
            for (i = 0; i < 2; i++) {
                gate fresh = GATE_INIT;
                b[i].l = &l;
                b[i].what = i;
                b[i].started = fresh;
                t[i] = start_thread(block_on, &b[i]);
                CHECK(gate_wait(&b[i].started, 1, HANG));
            }
            /* The sender is stuck when nothing fits any more. */
            while (writable(i2psock_stream_fd(l.s), 20)) { }
            for (i = 0; i < 2; i++) expect_asleep(b[i].number);
            if (how == 0) OK(i2psock_stream_shutdown(l.s, &E));
            if (how == 1) OK(i2psock_dest_shutdown(l.d, &E));
            if (how == 2) {
                i2psock_dest_close(l.d);
                l.d = NULL;
            }
            if (how == 3) {
                i2psock_controller_close(l.c);
                l.c = NULL;
            }
            for (i = 0; i < 2; i++) {
                join_thread(t[i]);
                CHECK_INT(b[i].status, I2PSOCK_CLOSED);
            }
            closed_every_time(&l, 0);
            lab_close(&l);
        }
    }
}

/* ---- close ---- */

static void close_says_how_it_went(void) {
    lab l;
    char *big = big_text(1 << 20, 'x');
    size_t n;
    long long start;
    char b[16];
    /* Taken. */
    lab_open(&l);
    OK(i2psock_stream_send(l.s, "hello", 5, 0, &n, &E));
    CHECK(send(far_end, "unread", 6, 0) == 6);
    OK(i2psock_stream_close(l.s, HANG, &E));
    l.s = NULL;
    CHECK(far_read(b, 5) == 5 && memcmp(b, "hello", 5) == 0);
    lab_close(&l);
    /* Not taken: the limit counts. */
    lab_open(&l);
    OK(i2psock_stream_set_nonblocking(l.s, 1, &E));
    while (ST(ANY, i2psock_stream_send(l.s, big, 1 << 20, 0, &n, &E)) == I2PSOCK_OK) { }
    start = now_ms();
    ST(I2PSOCK_TIMEOUT, i2psock_stream_close(l.s, 150, &E));
    l.s = NULL;
    CHECK(now_ms() - start >= 149 && now_ms() - start < HANG);
    CHECK_HAS(i2psock_error_message(E), "bytes");
    lab_close(&l);
    lab_open(&l);
    OK(i2psock_stream_set_nonblocking(l.s, 1, &E));
    while (ST(ANY, i2psock_stream_send(l.s, big, 1 << 20, 0, &n, &E)) == I2PSOCK_OK) { }
    ST(I2PSOCK_TIMEOUT, i2psock_stream_close(l.s, 0, &E));
    l.s = NULL;
    lab_close(&l);
    /* A stream that was shut has nothing to say about what was written. */
    lab_open(&l);
    CHECK(i2psock_stream_unsent(l.s) == 0);
    OK(i2psock_stream_set_nonblocking(l.s, 1, &E));
    while (ST(ANY, i2psock_stream_send(l.s, big, 1 << 20, 0, &n, &E)) == I2PSOCK_OK) { }
    CHECK(i2psock_stream_unsent(l.s) > 0);
    OK(i2psock_stream_shutdown(l.s, &E));
    CHECK(i2psock_stream_unsent(l.s) == -1);
    ST(I2PSOCK_CLOSED, i2psock_stream_close(l.s, HANG, &E));
    l.s = NULL;
    lab_close(&l);
    /* Nonsense as a limit frees the handle as well. */
    lab_open(&l);
    ST(I2PSOCK_INVALID, i2psock_stream_close(l.s, -7, &E));
    l.s = NULL;
    lab_close(&l);
    free(big);
}

typedef struct { int fin_first; } reset_job;

static void *reset_soon(void *arg) {
    reset_job *j = (reset_job *) arg;
    if (j->fin_first) CHECK(shutdown(far_end, SHUT_WR) == 0);
    expect_asleep(sleeper);
    say_reset(far_conn);
    return NULL;
}

/* Reset while closing, with bytes that nobody has taken: that is CLOSED, not OK. */
static void reset_on_close(int fin_first, int limit) {
    lab l;
    size_t size = 8 << 20, n, all = 0;
    char *big = big_text(size, 'x');
    reset_job j;
    pthread_t t;
    lab_open(&l);
    OK(i2psock_stream_set_nonblocking(l.s, 1, &E));
    while (ST(ANY, i2psock_stream_send(l.s, big, size, 0, &n, &E)) == I2PSOCK_OK) all += n;
    CHECK(all > 0);
    j.fin_first = fin_first;
    sleeper = thread_number();
    t = start_thread(reset_soon, &j);
    ST(I2PSOCK_CLOSED, i2psock_stream_close(l.s, limit, &E));
    l.s = NULL;
    join_thread(t);
    lab_close(&l);
    free(big);
}
static void reset_while_closing(void) { reset_on_close(0, -1); }
static void end_and_reset_while_closing(void) { reset_on_close(1, HANG); }
static void end_and_reset_while_closing_without_limit(void) { reset_on_close(1, -1); }

static void close_after_reset(void) {
    lab l;
    char *big = big_text(1 << 20, 'x');
    size_t n;
    lab_open(&l);
    /* More than the other side has room for: what its system has taken would count as taken. */
    OK(i2psock_stream_set_nonblocking(l.s, 1, &E));
    while (ST(ANY, i2psock_stream_send(l.s, big, 1 << 20, 0, &n, &E)) == I2PSOCK_OK) { }
    say_reset(far_conn);
    CHECK(readable(i2psock_stream_fd(l.s), HANG));
    ST(I2PSOCK_CLOSED, i2psock_stream_close(l.s, HANG, &E));
    l.s = NULL;
    lab_close(&l);
    free(big);
}

/* A peer that talks for ever does not keep a close from ending. */
static void *babble(void *arg) {
    char *big = big_text(65536, 'y');
    (void) arg;
    while (send(far_end, big, 65536, MSG_NOSIGNAL) > 0) { }
    free(big);
    return NULL;
}

static void close_under_babble(void) {
    lab l;
    pthread_t t;
    long long start;
    size_t n;
    lab_open(&l);
    t = start_thread(babble, NULL);
    OK(i2psock_stream_send(l.s, "x", 1, 0, &n, &E));
    start = now_ms();
    ST(ANY, i2psock_stream_close(l.s, 1000, &E));
    l.s = NULL;
    CHECK(now_ms() - start < HANG);
    join_thread(t);
    lab_close(&l);
}

/* ---- orders of closing ---- */

static void handles_outlive(void) {
    int order;
    for (order = 0; order < 6; order++) {
        static const int orders[6][3] = { { 0, 1, 2 }, { 0, 2, 1 }, { 1, 0, 2 }, { 1, 2, 0 }, { 2, 0, 1 }, { 2, 1, 0 } };
        pair p;
        int i, controller_gone = 0, dest_gone = 0, stream_gone = 0;
        char b[4];
        size_t n;
        i2psock_stream *s = NULL;
        pair_open(&p);
        for (i = 0; i < 3; i++) {
            switch (orders[order][i]) {
            case 0:
                i2psock_controller_close(p.controller);
                controller_gone = 1;
                break;
            case 1:
                i2psock_dest_close(p.here);
                i2psock_dest_close(p.there);
                dest_gone = 1;
                break;
            default:
                i2psock_stream_free(p.in);
                i2psock_stream_free(p.out);
                stream_gone = 1;
            }
            if (!stream_gone && (controller_gone || dest_gone)) {
                CLOSED(i2psock_stream_recv(p.out, b, 4, 0, &n, &E));
                CLOSED(i2psock_stream_send(p.in, b, 4, 0, &n, &E));
                CHECK(i2psock_stream_peer(p.out) != NULL);
                CHECK(i2psock_stream_fd(p.in) >= 0);
            }
            if (!dest_gone && controller_gone) {
                CHECK_INT(i2psock_dest_state(p.here, NULL), I2PSOCK_STATE_DEAD);
                CLOSED(i2psock_dest_accept(p.here, 1000, &s, &E));
                CLOSED(i2psock_dest_connect(p.here, DEST_A, NULL, 1000, &s, &E));
                CHECK(i2psock_dest_fd(p.here) >= 0);
                CHECK(dest_text(p.here) != NULL);
            }
        }
    }
}

static const test_case tests[] = {
    T_LONG(echo_ten_mebibytes), T(peers_and_ports), T(flags), T(time_limits), T(the_programs_own_time_limit),
    T(send_limits), T(send_all_without_blocking),
    T(interrupted_send), T(interrupted_waits), T(interrupted_waitall), T(end_of_stream), T(reset), T(shut), T(shutdown_wakes),
    T(close_says_how_it_went), T(reset_while_closing), T(end_and_reset_while_closing),
    T(end_and_reset_while_closing_without_limit), T(close_after_reset), T(close_under_babble), T(handles_outlive),
};
MAIN(tests)
