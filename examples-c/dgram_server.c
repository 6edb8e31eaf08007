/* dgram_server.c - prints its address, and sends every datagram back to where it came from. */
#include "common.h"

#include <stdio.h>
#include <string.h>

static const char usage[] =
    "usage: dgram_server [OPTION]...\n"
    "Receives datagrams over I2P and sends each of them back to its sender.\n"
    "\n"
    "  --count N        end after N datagrams\n"
    "  --raw            raw datagrams, which do not tell their sender: one that says \"reply to ADDRESS\" tells where all\n"
    "                   that follow are sent, and itself\n"
    "  --sam HOST:PORT  SAM bridge of the router (127.0.0.1:7656, or what I2P_SAM_ADDRESS says)\n"
    "  --wait SECONDS   how long to wait for a router that is not there yet (0)\n"
    "  --udp HOST:PORT  where the bridge takes datagrams (the host of --sam, port 7655)\n"
    "  --set KEY=VALUE  an option of the destination, such as inbound.length=1 or in_band=1; may be repeated\n";

/* Takes the address out of a datagram that says where to reply to. */
static void read_address(i2psock_addr **reply_to, const char *data, size_t len) {
    static const char words[] = "reply to ";
    char text[2048];
    size_t start = sizeof words - 1;
    i2psock_addr *addr = NULL;

    if (len < start || len - start >= sizeof text || memcmp(data, words, start) != 0) {
        return;
    }
    memcpy(text, data + start, len - start);
    text[len - start] = '\0';
    if (i2psock_addr_parse(text, I2PSOCK_SIG_ANY, &addr, NULL) == I2PSOCK_OK) {
        i2psock_addr_free(*reply_to);
        *reply_to = addr;
    }
}

/* Answers datagrams until `limit` were received; -1 for no limit. */
static int echo(const i2psock_dgram *dgram, int raw, int limit) {
    static char data[I2PSOCK_COLLECT_SIZE];
    /* One for all datagrams: then receiving allocates nothing. */
    i2psock_from *from = i2psock_from_new();
    i2psock_addr *reply_to = NULL;
    i2psock_error *err = NULL;
    int served, status = EXIT_DONE;

    for (served = 0; limit < 0 || served < limit; served++) {
        const i2psock_addr *sender;
        size_t len = 0;

        if (i2psock_dgram_recv_from(dgram, data, sizeof data, 0, &len, from, &err)) {
            status = complain("receive", err);
            break;
        }
        if (raw) {
            read_address(&reply_to, data, len);
        }
        sender = raw ? reply_to : i2psock_from_addr(from);
        if (sender == NULL) {
            note("a datagram without its sender's address");
            continue;
        }
        printf("Received %lu bytes from %s\n", (unsigned long) len, i2psock_addr_host(sender));
        fflush(stdout);
        /* The failure of one answer is no reason to end. An empty datagram cannot be sent. */
        if (len > 0 && i2psock_dgram_send_to(dgram, i2psock_addr_base64(sender), data, len, 0, NULL, &err)) {
            complain(i2psock_addr_host(sender), err);
            err = NULL;
        }
    }
    i2psock_addr_free(reply_to);
    i2psock_from_free(from);
    return status;
}

int main(int argc, char **argv) {
    struct settings settings;
    i2psock_controller *controller = NULL;
    i2psock_dest *dest = NULL;
    i2psock_dgram *dgram = NULL;
    i2psock_error *err = NULL;
    int arguments, status = EXIT_FAILED;
    int limit = -1, raw = 0;
    struct option options[] = {{"--count", NULL, OPTION_NUMBER},
                               {"--raw", NULL, OPTION_FLAG},
                               {"--udp", NULL, OPTION_CONTROLLER},
                               {NULL, NULL, 0}};

    options[0].value = &limit;
    options[1].value = &raw;
    settings_read(&settings, &arguments, argc, argv, options, usage);
    if (arguments != 0) {
        usage_error(&settings, "there is an argument too many");
    }
    if (i2psock_controller_open(settings.controller, &controller, &err)) {
        complain("no SAM bridge", err);
        goto end;
    }
    note("building tunnels, which takes seconds, or minutes right after the router's start");
    if (i2psock_dest_open(controller, NULL, raw ? I2PSOCK_RAW : I2PSOCK_DGRAM, settings.dest, I2PSOCK_TIMEOUT_DEFAULT, &dest,
                          &err)
        || i2psock_dest_bind(dest, &dgram, &err)) {
        complain("no destination", err);
        goto end;
    }
    printf("Server address: %s\n", i2psock_addr_host(i2psock_dgram_dest(dgram)));
    fflush(stdout);
    status = echo(dgram, raw, limit);
    /* With the destination goes what the router still has to send: it gets a moment for the last answer. */
    sleep_ms(1000);

end:
    i2psock_dgram_free(dgram);
    i2psock_dest_close(dest);
    i2psock_controller_close(controller);
    settings_free(&settings);
    return status;
}
