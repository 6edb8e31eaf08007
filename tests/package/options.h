/* Put in front of the programs in the documentation, which talk to the bridge at its usual port: options for another. */
#include <i2psock.h>
#include <stdlib.h>

static i2psock_options *given_options;

static void free_options(void) {
    i2psock_options_free(given_options);
}

static i2psock_options *test_options(void) {
    given_options = i2psock_options_new();
    atexit(free_options);
    if (i2psock_options_from_env(given_options, NULL)) {
        exit(1);
    }
    return given_options;
}
