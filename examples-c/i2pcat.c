/*
 * i2pcat.c - netcat for I2P: copies standard input to a stream and the stream to standard output.
 *
 * One poll loop and one bounded buffer for each direction: whoever is slow is waited for, and nothing piles up.
 */
#define _POSIX_C_SOURCE 200809L
#include "common.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#ifndef PIPE_BUF
#define PIPE_BUF _POSIX_PIPE_BUF
#endif

static const char usage[] =
    "usage: i2pcat [OPTION]... ADDRESS\n"
    "       i2pcat -l [OPTION]...\n"
    "Connects to ADDRESS over I2P, or with -l waits for one stream, and copies standard input to it and what arrives\n"
    "to standard output.\n"
    "\n"
    "  -l               listen: print an address on standard error and take the first stream\n"
    "  -k NAME          use the address that is kept under this name, the same every time. Its keys are made the first\n"
    "                   time\n"
    "  --keys FOLDER    where the keys of names are kept ($XDG_DATA_HOME/i2psock or ~/.local/share/i2psock)\n"
    "  -q SECONDS       connecting side: when standard input has ended, close as soon as all of it is written and\n"
    "                   nothing has arrived for so long (10). The listening side goes on until the stream ends:\n"
    "                   SAM has no half close, so the end of the input cannot be told to the peer\n"
    "  -v               show progress on standard error, even if that is not a terminal\n"
    "  --retries N      try again so often when the peer cannot be reached yet (3)\n"
    "  --sam HOST:PORT  SAM bridge of the router (127.0.0.1:7656, or what I2P_SAM_ADDRESS says)\n"
    "  --wait SECONDS   how long to wait for a router that is not there yet (0)\n"
    "  --set KEY=VALUE  an option of the destination, such as inbound.length=1; may be repeated\n"
    "\n"
    "Exit status: 0 the stream ended, or was closed with everything taken by the router; 1 there was no stream;\n"
    "2 wrong usage; 3 the stream broke off, or something could not be copied.\n";

/* Exit code besides those of common.h. */
enum { EXIT_BROKEN = 3 };

/* How long the router may take for the last bytes when we close, and what it gets to tell the peer before our destination
   goes, which would take along everything that is still on its way. */
enum { CLOSE_LIMIT_MS = 60000, LINGER_MS = 1000 };

enum { CAPACITY = 65536 };

/* Bytes on their way in one direction: data[begin] up to data[end]. */
struct buffer {
    char data[CAPACITY];
    size_t begin, end;
};

static size_t waiting(const struct buffer *buffer) {
    return buffer->end - buffer->begin;
}

static size_t room(const struct buffer *buffer) {
    return CAPACITY - buffer->end;
}

static void took(struct buffer *buffer, size_t count) {
    buffer->begin += count;
    if (buffer->begin == buffer->end) {
        buffer->begin = buffer->end = 0;
    }
}

struct copy {
    const i2psock_stream *stream;
    struct buffer out; /* standard input to stream */
    struct buffer in;  /* stream to standard output */
    int input_open;    /* standard input has not ended */
    int stream_open;   /* more may arrive on the stream */
    int writable;      /* the stream takes bytes */
    int64_t active;    /* when something moved last */
    int status;
};

static int would_block(int error) {
    return error == EAGAIN || error == EWOULDBLOCK || error == EINTR;
}

static void read_input(struct copy *copy) {
    ssize_t count = read(STDIN_FILENO, copy->out.data + copy->out.end, room(&copy->out));

    if (count > 0) {
        copy->out.end += (size_t) count;
    } else if (count == 0) {
        copy->input_open = 0;
        copy->active = now_ms();
    } else if (!would_block(errno)) {
        note(strerror(errno));
        copy->input_open = 0;
        copy->status = EXIT_BROKEN;
    }
}

static void write_output(struct copy *copy) {
    /* Standard output stays blocking: it may be shared with other programs. A pipe that poll calls writable takes
       PIPE_BUF bytes without blocking. */
    size_t count = waiting(&copy->in) < PIPE_BUF ? waiting(&copy->in) : PIPE_BUF;
    ssize_t written = write(STDOUT_FILENO, copy->in.data + copy->in.begin, count);

    if (written >= 0) {
        took(&copy->in, (size_t) written);
    } else if (!would_block(errno)) {
        /* Nobody reads any more: what arrives has nowhere to go. */
        note(strerror(errno));
        took(&copy->in, waiting(&copy->in));
        copy->stream_open = 0;
        copy->status = EXIT_BROKEN;
    }
}

static void send_stream(struct copy *copy) {
    size_t sent = 0;
    i2psock_error *err = NULL;
    i2psock_status status =
        i2psock_stream_send_all(copy->stream, copy->out.data + copy->out.begin, waiting(&copy->out), &sent, &err);

    took(&copy->out, sent);
    if (sent > 0) {
        copy->active = now_ms();
    }
    if (status != I2PSOCK_OK && status != I2PSOCK_BLOCK) {
        /* What the peer sent before it went can still be read. */
        copy->writable = 0;
        copy->input_open = 0;
        copy->status = EXIT_BROKEN;
        complain("not everything was sent", err);
    }
}

static void receive_stream(struct copy *copy) {
    size_t count = 0;
    i2psock_error *err = NULL;
    i2psock_status status =
        i2psock_stream_recv(copy->stream, copy->in.data + copy->in.end, room(&copy->in), 0, &count, &err);

    if (status == I2PSOCK_OK) {
        copy->in.end += count;
        copy->active = now_ms();
    } else if (status == I2PSOCK_CLOSED && i2psock_error_os_error(err) == 0) {
        copy->stream_open = 0;
        i2psock_error_free(err);
    } else if (status != I2PSOCK_BLOCK) {
        copy->stream_open = 0;
        copy->status = EXIT_BROKEN;
        complain("the stream broke off", err);
    }
}

/* Milliseconds until the stream is to be closed: 0 is now, -1 never. */
static int until_close(const struct copy *copy, int64_t quiet_ms) {
    int64_t left;

    if (quiet_ms < 0 || copy->input_open || waiting(&copy->out) > 0 || waiting(&copy->in) > 0) {
        return -1;
    }
    left = copy->active + quiet_ms - now_ms();
    return left < 0 ? 0 : left > INT_MAX ? INT_MAX : (int) left;
}

/* Copies until the stream ends or, with quiet_ms >= 0, until the input has ended and the peer is quiet. */
static int copy_all(struct copy *copy, int64_t quiet_ms) {
    while (copy->stream_open || waiting(&copy->in) > 0) {
        int can_receive = copy->stream_open && room(&copy->in) > 0;
        int can_send = copy->stream_open && copy->writable && waiting(&copy->out) > 0;
        int timeout = until_close(copy, quiet_ms);
        struct pollfd fds[3];

        if (timeout == 0) {
            break;
        }
        /* What is not wanted now is left out altogether: a poll for no events still reports errors, again and again. */
        fds[0].fd = copy->input_open && room(&copy->out) > 0 ? STDIN_FILENO : -1;
        fds[0].events = POLLIN;
        fds[1].fd = can_receive || can_send ? i2psock_stream_fd(copy->stream) : -1;
        fds[1].events = (short) ((can_receive ? POLLIN : 0) | (can_send ? POLLOUT : 0));
        fds[2].fd = waiting(&copy->in) > 0 ? STDOUT_FILENO : -1;
        fds[2].events = POLLOUT;
        fds[0].revents = fds[1].revents = fds[2].revents = 0;
        if (poll(fds, 3, timeout) < 0) {
            if (errno == EINTR) {
                continue;
            }
            note(strerror(errno));
            return EXIT_BROKEN;
        }
        if (fds[0].revents != 0) {
            read_input(copy);
        }
        /* An error shows itself to whoever sends or receives. */
        if (can_send && (fds[1].revents & ~POLLIN) != 0) {
            send_stream(copy);
        }
        if (can_receive && (fds[1].revents & ~POLLOUT) != 0) {
            receive_stream(copy);
        }
        if (fds[2].revents != 0) {
            write_output(copy);
        }
    }
    if (waiting(&copy->out) > 0 && copy->status == EXIT_DONE) {
        note("the stream ended before everything was sent");
        return EXIT_BROKEN;
    }
    return copy->status;
}

/* Runs an operation to its end and tells how it gets on. */
static i2psock_status run(i2psock_pending *pending, const i2psock_dest *announce, int verbose, i2psock_error **err) {
    const char *shown = "";

    for (;;) {
        const char *stage = i2psock_pending_stage_name(pending);
        i2psock_status status;
        struct pollfd fd;

        if (verbose && strcmp(stage, shown) != 0) {
            note(stage);
            shown = stage;
        }
        /* From now on a peer that connects is not turned away. */
        if (announce != NULL && i2psock_pending_stage(pending) == I2PSOCK_STAGE_LISTENING) {
            fprintf(stderr, "Listening on %s\n", i2psock_addr_host(i2psock_dest_addr(announce)));
            announce = NULL;
        }
        fd.fd = i2psock_pending_fd(pending);
        fd.events = (short) i2psock_pending_events(pending);
        fd.revents = 0;
        /* No result to look at: the step finds out what has happened, be it an event, a signal or the end of the time. */
        (void) poll(&fd, 1, i2psock_pending_timeout_ms(pending));
        status = i2psock_pending_step(pending, err);
        if (status != I2PSOCK_BLOCK) {
            return status;
        }
    }
}

static i2psock_dest *open_dest(const i2psock_controller *controller, const char *name, const i2psock_options *options,
                               int verbose, i2psock_error **err) {
    i2psock_pending *pending = NULL;
    i2psock_dest *dest = NULL;

    if (i2psock_dest_open_start(controller, name, I2PSOCK_STREAM, options, I2PSOCK_TIMEOUT_DEFAULT, &pending, err)
        == I2PSOCK_OK) {
        if (run(pending, NULL, verbose, err) == I2PSOCK_OK) {
            i2psock_pending_finish_dest(pending, &dest, err);
        }
        i2psock_pending_free(pending);
    }
    return dest;
}

/* Connects to `address`, or accepts a stream if that is NULL. */
static i2psock_stream *open_stream(const i2psock_dest *dest, const char *address, int verbose, i2psock_error **err) {
    i2psock_pending *pending = NULL;
    i2psock_stream *stream = NULL;
    i2psock_status started =
        address != NULL ? i2psock_dest_connect_start(dest, address, NULL, I2PSOCK_TIMEOUT_DEFAULT, &pending, err)
                        : i2psock_dest_accept_start(dest, I2PSOCK_TIMEOUT_NONE, &pending, err);

    if (started == I2PSOCK_OK) {
        if (run(pending, address == NULL ? dest : NULL, verbose, err) == I2PSOCK_OK) {
            i2psock_pending_finish_stream(pending, &stream, err);
        }
        i2psock_pending_free(pending);
    }
    return stream;
}

/* Copies both ways, and closes the stream so that nothing of what was written is thrown away. */
static int use_stream(i2psock_stream *stream, int64_t quiet_ms) {
    static struct copy copy; /* 128 KiB are too much for some stacks */
    i2psock_error *err = NULL;

    memset(&copy, 0, sizeof copy);
    copy.stream = stream;
    copy.input_open = copy.stream_open = copy.writable = 1;
    copy.status = copy_all(&copy, quiet_ms);
    if (copy.status != EXIT_DONE || !copy.stream_open) {
        i2psock_stream_free(stream);
    } else if (i2psock_stream_close(stream, CLOSE_LIMIT_MS, &err)) {
        complain("close", err);
        copy.status = EXIT_BROKEN;
    } else {
        sleep_ms(LINGER_MS);
    }
    return copy.status;
}

int main(int argc, char **argv) {
    struct settings settings;
    i2psock_controller *controller = NULL;
    i2psock_dest *dest = NULL;
    i2psock_stream *stream = NULL;
    i2psock_error *err = NULL;
    const char *name = NULL;
    int arguments, status = EXIT_FAILED;
    int listening = 0, verbose = 0, quiet = 10, retries = 3;
    struct option options[] = {{"-l", NULL, OPTION_FLAG},
                               {"-v", NULL, OPTION_FLAG},
                               {"-q", NULL, OPTION_NUMBER},
                               {"--retries", NULL, OPTION_NUMBER},
                               {"-k", NULL, OPTION_TEXT},
                               {"--keys", NULL, OPTION_KEYS},
                               {NULL, NULL, 0}};

    options[0].value = &listening;
    options[1].value = &verbose;
    options[2].value = &quiet;
    options[3].value = &retries;
    options[4].value = &name;
    settings_read(&settings, &arguments, argc, argv, options, usage);
    if (arguments != (listening ? 0 : 1)) {
        usage_error(&settings, "either -l or one address is needed");
    }
    if (!listening && i2psock_name_classify(argv[1]) == I2PSOCK_NAME_INVALID) {
        usage_error(&settings, "that is no I2P address");
    }
    verbose = verbose || isatty(STDERR_FILENO);
    /* The library never raises SIGPIPE. Standard output would, when nobody reads it any more. */
    signal(SIGPIPE, SIG_IGN);

    if (i2psock_controller_open(settings.controller, &controller, &err)) {
        complain("no SAM bridge", err);
        goto end;
    }
    dest = open_dest(controller, name, settings.dest, verbose, &err);
    if (dest == NULL) {
        complain("no destination", err);
        goto end;
    }
    while (stream == NULL) {
        stream = open_stream(dest, listening ? NULL : argv[1], verbose, &err);
        if (stream == NULL) {
            int again = !listening && worth_retrying(err) && retries-- > 0;

            complain(again ? "not yet" : "no stream", err);
            if (!again) {
                goto end;
            }
            sleep_ms(2000);
        }
    }
    if (verbose) {
        fprintf(stderr, "%s %s\n", listening ? "Stream from" : "Stream to", i2psock_stream_peer_text(stream));
    }
    status = use_stream(stream, listening ? -1 : (int64_t) quiet * 1000);

end:
    i2psock_dest_close(dest);
    i2psock_controller_close(controller);
    settings_free(&settings);
    return status;
}
