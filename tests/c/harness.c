#include "harness.h"

#include <dirent.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <sys/syscall.h>

/* ---- checks ---- */

void fail_at(const char *file, int line, const char *format, ...) {
    va_list args;
    fprintf(stderr, "%s:%d: ", file, line);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fprintf(stderr, "\n");
    fflush(NULL);
    _exit(1);
}

void check_int(const char *file, int line, const char *what, long long got, long long want) {
    if (got != want) fail_at(file, line, "%s is %lld, not %lld", what, got, want);
}

void check_str(const char *file, int line, const char *what, const char *got, const char *want) {
    if (got == NULL || want == NULL) {
        if (got != want) fail_at(file, line, "%s is %s, not %s", what, got ? got : "NULL", want ? want : "NULL");
    } else if (strcmp(got, want) != 0) {
        fail_at(file, line, "%s is \"%s\", not \"%s\"", what, got, want);
    }
}

void check_has(const char *file, int line, const char *what, const char *got, const char *part, int wanted) {
    if (got == NULL || (strstr(got, part) != NULL) != wanted) {
        fail_at(file, line, "%s is \"%s\", which should%s have \"%s\"", what, got ? got : "NULL", wanted ? "" : " not", part);
    }
}

__thread i2psock_error *E = NULL;

void err_done(void) {
    if (E != POISON) i2psock_error_free(E);
    E = NULL;
}

void err_prepare(void) {
    err_done();
    E = POISON;
}

i2psock_status err_check(const char *file, int line, const char *what, i2psock_status got, int want) {
    const char *text = E == POISON || E == NULL ? "" : i2psock_error_message(E);
    if (E == POISON) {
        E = NULL;
        fail_at(file, line, "%s left *err unset", what);
    }
    if (want != ANY && (int) got != want) {
        fail_at(file, line, "%s: %s (%s), not %s", what, i2psock_status_name((int) got), text, i2psock_status_name(want));
    }
    if (got == I2PSOCK_OK || got == I2PSOCK_BLOCK) {
        if (E != NULL) fail_at(file, line, "%s: an error object with %s", what, i2psock_status_name((int) got));
        return got;
    }
    if (E == NULL) fail_at(file, line, "%s: no error object with %s", what, i2psock_status_name((int) got));
    if (i2psock_error_status(E) != got) fail_at(file, line, "%s: returned and told status differ", what);
    if (text == NULL || *text == 0 || strchr(text, '\n') != NULL) fail_at(file, line, "%s: message \"%s\"", what, text ? text : "NULL");
    if (i2psock_error_tag(E) == NULL || i2psock_error_operation_name(E) == NULL) fail_at(file, line, "%s: NULL texts", what);
    if ((got == I2PSOCK_NETWORK) != (*i2psock_error_tag(E) != 0) && got != I2PSOCK_CLOSED) {
        fail_at(file, line, "%s: %s with tag \"%s\"", what, i2psock_status_name((int) got), i2psock_error_tag(E));
    }
    /* The resolver has errors of its own. */
    if (got == I2PSOCK_IO && i2psock_error_os_error(E) == 0 && strstr(text, "resolved") == NULL) fail_at(file, line, "%s: IO without errno: %s", what, text);
    if (got == I2PSOCK_INTERNAL) fail_at(file, line, "%s: internal error", what);
    return got;
}

void check_error(const char *file, int line, int operation, const char *tag, const char *part) {
    if (E == NULL || E == POISON) fail_at(file, line, "there is no error");
    check_int(file, line, "the operation", (long long) i2psock_error_operation(E), operation);
    check_str(file, line, "the tag", i2psock_error_tag(E), tag);
    check_has(file, line, "the message", i2psock_error_message(E), part, 1);
}

/* ---- small things ---- */

long long now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (long long) t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

int slowness(void) {
    const char *text = getenv("I2PSOCK_TEST_SLOWNESS");
    int factor = text ? atoi(text) : 1;
    return factor < 1 ? 1 : factor;
}

int under_valgrind(void) { return slowness() > 1; }

void pause_ms(int ms) {
    struct timespec t;
    t.tv_sec = ms / 1000;
    t.tv_nsec = (long) (ms % 1000) * 1000000;
    while (nanosleep(&t, &t) != 0 && errno == EINTR) { }
}

static int count_entries(const char *path) {
    DIR *dir = opendir(path);
    int count = 0;
    struct dirent *entry;
    if (dir == NULL) return -1;
    while ((entry = readdir(dir)) != NULL) count += entry->d_name[0] != '.';
    closedir(dir);
    return count;
}

int count_fds(void) { return count_entries("/proc/self/fd") - 1; }
int count_threads(void) { return count_entries("/proc/self/task"); }

pid_t thread_number(void) { return (pid_t) syscall(SYS_gettid); }

/* Whether a thread waits for something: it neither runs nor would if there were a processor for it. One that has just ended
 * does, too. */
static int asleep(int process, int number) {
    char path[64], text[512], *state;
    size_t length;
    FILE *file;
    snprintf(path, sizeof path, "/proc/%d/task/%d/stat", process, number);
    file = fopen(path, "r");
    if (file == NULL) return 1;
    length = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    text[length] = 0;
    /* Number, name in brackets, state. */
    state = strrchr(text, ')');
    return state == NULL || strchr("RD", state[2]) == NULL;
}

/* Of all the threads of a process but the one that asks. */
static int all_asleep(int process) {
    char path[64];
    DIR *dir;
    struct dirent *entry;
    int good = 1, me = (int) thread_number();
    snprintf(path, sizeof path, "/proc/%d/task", process);
    dir = opendir(path);
    if (dir == NULL) return 1;
    while ((entry = readdir(dir)) != NULL) {
        int number = atoi(entry->d_name);
        if (number != 0 && number != me) good &= asleep(process, number);
    }
    closedir(dir);
    return good;
}

void expect_asleep(pid_t number) {
    long long end = now_ms() + HANG;
    while (!asleep((int) getpid(), (int) number)) {
        if (now_ms() > end) fail_at(__FILE__, __LINE__, "a thread does not come to rest");
        pause_ms(1);
    }
}

int quiet_fds(void) {
    long long end = now_ms() + HANG;
    int fds = -1, looks = 0;
    /* More than one look, since what wakes a thread may be under way in the system. Time alone would say nothing: who was to
     * close the descriptor may be waiting for a processor. */
    while (looks < 10) {
        int now = count_fds(), calm = all_asleep((int) getpid()) && (common.pid <= 0 || all_asleep((int) common.pid));
        looks = calm && now == fds ? looks + 1 : 0;
        fds = now;
        if (now_ms() > end) fail_at(__FILE__, __LINE__, "descriptors come and go");
        pause_ms(3);
    }
    return fds;
}

void expect_threads(int wanted) {
    long long end = now_ms() + HANG;
    while (count_threads() != wanted) {
        if (now_ms() > end) fail_at(__FILE__, __LINE__, "%d threads, not %d", count_threads(), wanted);
        pause_ms(1);
    }
}

void expect_fds(int wanted) {
    long long end = now_ms() + HANG;
    while (count_fds() != wanted) {
        if (now_ms() > end) fail_at(__FILE__, __LINE__, "%d descriptors are open, not %d", count_fds(), wanted);
        pause_ms(1);
    }
}

void expect_fds_at_most(int most) {
    long long end = now_ms() + HANG;
    while (count_fds() > most) {
        if (now_ms() > end) fail_at(__FILE__, __LINE__, "%d descriptors are open, more than %d", count_fds(), most);
        pause_ms(1);
    }
}

static int poll_for(int fd, short events, int ms) {
    struct pollfd p;
    long long end = now_ms() + ms;
    p.fd = fd;
    p.events = events;
    for (;;) {
        long long left = end - now_ms();
        int result = poll(&p, 1, left > 0 ? (int) left : 0);
        if (result > 0) return 1;
        if (result == 0) return 0;
        CHECK(errno == EINTR);
    }
}

int readable(int fd, int ms) { return poll_for(fd, POLLIN, ms); }
int writable(int fd, int ms) { return poll_for(fd, POLLOUT, ms); }

char *big_text(size_t length, char fill) {
    char *text = (char *) malloc(length + 1);
    CHECK(text != NULL);
    memset(text, fill, length);
    text[length] = 0;
    return text;
}

#define MAX_INHERITED 256
static char inherited[MAX_INHERITED];

void check_cloexec(int fd) {
    int flags = fcntl(fd, F_GETFD);
    CHECK(flags >= 0);
    CHECK(flags & FD_CLOEXEC);
}

void check_all_cloexec(void) {
    DIR *dir = opendir("/proc/self/fd");
    struct dirent *entry;
    CHECK(dir != NULL);
    while ((entry = readdir(dir)) != NULL) {
        int fd = atoi(entry->d_name);
        /* Those that were there before the first test are not ours. */
        if (entry->d_name[0] != '.' && !(fd < MAX_INHERITED && inherited[fd])) check_cloexec(fd);
    }
    closedir(dir);
}

void gate_open(gate *g) {
    pthread_mutex_lock(&g->lock);
    g->count++;
    pthread_cond_broadcast(&g->changed);
    pthread_mutex_unlock(&g->lock);
}

static struct timespec real_deadline(int ms) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    t.tv_sec += ms / 1000;
    t.tv_nsec += (long) (ms % 1000) * 1000000;
    if (t.tv_nsec >= 1000000000) {
        t.tv_sec++;
        t.tv_nsec -= 1000000000;
    }
    return t;
}

int gate_wait(gate *g, int count, int ms) {
    struct timespec end = real_deadline(ms);
    int good;
    pthread_mutex_lock(&g->lock);
    while (g->count < count && pthread_cond_timedwait(&g->changed, &g->lock, &end) == 0) { }
    good = g->count >= count;
    pthread_mutex_unlock(&g->lock);
    return good;
}

int in_child(void (*run)(void *), void *arg) {
    int status = 0;
    pid_t child;
    fflush(NULL);
    child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        E = NULL;
        alarm((unsigned) (HANG / 1000));
        run(arg);
        fflush(NULL);
        /* Not a plain end: what only the parent's threads knew of would be a leak to valgrind. */
        execl("/bin/true", "true", (char *) NULL);
        _exit(77);
    }
    while (waitpid(child, &status, 0) < 0) CHECK(errno == EINTR);
    if (WIFSIGNALED(status)) fail_at(__FILE__, __LINE__, "the child died of signal %d", WTERMSIG(status));
    return WEXITSTATUS(status);
}

pthread_t start_thread(void *(*run)(void *), void *arg) {
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, run, arg) == 0);
    return thread;
}

void join_thread(pthread_t thread) { CHECK(pthread_join(thread, NULL) == 0); }

/* ---- running ---- */

static int run_one(const test_case *test) {
    int status = 0;
    pid_t child;
    fflush(NULL);
    child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        int fds = count_fds(), threads = count_threads();
        alarm((unsigned) (3 * test->seconds * slowness()));
        test->run();
        err_done();
        expect_threads(threads);
        expect_fds(fds);
        fflush(NULL);
        exit(0);
    }
    while (waitpid(child, &status, 0) < 0) CHECK(errno == EINTR);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
        printf("ok %s\n", test->name);
        fflush(stdout);
        return 0;
    }
    if (WIFSIGNALED(status)) {
        int number = WTERMSIG(status);
        printf("FAILED %s (%s)\n", test->name, number == SIGALRM ? "it hangs: time limit" : strsignal(number));
    } else {
        printf("FAILED %s (exit %d)\n", test->name, WEXITSTATUS(status));
    }
    fflush(stdout);
    return 1;
}

bridge common = { 0, -1, 0, 0 };

int run_tests(int argc, char **argv, const test_case *tests, size_t count) {
    size_t i;
    int failed = 0, a;
    for (a = 0; a < MAX_INHERITED; a++) inherited[a] = fcntl(a, F_GETFD) >= 0;
    bridge_start(&common, NULL);
    for (i = 0; i < count; i++) {
        int wanted = argc < 2;
        for (a = 1; a < argc; a++) wanted |= strcmp(argv[a], tests[i].name) == 0;
        if (wanted) failed += run_one(&tests[i]);
    }
    bridge_stop(&common);
    return failed ? 1 : 0;
}

/* ---- the loopback bridge ---- */

/* "SAM <tcp> <udp>"; 0 if the program ended without a word. */
static int read_ports(int fd, bridge *b) {
    char text[64];
    size_t used = 0;
    while (used < sizeof text - 1) {
        CHECK(readable(fd, HANG));
        if (read(fd, text + used, 1) != 1) return 0;
        if (text[used] == '\n') break;
        used++;
    }
    text[used] = 0;
    CHECK(sscanf(text, "SAM %d %d", &b->port, &b->udp) == 2);
    return 1;
}

/* Whether it runs. With a certain port it may not: somebody else may have it. */
static int bridge_run(bridge *b, int port, const char *const *more) {
    const char *program = getenv("I2PSOCK_BRIDGE");
    const char *args[32];
    char number[16];
    int in[2], out[2], count = 0;
    if (program == NULL) program = "target/release/i2psock-bridge";
    snprintf(number, sizeof number, "%d", port);
    args[count++] = program;
    args[count++] = "--port";
    args[count++] = number;
    /* Streams wait for the first ACCEPT, which Java does not let them: most tests connect while it is on its way. */
    args[count++] = "--park";
    args[count++] = "60000";
    while (*more != NULL && count < 31) args[count++] = *more++;
    args[count] = NULL;
    CHECK(pipe2(in, O_CLOEXEC) == 0 && pipe2(out, O_CLOEXEC) == 0);
    b->pid = fork();
    CHECK(b->pid >= 0);
    if (b->pid == 0) {
        dup2(in[0], 0);
        dup2(out[1], 1);
        execv(program, (char *const *) args);
        perror(program);
        _exit(127);
    }
    close(in[0]);
    close(out[1]);
    b->stdin_fd = in[1];
    if (!read_ports(out[0], b)) {
        close(out[0]);
        bridge_stop(b);
        return 0;
    }
    close(out[0]);
    CHECK(b->port > 0 && b->udp > 0);
    return 1;
}

void bridge_start(bridge *b, const char *arg, ...) {
    const char *args[32];
    int count = 0;
    va_list list;
    va_start(list, arg);
    for (; arg != NULL && count < 31; arg = va_arg(list, const char *)) args[count++] = arg;
    va_end(list);
    args[count] = NULL;
    if (!bridge_run(b, 0, args)) fail_at(__FILE__, __LINE__, "the bridge did not say its port");
}

int free_port(void) {
    static int calls = 0;
    int tries;
    for (tries = 0; tries < 50; tries++) {
        int port = 12000 + (int) ((now_ms() * 131 + getpid() * 7 + calls++ * 1009) % 18000), one = 1, taken;
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        struct sockaddr_in a;
        memset(&a, 0, sizeof a);
        a.sin_family = AF_INET;
        a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        a.sin_port = htons((unsigned short) port);
        CHECK(fd >= 0);
        CHECK(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) == 0);
        taken = bind(fd, (struct sockaddr *) &a, sizeof a);
        close(fd);
        if (taken == 0) return port;
    }
    fail_at(__FILE__, __LINE__, "no free port");
}

void bridge_start_to_stay(bridge *b) {
    const char *none = NULL;
    int tries;
    for (tries = 0; tries < 50; tries++) {
        if (bridge_run(b, free_port(), &none)) return;
    }
    fail_at(__FILE__, __LINE__, "no port for a bridge");
}

void bridge_start_again(bridge *b, const char *arg, const char *value) {
    const char *args[3];
    args[0] = arg;
    args[1] = value;
    args[2] = NULL;
    CHECK_INT(b->pid, 0);
    if (!bridge_run(b, b->port, args)) fail_at(__FILE__, __LINE__, "the bridge did not start again at port %d", b->port);
}

void bridge_stop(bridge *b) {
    int status;
    if (b->pid <= 0) return;
    close(b->stdin_fd);
    kill(b->pid, SIGKILL);
    while (waitpid(b->pid, &status, 0) < 0 && errno == EINTR) { }
    b->pid = 0;
    b->stdin_fd = -1;
}

i2psock_options *options_for_port(int port) {
    i2psock_options *options = i2psock_options_new();
    char text[64];
    CHECK(options != NULL);
    snprintf(text, sizeof text, "127.0.0.1:%d", port);
    OK(i2psock_options_set(options, "sam", text, &E));
    return options;
}

static i2psock_controller *open_options(i2psock_options *options, int keeper) {
    i2psock_controller *controller = NULL;
    OK(i2psock_options_set_int(options, "keeper", keeper, &E));
    OK(i2psock_controller_open(options, &controller, &E));
    CHECK(controller != NULL);
    i2psock_options_free(options);
    return controller;
}

i2psock_controller *open_port(int port, int keeper) { return open_options(options_for_port(port), keeper); }

i2psock_controller *open_bridge(const bridge *b, int keeper) {
    i2psock_options *options = options_for_port(b->port);
    char text[64];
    snprintf(text, sizeof text, "127.0.0.1:%d", b->udp);
    OK(i2psock_options_set(options, "udp", text, &E));
    return open_options(options, keeper);
}

i2psock_controller *open_store(int port, int keeper, const char *folder) {
    i2psock_options *options = options_for_port(port);
    OK(i2psock_options_set(options, "key_store", folder, &E));
    return open_options(options, keeper);
}

i2psock_dest *open_named(i2psock_controller *controller, const char *name) {
    i2psock_dest *dest = NULL;
    OK(i2psock_dest_open(controller, name, I2PSOCK_STREAM, NULL, HANG, &dest, &E));
    CHECK(dest != NULL);
    CHECK_STR(i2psock_dest_name(dest), name);
    return dest;
}

i2psock_dest *open_recovering(i2psock_controller *controller) {
    i2psock_options *options = i2psock_options_new();
    i2psock_dest *dest;
    OK(i2psock_options_set_int(options, "recover", 1, &E));
    dest = open_style(controller, I2PSOCK_STREAM, options);
    i2psock_options_free(options);
    return dest;
}

i2psock_listener *open_listener(const i2psock_dest *dest, int backlog) {
    i2psock_listener *listener = NULL;
    OK(i2psock_listener_open(dest, backlog, NULL, &listener, &E));
    CHECK(listener != NULL);
    return listener;
}

i2psock_status listener_next(const i2psock_listener *listener, i2psock_stream **out) {
    long long end = now_ms() + HANG;
    for (;;) {
        i2psock_status status = ST(ANY, i2psock_listener_accept(listener, out, &E));
        int due;
        if (status != I2PSOCK_BLOCK) return status;
        CHECK(*out == NULL);
        if (now_ms() > end) fail_at(__FILE__, __LINE__, "no stream comes");
        due = i2psock_listener_timeout_ms(listener);
        /* The descriptor and the time that are told are all that is waited for. */
        poll_for(i2psock_listener_fd(listener), POLLIN, due < 0 ? (int) (end - now_ms()) + 1 : due);
    }
}

typedef struct { const i2psock_dest *from; const char *to; i2psock_stream *out; } connecting;

static void *connect_one(void *arg) {
    connecting *k = (connecting *) arg;
    OK(i2psock_dest_connect(k->from, k->to, NULL, HANG, &k->out, &E));
    err_done();
    return NULL;
}

void meet(const i2psock_dest *from, const i2psock_dest *to, const i2psock_listener *listener, i2psock_stream **out, i2psock_stream **in) {
    connecting k;
    pthread_t thread;
    k.from = from;
    k.to = dest_text(to);
    k.out = NULL;
    thread = start_thread(connect_one, &k);
    CHECK_INT(listener_next(listener, in), I2PSOCK_OK);
    join_thread(thread);
    *out = k.out;
}

char *folder_new(void) {
    const char *parent = getenv("TMPDIR");
    char *path = (char *) malloc(4096);
    CHECK(path != NULL);
    snprintf(path, 4096, "%s/i2psock-XXXXXX", parent != NULL && *parent ? parent : "/tmp");
    CHECK(mkdtemp(path) != NULL);
    return path;
}

void folder_remove(char *path) {
    DIR *dir = opendir(path);
    struct dirent *entry;
    CHECK(dir != NULL);
    while ((entry = readdir(dir)) != NULL) {
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) unlinkat(dirfd(dir), entry->d_name, 0);
    }
    closedir(dir);
    CHECK(rmdir(path) == 0);
    free(path);
}

i2psock_controller *open_common(void) { return open_bridge(&common, 1); }

i2psock_dest *open_dest(i2psock_controller *controller) {
    i2psock_dest *dest = NULL;
    OK(i2psock_dest_open(controller, NULL, I2PSOCK_STREAM, NULL, HANG, &dest, &E));
    CHECK(dest != NULL);
    return dest;
}

i2psock_dest *open_style(i2psock_controller *controller, int style, const i2psock_options *options) {
    i2psock_dest *dest = NULL;
    OK(i2psock_dest_open(controller, NULL, style, options, HANG, &dest, &E));
    CHECK(dest != NULL);
    CHECK_INT(i2psock_dest_style(dest), style);
    return dest;
}

const char *dest_text(const i2psock_dest *dest) { return i2psock_addr_base64(i2psock_dest_addr(dest)); }

static void *pair_accept(void *arg) {
    pair *p = (pair *) arg;
    OK(i2psock_dest_accept(p->there, HANG, &p->in, &E));
    err_done();
    return NULL;
}

void pair_open(pair *p) {
    pthread_t thread;
    p->controller = open_common();
    p->here = open_dest(p->controller);
    p->there = open_dest(p->controller);
    p->in = p->out = NULL;
    thread = start_thread(pair_accept, p);
    OK(i2psock_dest_connect(p->here, dest_text(p->there), NULL, HANG, &p->out, &E));
    join_thread(thread);
    CHECK(p->in != NULL && p->out != NULL);
}

void pair_close(pair *p) {
    i2psock_stream_free(p->in);
    i2psock_stream_free(p->out);
    i2psock_dest_close(p->here);
    i2psock_dest_close(p->there);
    i2psock_controller_close(p->controller);
}

/* ---- a bridge scripted in C ---- */

#define MAX_CONNECTIONS 2048
#define MAX_LINES 4096

struct fake {
    int listener, port, stopping;
    fake_script script;
    void *arg;
    pthread_t acceptor;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int count;
    pthread_t threads[MAX_CONNECTIONS];
    int fds[MAX_CONNECTIONS];
    int line_count;
    char *lines[MAX_LINES];
};

typedef struct {
    fake_conn conn;
} fake_start_arg;

static void *fake_serve(void *arg) {
    fake_conn *c = (fake_conn *) arg;
    fake *f = c->owner;
    f->script(c);
    err_done();
    pthread_mutex_lock(&f->lock);
    if (f->fds[c->number] >= 0) close(f->fds[c->number]);
    f->fds[c->number] = -1;
    pthread_mutex_unlock(&f->lock);
    free(c);
    return NULL;
}

static void *fake_accept(void *arg) {
    fake *f = (fake *) arg;
    for (;;) {
        int one = 1, fd = accept4(f->listener, NULL, NULL, SOCK_CLOEXEC);
        fake_conn *c;
        if (fd < 0) {
            if (errno == EINTR || errno == ECONNABORTED) continue;
            return NULL;
        }
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        c = (fake_conn *) malloc(sizeof *c);
        CHECK(c != NULL);
        c->owner = f;
        c->fd = fd;
        c->arg = f->arg;
        pthread_mutex_lock(&f->lock);
        if (f->stopping || f->count == MAX_CONNECTIONS) {
            pthread_mutex_unlock(&f->lock);
            close(fd);
            free(c);
            continue;
        }
        c->number = f->count++;
        f->fds[c->number] = fd;
        f->threads[c->number] = start_thread(fake_serve, c);
        pthread_cond_broadcast(&f->changed);
        pthread_mutex_unlock(&f->lock);
    }
}

fake *fake_start_at(int family, fake_script script, void *arg) {
    fake *f = (fake *) calloc(1, sizeof *f);
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
    struct sockaddr *address = (struct sockaddr *) &v4;
    socklen_t length = sizeof v4;
    CHECK(f != NULL);
    memset(&v4, 0, sizeof v4);
    memset(&v6, 0, sizeof v6);
    v4.sin_family = AF_INET;
    v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    v6.sin6_family = AF_INET6;
    v6.sin6_addr = in6addr_loopback;
    if (family == AF_INET6) {
        address = (struct sockaddr *) &v6;
        length = sizeof v6;
    }
    f->script = script;
    f->arg = arg;
    pthread_mutex_init(&f->lock, NULL);
    pthread_cond_init(&f->changed, NULL);
    f->listener = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(f->listener >= 0 || errno == EAFNOSUPPORT);
    if (f->listener < 0 || bind(f->listener, address, length) != 0) {
        if (f->listener >= 0) close(f->listener);
        free(f);
        return NULL;
    }
    CHECK(listen(f->listener, 256) == 0);
    CHECK(getsockname(f->listener, address, &length) == 0);
    f->port = ntohs(family == AF_INET6 ? v6.sin6_port : v4.sin_port);
    f->acceptor = start_thread(fake_accept, f);
    return f;
}

fake *fake_start(fake_script script, void *arg) {
    fake *f = fake_start_at(AF_INET, script, arg);
    CHECK(f != NULL);
    return f;
}

void fake_stop(fake *f) {
    int i;
    pthread_mutex_lock(&f->lock);
    f->stopping = 1;
    for (i = 0; i < f->count; i++) {
        if (f->fds[i] >= 0) shutdown(f->fds[i], SHUT_RDWR);
    }
    pthread_mutex_unlock(&f->lock);
    shutdown(f->listener, SHUT_RDWR);
    join_thread(f->acceptor);
    close(f->listener);
    for (i = 0; i < f->count; i++) join_thread(f->threads[i]);
    for (i = 0; i < f->line_count; i++) free(f->lines[i]);
    pthread_mutex_destroy(&f->lock);
    pthread_cond_destroy(&f->changed);
    free(f);
}

int fake_port(const fake *f) { return f->port; }

int fake_connections(fake *f) {
    int count;
    pthread_mutex_lock(&f->lock);
    count = f->count;
    pthread_mutex_unlock(&f->lock);
    return count;
}

static int count_lines(fake *f, const char *part) {
    int i, count = 0;
    for (i = 0; i < f->line_count; i++) count += strstr(f->lines[i], part) != NULL;
    return count;
}

int fake_lines(fake *f, const char *part) {
    int count;
    pthread_mutex_lock(&f->lock);
    count = count_lines(f, part);
    pthread_mutex_unlock(&f->lock);
    return count;
}

int fake_saw(fake *f, const char *part, int count, int ms) {
    struct timespec end = real_deadline(ms);
    int good;
    pthread_mutex_lock(&f->lock);
    while (count_lines(f, part) < count && pthread_cond_timedwait(&f->changed, &f->lock, &end) == 0) { }
    good = count_lines(f, part) >= count;
    pthread_mutex_unlock(&f->lock);
    return good;
}

char *fake_copy(fake *f, const char *part) {
    char *text = NULL;
    int i;
    pthread_mutex_lock(&f->lock);
    for (i = 0; i < f->line_count && text == NULL; i++) {
        if (strstr(f->lines[i], part) != NULL) text = strdup(f->lines[i]);
    }
    pthread_mutex_unlock(&f->lock);
    CHECK(text != NULL);
    return text;
}

int read_line(fake_conn *c, char *buffer, size_t size) {
    size_t used = 0;
    fake *f = c->owner;
    for (;;) {
        char byte;
        if (recv(c->fd, &byte, 1, 0) != 1) return 0;
        if (byte == '\n') break;
        CHECK(used + 1 < size);
        buffer[used++] = byte;
    }
    buffer[used] = 0;
    pthread_mutex_lock(&f->lock);
    if (f->line_count < MAX_LINES) f->lines[f->line_count++] = strdup(buffer);
    pthread_cond_broadcast(&f->changed);
    pthread_mutex_unlock(&f->lock);
    return 1;
}

int say_bytes(fake_conn *c, const char *bytes, size_t length) {
    while (length > 0) {
        ssize_t count = send(c->fd, bytes, length, MSG_NOSIGNAL);
        if (count <= 0) return 0;
        bytes += count;
        length -= (size_t) count;
    }
    return 1;
}

void say(fake_conn *c, const char *text) { say_bytes(c, text, strlen(text)); }

int say_slowly(fake_conn *c, const char *bytes, size_t length, int microseconds) {
    struct timespec t;
    t.tv_sec = 0;
    t.tv_nsec = (long) microseconds * 1000;
    while (length-- > 0) {
        if (!say_bytes(c, bytes++, 1)) return 0;
        nanosleep(&t, NULL);
    }
    return 1;
}

void wait_eof(fake_conn *c) {
    char waste[4096];
    while (recv(c->fd, waste, sizeof waste, 0) > 0) { }
}

void say_reset(fake_conn *c) {
    struct linger now;
    now.l_onoff = 1;
    now.l_linger = 0;
    setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    pthread_mutex_lock(&c->owner->lock);
    close(c->fd);
    c->owner->fds[c->number] = -1;
    pthread_mutex_unlock(&c->owner->lock);
}

static void plan_say(fake_conn *c, const plan *p, const char *text) {
    char ping[64];
    snprintf(ping, sizeof ping, "PING before %d\n", c->number);
    if (p->drip) {
        if (p->ping) say_slowly(c, ping, strlen(ping), p->drip);
        say_slowly(c, text, strlen(text), p->drip);
    } else {
        if (p->ping) say(c, ping);
        say(c, text);
    }
}

/* Lines that are answers to our PINGs are of no interest to the script. */
static int plan_read(fake_conn *c, char *line, size_t size) {
    do {
        if (!read_line(c, line, size)) return 0;
    } while (strncmp(line, "PONG", 4) == 0);
    return 1;
}

/* Answers a SESSION CREATE: with the keys it asks for, or with KEYS_A; with others when there are destinations with those. */
static void plan_create(fake_conn *c, const plan *p, const char *line) {
    char reply[sizeof CREATE_OK];
    const char *keys = strstr(line, " DESTINATION="), *end;
    size_t length;
    int number;
    if (p->create) {
        plan_say(c, p, p->create);
        return;
    }
    keys += strlen(" DESTINATION=");
    end = strchr(keys, ' ');
    length = end != NULL ? (size_t) (end - keys) : strlen(keys);
    snprintf(reply, sizeof reply, "%s", CREATE_OK);
    if (length == strlen(KEYS_A)) {
        memcpy(strstr(reply, KEYS_A), keys, length);
    } else {
        number = fake_lines(c->owner, "DESTINATION=TRANSIENT");
        if (number > 1) memset(strstr(reply, KEYS_A), 'a' + number % 26, 8);
    }
    plan_say(c, p, reply);
}

void plan_script(fake_conn *c) {
    const plan *p = (const plan *) c->arg;
    char line[8192];
    if (!plan_read(c, line, sizeof line)) return;
    plan_say(c, p, p->hello ? p->hello : HELLO_OK);
    if (!plan_read(c, line, sizeof line)) return;
    if (strncmp(line, "SESSION CREATE", 14) == 0) {
        plan_create(c, p, line);
        if (p->created) p->created(c);
        while (read_line(c, line, sizeof line)) {
            if (p->control) p->control(c, line);
        }
    } else if (strncmp(line, "STREAM CONNECT", 14) == 0) {
        plan_say(c, p, p->connect ? p->connect : STREAM_OK);
        if (p->stream) p->stream(c, 0);
        else wait_eof(c);
    } else if (strncmp(line, "STREAM ACCEPT", 13) == 0) {
        plan_say(c, p, p->accept ? p->accept : STREAM_OK);
        if (p->accept_more) plan_say(c, p, p->accept_more);
        if (p->stream) p->stream(c, 1);
        else wait_eof(c);
    } else if (strstr(line, "NAME=i2psock.invalid.i2p") != NULL) {
        /* A router that lets go of sessions at once. */
        plan_say(c, p, "NAMING REPLY RESULT=KEY_NOT_FOUND NAME=i2psock.invalid.i2p\n");
        wait_eof(c);
    } else {
        while (p->control) {
            p->control(c, line);
            if (!read_line(c, line, sizeof line)) return;
        }
        wait_eof(c);
    }
}

fake *fake_plan(plan *p) { return fake_start(plan_script, p); }
