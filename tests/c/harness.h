/* What every C test stands on: checks, one process per test, the loopback bridge, and a bridge scripted in C. */
#ifndef HARNESS_H
#define HARNESS_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <i2psock.h>

#include "vectors.h"

/* ---- checks: the first failure ends the test ---- */

void fail_at(const char *file, int line, const char *format, ...) __attribute__((noreturn, format(printf, 3, 4)));
void check_int(const char *file, int line, const char *what, long long got, long long want);
void check_str(const char *file, int line, const char *what, const char *got, const char *want);
void check_has(const char *file, int line, const char *what, const char *got, const char *part, int wanted);

#define CHECK(c) do { if (!(c)) fail_at(__FILE__, __LINE__, "not true: %s", #c); } while (0)
#define CHECK_INT(got, want) check_int(__FILE__, __LINE__, #got, (long long) (got), (long long) (want))
#define CHECK_STR(got, want) check_str(__FILE__, __LINE__, #got, got, want)
#define CHECK_HAS(got, part) check_has(__FILE__, __LINE__, #got, got, part, 1)
#define CHECK_HAS_NOT(got, part) check_has(__FILE__, __LINE__, #got, got, part, 0)

/* The error of the last ST() in this thread, owned by the harness. Calls under test are given &E as their last argument. */
extern __thread i2psock_error *E;
#define POISON ((i2psock_error *) 1)

void err_prepare(void);
void err_done(void);
i2psock_status err_check(const char *file, int line, const char *what, i2psock_status got, int want);

/* Calls, demands the status `want`, and that the error object fits: none with OK and BLOCK, a good one otherwise. */
#define ST(want, call) (err_prepare(), err_check(__FILE__, __LINE__, #call, (call), (want)))
#define OK(call) ST(I2PSOCK_OK, call)
/* Any status: for loops that look at it. Still checks that the error object fits. */
#define ANY (-1)

void check_error(const char *file, int line, int operation, const char *tag, const char *part);
/* The error of the last ST(): operation, tag ("" for none), and a part of the message. */
#define ERR(operation, tag, part) check_error(__FILE__, __LINE__, operation, tag, part)

/* ---- running ---- */

typedef struct {
    const char *name;
    void (*run)(void);
    int seconds;
} test_case;

/* In seconds; for a hang, not for a slow machine. */
#define T(f) { #f, f, 100 }
#define T_LONG(f) { #f, f, 200 }

/* Runs each test in a process of its own, with a time limit, and sees that no descriptor and no thread is left.
 * Arguments of the program: names of the tests to run. */
int run_tests(int argc, char **argv, const test_case *tests, size_t count);
#define MAIN(tests) \
    int main(int argc, char **argv) { return run_tests(argc, argv, tests, sizeof tests / sizeof tests[0]); }

int count_fds(void);
/* When every other thread of this program and of its bridge has nothing left to do, such as closing a descriptor. */
int quiet_fds(void);
int count_threads(void);
/* Waits until that many are open: a thread of the library may be about to close its last reference. */
void expect_fds(int wanted);
void expect_fds_at_most(int most);
/* Waits until the kernel has forgotten threads that have ended. */
void expect_threads(int wanted);
long long now_ms(void);
/* Everything takes that many times longer (valgrind). */
int slowness(void);
int under_valgrind(void);
/* Milliseconds after which something hangs, for all that has to come, and as the limit of calls that are not to run into
 * one: a machine that is slow or has much else to do is no fault. */
#define HANG (60000 * slowness())
void pause_ms(int ms);
/* Whether it is, at the latest after so long: HANG for what has to come, little for what must not. */
int readable(int fd, int ms);
int writable(int fd, int ms);
/* Waits until the thread waits for something itself. Its number is what thread_number() returns in it. */
void expect_asleep(pid_t number);
pid_t thread_number(void);
char *big_text(size_t length, char fill);
void check_cloexec(int fd);
/* Every descriptor this program has opened. */
void check_all_cloexec(void);

/* One-shot event between threads; waiting is bounded. */
typedef struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int count;
} gate;
#define GATE_INIT { PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0 }
void gate_open(gate *g);
int gate_wait(gate *g, int count, int ms);

/* What it comes to in a child of fork: its exit status. */
int in_child(void (*run)(void *), void *arg);

pthread_t start_thread(void *(*run)(void *), void *arg);
void join_thread(pthread_t thread);

/* ---- the loopback bridge as a child process ---- */

typedef struct {
    pid_t pid;
    int stdin_fd;
    int port;
    /* Where it takes datagrams. */
    int udp;
} bridge;

/* A free port below those that the system gives away, so that nobody gets it by chance; another one every time. */
int free_port(void);

/* Arguments end with NULL. */
void bridge_start(bridge *b, const char *arg, ...);
/* Ends it at once and waits for it. */
void bridge_stop(bridge *b);
/* One that can be stopped and started again at the same port, with an argument or NULL. */
void bridge_start_to_stay(bridge *b);
void bridge_start_again(bridge *b, const char *arg, const char *value);

i2psock_options *options_for_port(int port);
/* A controller for the bridge of this test program; a bridge is started once per program. */
extern bridge common;
i2psock_controller *open_common(void);
i2psock_controller *open_port(int port, int keeper);
i2psock_dest *open_dest(i2psock_controller *controller);
/* A controller that knows where the bridge takes datagrams; `keeper` as for open_port(). */
i2psock_controller *open_bridge(const bridge *b, int keeper);
/* A destination of datagrams; `options` may be NULL. */
i2psock_dest *open_style(i2psock_controller *controller, int style, const i2psock_options *options);
/* A controller with a folder of key files. */
i2psock_controller *open_store(int port, int keeper, const char *folder);
i2psock_dest *open_named(i2psock_controller *controller, const char *name);
/* A transient destination whose lost sessions are opened again. */
i2psock_dest *open_recovering(i2psock_controller *controller);
i2psock_listener *open_listener(const i2psock_dest *dest, int backlog);
/* Waits for the next stream (OK) or the end (CLOSED), with nothing but the listener's descriptor and time. */
i2psock_status listener_next(const i2psock_listener *listener, i2psock_stream **out);
/* One connection, from start to end. */
void meet(const i2psock_dest *from, const i2psock_dest *to, const i2psock_listener *listener, i2psock_stream **out, i2psock_stream **in);
/* An empty folder for nobody else; removed, its files included, and freed by the other. */
char *folder_new(void);
void folder_remove(char *path);
/* Two connected streams of one destination each. */
typedef struct {
    i2psock_controller *controller;
    i2psock_dest *here, *there;
    i2psock_stream *out, *in;
} pair;
void pair_open(pair *p);
void pair_close(pair *p);
const char *dest_text(const i2psock_dest *dest);

/* ---- a bridge scripted in C ---- */

typedef struct fake fake;
typedef struct {
    fake *owner;
    int fd;
    int number;
    void *arg;
} fake_conn;
typedef void (*fake_script)(fake_conn *c);

/* Each connection runs `script` in a thread of its own; the connection is closed when the script returns. */
fake *fake_start(fake_script script, void *arg);
fake *fake_start_at(int family, fake_script script, void *arg);
void fake_stop(fake *f);
int fake_port(const fake *f);
int fake_connections(fake *f);
/* Waits up to `ms` until `count` lines with `part` have been read by scripts. */
int fake_saw(fake *f, const char *part, int count, int ms);
int fake_lines(fake *f, const char *part);
/* The first line with `part`; the caller frees. */
char *fake_copy(fake *f, const char *part);

/* One line into `buffer` without its line feed; 0 at the end of the connection. */
int read_line(fake_conn *c, char *buffer, size_t size);
int say_bytes(fake_conn *c, const char *bytes, size_t length);
void say(fake_conn *c, const char *text);
/* Byte by byte, one segment each. */
/* Whether the library was still there at the end. */
int say_slowly(fake_conn *c, const char *bytes, size_t length, int microseconds);
/* Until the other side closes. */
void wait_eof(fake_conn *c);
/* Closes with a reset. */
void say_reset(fake_conn *c);

#define HELLO_OK "HELLO REPLY RESULT=OK VERSION=3.3\n"
#define CREATE_OK "SESSION STATUS RESULT=OK DESTINATION=" KEYS_A "\n"
#define STREAM_OK "STREAM STATUS RESULT=OK\n"

/* A well-behaved bridge with one session, and where a test wants it otherwise. NULL and 0: the usual. */
typedef struct {
    const char *hello, *create, *connect, *accept;
    /* The peer line and what comes in the same segment. */
    const char *accept_more;
    /* A PING comes before each reply. */
    int ping;
    /* Replies come byte by byte, so many microseconds apart. */
    int drip;
    /* Lines on the control socket after the session exists. */
    void (*control)(fake_conn *c, const char *line);
    /* Once the session exists. */
    void (*created)(fake_conn *c);
    /* Once the stream exists. */
    void (*stream)(fake_conn *c, int accepted);
    void *user;
} plan;
void plan_script(fake_conn *c);
fake *fake_plan(plan *p);

#endif
