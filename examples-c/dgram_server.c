/* dgram_server.c - prints its address, and sends every datagram back to where it came from. */
#include "common.h"

#include <stdio.h>

static const char usage[] =
    "usage: dgram_server [OPTION]...\n"
    "Receives datagrams over I2P and sends each of them back to its sender.\n"
    "\n"
    "  --count N        end after N datagrams\n"
    "  --sam HOST:PORT  SAM bridge of the router (127.0.0.1:7656, or what I2P_SAM_ADDRESS says)\n"
    "  --udp HOST:PORT  where the bridge takes datagrams (the host of --sam, port 7655)\n"
    "  --set KEY=VALUE  an option of the destination, such as inbound.length=1 or in_band=1; may be repeated\n";

/* Answers datagrams until `limit` were received; -1 for no limit. */
static int echo(const i2psock_dgram *dgram, int limit) {
    static char data[I2PSOCK_COLLECT_SIZE];
    /* One for all datagrams: then receiving allocates nothing. */
    i2psock_from *from = i2psock_from_new();
    i2psock_error *err = NULL;
    int served, status = EXIT_DONE;

    for (served = 0; limit < 0 || served < limit; served++) {
        const i2psock_addr *sender;
        size_t len = 0;

        if (i2psock_dgram_recv_from(dgram, data, sizeof data, 0, &len, from, &err)) {
            status = complain("receive", err);
            break;
        }
        sender = i2psock_from_addr(from);
        if (sender == NULL) {
            note("a datagram without its sender's address"); /* not in this style of datagrams */
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
    int limit = -1;
    struct option options[] = {
        {"--count", NULL, OPTION_NUMBER}, {"--udp", NULL, OPTION_CONTROLLER}, {NULL, NULL, 0}};

    options[0].value = &limit;
    settings_read(&settings, &arguments, argc, argv, options, usage);
    if (arguments != 0) {
        usage_error(&settings, "there is an argument too many");
    }
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
    printf("Server address: %s\n", i2psock_addr_host(i2psock_dgram_dest(dgram)));
    fflush(stdout);
    status = echo(dgram, limit);
    /* With the destination goes what the router still has to send: it gets a moment for the last answer. */
    sleep_ms(1000);

end:
    i2psock_dgram_free(dgram);
    i2psock_dest_close(dest);
    i2psock_controller_close(controller);
    settings_free(&settings);
    return status;
}
