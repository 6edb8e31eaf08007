#define _POSIX_C_SOURCE 200809L
#include "common.h"

#include <ctype.h>
#include <langinfo.h>
#include <limits.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const char *program = "example";

/* Longest run of base64 in an argument that is shown: longer ones may be, or hold, a private key. */
enum { LONGEST_SHOWN = 200 };

static int has_long_base64(const char *text) {
    size_t run = 0;

    for (; *text != '\0'; text++) {
        /* A key that was pasted may be spread over several lines. */
        if (isalnum((unsigned char) *text) || strchr("-~=", *text) != NULL) {
            run++;
        } else if (*text != '\r' && *text != '\n') {
            run = 0;
        }
        if (run > LONGEST_SHOWN) {
            return 1;
        }
    }
    return 0;
}

/* Whether the first `len` characters of `name` sound as if the option's value were a secret. */
static int names_secret(const char *name, size_t len) {
    static const char *const parts[] = {"priv", "secret", "psk", "password"};
    size_t at, i, k;

    for (at = 0; at < len; at++) {
        for (i = 0; i < sizeof parts / sizeof parts[0]; i++) {
            for (k = 0; parts[i][k] != '\0' && at + k < len && tolower((unsigned char) name[at + k]) == parts[i][k]; k++) {
            }
            if (parts[i][k] == '\0') {
                return 1;
            }
        }
    }
    return 0;
}

/* Writes `text`, which may be from the command line, to standard error, without what may be a secret. */
static void put_shown(const char *text) {
    const char *equals = strchr(text, '=');

    /* There may be more than one, as in "--set=KEY=VALUE". */
    while (equals != NULL && !names_secret(text, (size_t) (equals - text))) {
        equals = strchr(equals + 1, '=');
    }
    if (has_long_base64(text)) {
        fputs("<private>", stderr);
    } else if (equals != NULL) {
        fprintf(stderr, "%.*s=<private>", (int) (equals - text), text);
    } else {
        fputs(text, stderr);
    }
}

void note(const char *text) {
    fprintf(stderr, "%s: ", program);
    put_shown(text);
    fputc('\n', stderr);
}

int complain(const char *what, i2psock_error *err) {
    fprintf(stderr, "%s: ", program);
    put_shown(what);
    fprintf(stderr, ": %s\n", i2psock_error_message(err));
    i2psock_error_free(err);
    return EXIT_FAILED;
}

void settings_free(struct settings *settings) {
    i2psock_options_free(settings->controller);
    i2psock_options_free(settings->dest);
    settings->controller = NULL;
    settings->dest = NULL;
}

void usage_error(struct settings *settings, const char *what) {
    fprintf(stderr, "%s: %s; see --help\n", program, what);
    settings_free(settings);
    exit(EXIT_USAGE);
}

/* Gives options KEY=VALUE to `options`. */
static i2psock_status set_pair(i2psock_options *options, const char *pair, i2psock_error **err) {
    const char *equals = strchr(pair, '=');
    size_t len = equals != NULL ? (size_t) (equals - pair) : strlen(pair);
    char key[64];

    if (len >= sizeof key) {
        len = sizeof key - 1; /* no option has such a name: the library says so */
    }
    memcpy(key, pair, len);
    key[len] = '\0';
    return i2psock_options_set(options, key, equals != NULL ? equals + 1 : "", err);
}

static int read_number(const char *text, int *value) {
    char *end = NULL;
    long number = strtol(text, &end, 10);

    if (end == text || *end != '\0' || number < 0 || number > INT_MAX) {
        return 0;
    }
    *value = (int) number;
    return 1;
}

void settings_read(struct settings *settings, int *count, int argc, char **argv, const struct option *options,
                   const char *usage) {
    i2psock_error *err = NULL;
    int only_arguments = 0;
    int i;

    if (argc > 0 && argv[0] != NULL) {
        const char *slash = strrchr(argv[0], '/');
        program = slash != NULL ? slash + 1 : argv[0];
    }
    *count = 0;
    settings->controller = i2psock_options_new();
    settings->dest = i2psock_options_new();
    /* The environment comes first, so that the command line wins. */
    if (i2psock_options_from_env(settings->controller, &err)) {
        complain("I2P_SAM_ADDRESS", err);
        usage_error(settings, "the environment has no usable address");
    }
    for (i = 1; i < argc; i++) {
        const struct option *option = options;
        const char *name = argv[i];
        const char *value;

        /* A destination in base64 may well begin with "-". */
        if (only_arguments || name[0] != '-' || name[1] == '\0'
            || i2psock_name_classify(name) == I2PSOCK_NAME_DESTINATION) {
            argv[++*count] = argv[i];
            continue;
        }
        if (strcmp(name, "--") == 0) {
            only_arguments = 1;
            continue;
        }
        if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0) {
            fputs(usage, stdout);
            settings_free(settings);
            exit(fflush(stdout) == 0 ? EXIT_DONE : EXIT_FAILED);
        }
        while (option->name != NULL && strcmp(name, option->name) != 0) {
            option++;
        }
        if (option->name != NULL && option->kind == OPTION_FLAG) {
            *(int *) option->value = 1;
            continue;
        }
        if (option->name == NULL && strcmp(name, "--sam") != 0 && strcmp(name, "--set") != 0
            && strcmp(name, "--wait") != 0) {
            note(name);
            usage_error(settings, "there is no such option");
        }
        if (i + 1 >= argc) {
            note(name);
            usage_error(settings, "the option needs a value");
        }
        value = argv[++i];
        if (option->name == NULL && strcmp(name, "--wait") == 0) {
            int seconds = 0;

            if (!read_number(value, &seconds) || seconds > INT_MAX / 1000
                || i2psock_options_set_int(settings->controller, "bridge_timeout", seconds * 1000, &err)) {
                note(value);
                usage_error(settings, "not a number of seconds");
            }
            continue;
        }
        if (option->name != NULL && option->kind == OPTION_NUMBER) {
            if (!read_number(value, (int *) option->value)) {
                note(value);
                usage_error(settings, "that is no number");
            }
            continue;
        }
        if (option->name != NULL && option->kind == OPTION_TEXT) {
            *(const char **) option->value = value;
            continue;
        }
        if (option->name != NULL && option->kind == OPTION_KEYS) {
            name = "--key_store"; /* what the library calls it */
        }
        if (strcmp(name, "--set") == 0 ? set_pair(settings->dest, value, &err)
                                       : i2psock_options_set(settings->controller, name + 2, value, &err)) {
            /* The value of "--password" says nothing of what it is. */
            complain(names_secret(name, strlen(name)) ? name : value, err);
            usage_error(settings, "that cannot be set");
        }
    }
}

int worth_retrying(const i2psock_error *err) {
    const char *tag = i2psock_error_tag(err);

    return i2psock_error_status(err) == I2PSOCK_NETWORK
           /* The last: also a peer that is not there yet. */
           && (strcmp(tag, "CANT_REACH_PEER") == 0 || strcmp(tag, "TIMEOUT") == 0 || strcmp(tag, "KEY_NOT_FOUND") == 0);
}

i2psock_state tell_state(const i2psock_dest *dest) {
    i2psock_state state = I2PSOCK_STATE_NONE;

    while (i2psock_dest_service(dest, &state, NULL) == I2PSOCK_OK) {
        i2psock_error *err = NULL;
        int attempt = i2psock_dest_attempt(dest);

        i2psock_dest_state(dest, &err);
        if (state == I2PSOCK_STATE_RECOVERING) {
            /* No error: it is back already. */
            fprintf(stderr, "%s: lost: %s; attempt %d\n", program, err != NULL ? i2psock_error_message(err) : "for a moment",
                    attempt);
        } else if (state == I2PSOCK_STATE_BUILDING) {
            note("building tunnels again");
        } else if (state == I2PSOCK_STATE_READY && attempt > 0) {
            note("ready again");
        } else if (state == I2PSOCK_STATE_DEAD) {
            fprintf(stderr, "%s: the destination has ended: %s\n", program, i2psock_error_message(err));
        }
        i2psock_error_free(err);
    }
    return i2psock_dest_state(dest, NULL);
}

void print_bytes(const char *data, size_t len) {
    size_t i;

    for (i = 0; i < len; i++) {
        unsigned char byte = (unsigned char) data[i];

        if (byte == '\\') {
            fputs("\\\\", stdout);
        } else if (byte >= ' ' && byte <= '~') {
            putchar(byte);
        } else if (byte == '\n') {
            fputs("\\n", stdout);
        } else {
            printf("\\x%02x", byte);
        }
    }
}

/* Length of the character that `data` begins with, if everybody can see it for what it is; otherwise 0. */
static size_t visible(const unsigned char *data, size_t len, int utf8) {
    unsigned long code = data[0];
    size_t size = code >= 0xf0 ? 4 : code >= 0xe0 ? 3 : 2, i;

    if (code < 0x80) {
        return code >= ' ' && code != 0x7f ? 1 : 0;
    }
    if (!utf8 || code < 0xc2 || code > 0xf4 || size > len) {
        return 0;
    }
    code &= 0x7fu >> size;
    for (i = 1; i < size; i++) {
        if ((data[i] & 0xc0) != 0x80) {
            return 0;
        }
        code = code << 6 | (data[i] & 0x3fu);
    }
    /* Not in the shortest form, no character at all; and the second set of control characters. */
    if ((size == 3 && code < 0x800) || (size == 4 && code < 0x10000) || code > 0x10ffff
        || (code >= 0xd800 && code <= 0xdfff) || code < 0xa0) {
        return 0;
    }
    /* These take no room, or change the direction of what is around them. */
    if (code == 0x061c || code == 0xfeff || (code >= 0x200b && code <= 0x200f) || (code >= 0x2028 && code <= 0x202e)
        || (code >= 0x2060 && code <= 0x206f) || (code >= 0xfff9 && code <= 0xfffb) || code >= 0xe0000) {
        return 0;
    }
    return size;
}

void print_text(const char *data, size_t len) {
    static int utf8 = -1;
    size_t i = 0;

    if (utf8 < 0) {
        /* To a terminal of another kind, half of such a character may be a command. */
        utf8 = setlocale(LC_CTYPE, "") != NULL && strcmp(nl_langinfo(CODESET), "UTF-8") == 0;
    }
    while (i < len) {
        size_t size = visible((const unsigned char *) data + i, len - i, utf8);

        if (size == 0) {
            putchar('?');
            size = 1;
        } else {
            fwrite(data + i, 1, size, stdout);
        }
        i += size;
    }
}

int64_t now_ms(void) {
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t) now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

void sleep_ms(int milliseconds) {
    struct timespec pause;

    pause.tv_sec = milliseconds / 1000;
    pause.tv_nsec = (long) (milliseconds % 1000) * 1000000;
    nanosleep(&pause, NULL);
}
