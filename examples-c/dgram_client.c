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
    "  --count N        send N datagrams, at most 7600 (20)\n"
    "  --tries N        send so often what does not come back (20)\n"
    "  --patience N     what does not come back counts as lost after N seconds without an answer (3)\n"
    "  --raw            raw datagrams, for dgram_server --raw\n"
    "  --sam HOST:PORT  SAM bridge of the router (127.0.0.1:7656, or what I2P_SAM_ADDRESS says)\n"
    "  --wait SECONDS   how long to wait for a router that is not there yet (0)\n"
    "  --udp HOST:PORT  where the bridge takes datagrams (the host of --sam, port 7655)\n"
    "  --set KEY=VALUE  an option of the destination, such as inbound.length=1 or in_band=1; may be repeated\n";

enum {
    FEW = 20,
    LARGEST = 7600, /* bytes, which go through every router in one piece */
    WINDOW = 10     /* of many, so many are under way at once: more might not fit into the buffer of some socket */
};

struct client {
    const i2psock_dgram *dgram;
    const i2psock_addr *server;
    i2psock_from *from;
    char is_back[LARGEST];
    int raw;
    int count;
    int missing;
    int under_way;
};

/* Size of a datagram. No other one has the same, and by that it is known again. */
static size_t size_of(const struct client *client, int number) {
    int step = number / 2 * (LARGEST / client->count);

    if (client->count <= FEW) {
        return (size_t) (10 + number * 340);
    }
    /* From both ends: 1, 7600, 8, 7593, ... */
    return (size_t) (number % 2 == 0 ? 1 + step : LARGEST - step);
}

/* Writes datagram `number`, bytes of every kind, and returns its size. */
static size_t make(const struct client *client, int number, unsigned char *data) {
    size_t len = size_of(client, number), i;

    for (i = 0; i < len; i++) {
        data[i] = (unsigned char) (i * 7 + (i >> 8) + (size_t) number * 31);
    }
    return len;
}

/* Number of the datagram these bytes are, -1 if they are none. */
static int recognize(const struct client *client, const unsigned char *data, size_t len) {
    static unsigned char expected[LARGEST];
    int number;

    for (number = 0; number < client->count; number++) {
        if (size_of(client, number) == len) {
            make(client, number, expected);
            return memcmp(expected, data, len) == 0 ? number : -1;
        }
    }
    return -1;
}

static i2psock_status send_datagram(const struct client *client, const void *data, size_t len, i2psock_error **err) {
    /* In base64, nothing has to be looked up. */
    return i2psock_dgram_send_to(client->dgram, i2psock_addr_base64(client->server), data, len, 0, NULL, err);
}

/* Sends what is not back yet, beginning with *next, until enough is under way. */
static i2psock_status send_missing(struct client *client, int *next, i2psock_error **err) {
    static unsigned char data[LARGEST];
    int window = client->count <= FEW ? FEW : WINDOW;

    for (; *next < client->count && client->under_way < window; ++*next) {
        if (!client->is_back[*next]) {
            i2psock_status status = send_datagram(client, data, make(client, *next, data), err);

            if (status != I2PSOCK_OK) {
                return status;
            }
            client->under_way++;
        }
    }
    return I2PSOCK_OK;
}

/* Receives one datagram. */
static i2psock_status receive(struct client *client, i2psock_error **err) {
    static unsigned char data[I2PSOCK_COLLECT_SIZE];
    size_t len = 0;
    int number;
    i2psock_status status = i2psock_dgram_recv_from(client->dgram, data, sizeof data, 0, &len, client->from, err);

    if (status != I2PSOCK_OK) {
        return status;
    }
    /* Everybody can send something here, and the router tells who it was, unless it is raw. */
    if (!client->raw && !i2psock_addr_equal(i2psock_from_addr(client->from), client->server)) {
        note("a datagram from somebody else");
        return I2PSOCK_OK;
    }
    number = recognize(client, data, len);
    if (number < 0) {
        note("a datagram came back changed");
    } else if (!client->is_back[number]) { /* else it came twice, as datagrams may */
        printf("Datagram %d is back: %lu bytes\n", number + 1, (unsigned long) len);
        fflush(stdout);
        client->is_back[number] = 1;
        client->missing--;
        if (client->under_way > 0) {
            client->under_way--;
        }
    }
    return I2PSOCK_OK;
}

/* Sends everything that is not back yet, until it is or nothing comes any more. */
static i2psock_status send_and_receive(struct client *client, i2psock_error **err) {
    i2psock_status status = I2PSOCK_OK;
    int next = 0;

    client->under_way = 0;
    while (status == I2PSOCK_OK && client->missing > 0) {
        status = send_missing(client, &next, err);
        if (status == I2PSOCK_OK) {
            status = receive(client, err);
        }
    }
    return status;
}

/* Tells a raw server where to send to, until it has sent that back. */
static i2psock_status introduce(struct client *client, i2psock_error **err) {
    static char hello[2048], back[sizeof hello];
    int len = snprintf(hello, sizeof hello, "reply to %s", i2psock_addr_base64(i2psock_dgram_dest(client->dgram)));
    size_t got = 0;
    i2psock_status status = send_datagram(client, hello, (size_t) len, err);

    while (status == I2PSOCK_OK && (got != (size_t) len || memcmp(hello, back, got) != 0)) {
        status = i2psock_dgram_recv_from(client->dgram, back, sizeof back, 0, &got, NULL, err);
    }
    return status;
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

static int exchange(struct client *client, int tries, int patience) {
    i2psock_error *err = NULL;
    int introduced = !client->raw;

    if (i2psock_dgram_set_timeout(client->dgram, patience * 1000, &err)) {
        return complain("time limit", err);
    }
    while (tries > 0 && client->missing > 0) {
        i2psock_status status = introduced ? send_and_receive(client, &err) : introduce(client, &err);

        if (status == I2PSOCK_OK) {
            introduced = 1;
            continue;
        }
        if (status != I2PSOCK_TIMEOUT) {
            return complain("datagrams", err);
        }
        fprintf(stderr, "dgram_client: %d datagrams are not back yet\n", client->missing);
        i2psock_error_free(err);
        err = NULL;
        tries--;
    }
    printf("Sent %lu datagrams, received %lu, refused %lu: ",
           (unsigned long) i2psock_dgram_count(client->dgram, I2PSOCK_COUNT_SENT),
           (unsigned long) i2psock_dgram_count(client->dgram, I2PSOCK_COUNT_RECEIVED),
           (unsigned long) i2psock_dgram_count(client->dgram, I2PSOCK_COUNT_REFUSED));
    if (client->missing > 0) {
        printf("%d of %d are not back\n", client->missing, client->count);
        return EXIT_FAILED;
    }
    printf("all %d are back\n", client->count);
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
    int tries = 20, patience = 3;
    struct option options[] = {{"--tries", NULL, OPTION_NUMBER},
                               {"--patience", NULL, OPTION_NUMBER},
                               {"--count", NULL, OPTION_NUMBER},
                               {"--raw", NULL, OPTION_FLAG},
                               {"--udp", NULL, OPTION_CONTROLLER},
                               {NULL, NULL, 0}};

    memset(&client, 0, sizeof client);
    client.count = FEW;
    options[0].value = &tries;
    options[1].value = &patience;
    options[2].value = &client.count;
    options[3].value = &client.raw;
    settings_read(&settings, &arguments, argc, argv, options, usage);
    if (arguments != 1) {
        usage_error(&settings, "one address is needed");
    }
    if (i2psock_name_classify(argv[1]) == I2PSOCK_NAME_INVALID) {
        usage_error(&settings, "that is no I2P address");
    }
    if (client.count < 1 || client.count > LARGEST) {
        usage_error(&settings, "--count wants 1 to 7600");
    }
    if (patience < 1 || patience > 86400) {
        usage_error(&settings, "--patience wants 1 to 86400");
    }
    if (i2psock_controller_open(settings.controller, &controller, &err)) {
        complain("no SAM bridge", err);
        goto end;
    }
    note("building tunnels, which takes seconds, or minutes right after the router's start");
    if (i2psock_dest_open(controller, NULL, client.raw ? I2PSOCK_RAW : I2PSOCK_DGRAM, settings.dest, I2PSOCK_TIMEOUT_DEFAULT,
                          &dest, &err)
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
    client.missing = client.count;
    status = exchange(&client, tries, patience);

end:
    i2psock_from_free(client.from);
    i2psock_addr_free(server);
    i2psock_dgram_free(dgram);
    i2psock_dest_close(dest);
    i2psock_controller_close(controller);
    settings_free(&settings);
    return status;
}
