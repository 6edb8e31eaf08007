/*
 * many.c - sends 64 datagrams with i2psock_dgram_send_many() and takes them with i2psock_dgram_recv_many(); what that costs
 * in system calls is for strace to see. usage: many HOST:PORT HOST:PORT (SAM and UDP of a bridge that keeps the order)
 */
#include <i2psock.h>
#include <stdio.h>
#include <string.h>

enum { MANY = 64, SIZE = 64 };

static i2psock_error *err = NULL;

static int fail(const char *what) {
    fprintf(stderr, "many: %s: %s\n", what, i2psock_error_message(err));
    return 1;
}

/* Opens a destination. */
static i2psock_dgram *open_dgram(i2psock_controller *controller, i2psock_dest **dest) {
    i2psock_dgram *dgram = NULL;

    if (i2psock_dest_open(controller, NULL, I2PSOCK_DGRAM, NULL, I2PSOCK_TIMEOUT_DEFAULT, dest, &err) == I2PSOCK_OK
        && i2psock_dest_bind(*dest, &dgram, &err) == I2PSOCK_OK
        && i2psock_dgram_set_timeout(dgram, 20000, &err) == I2PSOCK_OK) {
        return dgram;
    }
    return NULL;
}

static int talk(i2psock_dgram *sender, i2psock_dgram *receiver) {
    static char data[MANY][SIZE], room[MANY][SIZE];
    static i2psock_outgoing out[MANY];
    static i2psock_incoming in[MANY];
    size_t count = 0, got, i;
    char mark[8];

    for (i = 0; i < MANY; i++) {
        memset(data[i], 'a' + (int) (i % 26), SIZE);
        out[i].address = i2psock_addr_base64(i2psock_dgram_dest(receiver));
        out[i].data = data[i];
        out[i].len = 1 + i;
        in[i].data = room[i];
        in[i].capacity = SIZE;
        in[i].from = NULL;
    }
    /* So small that all fit into the bridge's socket, should it have no time just now. */
    if (i2psock_dgram_send_many(sender, out, MANY, 0, &count, &err) != I2PSOCK_OK || count != MANY) {
        return fail("send_many");
    }
    /* One more to ourselves: when it is here, the bridge has passed on all before it. */
    if (i2psock_dgram_send_to(sender, i2psock_addr_base64(i2psock_dgram_dest(sender)), "mark", 4, 0, NULL, &err) != I2PSOCK_OK
        || i2psock_dgram_recv_from(sender, mark, sizeof mark, 0, &count, NULL, &err) != I2PSOCK_OK) {
        return fail("mark");
    }
    for (got = 0; got < MANY; got += count) {
        if (i2psock_dgram_recv_many(receiver, in + got, MANY - got, 0, &count, &err) != I2PSOCK_OK) {
            return fail("recv_many");
        }
    }
    for (i = 0; i < MANY; i++) {
        if (in[i].len != out[i].len || memcmp(room[i], data[i], in[i].len) != 0) {
            fprintf(stderr, "many: datagram %lu is another one\n", (unsigned long) i);
            return 1;
        }
    }
    return 0;
}

int main(int argc, char **argv) {
    i2psock_options *options = i2psock_options_new();
    i2psock_controller *controller = NULL;
    i2psock_dest *dests[2] = {NULL, NULL};
    i2psock_dgram *sender = NULL, *receiver = NULL;
    int status = 1;

    if (argc == 3 && i2psock_options_set(options, "sam", argv[1], &err) == I2PSOCK_OK
        && i2psock_options_set(options, "udp", argv[2], &err) == I2PSOCK_OK
        && i2psock_controller_open(options, &controller, &err) == I2PSOCK_OK
        && (sender = open_dgram(controller, &dests[0])) != NULL
        && (receiver = open_dgram(controller, &dests[1])) != NULL) {
        status = talk(sender, receiver);
    } else {
        fail("open");
    }
    i2psock_error_free(err);
    i2psock_dgram_free(sender);
    i2psock_dgram_free(receiver);
    i2psock_dest_close(dests[0]);
    i2psock_dest_close(dests[1]);
    i2psock_controller_close(controller);
    i2psock_options_free(options);
    return status;
}
