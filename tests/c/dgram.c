/* Datagrams: echo, batches, what is told about a sender, counters, descriptors, ends, fork. */
#include "harness.h"

#include <netinet/in.h>

static const int styles[] = { I2PSOCK_DGRAM, I2PSOCK_RAW, I2PSOCK_DGRAM2, I2PSOCK_DGRAM3 };

/* A destination with its datagrams. */
typedef struct {
    i2psock_controller *controller;
    i2psock_dest *dest;
    i2psock_dgram *dgram;
    i2psock_from *from;
    char *room;
    size_t got;
} peer;

static void peer_open(peer *p, const bridge *b, int style, const char *key, const char *value) {
    i2psock_options *o = i2psock_options_new();
    p->controller = open_bridge(b, 1);
    if (key != NULL) OK(i2psock_options_set(o, key, value, &E));
    p->dest = open_style(p->controller, style, o);
    i2psock_options_free(o);
    p->dgram = NULL;
    OK(i2psock_dest_bind(p->dest, &p->dgram, &E));
    OK(i2psock_dgram_set_timeout(p->dgram, HANG, &E));
    p->from = i2psock_from_new();
    p->room = (char *) malloc(I2PSOCK_COLLECT_SIZE);
    CHECK(p->room != NULL);
    p->got = 0;
}

static void peer_free(peer *p) {
    i2psock_from_free(p->from);
    i2psock_dgram_free(p->dgram);
    free(p->room);
}

static void peer_close(peer *p) {
    peer_free(p);
    i2psock_dest_close(p->dest);
    i2psock_controller_close(p->controller);
}

static const char *text_of(const peer *p) { return dest_text(p->dest); }

static void put(peer *p, const char *to, const void *data, size_t len) {
    OK(i2psock_dgram_send_to(p->dgram, to, data, len, 0, NULL, &E));
}

static void get(peer *p) {
    OK(i2psock_dgram_recv_from(p->dgram, p->room, I2PSOCK_COLLECT_SIZE, 0, &p->got, p->from, &E));
}

static void get_text(peer *p, const char *text) {
    get(p);
    CHECK(p->got == strlen(text) && memcmp(p->room, text, p->got) == 0);
}

static void nothing(peer *p) {
    p->got = 77;
    ST(I2PSOCK_BLOCK, i2psock_dgram_recv_from(p->dgram, p->room, 10, MSG_DONTWAIT, &p->got, p->from, &E));
    CHECK_INT(p->got, 0);
    CHECK(i2psock_from_addr(p->from) == NULL && i2psock_from_length(p->from) == 0);
    CHECK(!readable(i2psock_dgram_fd(p->dgram), 0));
}

#define COUNT(p, which) i2psock_dgram_count((p)->dgram, I2PSOCK_COUNT_##which)

static void check_counts(const peer *p, int sent, int received) {
    CHECK_INT(COUNT(p, SENT), sent);
    CHECK_INT(COUNT(p, RECEIVED), received);
    CHECK_INT(COUNT(p, REFUSED), 0);
    CHECK_INT(COUNT(p, MALFORMED), 0);
    CHECK_INT(COUNT(p, TRUNCATED), 0);
    CHECK_INT(COUNT(p, DROPPED), 0);
}

static void check_from(const peer *p, const peer *sender, int style) {
    const i2psock_addr *a = i2psock_from_addr(p->from);
    const uint8_t *hash = i2psock_from_hash(p->from);
    if (style == I2PSOCK_RAW) {
        CHECK(a == NULL && hash == NULL);
        return;
    }
    CHECK(hash != NULL && memcmp(hash, i2psock_addr_hash(i2psock_dest_addr(sender->dest)), 32) == 0);
    CHECK_INT(a != NULL, style != I2PSOCK_DGRAM3);
    if (a != NULL) CHECK_INT(i2psock_addr_equal(a, i2psock_dest_addr(sender->dest)), 1);
    CHECK_INT(i2psock_from_length(p->from), p->got);
    CHECK_INT(i2psock_from_truncated(p->from), 0);
}

static void echo_of(int style, const char *key, int rounds) {
    peer a, b;
    int i;
    unsigned seed = 1;
    char *data = big_text(8000, 'x');
    for (i = 0; i < 8000; i++) data[i] = (char) ((seed = seed * 1103515245u + 12345u) >> 16);
    peer_open(&a, &common, style, key, "1");
    peer_open(&b, &common, style, key, "1");
    CHECK_INT(i2psock_addr_equal(i2psock_dgram_dest(a.dgram), i2psock_dest_addr(a.dest)), 1);
    for (i = 0; i < rounds; i++) {
        size_t len = 1 + (size_t) i * 37 % 7600;
        put(&a, text_of(&b), data, len);
        get(&b);
        CHECK(b.got == len && memcmp(b.room, data, len) == 0);
        check_from(&b, &a, style);
        put(&b, text_of(&a), b.room, b.got);
        get(&a);
        CHECK(a.got == len && memcmp(a.room, data, len) == 0);
        check_from(&a, &b, style);
    }
    check_counts(&a, rounds, rounds);
    check_counts(&b, rounds, rounds);
    nothing(&a);
    nothing(&b);
    free(data);
    peer_close(&a);
    peer_close(&b);
}

static void echo(void) {
    size_t i;
    for (i = 0; i < 4; i++) echo_of(styles[i], NULL, under_valgrind() ? 20 : 250);
}

static void echo_in_band(void) {
    echo_of(I2PSOCK_DGRAM, "in_band", under_valgrind() ? 20 : 250);
    echo_of(I2PSOCK_RAW, "in_band", under_valgrind() ? 20 : 250);
}

static void limits(void) {
    char *big = big_text(I2PSOCK_MAX_RAW + 1, 'b');
    peer a;
    CHECK_INT(I2PSOCK_MAX_DGRAM, 31744);
    CHECK_INT(I2PSOCK_MAX_RAW, 32768);
    CHECK_INT(I2PSOCK_COLLECT_SIZE, 32768);
    peer_open(&a, &common, I2PSOCK_DGRAM, NULL, NULL);
    ST(I2PSOCK_INVALID, i2psock_dgram_send_to(a.dgram, text_of(&a), big, 0, 0, NULL, &E));
    ST(I2PSOCK_INVALID, i2psock_dgram_send_to(a.dgram, text_of(&a), big, I2PSOCK_MAX_DGRAM + 1, 0, NULL, &E));
    put(&a, text_of(&a), big, I2PSOCK_MAX_DGRAM);
    get(&a);
    CHECK_INT(a.got, I2PSOCK_MAX_DGRAM);
    ST(I2PSOCK_INVALID, i2psock_dgram_recv_from(a.dgram, a.room, 10, MSG_WAITALL, &a.got, a.from, &E));
    ST(I2PSOCK_INVALID, i2psock_dgram_send_to(a.dgram, text_of(&a), "x", 1, MSG_OOB, NULL, &E));
    ST(I2PSOCK_INVALID, i2psock_dgram_send_to(a.dgram, "not an address", "x", 1, 0, NULL, &E));
    ST(I2PSOCK_INVALID, i2psock_dgram_set_timeout(a.dgram, -2, &E));
    peer_close(&a);
    peer_open(&a, &common, I2PSOCK_RAW, NULL, NULL);
    ST(I2PSOCK_INVALID, i2psock_dgram_send_to(a.dgram, text_of(&a), big, I2PSOCK_MAX_RAW + 1, 0, NULL, &E));
    put(&a, text_of(&a), big, I2PSOCK_MAX_RAW);
    get(&a);
    CHECK_INT(a.got, I2PSOCK_MAX_RAW);
    peer_close(&a);
    peer_open(&a, &common, I2PSOCK_DGRAM, "in_band", "1");
    ST(I2PSOCK_INVALID, i2psock_dgram_send_to(a.dgram, text_of(&a), big, 7700, 0, NULL, &E));
    CHECK(strstr(i2psock_error_message(E), "in_band_max") != NULL);
    put(&a, text_of(&a), big, 7500);
    get(&a);
    CHECK_INT(a.got, 7500);
    peer_close(&a);
    free(big);
}

static void short_buffers(void) {
    peer a;
    peer_open(&a, &common, I2PSOCK_DGRAM, NULL, NULL);
    put(&a, text_of(&a), "0123456789", 10);
    memset(a.room, '-', 20);
    OK(i2psock_dgram_recv_from(a.dgram, a.room, 4, MSG_PEEK, &a.got, a.from, &E));
    CHECK(a.got == 4 && memcmp(a.room, "0123----", 8) == 0);
    CHECK_INT(i2psock_from_truncated(a.from), 1);
    CHECK_INT(i2psock_from_length(a.from), 10);
    CHECK_INT(COUNT(&a, TRUNCATED), 0);
    OK(i2psock_dgram_recv_from(a.dgram, NULL, 0, MSG_PEEK, &a.got, a.from, &E));
    CHECK_INT(i2psock_from_length(a.from), 10);
    OK(i2psock_dgram_recv_from(a.dgram, a.room, 9, 0, &a.got, a.from, &E));
    CHECK(a.got == 9 && memcmp(a.room, "012345678-", 10) == 0);
    CHECK_INT(i2psock_from_truncated(a.from), 1);
    CHECK_INT(COUNT(&a, TRUNCATED), 1);
    nothing(&a);
    put(&a, text_of(&a), "0123456789", 10);
    OK(i2psock_dgram_recv_from(a.dgram, a.room, 10, 0, &a.got, a.from, &E));
    CHECK_INT(i2psock_from_truncated(a.from), 0);
    peer_close(&a);
}

static void batches(void) {
    enum { MANY = 40 };
    static const char *const keys[] = { NULL, "in_band" };
    i2psock_outgoing out[MANY];
    i2psock_incoming in[MANY];
    char data[MANY][16], room[MANY][16];
    peer a;
    size_t n, i, done, k;
    for (k = 0; k < 2; k++) {
        peer_open(&a, &common, I2PSOCK_DGRAM, keys[k], "1");
        for (i = 0; i < MANY; i++) {
            out[i].address = text_of(&a);
            out[i].data = data[i];
            out[i].len = (size_t) snprintf(data[i], sizeof data[i], "number %d", (int) i);
            in[i].data = room[i];
            in[i].capacity = i == 5 ? 3 : sizeof room[i];
            in[i].from = i % 2 ? i2psock_from_new() : NULL;
        }
        n = 77;
        ST(I2PSOCK_BLOCK, i2psock_dgram_recv_many(a.dgram, in, MANY, MSG_DONTWAIT, &n, &E));
        CHECK_INT(n, 0);
        /* Ten at a time: so many wait in band as well. */
        for (done = 0; done < MANY; done += 10) {
            size_t had = 0;
            OK(i2psock_dgram_send_many(a.dgram, out + done, 10, 0, &n, &E));
            CHECK_INT(n, 10);
            while (had < 10) {
                OK(i2psock_dgram_recv_many(a.dgram, in + done + had, 10 - had, 0, &n, &E));
                CHECK(n >= 1 && n <= 10 - had);
                had += n;
            }
        }
        for (i = 0; i < MANY; i++) {
            CHECK_INT(in[i].len, i == 5 ? 3 : out[i].len);
            CHECK(memcmp(room[i], data[i], in[i].len) == 0);
            if (in[i].from != NULL) {
                CHECK_INT(i2psock_addr_equal(i2psock_from_addr(in[i].from), i2psock_dest_addr(a.dest)), 1);
                CHECK_INT(i2psock_from_length(in[i].from), out[i].len);
                CHECK_INT(i2psock_from_truncated(in[i].from), i == 5);
            }
            i2psock_from_free(in[i].from);
        }
        /* The one in the middle is wrong: those before went. */
        out[2].len = 0;
        n = 77;
        ST(I2PSOCK_INVALID, i2psock_dgram_send_many(a.dgram, out, 4, 0, &n, &E));
        CHECK_INT(n, 2);
        get_text(&a, "number 0");
        get_text(&a, "number 1");
        nothing(&a);
        CHECK_INT(COUNT(&a, SENT), MANY + 2);
        CHECK_INT(COUNT(&a, RECEIVED), MANY + 2);
        CHECK_INT(COUNT(&a, TRUNCATED), 1);
        peer_close(&a);
    }
}

/* What the library sends to, and who else can. */
static int port_of(int fd) {
    struct sockaddr_in address;
    socklen_t size = sizeof address;
    CHECK(getsockname(fd, (struct sockaddr *) &address, &size) == 0);
    CHECK(address.sin_family == AF_INET && ntohl(address.sin_addr.s_addr) == INADDR_LOOPBACK);
    return ntohs(address.sin_port);
}

/* Bytes that datagrams take up which have come to a socket and have not been fetched. */
static unsigned int waiting_bytes(int fd) {
    unsigned int room[16];
    socklen_t size = sizeof room;
    CHECK(getsockopt(fd, SOL_SOCKET, SO_MEMINFO, room, &size) == 0 && size >= sizeof room[0]);
    return room[0];
}

/* Waits until one more has come. Whether a socket is readable tells of the first one only. */
static unsigned int expect_more_bytes(int fd, unsigned int than) {
    long long end = now_ms() + HANG;
    while (waiting_bytes(fd) <= than) {
        CHECK(now_ms() < end);
        pause_ms(1);
    }
    return waiting_bytes(fd);
}

/* When this returns, it has come. */
static void forge(const peer *p, const char *text) {
    struct sockaddr_in to;
    int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    unsigned int bytes = waiting_bytes(i2psock_dgram_fd(p->dgram));
    memset(&to, 0, sizeof to);
    to.sin_family = AF_INET;
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    to.sin_port = htons((uint16_t) port_of(i2psock_dgram_fd(p->dgram)));
    CHECK(s >= 0 && sendto(s, text, strlen(text), 0, (struct sockaddr *) &to, sizeof to) == (ssize_t) strlen(text));
    close(s);
    expect_more_bytes(i2psock_dgram_fd(p->dgram), bytes);
}

static void strangers(void) {
    peer a;
    peer_open(&a, &common, I2PSOCK_DGRAM, NULL, NULL);
    forge(&a, DEST_A "\nforged");
    CHECK(readable(i2psock_dgram_fd(a.dgram), HANG));
    nothing(&a);
    CHECK_INT(COUNT(&a, REFUSED), 1);
    forge(&a, "junk");
    put(&a, text_of(&a), "good", 4);
    OK(i2psock_dgram_recv_from(a.dgram, a.room, 10, MSG_PEEK, &a.got, a.from, &E));
    CHECK_INT(COUNT(&a, REFUSED), 2);
    get_text(&a, "good");
    CHECK_INT(COUNT(&a, REFUSED), 2);
    CHECK_INT(COUNT(&a, MALFORMED), 0);
    peer_close(&a);

    peer_open(&a, &common, I2PSOCK_DGRAM, "report_source", "1");
    forge(&a, DEST_A "\nforged");
    ST(I2PSOCK_PROTOCOL, i2psock_dgram_recv_from(a.dgram, a.room, 10, 0, &a.got, a.from, &E));
    ERR(I2PSOCK_OP_SOURCE, "", "bridge");
    CHECK_STR(i2psock_error_operation_name(E), "source");
    CHECK(a.got == 0 && i2psock_from_addr(a.from) == NULL);
    nothing(&a);
    peer_close(&a);
}

/* With report_source, one that comes second in a batch is not swallowed either. */
static void strangers_in_a_batch(void) {
    i2psock_incoming in[3];
    char room[3][32];
    peer a;
    size_t n = 77, i;
    unsigned int bytes;
    peer_open(&a, &common, I2PSOCK_DGRAM, "report_source", "1");
    for (i = 0; i < 3; i++) {
        in[i].data = room[i];
        in[i].capacity = sizeof room[i];
        in[i].from = NULL;
    }
    put(&a, text_of(&a), "one", 3);
    expect_more_bytes(i2psock_dgram_fd(a.dgram), 0);
    forge(&a, DEST_A "\nforged");
    bytes = waiting_bytes(i2psock_dgram_fd(a.dgram));
    put(&a, text_of(&a), "two", 3);
    expect_more_bytes(i2psock_dgram_fd(a.dgram), bytes);
    OK(i2psock_dgram_recv_many(a.dgram, in, 3, 0, &n, &E));
    CHECK_INT(n, 1);
    CHECK_INT(in[0].len, 3);
    ST(I2PSOCK_PROTOCOL, i2psock_dgram_recv_many(a.dgram, in, 3, 0, &n, &E));
    ERR(I2PSOCK_OP_SOURCE, "", "bridge");
    OK(i2psock_dgram_recv_many(a.dgram, in, 3, 0, &n, &E));
    CHECK_INT(n, 1);
    peer_close(&a);
}

/* Many more than go with one system call; one "from" may serve for several elements. */
static void large_batches(void) {
    enum { MANY = 100 };
    i2psock_outgoing out[MANY];
    i2psock_incoming in[MANY];
    char data[MANY], room[MANY][4];
    i2psock_from *from = i2psock_from_new();
    peer a;
    size_t n = 77, got = 0, i;
    long long end = now_ms() + HANG;
    peer_open(&a, &common, I2PSOCK_RAW, NULL, NULL);
    for (i = 0; i < MANY; i++) {
        data[i] = (char) i;
        out[i].address = i % 3 ? text_of(&a) : i2psock_addr_host(i2psock_dest_addr(a.dest));
        out[i].data = &data[i];
        out[i].len = 1;
        in[i].data = room[i];
        in[i].capacity = sizeof room[i];
        in[i].from = from;
        in[i].len = 77;
    }
    /* Forged ones between them are dropped and leave no gap. */
    forge(&a, "forged");
    OK(i2psock_dgram_send_many(a.dgram, out, 50, 0, &n, &E));
    CHECK_INT(n, 50);
    forge(&a, "forged");
    OK(i2psock_dgram_send_many(a.dgram, out + 50, MANY - 50, 0, NULL, &E));
    forge(&a, "forged");
    while (got < MANY) {
        OK(i2psock_dgram_recv_many(a.dgram, in + got, MANY - got, 0, &n, &E));
        CHECK(n >= 1 && n <= MANY - got);
        got += n;
    }
    for (i = 0; i < MANY; i++) CHECK(in[i].len == 1 && room[i][0] == (char) i);
    CHECK_INT(i2psock_from_length(from), 1);
    /* The last one may come after all the others. */
    do {
        CHECK(now_ms() < end);
        nothing(&a);
    } while (COUNT(&a, REFUSED) < 3);
    CHECK_INT(COUNT(&a, SENT), MANY);
    CHECK_INT(COUNT(&a, RECEIVED), MANY);
    CHECK_INT(COUNT(&a, REFUSED), 3);
    ST(I2PSOCK_INVALID, i2psock_dgram_recv_many(a.dgram, in, MANY, MSG_PEEK, &n, &E));
    ST(I2PSOCK_INVALID, i2psock_dgram_send_many(a.dgram, out, MANY, MSG_PEEK, &n, &E));
    /* The 41st has no address: those before it go. */
    out[40].address = NULL;
    ST(I2PSOCK_INVALID, i2psock_dgram_send_many(a.dgram, out, MANY, 0, &n, &E));
    CHECK_INT(n, 40);
    out[0].data = NULL;
    ST(I2PSOCK_INVALID, i2psock_dgram_send_many(a.dgram, out, MANY, 0, &n, &E));
    CHECK_INT(n, 0);
    /* An element without room is found before anything is taken. */
    in[70].data = NULL;
    CHECK(readable(i2psock_dgram_fd(a.dgram), HANG));
    ST(I2PSOCK_INVALID, i2psock_dgram_recv_many(a.dgram, in, MANY, 0, &n, &E));
    CHECK_INT(n, 0);
    CHECK_INT(COUNT(&a, RECEIVED), MANY);
    for (got = 0; got < 40; got += n) OK(i2psock_dgram_recv_many(a.dgram, in, 70, 0, &n, &E));
    nothing(&a);
    CHECK_INT(COUNT(&a, SENT), MANY + 40);
    i2psock_from_free(from);
    peer_close(&a);
}

static void ports(void) {
    i2psock_options *o = i2psock_options_new(), *wrong = i2psock_options_new();
    peer a, b;
    peer_open(&a, &common, I2PSOCK_RAW, "header_options", "1");
    peer_open(&b, &common, I2PSOCK_RAW, "raw_header", "1");
    OK(i2psock_options_set_int(o, "from_port", 7, &E));
    OK(i2psock_options_set_int(o, "to_port", 65535, &E));
    OK(i2psock_options_set_int(o, "protocol", 200, &E));
    OK(i2psock_options_set_int(o, "expires", 60, &E));
    OK(i2psock_options_set_int(o, "send_tags", 1, &E));
    OK(i2psock_options_set_int(o, "tag_threshold", 2, &E));
    OK(i2psock_options_set_int(o, "send_leaseset", 1, &E));
    OK(i2psock_dgram_send_to(a.dgram, text_of(&b), "x\n", 2, MSG_NOSIGNAL, o, &E));
    get_text(&b, "x\n");
    CHECK_INT(i2psock_from_port(b.from), 7);
    CHECK_INT(i2psock_from_to_port(b.from), 65535);
    CHECK_INT(i2psock_from_protocol(b.from), 200);
    ST(I2PSOCK_UNSUPPORTED, i2psock_dgram_send_to(b.dgram, text_of(&a), "x", 1, 0, o, &E));
    ERR(I2PSOCK_OP_SEND, "", "header_options");
    OK(i2psock_options_set(wrong, "nickname", "x", &E));
    ST(I2PSOCK_INVALID, i2psock_dgram_send_to(a.dgram, text_of(&a), "x", 1, 0, wrong, &E));
    /* The next one without tells nothing of the last. */
    put(&a, text_of(&a), "y", 1);
    get(&a);
    CHECK_INT(i2psock_from_port(a.from), -1);
    CHECK_INT(i2psock_from_to_port(a.from), -1);
    CHECK_INT(i2psock_from_protocol(a.from), -1);
    i2psock_options_free(o);
    i2psock_options_free(wrong);
    peer_close(&a);
    peer_close(&b);
}

static void resolving(void) {
    i2psock_addr *found = NULL;
    peer a, b;
    size_t i;
    for (i = 0; i < 4; i++) {
        peer_open(&a, &common, styles[i], NULL, NULL);
        peer_open(&b, &common, styles[i], NULL, NULL);
        put(&a, i2psock_addr_host(i2psock_dest_addr(b.dest)), "abc", 3);
        get_text(&b, "abc");
        if (styles[i] == I2PSOCK_RAW) {
            ST(I2PSOCK_STATE, i2psock_dgram_resolve(b.dgram, b.from, HANG, &found, &E));
            CHECK(found == NULL);
        } else {
            int again;
            for (again = 0; again < 2; again++) {
                OK(i2psock_dgram_resolve(b.dgram, b.from, HANG, &found, &E));
                CHECK_INT(i2psock_addr_equal(found, i2psock_dest_addr(a.dest)), 1);
                i2psock_addr_free(found);
                found = NULL;
            }
            ST(I2PSOCK_INVALID, i2psock_dgram_resolve(b.dgram, b.from, -3, &found, &E));
        }
        ST(I2PSOCK_NETWORK, i2psock_dgram_send_to(a.dgram, "nosuch.i2p", "x", 1, 0, NULL, &E));
        CHECK_STR(i2psock_error_tag(E), "KEY_NOT_FOUND");
        peer_close(&a);
        if (styles[i] == I2PSOCK_DGRAM3) {
            /* It is remembered although it is gone. */
            OK(i2psock_dgram_resolve(b.dgram, b.from, HANG, &found, &E));
            i2psock_addr_free(found);
            found = NULL;
        }
        peer_close(&b);
    }
}

static void names_without_waiting(void) {
    peer a;
    i2psock_addr *found = NULL;
    i2psock_pending *lookup = NULL;
    const char *host;
    int before, i;
    peer_open(&a, &common, I2PSOCK_DGRAM, NULL, NULL);
    host = i2psock_addr_host(i2psock_dest_addr(a.dest));
    OK(i2psock_dgram_set_nonblocking(a.dgram, 1, &E));
    CHECK(fcntl(i2psock_dgram_fd(a.dgram), F_GETFL) & O_NONBLOCK);
    /* Nothing is begun that somebody would have to end. */
    before = count_fds();
    for (i = 0; i < 100; i++) {
        char name[32];
        snprintf(name, sizeof name, "n%d.i2p", i);
        ST(I2PSOCK_STATE, i2psock_dgram_send_to(a.dgram, name, "abc", 3, 0, NULL, &E));
    }
    ST(I2PSOCK_STATE, i2psock_dgram_send_to(a.dgram, host, "abc", 3, 0, NULL, &E));
    CHECK(strstr(i2psock_error_message(E), "look it up first") != NULL);
    CHECK_INT(count_fds(), before);
    OK(i2psock_dest_lookup_start(a.dest, host, HANG, &lookup, &E));
    OK(i2psock_pending_wait(lookup, -1, &E));
    OK(i2psock_pending_finish_addr(lookup, &found, &E));
    i2psock_pending_free(lookup);
    i2psock_addr_free(found);
    OK(i2psock_dgram_send_to(a.dgram, host, "abc", 3, 0, NULL, &E));
    CHECK(readable(i2psock_dgram_fd(a.dgram), HANG));
    get_text(&a, "abc");
    nothing(&a);
    OK(i2psock_dgram_set_nonblocking(a.dgram, 0, &E));
    CHECK(!(fcntl(i2psock_dgram_fd(a.dgram), F_GETFL) & O_NONBLOCK));
    peer_close(&a);
}

static void descriptors(void) {
    static const char *const keys[] = { NULL, "in_band" };
    i2psock_dgram *second = NULL;
    size_t k;
    for (k = 0; k < 2; k++) {
        peer a;
        int fd, type = 0, i, before;
        socklen_t size = sizeof type;
        peer_open(&a, &common, I2PSOCK_DGRAM, keys[k], "1");
        fd = i2psock_dgram_fd(a.dgram);
        CHECK(fd >= 0);
        check_cloexec(fd);
        CHECK(getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) == 0 && type == SOCK_DGRAM);
        CHECK(!readable(fd, 20));
        CHECK(writable(fd, 0));
        for (i = 0; i < 3; i++) {
            put(&a, text_of(&a), "x", 1);
            CHECK(readable(fd, HANG));
            get(&a);
            CHECK(!readable(fd, 0));
        }
        before = count_fds();
        OK(i2psock_dest_bind(a.dest, &second, &E));
        CHECK_INT(i2psock_dgram_fd(second), fd);
        CHECK_INT(count_fds(), before);
        i2psock_dgram_free(second);
        CHECK_INT(i2psock_dgram_fd(a.dgram), fd);
        put(&a, text_of(&a), "x", 1);
        get(&a);
        /* The handle outlives destination and controller. */
        i2psock_dest_close(a.dest);
        i2psock_controller_close(a.controller);
        CHECK_INT(i2psock_dgram_fd(a.dgram), fd);
        CHECK(i2psock_addr_base64(i2psock_dgram_dest(a.dgram)) != NULL);
        CHECK(readable(fd, 0));
        ST(I2PSOCK_CLOSED, i2psock_dgram_recv_from(a.dgram, a.room, 10, 0, &a.got, a.from, &E));
        ST(I2PSOCK_CLOSED, i2psock_dgram_send_to(a.dgram, DEST_A, "x", 1, 0, NULL, &E));
        ST(I2PSOCK_CLOSED, i2psock_dgram_set_nonblocking(a.dgram, 1, &E));
        CHECK_INT(COUNT(&a, RECEIVED), 4);
        peer_free(&a);
    }
}

static void other_styles(void) {
    i2psock_controller *c = open_common();
    i2psock_dest *s = open_dest(c), *d = open_style(c, I2PSOCK_DGRAM, NULL), *none = NULL;
    i2psock_dgram *g = (i2psock_dgram *) 0x55;
    i2psock_stream *stream = NULL;
    i2psock_pending *n = NULL;
    i2psock_options *o = i2psock_options_new();
    ST(I2PSOCK_STATE, i2psock_dest_bind(s, &g, &E));
    CHECK(g == NULL);
    ST(I2PSOCK_STATE, i2psock_dest_connect(d, DEST_A, NULL, 1000, &stream, &E));
    ST(I2PSOCK_STATE, i2psock_dest_connect_start(d, DEST_A, NULL, 1000, &n, &E));
    ST(I2PSOCK_STATE, i2psock_dest_accept(d, 1000, &stream, &E));
    ST(I2PSOCK_STATE, i2psock_dest_accept_start(d, 1000, &n, &E));
    CHECK(stream == NULL && n == NULL);
    OK(i2psock_options_set(o, "forward", "nonsense", &E));
    ST(I2PSOCK_INVALID, i2psock_dest_open(c, NULL, I2PSOCK_DGRAM, o, HANG, &none, &E));
    OK(i2psock_options_set(o, "forward", "0", &E));
    ST(I2PSOCK_INVALID, i2psock_dest_open(c, NULL, I2PSOCK_STREAM, o, HANG, &none, &E));
    OK(i2psock_dest_bind(d, &g, &E));
    OK(i2psock_options_set_int(o, "forward", port_of(i2psock_dgram_fd(g)), &E));
    ST(I2PSOCK_IO, i2psock_dest_open(c, NULL, I2PSOCK_DGRAM, o, HANG, &none, &E));
    CHECK_INT(i2psock_error_os_error(E), EADDRINUSE);
    CHECK(none == NULL);
    i2psock_options_free(o);
    i2psock_dgram_free(g);
    i2psock_dest_close(s);
    i2psock_dest_close(d);
    i2psock_controller_close(c);
}

/* ---- ends ---- */

static gate blocked = GATE_INIT;
static pid_t numbers[3];

static void tell_number(void) {
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    pthread_mutex_lock(&lock);
    numbers[blocked.count % 3] = thread_number();
    gate_open(&blocked);
    pthread_mutex_unlock(&lock);
}

static void *receive_until_closed(void *arg) {
    peer *p = (peer *) arg;
    char room[10];
    size_t n = 77;
    tell_number();
    ST(I2PSOCK_CLOSED, i2psock_dgram_recv_from(p->dgram, room, sizeof room, 0, &n, NULL, &E));
    CHECK_INT(n, 0);
    err_done();
    return NULL;
}

static void *poll_until_closed(void *arg) {
    tell_number();
    CHECK(readable(i2psock_dgram_fd(((peer *) arg)->dgram), HANG));
    return NULL;
}

static void take_down(int style, const char *key, int way) {
    bridge b;
    peer p;
    pthread_t t[3];
    int i;
    bridge_start(&b, NULL);
    peer_open(&p, &b, style, key, "1");
    OK(i2psock_dgram_set_timeout(p.dgram, -1, &E));
    blocked.count = 0;
    for (i = 0; i < 2; i++) t[i] = start_thread(receive_until_closed, &p);
    t[2] = start_thread(poll_until_closed, &p);
    CHECK(gate_wait(&blocked, 3, HANG));
    for (i = 0; i < 3; i++) expect_asleep(numbers[i]);
    if (way == 0) OK(i2psock_dest_shutdown(p.dest, &E));
    if (way == 1) bridge_stop(&b);
    if (way == 2) i2psock_controller_close(p.controller);
    for (i = 0; i < 3; i++) join_thread(t[i]);
    ST(I2PSOCK_CLOSED, i2psock_dgram_recv_from(p.dgram, p.room, 10, 0, &p.got, p.from, &E));
    CHECK_INT(i2psock_dest_state(p.dest, NULL), I2PSOCK_STATE_DEAD);
    check_counts(&p, 0, 0);
    peer_free(&p);
    i2psock_dest_close(p.dest);
    if (way != 2) i2psock_controller_close(p.controller);
    if (way != 1) bridge_stop(&b);
}

static void ends_wake_everybody(void) {
    int way;
    for (way = 0; way < 3; way++) {
        take_down(I2PSOCK_DGRAM, NULL, way);
        take_down(I2PSOCK_RAW, NULL, way);
    }
}

static void ends_wake_everybody_in_band(void) {
    int way;
    for (way = 0; way < 3; way++) take_down(I2PSOCK_DGRAM, "in_band", way);
}

static void ends_wake_everybody_raw_in_band(void) {
    int way;
    for (way = 0; way < 3; way++) take_down(I2PSOCK_RAW, "in_band", way);
}

static void without_keeper(void) {
    i2psock_controller *c = open_bridge(&common, 0);
    i2psock_dest *d = open_style(c, I2PSOCK_DGRAM, NULL);
    i2psock_dgram *g = NULL;
    char room[8];
    size_t n = 0;
    OK(i2psock_dest_bind(d, &g, &E));
    OK(i2psock_dgram_set_timeout(g, HANG, &E));
    OK(i2psock_dgram_send_to(g, i2psock_addr_host(i2psock_dest_addr(d)), "abc", 3, 0, NULL, &E));
    OK(i2psock_dgram_recv_from(g, room, sizeof room, 0, &n, NULL, &E));
    CHECK(n == 3 && memcmp(room, "abc", 3) == 0);
    i2psock_dgram_free(g);
    i2psock_dest_close(d);
    i2psock_controller_close(c);
}

/* ---- fork ---- */

#define STATE(call) ST(I2PSOCK_STATE, call)

static void child_tries(void *arg) {
    peer *p = (peer *) arg;
    i2psock_outgoing o = { DEST_A, "x", 1 };
    i2psock_incoming in = { NULL, 10, 0, NULL };
    i2psock_dgram *g = (i2psock_dgram *) 0x55;
    size_t n = 77;
    in.data = p->room;
    STATE(i2psock_dest_bind(p->dest, &g, &E));
    CHECK(g == NULL);
    STATE(i2psock_dgram_send_to(p->dgram, text_of(p), "x", 1, 0, NULL, &E));
    STATE(i2psock_dgram_recv_from(p->dgram, p->room, 10, MSG_DONTWAIT, &n, NULL, &E));
    CHECK_INT(n, 0);
    STATE(i2psock_dgram_send_many(p->dgram, &o, 1, 0, &n, &E));
    STATE(i2psock_dgram_recv_many(p->dgram, &in, 1, MSG_DONTWAIT, &n, &E));
    STATE(i2psock_dgram_set_nonblocking(p->dgram, 1, &E));
    STATE(i2psock_dgram_set_timeout(p->dgram, 1, &E));
    /* Getters go on. */
    CHECK(i2psock_dgram_dest(p->dgram) != NULL);
    CHECK(i2psock_from_addr(p->from) != NULL);
    CHECK_INT(COUNT(p, RECEIVED), 1);
    err_done();
}

static void child_resolves(void *arg) {
    peer *p = (peer *) arg;
    i2psock_addr *a = (i2psock_addr *) 0x55;
    STATE(i2psock_dgram_resolve(p->dgram, p->from, 1000, &a, &E));
    CHECK(a == NULL);
    err_done();
}

/* Also when the answer is known already. */
static void forked_resolve(void) {
    peer p;
    peer_open(&p, &common, I2PSOCK_DGRAM, NULL, NULL);
    put(&p, text_of(&p), "x", 1);
    get(&p);
    CHECK_INT(in_child(child_resolves, &p), 0);
    peer_close(&p);
}

static void child_closes(void *arg) {
    peer *p = (peer *) arg;
    peer_close(p);
}

static void forked(void) {
    static const char *const keys[] = { NULL, "in_band" };
    size_t k;
    for (k = 0; k < 2; k++) {
        peer p;
        peer_open(&p, &common, I2PSOCK_DGRAM, keys[k], "1");
        put(&p, text_of(&p), "x", 1);
        get(&p);
        CHECK_INT(in_child(child_tries, &p), 0);
        CHECK_INT(in_child(child_closes, &p), 0);
        CHECK(!readable(i2psock_dgram_fd(p.dgram), 50));
        put(&p, text_of(&p), "still", 5);
        get_text(&p, "still");
        CHECK_INT(i2psock_dest_state(p.dest, NULL), I2PSOCK_STATE_READY);
        peer_close(&p);
    }
}

static void child_counts(void *arg) {
    peer *p = (peer *) arg;
    int i;
    for (i = 1; i <= 6; i++) i2psock_dgram_count(p->dgram, i);
}

static volatile int stop_busy;

static void *busy(void *arg) {
    peer *p = (peer *) arg;
    while (!stop_busy) ST(ANY, i2psock_dgram_send_to(p->dgram, text_of(p), "abc", 3, MSG_DONTWAIT, NULL, &E));
    err_done();
    return NULL;
}

/* Whatever other threads were doing at that moment, a getter never hangs in the child. */
static void forked_while_busy(void) {
    peer p;
    pthread_t t[2];
    int i, rounds = under_valgrind() ? 10 : 150;
    peer_open(&p, &common, I2PSOCK_DGRAM, "in_band", "1");
    stop_busy = 0;
    for (i = 0; i < 2; i++) t[i] = start_thread(busy, &p);
    for (i = 0; i < rounds; i++) CHECK_INT(in_child(child_counts, &p), 0);
    stop_busy = 1;
    for (i = 0; i < 2; i++) join_thread(t[i]);
    peer_close(&p);
}

static void leaves_nothing(void) {
    i2psock_controller *c = open_common();
    static const char *const keys[] = { NULL, "in_band" };
    size_t k;
    int i, fds = 0;
    for (k = 0; k < 2; k++) {
        for (i = 0; i < 20; i++) {
            i2psock_options *o = i2psock_options_new();
            i2psock_dest *d;
            i2psock_dgram *g = NULL;
            if (keys[k]) OK(i2psock_options_set(o, keys[k], "1", &E));
            d = open_style(c, I2PSOCK_RAW, o);
            OK(i2psock_dest_bind(d, &g, &E));
            OK(i2psock_dgram_send_to(g, dest_text(d), "abc", 3, 0, NULL, &E));
            i2psock_dest_close(d);
            i2psock_dgram_free(g);
            i2psock_options_free(o);
            if (i == 0 && k == 0) fds = quiet_fds();
            expect_fds(fds);
        }
    }
    i2psock_controller_close(c);
}

static void bad_network(void) {
    bridge b;
    peer p;
    char seen[100];
    int i, left = 100;
    long long end = now_ms() + HANG;
    bridge_start(&b, "--loss", "20", "--duplicate", "20", "--reorder", "20", "--forge", "20", "--seed", "3", NULL);
    peer_open(&p, &b, I2PSOCK_DGRAM, NULL, NULL);
    memset(seen, 0, sizeof seen);
    OK(i2psock_dgram_set_timeout(p.dgram, 20 * slowness(), &E));
    while (left > 0) {
        i2psock_status status;
        for (i = 0; i < 100; i++) {
            char byte = (char) i;
            if (!seen[i]) put(&p, text_of(&p), &byte, 1);
        }
        while ((status = ST(ANY, i2psock_dgram_recv_from(p.dgram, p.room, 10, 0, &p.got, p.from, &E))) == I2PSOCK_OK) {
            CHECK(p.got == 1 && p.room[0] >= 0 && p.room[0] < 100);
            CHECK_INT(i2psock_addr_equal(i2psock_from_addr(p.from), i2psock_dest_addr(p.dest)), 1);
            left -= !seen[(int) p.room[0]];
            seen[(int) p.room[0]] = 1;
        }
        CHECK_INT(status, I2PSOCK_TIMEOUT);
        if (now_ms() > end) fail_at(__FILE__, __LINE__, "%d of 100 datagrams are still missing", left);
    }
    CHECK(COUNT(&p, REFUSED) > 0);
    CHECK_INT(COUNT(&p, MALFORMED), 0);
    peer_close(&p);
    bridge_stop(&b);
}

/* Told every time, to both sides, and a poll for something to read can wait. */
static void wrong_udp_port(void) {
    bridge elsewhere = common;
    char wanted[128];
    struct sockaddr_in in;
    socklen_t size = sizeof in;
    peer p;
    int i, s = socket(AF_INET, SOCK_DGRAM, 0);
    memset(&in, 0, sizeof in);
    in.sin_family = AF_INET;
    in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    CHECK(s >= 0 && bind(s, (struct sockaddr *) &in, sizeof in) == 0 && getsockname(s, (struct sockaddr *) &in, &size) == 0);
    close(s);
    elsewhere.udp = ntohs(in.sin_port);
    snprintf(wanted, sizeof wanted, "nothing listens for datagrams at 127.0.0.1:%d (option udp; i2pd: SAM port - 1)", elsewhere.udp);
    peer_open(&p, &elsewhere, I2PSOCK_DGRAM, NULL, NULL);
    /* On a busy system the answer to the first one may come too late for it. */
    ST(ANY, i2psock_dgram_send_to(p.dgram, text_of(&p), "x", 1, 0, NULL, &E));
    for (i = 0; i < 5; i++) {
        ST(I2PSOCK_IO, i2psock_dgram_send_to(p.dgram, text_of(&p), "x", 1, 0, NULL, &E));
        CHECK_STR(i2psock_error_message(E), wanted);
        CHECK_INT(i2psock_error_os_error(E), ECONNREFUSED);
        CHECK(!readable(i2psock_dgram_fd(p.dgram), 0));
        ST(I2PSOCK_IO, i2psock_dgram_recv_from(p.dgram, p.room, 10, 0, &p.got, p.from, &E));
        CHECK_STR(i2psock_error_message(E), wanted);
        ST(I2PSOCK_BLOCK, i2psock_dgram_recv_from(p.dgram, p.room, 10, MSG_DONTWAIT, &p.got, p.from, &E));
    }
    peer_close(&p);
}

/* A router that ignores the question for headers: what a peer has written is never taken for one. */
static void headers_of_a_peer(void) {
    static const char *const forged = "FROM_PORT=7 TO_PORT=8 PROTOCOL=99\nhello";
    bridge b;
    peer p, other;
    int i;
    bridge_start(&b, "--personality", "i2pd-2.58", NULL);
    peer_open(&p, &b, I2PSOCK_RAW, "raw_header", "1");
    peer_open(&other, &b, I2PSOCK_RAW, NULL, NULL);
    for (i = 0; i < 3; i++) {
        put(&other, text_of(&p), forged, strlen(forged));
        ST(I2PSOCK_UNSUPPORTED, i2psock_dgram_recv_from(p.dgram, p.room, 100, 0, &p.got, p.from, &E));
        CHECK(strstr(i2psock_error_message(E), "raw_header") != NULL);
        CHECK(p.got == 0 && i2psock_from_port(p.from) == -1);
    }
    CHECK_INT(COUNT(&p, RECEIVED), 0);
    peer_close(&other);
    peer_close(&p);
    bridge_stop(&b);
}

static const test_case tests[] = {
    T_LONG(echo), T_LONG(echo_in_band), T(limits), T(short_buffers), T(batches), T(large_batches), T(strangers), T(strangers_in_a_batch),
    T(ports), T(resolving), T(names_without_waiting), T(descriptors), T(other_styles), T(ends_wake_everybody),
    T(ends_wake_everybody_in_band), T(ends_wake_everybody_raw_in_band), T(without_keeper), T(forked), T(forked_resolve),
    T_LONG(forked_while_busy), T(leaves_nothing), T(bad_network), T(wrong_udp_port),
    T(headers_of_a_peer),
};
MAIN(tests)
