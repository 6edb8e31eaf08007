/*
 * chat.c - a chat between any number of people, in one poll loop.
 *
 * The loop waits for standard input, for the listener (somebody calls us), for the destination (the session is lost, or
 * back again), for connects in progress (we call somebody) and for the streams. Nothing in it blocks, and nothing grows
 * without limit: peers are strangers, and may be slow, broken or hostile.
 */
#define _POSIX_C_SOURCE 200809L
#include "common.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char usage[] =
    "usage: chat [OPTION]... [ADDRESS]...\n"
    "Prints its address, lets others connect to it, and connects to every ADDRESS, again and again until it is there.\n"
    "Each line of standard input goes to all of them, and their lines are printed with the beginning of their address.\n"
    "Lines typed while nobody is there wait for somebody. The end of the input ends the program.\n"
    "\n"
    "  --name NAME      keep the address under this name for the next time; and when the router is started anew, go on\n"
    "                   with the same address as soon as it is back\n"
    "  --keys FOLDER    where the keys of names are kept ($XDG_DATA_HOME/i2psock or ~/.local/share/i2psock)\n"
    "  --sam HOST:PORT  SAM bridge of the router (127.0.0.1:7656, or what I2P_SAM_ADDRESS says)\n"
    "  --wait SECONDS   how long to wait for a router that is not there yet (0)\n"
    "  --set KEY=VALUE  an option of the destination, such as inbound.length=1; may be repeated\n"
    "\n"
    "Exit status: 0 after the end of the input; 1 something failed; 2 wrong usage.\n";

enum {
    MAX_CONTACTS = 16,   /* addresses we call */
    MAX_PEERS = 64,      /* streams, in both directions */
    NAME_SIZE = 24,
    LINE_SIZE = 1000,    /* of a longer line the rest is left out */
    OUTPUT_SIZE = 65536, /* for a peer; one that lets more pile up is dropped */
    CALL_AGAIN_MS = 5000,
    CLOSE_LIMIT_MS = 20000, /* at the end, for everything to be on its way */
    CLOSE_LOOK_MS = 10,
    LINGER_MS = 1000
};

/* An address that was given to us. We call until somebody is there, and again when they have gone. */
struct contact {
    const char *address;
    i2psock_pending *pending; /* the connect in progress, or NULL */
    int64_t call_at;          /* not before */
    int tried;                /* the first call has succeeded or failed */
    int connected;            /* and the stream is still there */
};

/* A stream to somebody. */
struct peer {
    i2psock_stream *stream;
    struct contact *contact; /* whom we called; NULL: they called us */
    char name[NAME_SIZE];
    char line[LINE_SIZE]; /* a line that has not ended yet */
    size_t line_len;
    int skipping; /* the rest of a line that is too long */
    char out[OUTPUT_SIZE];
    size_t out_len;
};

struct chat {
    i2psock_controller *controller;
    i2psock_dest *dest;
    i2psock_listener *listener;
    struct contact contacts[MAX_CONTACTS];
    size_t contact_count;
    struct peer *peers[MAX_PEERS]; /* oldest first */
    size_t peer_count;
    char input[LINE_SIZE]; /* typed, and not sent yet */
    size_t input_len;
    int input_open;
    int ready;         /* the destination has a session */
    int64_t close_by;  /* the input has ended: the time for what must still go out; else 0 */
    int failed;
};

/* The beginning of a base32 address says enough; other names were given by the user. */
static void short_name(char *name, size_t size, const char *address) {
    const char *dot = strchr(address, '.');

    if (dot != NULL && strcmp(dot, ".b32.i2p") == 0) {
        size = 9;
    }
    snprintf(name, size, "%.*s", (int) size - 1, address);
}

/* ---- streams ---- */

static void print_line(struct peer *peer) {
    /* Some end their lines with two characters. */
    if (peer->line_len > 0 && peer->line[peer->line_len - 1] == '\r') {
        peer->line_len--;
    }
    printf("%s: ", peer->name);
    print_text(peer->line, peer->line_len);
    puts(peer->skipping ? "..." : "");
    peer->line_len = 0;
    peer->skipping = 0;
}

/* For another stream; nobody is let in any more once we are about to leave. */
static int has_room(const struct chat *chat) {
    return chat->peer_count < MAX_PEERS && chat->close_by == 0;
}

/* The stream is ours from now on. */
static void add_peer(struct chat *chat, i2psock_stream *stream, struct contact *contact) {
    struct peer *peer = has_room(chat) ? (struct peer *) calloc(1, sizeof *peer) : NULL;

    if (peer == NULL) {
        i2psock_stream_free(stream);
        return;
    }
    peer->stream = stream;
    peer->contact = contact;
    if (contact != NULL) {
        contact->connected = 1;
    }
    short_name(peer->name, sizeof peer->name, i2psock_stream_peer_text(stream));
    chat->peers[chat->peer_count++] = peer;
    fprintf(stderr, "chat: %s is here\n", peer->name);
}

/* `why` is not said when we are the one who leaves: then it is NULL. */
static void remove_peer(struct chat *chat, size_t index, const char *why) {
    struct peer *peer = chat->peers[index];

    if (peer->line_len > 0) {
        print_line(peer);
    }
    if (why != NULL) {
        fflush(stdout); /* what they said comes before it */
        fprintf(stderr, "chat: %s %s\n", peer->name, why);
    }
    if (peer->contact != NULL) {
        peer->contact->connected = 0;
        peer->contact->call_at = now_ms() + CALL_AGAIN_MS;
    }
    i2psock_stream_free(peer->stream);
    free(peer);
    chat->peer_count--;
    memmove(&chat->peers[index], &chat->peers[index + 1], (chat->peer_count - index) * sizeof chat->peers[0]);
}

/* Whether somebody with this address is here, on the stream of this number or a later one. */
static int is_here(const struct chat *chat, const char *address, size_t from) {
    size_t i;

    for (i = from; i < chat->peer_count; i++) {
        if (strcmp(i2psock_stream_peer_text(chat->peers[i]->stream), address) == 0) {
            return 1;
        }
    }
    return 0;
}

/* Takes what has arrived. 0: the peer has gone. */
static int receive(struct peer *peer) {
    char data[4096];
    size_t count = 0, i;
    /* Once only: a peer that never stops must not keep us from the others. */
    i2psock_status status = i2psock_stream_recv(peer->stream, data, sizeof data, 0, &count, NULL);

    for (i = 0; i < count; i++) {
        if (data[i] == '\n') {
            print_line(peer);
        } else if (peer->line_len < sizeof peer->line) {
            peer->line[peer->line_len++] = data[i];
        } else {
            peer->skipping = 1;
        }
    }
    return status == I2PSOCK_OK || status == I2PSOCK_BLOCK;
}

/* Sends what is waiting for the peer, as far as that is possible now. 0: the peer has gone. */
static int flush_peer(struct peer *peer) {
    size_t sent = 0;
    i2psock_status status = i2psock_stream_send_all(peer->stream, peer->out, peer->out_len, &sent, NULL);

    peer->out_len -= sent;
    memmove(peer->out, peer->out + sent, peer->out_len);
    return status == I2PSOCK_OK || status == I2PSOCK_BLOCK;
}

/* Who has called us while we called them has two streams. Lines go over the later: the older may be dead already. */
static int is_outdated(const struct chat *chat, size_t index) {
    return is_here(chat, i2psock_stream_peer_text(chat->peers[index]->stream), index + 1);
}

static void send_to_all(struct chat *chat, const char *data, size_t len) {
    size_t i;

    /* From the last to the first, because peers may go. */
    for (i = chat->peer_count; i-- > 0;) {
        struct peer *peer = chat->peers[i];

        if (is_outdated(chat, i)) {
            continue;
        }
        if (len > sizeof peer->out - peer->out_len) {
            remove_peer(chat, i, "takes nothing any more, and is dropped");
            continue;
        }
        memcpy(peer->out + peer->out_len, data, len);
        peer->out_len += len;
        if (!flush_peer(peer)) {
            remove_peer(chat, i, "has left");
        }
    }
}

static void serve_peer(struct chat *chat, size_t index, short events) {
    struct peer *peer = chat->peers[index];

    /* What arrived before an end or an error is still there to be read, so that comes first. */
    if (((events & ~POLLOUT) != 0 && !receive(peer)) || ((events & POLLOUT) != 0 && !flush_peer(peer))) {
        remove_peer(chat, index, "has left");
    }
}

/* ---- standard input ---- */

/* Lines wait until everybody we call has had a first chance to be there. Then the fastest peer sets the pace. */
static int somebody_listens(const struct chat *chat) {
    size_t i;

    for (i = 0; i < chat->contact_count; i++) {
        if (!chat->contacts[i].tried) {
            return 0;
        }
    }
    for (i = 0; i < chat->peer_count; i++) {
        if (chat->peers[i]->out_len == 0 && !is_outdated(chat, i)) {
            return 1;
        }
    }
    return 0;
}

static void read_input(struct chat *chat) {
    ssize_t count = read(STDIN_FILENO, chat->input + chat->input_len, sizeof chat->input - chat->input_len);

    if (count > 0) {
        chat->input_len += (size_t) count;
    } else if (count == 0) {
        chat->input_open = 0;
    } else if (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR) {
        note(strerror(errno));
        chat->input_open = 0;
        chat->failed = 1;
    }
}

/* Sends whole lines; also what fills the buffer, and the last line of a file, which may lack its end. */
static void send_input(struct chat *chat) {
    size_t len = somebody_listens(chat) ? chat->input_len : 0;

    while (len > 0 && len < sizeof chat->input && chat->input_open && chat->input[len - 1] != '\n') {
        len--;
    }
    send_to_all(chat, chat->input, len);
    chat->input_len -= len;
    memmove(chat->input, chat->input + len, chat->input_len);
}

/* ---- calling, being called, losing the session ---- */

/* Ends a call, with an error if it has failed. That is said the first time; the next ones are likely to fail alike. */
static void end_call(struct contact *contact, i2psock_error *err) {
    char name[NAME_SIZE];

    if (err != NULL && !contact->tried) {
        short_name(name, sizeof name, contact->address);
        fprintf(stderr, "chat: %s is not there yet: %s\n", name, i2psock_error_message(err));
    }
    i2psock_error_free(err);
    i2psock_pending_free(contact->pending);
    contact->pending = NULL;
    contact->tried = 1;
    contact->call_at = now_ms() + CALL_AGAIN_MS;
}

static int wants_call(const struct chat *chat, const struct contact *contact) {
    return chat->ready && has_room(chat) && contact->pending == NULL && !contact->connected
           && !is_here(chat, contact->address, 0);
}

static void go_on_with_call(struct chat *chat, struct contact *contact) {
    i2psock_stream *stream = NULL;
    i2psock_error *err = NULL;
    i2psock_status status = I2PSOCK_BLOCK;

    if (contact->pending != NULL) {
        status = i2psock_pending_step(contact->pending, &err);
    } else if (wants_call(chat, contact) && now_ms() >= contact->call_at) {
        status = i2psock_dest_connect_start(chat->dest, contact->address, NULL, I2PSOCK_TIMEOUT_DEFAULT,
                                            &contact->pending, &err);
        status = status == I2PSOCK_OK ? I2PSOCK_BLOCK : status; /* started is not done */
    }
    if (status == I2PSOCK_BLOCK) {
        return;
    }
    if (status == I2PSOCK_OK && i2psock_pending_finish_stream(contact->pending, &stream, &err) == I2PSOCK_OK) {
        add_peer(chat, stream, contact);
    }
    end_call(contact, err);
}

/* The listener goes on by itself after a loss. Calls do not: we make them anew when the session is back. */
static void watch_session(struct chat *chat) {
    i2psock_state state = tell_state(chat->dest);
    size_t i;

    if (state == I2PSOCK_STATE_READY && !chat->ready) {
        for (i = 0; i < chat->contact_count; i++) {
            chat->contacts[i].call_at = 0;
        }
    }
    chat->ready = state == I2PSOCK_STATE_READY;
    if (state == I2PSOCK_STATE_DEAD) {
        chat->failed = 1;
    }
}

/* ---- the loop ---- */

/* Once everything was said: closes the streams that have nothing left to send. 1: that were all. */
static int close_peers(struct chat *chat) {
    size_t i;

    for (i = chat->peer_count; i-- > 0;) {
        if (chat->peers[i]->out_len == 0 && i2psock_stream_unsent(chat->peers[i]->stream) <= 0) {
            remove_peer(chat, i, NULL);
        } else if (now_ms() >= chat->close_by) {
            remove_peer(chat, i, "has not taken everything");
            chat->failed = 1;
        }
    }
    return chat->peer_count == 0;
}

/* The shorter one of two times for poll, in which -1 is for ever. */
static int sooner(int a, int b) {
    return a < 0 || (b >= 0 && b < a) ? b : a;
}

enum { INPUT, SESSION, LISTENER, CALLS, STREAMS = CALLS + MAX_CONTACTS, SOURCES = STREAMS + MAX_PEERS };

/* Says what there is to wait for, and for how many milliseconds. What is not wanted now is left out. */
static int prepare(struct chat *chat, struct pollfd *fds) {
    int timeout = sooner(i2psock_dest_timeout_ms(chat->dest), i2psock_listener_timeout_ms(chat->listener));
    int64_t now = now_ms();
    size_t i;

    for (i = 0; i < SOURCES; i++) {
        fds[i].fd = -1;
        fds[i].events = POLLIN;
        fds[i].revents = 0;
    }
    fds[INPUT].fd = chat->input_open && chat->input_len < sizeof chat->input ? STDIN_FILENO : -1;
    fds[SESSION].fd = i2psock_dest_fd(chat->dest);
    /* Those for whom there is no room wait at the listener, and after them at the router. */
    fds[LISTENER].fd = has_room(chat) ? i2psock_listener_fd(chat->listener) : -1;
    for (i = 0; i < chat->contact_count; i++) {
        struct contact *contact = &chat->contacts[i];

        if (contact->pending != NULL) {
            fds[CALLS + i].fd = i2psock_pending_fd(contact->pending);
            fds[CALLS + i].events = (short) i2psock_pending_events(contact->pending);
            timeout = sooner(timeout, i2psock_pending_timeout_ms(contact->pending));
        } else if (wants_call(chat, contact)) {
            timeout = sooner(timeout, contact->call_at > now ? (int) (contact->call_at - now) : 0);
        }
    }
    for (i = 0; i < chat->peer_count; i++) {
        fds[STREAMS + i].fd = i2psock_stream_fd(chat->peers[i]->stream);
        fds[STREAMS + i].events = (short) (POLLIN | (chat->peers[i]->out_len > 0 ? POLLOUT : 0));
    }
    /* No event tells when the router has taken everything. */
    return chat->close_by > 0 ? sooner(timeout, CLOSE_LOOK_MS) : timeout;
}

static void run(struct chat *chat) {
    struct pollfd fds[SOURCES];
    i2psock_stream *stream = NULL;
    size_t i;

    while (!chat->failed) {
        int timeout = prepare(chat, fds);

        if (poll(fds, SOURCES, timeout) < 0 && errno != EINTR) {
            note(strerror(errno));
            chat->failed = 1;
            return;
        }
        watch_session(chat);
        /* From the last to the first, because those that go make the others move up. */
        for (i = chat->peer_count; i-- > 0;) {
            if (fds[STREAMS + i].revents != 0) {
                serve_peer(chat, i, fds[STREAMS + i].revents);
            }
        }
        while (has_room(chat) && i2psock_listener_accept(chat->listener, &stream, NULL) == I2PSOCK_OK) {
            add_peer(chat, stream, NULL);
        }
        for (i = 0; i < chat->contact_count; i++) {
            go_on_with_call(chat, &chat->contacts[i]);
        }
        if (fds[INPUT].revents != 0) {
            read_input(chat);
        }
        send_input(chat);
        if (fflush(stdout) != 0 || ferror(stdout)) {
            note("nobody reads the output any more");
            chat->failed = 1;
        }
        if (chat->close_by == 0 && !chat->input_open && chat->input_len == 0) {
            chat->close_by = now_ms() + CLOSE_LIMIT_MS;
        }
        if (chat->close_by > 0 && close_peers(chat)) {
            return;
        }
    }
}

static int open_all(struct chat *chat, const struct settings *settings, const char *name) {
    i2psock_error *err = NULL;

    if (i2psock_controller_open(settings->controller, &chat->controller, &err)) {
        return complain("no SAM bridge", err);
    }
    note("building tunnels, which takes seconds, or minutes right after the router's start");
    if (i2psock_dest_open(chat->controller, name, I2PSOCK_STREAM, settings->dest, I2PSOCK_TIMEOUT_DEFAULT, &chat->dest,
                          &err)) {
        return complain("no destination", err);
    }
    if (i2psock_listener_open(chat->dest, 0, NULL, &chat->listener, &err)) {
        return complain("no listener", err);
    }
    fprintf(stderr, "chat: others reach you at %s\n", i2psock_addr_host(i2psock_dest_addr(chat->dest)));
    return EXIT_DONE;
}

static void close_all(struct chat *chat) {
    size_t i;

    for (i = 0; i < chat->contact_count; i++) {
        i2psock_pending_free(chat->contacts[i].pending);
    }
    while (chat->peer_count > 0) {
        remove_peer(chat, chat->peer_count - 1, NULL);
    }
    if (chat->close_by > 0) {
        sleep_ms(LINGER_MS); /* with the destination goes what the router still has to send */
    }
    i2psock_listener_close(chat->listener);
    i2psock_dest_close(chat->dest);
    i2psock_controller_close(chat->controller);
}

int main(int argc, char **argv) {
    static struct chat chat;
    struct settings settings;
    const char *name = NULL;
    int arguments, status, i;
    struct option options[] = {{"--name", &name, OPTION_TEXT}, {"--keys", NULL, OPTION_KEYS}, {NULL, NULL, 0}};

    settings_read(&settings, &arguments, argc, argv, options, usage);
    if (arguments > MAX_CONTACTS) {
        usage_error(&settings, "these are too many addresses");
    }
    for (i = 0; i < arguments; i++) {
        if (i2psock_name_classify(argv[i + 1]) == I2PSOCK_NAME_INVALID) {
            usage_error(&settings, "that is no I2P address");
        }
        chat.contacts[i].address = argv[i + 1];
    }
    chat.contact_count = (size_t) arguments;
    chat.input_open = 1;
    /* Standard output raises it when nobody reads any more; this library never does. */
    signal(SIGPIPE, SIG_IGN);

    status = open_all(&chat, &settings, name);
    if (status == EXIT_DONE) {
        run(&chat);
        status = chat.failed ? EXIT_FAILED : EXIT_DONE;
    }
    close_all(&chat);
    settings_free(&settings);
    return status;
}
