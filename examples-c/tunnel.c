/*
 * tunnel.c - makes a TCP server reachable over I2P, or an I2P address reachable for TCP programs.
 *
 * The library moves the bytes, on a thread of its own; what is left to do here is to tell how it gets on.
 */
#define _POSIX_C_SOURCE 200809L
#include "common.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const char usage[] =
    "usage: tunnel server [OPTION]... NAME HOST:PORT\n"
    "       tunnel client [OPTION]... [HOST:]PORT ADDRESS\n"
    "server: hands everybody who connects to our address on I2P on to HOST:PORT, a port of 127.0.0.1 or the /PATH of a\n"
    "unix socket. The address is kept under NAME for the next time; - as NAME: a new address each time.\n"
    "client: listens on a port, of 127.0.0.1 unless HOST says something else, 0 being one that is free, and hands\n"
    "everybody who connects there on to ADDRESS on I2P.\n"
    "Either ends on SIGINT and SIGTERM.\n"
    "\n"
    "  --name NAME        client: keep its own address, which the server gets to see, under NAME (a new one each time)\n"
    "  --keys FOLDER      where the keys of names are kept ($XDG_DATA_HOME/i2psock or ~/.local/share/i2psock)\n"
    "  --nconnect N       connections at a time; others wait (no limit)\n"
    "  --timeout SECONDS  a connection may last so long, whatever it does (no limit)\n"
    "  --idle-timeout SECONDS\n"
    "                     a connection may last so long without a byte; 0: no limit (900, which is 15 minutes: routers\n"
    "                     may lose the end of a stream, and what never ends would keep its place for ever)\n"
    "  --sam HOST:PORT    SAM bridge of the router (127.0.0.1:7656, or what I2P_SAM_ADDRESS says)\n"
    "  --wait SECONDS     how long to wait for a router that is not there yet (0)\n"
    "  --set KEY=VALUE    an option of the tunnel, such as buffer_size=65536, or of its destination, such as\n"
    "                     inbound.length=1; may be repeated\n"
    "\n"
    "Security: programs behind a tunnel may connect to the internet past it, and servers may tell who and where they\n"
    "are; only a firewall keeps them from it. And an attacker can hold a connection open for ever by sending a byte now\n"
    "and then: set --timeout, and --nconnect, on a server that others can reach.\n"
    "\n"
    "Exit status: 0 ended by a signal; 1 there is no tunnel, or its destination has ended; 2 wrong usage.\n";

enum { RENEW_MS = 1000, IDLE_SECONDS = 15 * 60 };

/* What a signal handler may do is little: it writes a byte here, and the poll loop reads it. */
static int signal_pipe[2];

static void on_signal(int number) {
    int saved = errno;
    char byte = (char) number;
    ssize_t written = write(signal_pipe[1], &byte, 1);

    (void) written; /* if the pipe is full, there is enough to read */
    errno = saved;
}

static int catch_signals(void) {
    struct sigaction action;

    if (pipe(signal_pipe) != 0 || fcntl(signal_pipe[0], F_SETFD, FD_CLOEXEC) < 0
        || fcntl(signal_pipe[1], F_SETFD, FD_CLOEXEC) < 0 || fcntl(signal_pipe[1], F_SETFL, O_NONBLOCK) < 0) {
        return 0;
    }
    memset(&action, 0, sizeof action);
    action.sa_handler = on_signal;
    sigemptyset(&action.sa_mask);
    return sigaction(SIGINT, &action, NULL) == 0 && sigaction(SIGTERM, &action, NULL) == 0;
}

/* Waits for an event of `fd`, which may be -1, and for a signal. Returns 1 when a signal has come. */
static int wait_for(int fd, int events, int timeout_ms) {
    struct pollfd fds[2];

    fds[0].fd = signal_pipe[0];
    fds[0].events = POLLIN;
    fds[1].fd = fd;
    fds[1].events = (short) events;
    fds[0].revents = fds[1].revents = 0;
    return poll(fds, 2, timeout_ms) > 0 ? fds[0].revents != 0 : 0;
}

/* Waits until the tunnel is there. NULL with *err still NULL: a signal has come first. */
static i2psock_tunnel *open_tunnel(i2psock_pending *pending, i2psock_error **err) {
    i2psock_tunnel *tunnel = NULL;
    i2psock_status status;

    while ((status = i2psock_pending_step(pending, err)) == I2PSOCK_BLOCK) {
        if (wait_for(i2psock_pending_fd(pending), i2psock_pending_events(pending), i2psock_pending_timeout_ms(pending))) {
            break;
        }
    }
    if (status == I2PSOCK_OK) {
        i2psock_pending_finish_tunnel(pending, &tunnel, err);
    }
    i2psock_pending_free(pending);
    return tunnel;
}

/* A number of bytes in a few characters. */
static void print_amount(const char *label, uint64_t bytes) {
    static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB"};
    double amount = (double) bytes;
    size_t unit = 0;

    while (amount >= 1024 && unit + 1 < sizeof units / sizeof *units) {
        amount /= 1024;
        unit++;
    }
    fprintf(stderr, "%s%.*f %s", label, unit == 0 ? 0 : 1, amount, units[unit]);
}

static void show_status(const i2psock_tunnel *tunnel) {
    fprintf(stderr, "\rconnections: %lu now, %lu in all", (unsigned long) i2psock_tunnel_count(tunnel, I2PSOCK_TUNNEL_NOW),
            (unsigned long) i2psock_tunnel_count(tunnel, I2PSOCK_TUNNEL_TOTAL));
    if (i2psock_tunnel_count(tunnel, I2PSOCK_TUNNEL_EXPIRED) > 0) {
        fprintf(stderr, ", %lu timed out", (unsigned long) i2psock_tunnel_count(tunnel, I2PSOCK_TUNNEL_EXPIRED));
    }
    print_amount("; out ", i2psock_tunnel_count(tunnel, I2PSOCK_TUNNEL_BYTES_OUT));
    print_amount(", in ", i2psock_tunnel_count(tunnel, I2PSOCK_TUNNEL_BYTES_IN));
    fputs("\033[K", stderr);
}

/* Tells on standard error how the tunnel gets on, until a signal comes or its destination has ended. */
static int watch(const i2psock_tunnel *tunnel) {
    int terminal = isatty(STDERR_FILENO);
    i2psock_state shown = I2PSOCK_STATE_READY;

    do {
        i2psock_error *err = NULL, *reason = NULL;
        i2psock_state state = i2psock_tunnel_state(tunnel, &reason);

        if (terminal) {
            fputs("\r\033[K", stderr); /* lines take the place of the status */
        }
        while ((err = i2psock_tunnel_next_error(tunnel)) != NULL) {
            complain("a connection", err);
        }
        if (state == I2PSOCK_STATE_DEAD) {
            return complain("the destination has ended", reason);
        }
        if (state == I2PSOCK_STATE_READY && shown != state) {
            note("READY: the tunnel works again");
        } else if (state != I2PSOCK_STATE_READY && shown == I2PSOCK_STATE_READY) {
            complain("LOST, and opened again as soon as the router is there", reason);
            reason = NULL;
        }
        i2psock_error_free(reason);
        shown = state;
        if (terminal) {
            show_status(tunnel);
        }
        /* The status grows old by itself. */
    } while (!wait_for(i2psock_tunnel_fd(tunnel), POLLIN, terminal ? RENEW_MS : -1));
    if (terminal) {
        fputc('\n', stderr);
    }
    if (i2psock_tunnel_count(tunnel, I2PSOCK_TUNNEL_EXPIRED) > 0) {
        char text[100];

        snprintf(text, sizeof text, "%lu of %lu connections were ended by a time limit",
                 (unsigned long) i2psock_tunnel_count(tunnel, I2PSOCK_TUNNEL_EXPIRED),
                 (unsigned long) i2psock_tunnel_count(tunnel, I2PSOCK_TUNNEL_TOTAL));
        note(text);
    }
    return EXIT_DONE;
}

/* Whether `text` is a port alone. */
static int is_port(const char *text) {
    return text[0] != '\0' && text[strspn(text, "0123456789")] == '\0';
}

/* Gives a number of the command line, with `unit` behind it, to the tunnel, if it was given. */
static void set_number(struct settings *settings, const char *key, int value, const char *unit) {
    i2psock_error *err = NULL;
    char text[32];

    snprintf(text, sizeof text, "%d%s", value, unit);
    if (value >= 0 && i2psock_options_set(settings->dest, key, text, &err)) {
        complain(key, err);
        usage_error(settings, "that cannot be set");
    }
}

/* Whether `key` is among the options given with --set. */
static int is_set(int argc, char **argv, const char *key) {
    int i;

    for (i = 1; i + 1 < argc; i++) {
        if (strcmp(argv[i], "--set") == 0 && strncmp(argv[i + 1], key, strlen(key)) == 0
            && argv[i + 1][strlen(key)] == '=') {
            return 1;
        }
    }
    return 0;
}

int main(int argc, char **argv) {
    struct settings settings;
    i2psock_controller *controller = NULL;
    i2psock_pending *pending = NULL;
    i2psock_tunnel *tunnel = NULL;
    i2psock_error *err = NULL;
    i2psock_status started;
    const char *name = NULL;
    char listen[300];
    int arguments, server, status = EXIT_FAILED;
    int connections = -1, seconds = -1;
    /* The library's own default is no limit. */
    int idle = is_set(argc, argv, "idle_timeout") ? -1 : IDLE_SECONDS;
    struct option options[] = {{"--name", NULL, OPTION_TEXT},
                               {"--keys", NULL, OPTION_KEYS},
                               {"--nconnect", NULL, OPTION_NUMBER},
                               {"--timeout", NULL, OPTION_NUMBER},
                               {"--idle-timeout", NULL, OPTION_NUMBER},
                               {NULL, NULL, 0}};

    options[0].value = &name;
    options[2].value = &connections;
    options[3].value = &seconds;
    options[4].value = &idle;
    settings_read(&settings, &arguments, argc, argv, options, usage);
    server = arguments > 0 && strcmp(argv[1], "server") == 0;
    if (arguments != 3 || (!server && strcmp(argv[1], "client") != 0)) {
        usage_error(&settings, "wanted are: server NAME HOST:PORT, or client [HOST:]PORT ADDRESS");
    }
    if (server && name != NULL) {
        usage_error(&settings, "--name is for clients; a server's name is its first argument");
    }
    if (server) {
        name = argv[2];
    } else if (i2psock_name_classify(argv[3]) == I2PSOCK_NAME_INVALID) {
        usage_error(&settings, "that is no I2P address");
    } else if (strlen(argv[2]) >= sizeof listen - 10) {
        usage_error(&settings, "that is nothing to listen on");
    }
    if (name != NULL && strcmp(name, "-") == 0) {
        name = NULL;
    }
    set_number(&settings, "nconnect", connections, "");
    set_number(&settings, "timeout", seconds, "000");
    if (idle > 0) {
        set_number(&settings, "idle_timeout", idle, "000");
    } else if (idle == 0 && i2psock_options_set_int(settings.dest, "idle_timeout", -1, &err)) {
        complain("idle_timeout", err);
        usage_error(&settings, "that cannot be set");
    }
    if (!catch_signals()) {
        note(strerror(errno));
        goto end;
    }
    if (i2psock_controller_open(settings.controller, &controller, &err)) {
        complain("no SAM bridge", err);
        goto end;
    }
    if (server) {
        started = i2psock_tunnel_server_start(controller, name, argv[3], settings.dest, I2PSOCK_TIMEOUT_DEFAULT, &pending,
                                              &err);
    } else {
        snprintf(listen, sizeof listen, "%s%s", is_port(argv[2]) ? "127.0.0.1:" : "", argv[2]);
        started = i2psock_tunnel_client_start(controller, name, listen, argv[3], settings.dest, I2PSOCK_TIMEOUT_DEFAULT,
                                              &pending, &err);
    }
    if (started) {
        complain("no tunnel", err);
        status = started == I2PSOCK_INVALID ? EXIT_USAGE : EXIT_FAILED;
        goto end;
    }
    note("building tunnels, which takes seconds, or minutes right after the router's start");
    tunnel = open_tunnel(pending, &err);
    if (tunnel == NULL) {
        status = err != NULL ? complain("no tunnel", err) : EXIT_DONE;
        goto end;
    }
    if (server) {
        printf("Server address: %s\n", i2psock_addr_host(i2psock_tunnel_addr(tunnel)));
    } else {
        /* The port it has got, if it was to be any that is free. */
        printf("Listening on %.*s:%d\n", (int) (strrchr(listen, ':') - listen), listen, i2psock_tunnel_port(tunnel));
    }
    fflush(stdout);
    status = watch(tunnel);

end:
    i2psock_tunnel_close(tunnel);
    i2psock_controller_close(controller);
    settings_free(&settings);
    return status;
}
