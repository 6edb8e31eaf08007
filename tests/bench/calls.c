/*
 * calls.c - does one thing COUNT times, with the library or by hand, at the bridge of end.c.
 * usage: calls lib|hand WHAT SAM_PORT UDP_PORT COUNT. Prints a line
 *
 *   seconds S processor P heap H commands C own O memory M descriptors D
 *
 * about these COUNT times alone: the time they took, this process's processor time, blocks that were asked of the heap,
 * commands the bridge got, system calls that belong to the measuring, and for streams that stay open the growth of resident
 * memory in bytes and the descriptors.
 */
#include "bench.h"

#include <dirent.h>
#include <errno.h>
#include <i2psock.h>

enum { PIECE = 1024, MANY = 64, BATCH = 16, SIZE = 512, ECHO = 1 << 20, ROOM = 2048 };

static int sam, udp, count, meter;
static long heap, own;
static char data[ECHO];

#ifdef __GLIBC__
void *__libc_malloc(size_t);
void *__libc_calloc(size_t, size_t);
void *__libc_realloc(void *, size_t);

void *malloc(size_t size) {
    __atomic_add_fetch(&heap, 1, __ATOMIC_RELAXED);
    return __libc_malloc(size);
}

void *calloc(size_t number, size_t size) {
    __atomic_add_fetch(&heap, 1, __ATOMIC_RELAXED);
    return __libc_calloc(number, size);
}

void *realloc(void *block, size_t size) {
    __atomic_add_fetch(&heap, 1, __ATOMIC_RELAXED);
    return __libc_realloc(block, size);
}
#endif

/* ---- what is measured ---- */

static long ask_number(const char *command) {
    char answer[256];

    ask(meter, command, answer, sizeof answer);
    own += 3;
    return atol(answer + strlen("RESULT=OK "));
}

/* Has datagrams sent to a port. */
static void feed(int port) {
    char command[64];

    snprintf(command, sizeof command, "FEED %d %d\n", port, MANY);
    ask_number(command);
}

static long memory(void) {
    FILE *file = fopen("/proc/self/statm", "r");
    long pages = 0;

    check(file != NULL && fscanf(file, "%*d %ld", &pages) == 1, "statm");
    fclose(file);
    return pages * sysconf(_SC_PAGESIZE);
}

static long descriptors(void) {
    DIR *folder = opendir("/proc/self/fd");
    long number = 0;

    check(folder != NULL, "/proc/self/fd");
    while (readdir(folder) != NULL) {
        number++;
    }
    closedir(folder);
    return number;
}

struct figures {
    double seconds, processor;
    long heap, commands, memory, descriptors;
};

static struct figures look(void) {
    struct figures now;

    now.memory = memory();
    now.descriptors = descriptors();
    now.commands = ask_number("COUNT\n");
    now.heap = heap;
    now.processor = seconds_of(CLOCK_PROCESS_CPUTIME_ID);
    now.seconds = seconds_of(CLOCK_MONOTONIC);
    return now;
}

static struct figures begun;

static void begin(void) {
    begun = look();
    own = 0;
}

static void end(void) {
    struct figures now;
    long measuring = own;

    now.seconds = seconds_of(CLOCK_MONOTONIC);
    now.processor = seconds_of(CLOCK_PROCESS_CPUTIME_ID);
    now.heap = heap;
    now.commands = ask_number("COUNT\n");
    now.memory = memory();
    now.descriptors = descriptors();
    printf("seconds %.6f processor %.6f heap %ld commands %ld own %ld memory %ld descriptors %ld\n",
           now.seconds - begun.seconds, now.processor - begun.processor, now.heap - begun.heap,
           now.commands - begun.commands, measuring, now.memory - begun.memory, now.descriptors - begun.descriptors);
    fflush(stdout);
}

/* ---- by hand ---- */

static char id[64];

static int hand_session(const char *style, const char *more) {
    static int number;
    char command[256], answer[4096];
    int fd = greet(sam);

    snprintf(id, sizeof id, "calls%d-%d", (int) getpid(), number++);
    snprintf(command, sizeof command, "SESSION CREATE STYLE=%s ID=%s DESTINATION=TRANSIENT SIGNATURE_TYPE=7%s\n", style, id,
             more);
    ask(fd, command, answer, sizeof answer);
    return fd;
}

static char destination[1024];

static int hand_stream(int accepting) {
    char command[2048], answer[1024];
    int fd = greet(sam);

    if (accepting) {
        snprintf(command, sizeof command, "STREAM ACCEPT ID=%s SILENT=false\n", id);
    } else {
        snprintf(command, sizeof command, "STREAM CONNECT ID=%s DESTINATION=%s SILENT=false\n", id, destination);
    }
    ask(fd, command, answer, sizeof answer);
    check(!accepting || read_line(fd, answer, sizeof answer) > 0, "peer");
    return fd;
}

static void hand_datagrams(int sending, int batch) {
    static char headers[1200], rooms[BATCH][ROOM];
    struct sockaddr_in bridge = loopback(udp), from[BATCH];
    struct mmsghdr messages[BATCH];
    struct iovec parts[BATCH][2];
    int port = 0, fd = bind_to(SOCK_DGRAM, &port), done = 0, i;
    char more[64];

    snprintf(more, sizeof more, " HOST=127.0.0.1 PORT=%d", port);
    hand_session("DATAGRAM", more);
    snprintf(headers, sizeof headers, "3.0 %s %s\n", id, destination);
    memset(messages, 0, sizeof messages);
    for (i = 0; i < BATCH; i++) {
        parts[i][0].iov_base = sending ? headers : rooms[i];
        parts[i][0].iov_len = sending ? strlen(headers) : ROOM;
        parts[i][1].iov_base = data;
        parts[i][1].iov_len = SIZE;
        messages[i].msg_hdr.msg_name = sending ? &bridge : &from[i];
        messages[i].msg_hdr.msg_namelen = sizeof bridge;
        messages[i].msg_hdr.msg_iov = parts[i];
        messages[i].msg_hdr.msg_iovlen = sending ? 2 : 1;
    }
    begin();
    while (done < count) {
        int now;

        if (sending) {
            now = sendmmsg(fd, messages, (unsigned) batch, MSG_NOSIGNAL);
            check(now > 0, "sendmmsg");
        } else {
            if (done % MANY == 0) {
                feed(port);
            }
            now = recvmmsg(fd, messages, (unsigned) batch, MSG_WAITFORONE, NULL);
            check(now > 0, "recvmmsg");
            for (i = 0; i < now; i++) {
                char *line = (char *) memchr(rooms[i], '\n', messages[i].msg_len);

                check(from[i].sin_port == bridge.sin_port && line != NULL, "a datagram");
                check(rooms[i] + messages[i].msg_len - (line + 1) == SIZE, "its size");
            }
        }
        done += now;
    }
    end();
}

/* ---- with the library ---- */

static i2psock_controller *controller;
static i2psock_dest *dest;
static i2psock_error *err;

static void good(i2psock_status status, const char *what) {
    if (status != I2PSOCK_OK) {
        fprintf(stderr, "calls: %s: %s\n", what, i2psock_error_message(err));
        exit(1);
    }
}

static void lib_open(int style) {
    i2psock_options *options = i2psock_options_new();
    char text[64];

    snprintf(text, sizeof text, "127.0.0.1:%d", sam);
    good(i2psock_options_set(options, "sam", text, &err), "sam");
    snprintf(text, sizeof text, "127.0.0.1:%d", udp);
    good(i2psock_options_set(options, "udp", text, &err), "udp");
    good(i2psock_controller_open(options, &controller, &err), "controller");
    good(i2psock_dest_open(controller, NULL, style, NULL, I2PSOCK_TIMEOUT_DEFAULT, &dest, &err), "dest");
    i2psock_options_free(options);
}

static i2psock_stream *lib_stream(int accepting) {
    i2psock_stream *stream = NULL;

    if (accepting) {
        good(i2psock_dest_accept(dest, I2PSOCK_TIMEOUT_DEFAULT, &stream, &err), "accept");
    } else {
        good(i2psock_dest_connect(dest, destination, NULL, I2PSOCK_TIMEOUT_DEFAULT, &stream, &err), "connect");
    }
    return stream;
}

static void lib_datagrams(int sending, int many) {
    static char rooms[MANY][ROOM];
    static i2psock_outgoing out[MANY];
    static i2psock_incoming in[MANY];
    i2psock_dgram *dgram = NULL;
    i2psock_from *from = i2psock_from_new();
    struct sockaddr_in address;
    socklen_t len = sizeof address;
    int done = 0, i;

    lib_open(I2PSOCK_DGRAM);
    good(i2psock_dest_bind(dest, &dgram, &err), "bind");
    check(getsockname(i2psock_dgram_fd(dgram), (struct sockaddr *) &address, &len) == 0, "getsockname");
    for (i = 0; i < MANY; i++) {
        out[i].address = destination;
        out[i].data = data;
        out[i].len = SIZE;
        in[i].data = rooms[i];
        in[i].capacity = ROOM;
        in[i].from = from;
    }
    begin();
    while (done < count) {
        size_t now = 1;

        if (sending && many) {
            good(i2psock_dgram_send_many(dgram, out, MANY, 0, &now, &err), "send_many");
        } else if (sending) {
            good(i2psock_dgram_send_to(dgram, destination, data, SIZE, 0, NULL, &err), "send_to");
        } else {
            if (done % MANY == 0) {
                feed(ntohs(address.sin_port));
            }
            if (many) {
                good(i2psock_dgram_recv_many(dgram, in, (size_t) (MANY - done % MANY), 0, &now, &err), "recv_many");
                check(in[0].len == SIZE, "its size");
            } else {
                size_t size = 0;

                good(i2psock_dgram_recv_from(dgram, rooms[0], ROOM, 0, &size, from, &err), "recv_from");
                check(size == SIZE, "its size");
            }
        }
        done += (int) now;
    }
    end();
}

/* ---- both ---- */

/* A stream of either kind. */
struct stream {
    i2psock_stream *lib;
    int fd;
};

static struct stream open_stream(int lib, int accepting) {
    struct stream stream = {NULL, -1};

    if (lib) {
        stream.lib = lib_stream(accepting);
    } else {
        stream.fd = hand_stream(accepting);
    }
    return stream;
}

static void close_stream(struct stream *stream) {
    i2psock_stream_free(stream->lib);
    if (stream->fd >= 0) {
        close(stream->fd);
    }
}

static void put(struct stream *stream, const void *from, size_t len) {
    if (stream->lib != NULL) {
        good(i2psock_stream_send_all(stream->lib, from, len, NULL, &err), "send");
    } else {
        send_whole(stream->fd, from, len);
    }
}

static void get(struct stream *stream, size_t len) {
    size_t now = 0;

    if (stream->lib != NULL) {
        good(i2psock_stream_recv(stream->lib, data, len, MSG_WAITALL, &now, &err), "recv");
    } else {
        now = (size_t) recv(stream->fd, data, len, MSG_WAITALL);
    }
    check(now == len, "recv");
}

int main(int argc, char **argv) {
    const char *what;
    struct stream stream = {NULL, -1}, *kept;
    struct wish wish = {0, 0};
    int lib, i;
    char answer[2048];

    check(argc == 6, "usage");
    lib = strcmp(argv[1], "lib") == 0;
    what = argv[2];
    sam = atoi(argv[3]);
    udp = atoi(argv[4]);
    count = atoi(argv[5]);
    meter = greet(sam);
    ask(meter, "NAMING LOOKUP NAME=ME\n", answer, sizeof answer);
    snprintf(destination, sizeof destination, "%s", strstr(answer, "VALUE=") + 6);

    if (strncmp(what, "dgram-", 6) == 0) {
        int sending = strstr(what, "send") != NULL, many = strstr(what, "many") != NULL;

        if (lib) {
            lib_datagrams(sending, many);
        } else {
            hand_datagrams(sending, many ? BATCH : 1);
        }
        return 0;
    }
    if (strcmp(what, "open") == 0) {
        begin();
        for (i = 0; i < count; i++) {
            if (lib) {
                lib_open(I2PSOCK_STREAM);
            } else {
                hand_session("STREAM", "");
            }
        }
        end();
        return 0;
    }
    if (lib) {
        lib_open(I2PSOCK_STREAM);
    } else {
        hand_session("STREAM", "");
    }
    if (strcmp(what, "connect") == 0 || strcmp(what, "accept") == 0) {
        begin();
        for (i = 0; i < count; i++) {
            stream = open_stream(lib, what[0] == 'a');
            close_stream(&stream);
        }
        end();
    } else if (strcmp(what, "idle") == 0) {
        kept = (struct stream *) calloc((size_t) count + 1, sizeof *kept);
        check(kept != NULL, "calloc");
        begin();
        for (i = 0; i < count; i++) {
            kept[i] = open_stream(lib, 0);
        }
        end();
    } else if (strcmp(what, "echo") == 0) {
        wish.there = wish.back = ECHO;
        begin();
        for (i = 0; i < count; i++) {
            stream = open_stream(lib, 0);
            put(&stream, &wish, sizeof wish);
            put(&stream, data, ECHO);
            get(&stream, ECHO);
            close_stream(&stream);
        }
        end();
    } else if (strcmp(what, "send") == 0 || strcmp(what, "recv") == 0) {
        uint64_t *amount = what[0] == 's' ? &wish.there : &wish.back;

        *amount = (uint64_t) count * PIECE;
        stream = open_stream(lib, 0);
        put(&stream, &wish, sizeof wish);
        begin();
        for (i = 0; i < count; i++) {
            if (what[0] == 's') {
                put(&stream, data, PIECE);
            } else {
                get(&stream, PIECE);
            }
        }
        end();
    } else {
        check(0, what);
    }
    return 0;
}
