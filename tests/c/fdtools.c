/* The descriptor is a socket like any other: the system's own tools on it, and taking it over. */
#include "harness.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/select.h>
#include <sys/sendfile.h>
#include <sys/socket.h>

static void socket_options(void) {
    pair p;
    int fd, value = 0, wanted = 65536;
    socklen_t length = sizeof value;
    pair_open(&p);
    fd = i2psock_stream_fd(p.out);
    CHECK(getsockopt(fd, SOL_SOCKET, SO_TYPE, &value, &length) == 0);
    CHECK_INT(value, SOCK_STREAM);
    CHECK(getsockopt(fd, SOL_SOCKET, SO_ERROR, &value, &length) == 0);
    CHECK_INT(value, 0);
    CHECK(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &wanted, sizeof wanted) == 0);
    CHECK(getsockopt(fd, SOL_SOCKET, SO_RCVBUF, &value, &length) == 0);
    CHECK(value >= wanted);
    CHECK(getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &value, &length) == 0);
    CHECK(fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) == 0);
    {
        char b;
        size_t n;
        ST(I2PSOCK_BLOCK, i2psock_stream_recv(p.out, &b, 1, 0, &n, &E));
    }
    pair_close(&p);
}

static void read_write_sendfile(void) {
    pair p;
    char path[] = "/tmp/i2psock-sendfile-XXXXXX", buffer[100001];
    int file = mkstemp(path), copy;
    size_t i, n;
    off_t at = 0;
    ssize_t count;
    CHECK(file >= 0);
    unlink(path);
    for (i = 0; i < sizeof buffer; i++) buffer[i] = (char) (i * 7 >> 3);
    CHECK(write(file, buffer, sizeof buffer) == (ssize_t) sizeof buffer);
    pair_open(&p);
    while (at < (off_t) sizeof buffer) {
        count = sendfile(i2psock_stream_fd(p.out), file, &at, sizeof buffer - (size_t) at);
        CHECK(count > 0);
    }
    memset(buffer, 0, sizeof buffer);
    OK(i2psock_stream_recv(p.in, buffer, sizeof buffer, MSG_WAITALL, &n, &E));
    CHECK_INT(n, sizeof buffer);
    for (i = 0; i < sizeof buffer; i++) CHECK(buffer[i] == (char) (i * 7 >> 3));
    close(file);
    copy = dup(i2psock_stream_fd(p.in));
    CHECK(write(copy, "dup", 3) == 3);
    CHECK(read(i2psock_stream_fd(p.out), buffer, 3) == 3);
    CHECK(memcmp(buffer, "dup", 3) == 0);
    close(copy);
    CHECK(write(i2psock_stream_fd(p.out), "still", 5) == 5);
    OK(i2psock_stream_recv(p.in, buffer, 5, MSG_WAITALL, &n, &E));
    pair_close(&p);
}

static void select_beside_others(void) {
    pair p;
    int other[2], most;
    fd_set set;
    struct timeval soon;
    pair_open(&p);
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, other) == 0);
    most = i2psock_stream_fd(p.in) > other[0] ? i2psock_stream_fd(p.in) : other[0];
    FD_ZERO(&set);
    FD_SET(i2psock_stream_fd(p.in), &set);
    FD_SET(other[0], &set);
    soon.tv_sec = 0;
    soon.tv_usec = 20000;
    CHECK_INT(select(most + 1, &set, NULL, NULL, &soon), 0);
    OK(i2psock_stream_send(p.out, "x", 1, 0, NULL, &E));
    FD_ZERO(&set);
    FD_SET(i2psock_stream_fd(p.in), &set);
    FD_SET(other[0], &set);
    soon.tv_sec = HANG / 1000;
    CHECK_INT(select(most + 1, &set, NULL, NULL, &soon), 1);
    CHECK(FD_ISSET(i2psock_stream_fd(p.in), &set));
    CHECK(write(other[1], "y", 1) == 1);
    FD_ZERO(&set);
    FD_SET(i2psock_stream_fd(p.in), &set);
    FD_SET(other[0], &set);
    CHECK_INT(select(most + 1, &set, NULL, NULL, &soon), 2);
    close(other[0]);
    close(other[1]);
    pair_close(&p);
}

static void system_shutdown(void) {
    pair p;
    char b;
    size_t n;
    pair_open(&p);
    CHECK(shutdown(i2psock_stream_fd(p.out), SHUT_RDWR) == 0);
    ST(I2PSOCK_CLOSED, i2psock_stream_recv(p.out, &b, 1, 0, &n, &E));
    ST(I2PSOCK_CLOSED, i2psock_stream_send(p.out, &b, 1, 0, &n, &E));
    ST(I2PSOCK_CLOSED, i2psock_stream_recv(p.in, &b, 1, 0, &n, &E));
    pair_close(&p);
}

static void taken(void) {
    pair p;
    i2psock_fd fd = -7, again = -7;
    char b[64];
    size_t n = 9;
    FILE *file;
    pair_open(&p);
    OK(i2psock_stream_take_fd(p.out, &fd, &E));
    CHECK(fd >= 0);
    check_cloexec(fd);
    CHECK((fcntl(fd, F_GETFL) & O_NONBLOCK) == 0);
    ST(I2PSOCK_STATE, i2psock_stream_take_fd(p.out, &again, &E));
    CHECK_INT(again, -1);
    CHECK_INT(i2psock_stream_fd(p.out), -1);
    ST(I2PSOCK_STATE, i2psock_stream_send(p.out, "x", 1, 0, &n, &E));
    CHECK_INT(n, 0);
    ST(I2PSOCK_STATE, i2psock_stream_send_all(p.out, "x", 1, &n, &E));
    ST(I2PSOCK_STATE, i2psock_stream_send_all(p.out, "", 0, &n, &E));
    ST(I2PSOCK_STATE, i2psock_stream_recv(p.out, b, 1, 0, &n, &E));
    ST(I2PSOCK_STATE, i2psock_stream_set_nonblocking(p.out, 1, &E));
    ST(I2PSOCK_STATE, i2psock_stream_set_timeout(p.out, 1, &E));
    ST(I2PSOCK_STATE, i2psock_stream_shutdown(p.out, &E));
    CHECK((fcntl(fd, F_GETFL) & O_NONBLOCK) == 0);
    CHECK_STR(i2psock_stream_peer_text(p.out), i2psock_addr_host(i2psock_dest_addr(p.there)));
    i2psock_stream_free(p.out);
    p.out = NULL;
    CHECK(fcntl(fd, F_GETFD) >= 0);
    /* As a C stream. */
    file = fdopen(fd, "r+");
    CHECK(file != NULL);
    CHECK(fprintf(file, "line %d\n", 1) > 0 && fflush(file) == 0);
    OK(i2psock_stream_recv(p.in, b, 7, MSG_WAITALL, &n, &E));
    CHECK(memcmp(b, "line 1\n", 7) == 0);
    OK(i2psock_stream_send(p.in, "answer\n", 7, 0, &n, &E));
    CHECK(fgets(b, sizeof b, file) != NULL);
    CHECK_STR(b, "answer\n");
    /* Closing the destination ends it, though we have no say over the descriptor any more. */
    i2psock_dest_close(p.here);
    p.here = NULL;
    CHECK(readable(fileno(file), HANG));
    CHECK(fgets(b, sizeof b, file) == NULL);
    fclose(file);
    pair_close(&p);
}

static void taken_and_closed(void) {
    pair p;
    i2psock_fd fd = -1;
    pair_open(&p);
    OK(i2psock_stream_take_fd(p.out, &fd, &E));
    /* "Frees the handle, whatever the status": the descriptor is ours all the same. */
    ST(ANY, i2psock_stream_close(p.out, 100, &E));
    p.out = NULL;
    CHECK(fcntl(fd, F_GETFD) >= 0);
    CHECK(write(fd, "x", 1) == 1);
    close(fd);
    pair_close(&p);
}

static void taken_number_is_not_touched(void) {
    /* After we closed the taken descriptor its number belongs to somebody else, whom no close of the library may hit. */
    pair p;
    i2psock_fd fd = -1;
    int other[2], moved;
    char b;
    pair_open(&p);
    OK(i2psock_stream_take_fd(p.out, &fd, &E));
    CHECK(close(fd) == 0);
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, other) == 0);
    moved = dup2(other[0], fd);
    CHECK_INT(moved, fd);
    i2psock_dest_close(p.here);
    p.here = NULL;
    i2psock_stream_free(p.out);
    p.out = NULL;
    i2psock_controller_close(p.controller);
    p.controller = NULL;
    CHECK(write(other[1], "x", 1) == 1);
    CHECK(read(moved, &b, 1) == 1);
    if (moved != other[0]) close(other[0]);
    close(moved);
    close(other[1]);
    pair_close(&p);
}

/* The payload that came with the status or the peer line is all there for whoever reads the descriptor. */
static void greet_connect(fake_conn *c, int accepted) {
    (void) accepted;
    wait_eof(c);
}

static void same_segment(int drip) {
    int accepted, take;
    for (accepted = 0; accepted < 2; accepted++) {
        for (take = 0; take < 3; take++) {
            plan p;
            fake *f;
            i2psock_controller *c;
            i2psock_dest *d;
            i2psock_stream *s = NULL;
            char b[64];
            size_t n = 0;
            i2psock_fd fd = -1;
            memset(&p, 0, sizeof p);
            p.connect = STREAM_OK "PING payload\nSTREAM STATUS\n";
            p.accept = STREAM_OK DEST_B " FROM_PORT=5 TO_PORT=6\nPING payload\nSTREAM STATUS\n";
            p.stream = greet_connect;
            p.drip = drip;
            f = fake_plan(&p);
            c = open_port(fake_port(f), 1);
            d = open_dest(c);
            if (accepted) OK(i2psock_dest_accept(d, HANG, &s, &E));
            else OK(i2psock_dest_connect(d, DEST_B, NULL, HANG, &s, &E));
            CHECK_STR(i2psock_addr_base64(i2psock_stream_peer(s)), DEST_B);
            if (accepted) CHECK_INT(i2psock_stream_from_port(s) * 10 + i2psock_stream_to_port(s), 56);
            if (take == 0) {
                OK(i2psock_stream_recv(s, b, 27, MSG_WAITALL, &n, &E));
            } else if (take == 1) {
                OK(i2psock_stream_take_fd(s, &fd, &E));
                n = (size_t) recv(fd, b, 27, MSG_WAITALL);
                close(fd);
            } else {
                n = (size_t) recv(i2psock_stream_fd(s), b, 27, MSG_WAITALL);
            }
            CHECK_INT(n, 27);
            b[n] = 0;
            CHECK_STR(b, "PING payload\nSTREAM STATUS\n");
            i2psock_stream_free(s);
            i2psock_dest_close(d);
            i2psock_controller_close(c);
            fake_stop(f);
        }
    }
}
static void payload_in_one_segment(void) { same_segment(0); }
static void payload_byte_by_byte(void) { same_segment(200); }

static const test_case tests[] = {
    T(socket_options), T(read_write_sendfile), T(select_beside_others), T(system_shutdown), T(taken), T(taken_and_closed),
    T(taken_number_is_not_touched), T(payload_in_one_segment), T_LONG(payload_byte_by_byte),
};
MAIN(tests)
