#define _POSIX_C_SOURCE 200809L
#include "common.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const char *program = "example";

void note(const char *text) {
    fprintf(stderr, "%s: %s\n", program, text);
}

int complain(const char *what, i2psock_error *err) {
    fprintf(stderr, "%s: %s: %s\n", program, what, i2psock_error_message(err));
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
        if (option->name == NULL && strcmp(name, "--sam") != 0 && strcmp(name, "--set") != 0) {
            note(name);
            usage_error(settings, "there is no such option");
        }
        if (i + 1 >= argc) {
            note(name);
            usage_error(settings, "the option needs a value");
        }
        value = argv[++i];
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
            complain(value, err);
            usage_error(settings, "that cannot be set");
        }
    }
}

int worth_retrying(const i2psock_error *err) {
    const char *tag = i2psock_error_tag(err);

    return i2psock_error_status(err) == I2PSOCK_NETWORK
           && (strcmp(tag, "CANT_REACH_PEER") == 0 || strcmp(tag, "TIMEOUT") == 0 || strcmp(tag, "KEY_NOT_FOUND") == 0);
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
