/* dgram_client.c - sends numbered datagrams to a server that returns them, until all of them have come back. */
#include "common.h"

#include <stdio.h>
#include <string.h>

static const char usage[] =
    "usage: dgram_client [OPTION]... ADDRESS\n"
    "Sends 20 datagrams of different sizes over I2P to ADDRESS, where dgram_server sends them back. What does not come\n"
    "back is sent again; fails unless in the end everything has come back unchanged.\n"
    "ADDRESS is name.i2p, a base32 address or a whole destination in base64.\n"
    "\n"
    "  --tries N        send so often what does not come back (20)\n"
    "  --sam HOST:PORT  SAM bridge of the router (127.0.0.1:7656, or what I2P_SAM_ADDRESS says)\n"
    "  --udp HOST:PORT  where the bridge takes datagrams (the host of --sam, port 7655)\n"
    "  --set KEY=VALUE  an option of the destination, such as inbound.length=1 or in_band=1; may be repeated\n";

enum {
    DATAGRAMS = 20,
    SMALLEST = 10,
    LARGEST = SMALLEST + (DATAGRAMS - 1) * 340, /* 6470 bytes, which go through every router in one piece */
    PATIENCE = 3000                             /* milliseconds without an answer until something counts as lost */
};

struct client {
    const i2psock_dgram *dgram;
    const i2psock_addr *server;
    i2psock_from *from;
    char is_back[DATAGRAMS];
    int missing;
};

/* Writes datagram `number` and returns its size: its number in two digits, and bytes of every kind. */
static size_t make(int number, unsigned char *data) {
    size_t len = (size_t) (SMALLEST + number * 340), i;

    for (i = 0; i < len; i++) {
        data[i] = (unsigned char) (i * 7 + (i >> 8) + (size_t) number * 31);
    }
    data[0] = (unsigned char) ('0' + number / 10);
    data[1] = (unsigned char) ('0' + number % 10);
    return len;
}

/* Number of the datagram these bytes are, -1 if they are none. */
static int recognize(const unsigned char *data, size_t len) {
    static unsigned char expected[LARGEST];
    int number;

    for (number = 0; number < DATAGRAMS; number++) {
        if (make(number, expected) == len && memcmp(expected, data, len) == 0) {
            return number;
        }
    }
    return -1;
}

/* Sends everything that is not back yet. */
static i2psock_status send_missing(const struct client *client, i2psock_error **err) {
    static unsigned char data[LARGEST];
    i2psock_status status = I2PSOCK_OK;
    int number;

    for (number = 0; number < DATAGRAMS && status == I2PSOCK_OK; number++) {
        if (!client->is_back[number]) {
            size_t len = make(number, data);

            /* In base64, nothing has to be looked up. */
            status = i2psock_dgram_send_to(client->dgram, i2psock_addr_base64(client->server), data, len, 0, NULL, err);
        }
    }
    return status;
}

/* Receives until everything is back or nothing comes any more. */
static i2psock_status receive(struct client *client, i2psock_error **err) {
    static unsigned char data[I2PSOCK_COLLECT_SIZE];

    while (client->missing > 0) {
        size_t len = 0;
        int number;
        i2psock_status status = i2psock_dgram_recv_from(client->dgram, data, sizeof data, 0, &len, client->from, err);

        if (status != I2PSOCK_OK) {
            return status;
        }
        /* Everybody can send something here, and the router tells who it was. */
        if (!i2psock_addr_equal(i2psock_from_addr(client->from), client->server)) {
            note("a datagram from somebody else");
            continue;
        }
        number = recognize(data, len);
        if (number < 0) {
            note("a datagram came back changed");
        } else if (!client->is_back[number]) { /* else it came twice, as datagrams may */
            printf("Datagram %d is back: %lu bytes\n", number + 1, (unsigned long) len);
            fflush(stdout);
            client->is_back[number] = 1;
            client->missing--;
        }
    }
    return I2PSOCK_OK;
}

/* Resolves the server's address. Right after its start it may not be known everywhere. */
static i2psock_addr *find(const i2psock_dest *dest, const char *address, int tries, i2psock_error **err) {
    i2psock_addr *server = NULL;

    while (i2psock_dest_lookup(dest, address, I2PSOCK_TIMEOUT_DEFAULT, &server, err)) {
        if (--tries <= 0 || !worth_retrying(*err)) {
            return NULL;
        }
        complain("not yet", *err);
        *err = NULL;
        sleep_ms(2000);
    }
    return server;
}

static int exchange(struct client *client, int tries) {
    i2psock_error *err = NULL;

    if (i2psock_dgram_set_timeout(client->dgram, PATIENCE, &err)) {
        return complain("time limit", err);
    }
    for (; tries > 0 && client->missing > 0; tries--) {
        i2psock_status status = send_missing(client, &err);

        if (status == I2PSOCK_OK) {
            status = receive(client, &err);
        }
        if (status == I2PSOCK_TIMEOUT) {
            fprintf(stderr, "dgram_client: %d datagrams are not back yet\n", client->missing);
            i2psock_error_free(err);
            err = NULL;
        } else if (status != I2PSOCK_OK) {
            return complain("datagrams", err);
        }
    }
    printf("Sent %lu datagrams, received %lu, refused %lu: ",
           (unsigned long) i2psock_dgram_count(client->dgram, I2PSOCK_COUNT_SENT),
           (unsigned long) i2psock_dgram_count(client->dgram, I2PSOCK_COUNT_RECEIVED),
           (unsigned long) i2psock_dgram_count(client->dgram, I2PSOCK_COUNT_REFUSED));
    if (client->missing > 0) {
        printf("%d of %d are not back\n", client->missing, DATAGRAMS);
        return EXIT_FAILED;
    }
    printf("all %d are back\n", DATAGRAMS);
    return EXIT_DONE;
}

int main(int argc, char **argv) {
    struct settings settings;
    struct client client;
    i2psock_controller *controller = NULL;
    i2psock_dest *dest = NULL;
    i2psock_dgram *dgram = NULL;
    i2psock_addr *server = NULL;
    i2psock_error *err = NULL;
    int arguments, status = EXIT_FAILED;
    int tries = 20;
    struct option options[] = {
        {"--tries", NULL, OPTION_NUMBER}, {"--udp", NULL, OPTION_CONTROLLER}, {NULL, NULL, 0}};

    options[0].value = &tries;
    settings_read(&settings, &arguments, argc, argv, options, usage);
    if (arguments != 1) {
        usage_error(&settings, "one address is needed");
    }
    if (i2psock_name_classify(argv[1]) == I2PSOCK_NAME_INVALID) {
        usage_error(&settings, "that is no I2P address");
    }
    memset(&client, 0, sizeof client);
    if (i2psock_controller_open(settings.controller, &controller, &err)) {
        complain("no SAM bridge", err);
        goto end;
    }
    note("building tunnels, which takes seconds, or minutes right after the router's start");
    if (i2psock_dest_open(controller, NULL, I2PSOCK_DGRAM, settings.dest, I2PSOCK_TIMEOUT_DEFAULT, &dest, &err)
        || i2psock_dest_bind(dest, &dgram, &err)) {
        complain("no destination", err);
        goto end;
    }
    server = find(dest, argv[1], tries, &err);
    if (server == NULL) {
        complain("no server", err);
        goto end;
    }
    client.dgram = dgram;
    client.server = server;
    client.from = i2psock_from_new();
    client.missing = DATAGRAMS;
    status = exchange(&client, tries);

end:
    i2psock_from_free(client.from);
    i2psock_addr_free(server);
    i2psock_dgram_free(dgram);
    i2psock_dest_close(dest);
    i2psock_controller_close(controller);
    settings_free(&settings);
    return status;
}
