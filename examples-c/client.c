/* client.c - sends "Hello, there!" to an address and prints the answer. */
#include "common.h"

#include <stdio.h>

static const char usage[] =
    "usage: client [OPTION]... ADDRESS\n"
    "Connects to ADDRESS over I2P, sends \"Hello, there!\" and prints the answer.\n"
    "ADDRESS is name.i2p, a base32 address or a whole destination in base64.\n"
    "\n"
    "  --retries N      try again so often when the peer cannot be reached yet (3)\n"
    "  --sam HOST:PORT  SAM bridge of the router (127.0.0.1:7656, or what I2P_SAM_ADDRESS says)\n"
    "  --wait SECONDS   how long to wait for a router that is not there yet (0)\n"
    "  --set KEY=VALUE  an option of the destination, such as inbound.length=1; may be repeated\n";

static const char message[] = "Hello, there!";

/* One attempt to connect, printing the bridge's reply. NULL with an error in *err. */
static i2psock_stream *connect_once(const i2psock_dest *dest, const char *address, i2psock_error **err) {
    i2psock_pending *pending = NULL;
    i2psock_stream *stream = NULL;
    const char *result;

    /* This returns at once, with a descriptor to poll: see poll.c. Here there is nothing else to do but wait. */
    if (i2psock_dest_connect_start(dest, address, NULL, I2PSOCK_TIMEOUT_DEFAULT, &pending, err)) {
        return NULL;
    }
    if (i2psock_pending_wait(pending, -1, err) == I2PSOCK_OK) {
        result = i2psock_pending_reply(pending, "RESULT");
        printf("Reply of the bridge: RESULT=%s\n", result != NULL ? result : "");
        fflush(stdout);
        i2psock_pending_finish_stream(pending, &stream, err);
    }
    i2psock_pending_free(pending);
    return stream;
}

static i2psock_stream *connect_patiently(const i2psock_dest *dest, const char *address, int retries,
                                         i2psock_error **err) {
    for (;;) {
        i2psock_stream *stream = connect_once(dest, address, err);

        if (stream != NULL || retries-- <= 0 || !worth_retrying(*err)) {
            return stream;
        }
        complain("not yet", *err);
        *err = NULL;
        sleep_ms(2000);
    }
}

/* Sends the message and prints everything up to the end of the stream. */
static int talk(const i2psock_stream *stream, i2psock_error **err) {
    char answer[4096];
    size_t len = 0;
    i2psock_status status;

    /* A stream made by a pending is non-blocking; this program has the time to wait. */
    if (i2psock_stream_set_nonblocking(stream, 0, err) || i2psock_stream_set_timeout(stream, 60000, err)
        || i2psock_stream_send_all(stream, message, sizeof message - 1, NULL, err)) {
        return EXIT_FAILED;
    }
    /* A stream has no messages, only bytes: the answer is over when the server closes. */
    do {
        size_t count = 0;

        status = i2psock_stream_recv(stream, answer + len, sizeof answer - len, 0, &count, err);
        len += count;
    } while (status == I2PSOCK_OK && len < sizeof answer);
    if (len == 0) {
        return EXIT_FAILED;
    }
    printf("Answer: ");
    print_bytes(answer, len);
    putchar('\n');
    return status == I2PSOCK_OK || status == I2PSOCK_CLOSED ? EXIT_DONE : EXIT_FAILED;
}

int main(int argc, char **argv) {
    struct settings settings;
    i2psock_controller *controller = NULL;
    i2psock_dest *dest = NULL;
    i2psock_stream *stream = NULL;
    i2psock_error *err = NULL;
    int arguments, status = EXIT_FAILED;
    int retries = 3;
    struct option options[] = {{"--retries", NULL, OPTION_NUMBER}, {NULL, NULL, 0}};

    options[0].value = &retries;
    settings_read(&settings, &arguments, argc, argv, options, usage);
    if (arguments != 1) {
        usage_error(&settings, "one address is needed");
    }
    if (i2psock_name_classify(argv[1]) == I2PSOCK_NAME_INVALID) {
        usage_error(&settings, "that is no I2P address");
    }
    if (i2psock_controller_open(settings.controller, &controller, &err)) {
        complain("no SAM bridge", err);
        goto end;
    }
    note("building tunnels, which takes seconds, or minutes right after the router's start");
    if (i2psock_dest_open(controller, NULL, I2PSOCK_STREAM, settings.dest, I2PSOCK_TIMEOUT_DEFAULT, &dest, &err)) {
        complain("no destination", err);
        goto end;
    }
    stream = connect_patiently(dest, argv[1], retries, &err);
    if (stream == NULL) {
        complain("no stream", err);
        goto end;
    }
    status = talk(stream, &err);
    if (status != EXIT_DONE) {
        complain("no answer", err);
    } else {
        i2psock_error_free(err); /* how the stream ended, after the answer */
    }

end:
    i2psock_stream_free(stream);
    i2psock_dest_close(dest);
    i2psock_controller_close(controller);
    settings_free(&settings);
    return status;
}
