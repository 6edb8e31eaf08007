/* server.c - prints its address, and answers "Hello, how are you?" to everybody who sends something. */
#define _POSIX_C_SOURCE 200809L
#include "common.h"

#include <poll.h>
#include <stdio.h>

static const char usage[] =
    "usage: server [OPTION]...\n"
    "Accepts streams over I2P, prints what they say and answers \"Hello, how are you?\".\n"
    "\n"
    "  --count N        end after N streams\n"
    "  --name NAME      keep the address under this name for the next time; and when the router is started anew, go on\n"
    "                   with the same address as soon as it is back\n"
    "  --keys FOLDER    where the keys of names are kept ($XDG_DATA_HOME/i2psock or ~/.local/share/i2psock)\n"
    "  --sam HOST:PORT  SAM bridge of the router (127.0.0.1:7656, or what I2P_SAM_ADDRESS says)\n"
    "  --wait SECONDS   how long to wait for a router that is not there yet (0)\n"
    "  --set KEY=VALUE  an option of the destination, such as inbound.length=1; may be repeated\n";

static const char answer[] = "Hello, how are you?";

/* Talks with one peer. Its failures are its own: the server goes on. */
static void serve(i2psock_stream *stream) {
    char message[4096];
    size_t len = 0;
    i2psock_error *err = NULL;

    /* Talking with one peer at a time, this program can block; but nobody must keep the others waiting for ever. */
    if (i2psock_stream_set_nonblocking(stream, 0, &err) || i2psock_stream_set_timeout(stream, 60000, &err)
        || i2psock_stream_recv(stream, message, sizeof message, 0, &len, &err)) {
        complain(i2psock_stream_peer_text(stream), err);
        i2psock_stream_free(stream);
        return;
    }
    printf("Received a message from %s: ", i2psock_stream_peer_text(stream));
    print_bytes(message, len);
    putchar('\n');
    fflush(stdout);
    if (i2psock_stream_send_all(stream, answer, sizeof answer - 1, NULL, &err)) {
        complain("answer", err);
        i2psock_stream_free(stream);
        return;
    }
    /* Frees the stream in any case, and waits until the router has taken the answer. */
    if (i2psock_stream_close(stream, 10000, &err)) {
        complain("close", err);
    }
}

int main(int argc, char **argv) {
    struct settings settings;
    i2psock_controller *controller = NULL;
    i2psock_dest *dest = NULL;
    i2psock_listener *listener = NULL;
    i2psock_stream *stream = NULL;
    i2psock_error *err = NULL;
    const char *name = NULL;
    int arguments, status = EXIT_FAILED;
    int limit = -1, served = 0;
    struct option options[] = {{"--count", NULL, OPTION_NUMBER},
                               {"--name", NULL, OPTION_TEXT},
                               {"--keys", NULL, OPTION_KEYS},
                               {NULL, NULL, 0}};

    options[0].value = &limit;
    options[1].value = &name;
    settings_read(&settings, &arguments, argc, argv, options, usage);
    if (arguments != 0) {
        usage_error(&settings, "there is an argument too many");
    }
    if (i2psock_controller_open(settings.controller, &controller, &err)) {
        complain("no SAM bridge", err);
        goto end;
    }
    note("building tunnels, which takes seconds, or minutes right after the router's start");
    if (i2psock_dest_open(controller, name, I2PSOCK_STREAM, settings.dest, I2PSOCK_TIMEOUT_DEFAULT, &dest, &err)) {
        complain("no destination", err);
        goto end;
    }
    /* From now on streams are accepted, also while we talk with somebody, and wait until we fetch them. */
    if (i2psock_listener_open(dest, 0, NULL, &listener, &err)) {
        complain("no listener", err);
        goto end;
    }
    printf("Server address: %s\n", i2psock_addr_host(i2psock_dest_addr(dest)));
    fflush(stdout);

    while (limit < 0 || served < limit) {
        struct pollfd fds[2] = {{i2psock_listener_fd(listener), POLLIN, 0}, {i2psock_dest_fd(dest), POLLIN, 0}};

        poll(fds, 2, -1);
        if (tell_state(dest) == I2PSOCK_STATE_DEAD) {
            goto end; /* a destination with a name comes back after a loss; this one does not */
        }
        while ((limit < 0 || served < limit) && i2psock_listener_accept(listener, &stream, NULL) == I2PSOCK_OK) {
            serve(stream);
            served++;
        }
    }
    /* With the destination goes what the router still has to send: it gets a moment for the last answer. */
    sleep_ms(1000);
    status = EXIT_DONE;

end:
    i2psock_listener_close(listener);
    i2psock_dest_close(dest);
    i2psock_controller_close(controller);
    settings_free(&settings);
    return status;
}
