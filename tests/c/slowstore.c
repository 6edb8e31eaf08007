/* A key store in a folder that does not answer: only those who want that name wait for it. */
/* Otherwise openat() is not a function that can be defined. */
#undef _FORTIFY_SOURCE
#include "harness.h"

#include <stdarg.h>
#include <sys/syscall.h>

#define LONG HANG

/* ---- the folder: functions of the program go before those of libc, for the library as well ---- */

typedef struct {
    gate arrived, released, left;
    /* What the call fails with then. */
    int error;
} obstacle;
#define OBSTACLE { GATE_INIT, GATE_INIT, GATE_INIT, 0 }

/* Locking and unlocking slow.lock, as long as these are set up. */
static obstacle opening = OBSTACLE, closing = OBSTACLE;
static int opening_is_slow, closing_is_slow;

/* An obstacle goes by itself when everybody waits for it: the test is told by is_stuck(). */
static int pass(obstacle *o) {
    gate_open(&o->arrived);
    gate_wait(&o->released, 1, HANG);
    gate_open(&o->left);
    return o->error;
}

static int is_stuck(obstacle *o) { return gate_wait(&o->arrived, 1, HANG) && !gate_wait(&o->left, 1, 0); }
static void release(obstacle *o) { gate_open(&o->released); }

#ifdef __cplusplus
extern "C" {
#endif
int flock(int fd, int operation);
#ifdef __cplusplus
}
#endif

int openat(int folder, const char *path, int flags, ...) {
    unsigned mode = 0;
    if (flags & O_CREAT) {
        va_list args;
        va_start(args, flags);
        mode = va_arg(args, unsigned);
        va_end(args);
    }
    if (opening_is_slow && strcmp(path, "slow.lock") == 0) {
        int error = pass(&opening);
        if (error != 0) {
            errno = error;
            return -1;
        }
    }
    return (int) syscall(SYS_openat, folder, path, flags, mode);
}

int flock(int fd, int operation) {
    if (closing_is_slow && operation == LOCK_UN) {
        char link[64], path[4096];
        ssize_t length;
        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        length = readlink(link, path, sizeof path - 1);
        CHECK(length > 0);
        path[length] = 0;
        if (strstr(path, "/slow.lock") != NULL) pass(&closing);
    }
    return (int) syscall(SYS_flock, fd, operation);
}

/* ---- a controller with destinations that have nothing to do with it ---- */

typedef struct {
    char *folder;
    plan p;
    fake *f;
    int keeper, pings;
    i2psock_controller *c;
    /* Without a name, and with one, to be shut down and to be lost. */
    i2psock_dest *pinged, *shut, *lost;
} scene;

/* The control sockets of the first destinations. Connection 0 has checked the bridge. */
enum { PINGED = 1, LOST = 2, SLOW = 4 };
static fake_conn *sessions[SLOW + 1];
static gate created = GATE_INIT;

static void keep_session(fake_conn *c) {
    if (c->number <= SLOW) sessions[c->number] = c;
    gate_open(&created);
}

static i2psock_dest *open_without_recovery(i2psock_controller *c, const char *name) {
    i2psock_options *o = i2psock_options_new();
    i2psock_dest *d = NULL;
    OK(i2psock_options_set(o, "recover", "0", &E));
    OK(i2psock_dest_open(c, name, I2PSOCK_STREAM, o, LONG, &d, &E));
    i2psock_options_free(o);
    return d;
}

/* Nothing is left to be told, so that the descriptor tells of the next change. */
static void heard(i2psock_dest *d) {
    while (ST(ANY, i2psock_dest_service(d, NULL, &E)) == I2PSOCK_OK) { }
}

static void scene_begin(scene *s, int keeper) {
    memset(s, 0, sizeof *s);
    s->p.created = keep_session;
    s->f = fake_plan(&s->p);
    s->folder = folder_new();
    s->keeper = keeper;
    s->c = open_store(fake_port(s->f), keeper, s->folder);
    s->pinged = open_dest(s->c);
    CHECK(gate_wait(&created, 1, HANG));
    s->lost = open_without_recovery(s->c, "lost");
    CHECK(gate_wait(&created, 2, HANG));
    s->shut = open_named(s->c, "shut");
    heard(s->pinged);
    heard(s->lost);
}

static void scene_end(scene *s) {
    i2psock_dest_close(s->pinged);
    i2psock_dest_close(s->shut);
    i2psock_dest_close(s->lost);
    i2psock_controller_close(s->c);
    fake_stop(s->f);
    folder_remove(s->folder);
}

static void ping(scene *s) {
    char question[64], answer[64];
    long long end = now_ms() + LONG;
    snprintf(question, sizeof question, "PING number %d\n", ++s->pings);
    snprintf(answer, sizeof answer, "PONG number %d", s->pings);
    say(sessions[PINGED], question);
    while (!fake_saw(s->f, answer, 1, s->keeper ? (int) HANG : 10)) {
        CHECK(now_ms() < end && !s->keeper);
        heard(s->pinged);
    }
}

/* What has to go on while the folder does not answer. */
static void all_go_on(scene *s, obstacle *stuck) {
    i2psock_dest *quick, *again;
    ping(s);
    CHECK(is_stuck(stuck));
    /* Another name. */
    quick = open_named(s->c, "quick");
    CHECK(is_stuck(stuck));
    i2psock_dest_close(quick);
    CHECK(is_stuck(stuck));
    OK(i2psock_dest_shutdown(s->shut, &E));
    CHECK(is_stuck(stuck));
    again = open_named(s->c, "shut");
    i2psock_dest_close(again);
    /* A destination that ends by itself gives its name back on the keeper's thread. */
    CHECK(shutdown(sessions[LOST]->fd, SHUT_RDWR) == 0);
    CHECK(readable(i2psock_dest_fd(s->lost), HANG));
    if (!s->keeper) heard(s->lost);
    ping(s);
    again = open_named(s->c, "lost");
    i2psock_dest_close(again);
    CHECK_INT(i2psock_dest_state(s->lost, NULL), I2PSOCK_STATE_DEAD);
    CHECK(is_stuck(stuck));
}

/* One more that wants the name: it waits, without blocking. */
static i2psock_pending *stand_in_line(scene *s, obstacle *stuck) {
    i2psock_pending *n = NULL;
    OK(i2psock_dest_open_start(s->c, "slow", I2PSOCK_STREAM, NULL, I2PSOCK_TIMEOUT_NONE, &n, &E));
    ST(I2PSOCK_BLOCK, i2psock_pending_wait(n, 10, &E));
    CHECK(is_stuck(stuck));
    return n;
}

static void gets_its_turn(i2psock_pending *n) {
    i2psock_dest *d = NULL;
    OK(i2psock_pending_wait(n, LONG, &E));
    OK(i2psock_pending_finish_dest(n, &d, &E));
    CHECK_STR(i2psock_dest_name(d), "slow");
    i2psock_pending_free(n);
    i2psock_dest_close(d);
}

/* ---- the tests ---- */

typedef struct {
    i2psock_controller *c;
    i2psock_dest *dest;
    int error;
} job;

static void *open_slow(void *arg) {
    job *j = (job *) arg;
    ST(j->error == 0 ? I2PSOCK_OK : I2PSOCK_IO, i2psock_dest_open(j->c, "slow", I2PSOCK_STREAM, NULL, LONG, &j->dest, &E));
    if (j->error != 0) CHECK_INT(i2psock_error_os_error(E), j->error);
    err_done();
    return NULL;
}

static void *close_slow(void *arg) {
    i2psock_dest_close(((job *) arg)->dest);
    return NULL;
}

static void stuck_open(int keeper, int error) {
    scene s;
    job j;
    pthread_t thread;
    i2psock_pending *next;
    scene_begin(&s, keeper);
    j.c = s.c;
    j.dest = NULL;
    j.error = opening.error = error;
    opening_is_slow = 1;
    thread = start_thread(open_slow, &j);
    CHECK(is_stuck(&opening));
    next = stand_in_line(&s, &opening);
    all_go_on(&s, &opening);
    /* The next one does not meet the obstacle, and gets the name also when the first could not be opened. */
    ST(I2PSOCK_BLOCK, i2psock_pending_step(next, &E));
    opening_is_slow = 0;
    release(&opening);
    join_thread(thread);
    CHECK((j.dest != NULL) == (error == 0));
    gets_its_turn(next);
    i2psock_dest_close(j.dest);
    scene_end(&s);
}
static void stuck_open_with_keeper(void) { stuck_open(1, 0); }
static void stuck_open_without_keeper(void) { stuck_open(0, 0); }
static void stuck_open_that_fails(void) { stuck_open(1, EIO); }

static void stuck_close(int keeper) {
    scene s;
    job j;
    pthread_t thread;
    i2psock_pending *next;
    scene_begin(&s, keeper);
    j.dest = open_named(s.c, "slow");
    closing_is_slow = 1;
    thread = start_thread(close_slow, &j);
    CHECK(is_stuck(&closing));
    /* Not refused, though the file is still locked. */
    next = stand_in_line(&s, &closing);
    all_go_on(&s, &closing);
    ST(I2PSOCK_BLOCK, i2psock_pending_step(next, &E));
    closing_is_slow = 0;
    release(&closing);
    join_thread(thread);
    gets_its_turn(next);
    scene_end(&s);
}
static void stuck_close_with_keeper(void) { stuck_close(1); }
static void stuck_close_without_keeper(void) { stuck_close(0); }

/* A destination that ends by itself: the keeper has to give back its name, and to go on. */
static void stuck_loss(void) {
    scene s;
    i2psock_dest *dest;
    i2psock_pending *next;
    scene_begin(&s, 1);
    dest = open_without_recovery(s.c, "slow");
    CHECK(gate_wait(&created, 4, HANG));
    closing_is_slow = 1;
    CHECK(shutdown(sessions[SLOW]->fd, SHUT_RDWR) == 0);
    CHECK(is_stuck(&closing));
    next = stand_in_line(&s, &closing);
    all_go_on(&s, &closing);
    ST(I2PSOCK_BLOCK, i2psock_pending_step(next, &E));
    closing_is_slow = 0;
    release(&closing);
    gets_its_turn(next);
    i2psock_dest_close(dest);
    scene_end(&s);
}

static const test_case tests[] = {
    T(stuck_open_with_keeper), T(stuck_open_without_keeper), T(stuck_open_that_fails), T(stuck_close_with_keeper),
    T(stuck_close_without_keeper), T(stuck_loss),
};
MAIN(tests)
