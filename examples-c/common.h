/* common.h - what all example programs share: their command line, and how they talk to a person. */
#ifndef COMMON_H
#define COMMON_H

#include <i2psock.h>
#include <stddef.h>
#include <stdint.h>

/* Exit codes of every example. */
enum { EXIT_DONE = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

/* What --sam, --udp, --wait and --set have collected. */
struct settings {
    i2psock_options *controller; /* for i2psock_controller_open() */
    i2psock_options *dest;       /* for i2psock_dest_open() */
};

/*
 * What an option of an example does: put a number or 1 into the int at `value`, put a text into the const char * there, set
 * the controller's option of its name, or say where keys are kept. The last two need no `value`.
 */
enum { OPTION_NUMBER = 0, OPTION_FLAG = 1, OPTION_CONTROLLER = 2, OPTION_TEXT = 3, OPTION_KEYS = 4 };

/* An option of one example, "--count" for example. */
struct option {
    const char *name;
    void *value;
    int kind;
};

/*
 * Reads the command line. `options` ends with a name that is NULL. The arguments that are no options are moved to
 * argv[1] and up, and *count says how many they are. Ends the program after --help and after mistakes.
 */
void settings_read(struct settings *settings, int *count, int argc, char **argv, const struct option *options,
                   const char *usage);

void settings_free(struct settings *settings);

/* Ends the program because its command line makes no sense. */
void usage_error(struct settings *settings, const char *what);

/*
 * Writes "program: what: why" to standard error, frees `err` and returns EXIT_FAILED. `what` may be an argument: whatever in
 * it may be a private key or another secret is left out.
 */
int complain(const char *what, i2psock_error *err);

/* Writes "program: text" to standard error, like complain(). */
void note(const char *text);

/*
 * Whether a stream that could not be opened may open a little later: right after a start, routers do not yet know how to
 * reach each other.
 */
int worth_retrying(const i2psock_error *err);

/*
 * Says on standard error what has become of the destination's session since the last call, and returns its present state.
 * For a poll loop, when i2psock_dest_fd() is readable.
 */
i2psock_state tell_state(const i2psock_dest *dest);

/* Prints bytes from the network with everything unprintable escaped: they must not reach a terminal as they are. */
void print_bytes(const char *data, size_t len);

/*
 * Prints a line somebody has written, in UTF-8 if the terminal takes that, with "?" for everything that could make the
 * terminal do something, or hide what is there.
 */
void print_text(const char *data, size_t len);

/* Milliseconds of a clock that only runs forward. */
int64_t now_ms(void);

/* Waits without a signal's help. */
void sleep_ms(int milliseconds);

#endif
