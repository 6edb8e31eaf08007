/* lookup.c - resolves names of I2P to destinations. */
#include "common.h"

#include <stdio.h>

static const char usage[] =
    "usage: lookup [OPTION]... NAME...\n"
    "Prints the destination in base64 and the base32 address of every NAME, which is name.i2p, a base32 address or a\n"
    "destination.\n"
    "\n"
    "  --dest           ask through a destination of our own: some routers resolve names only there. NAME may be ME then\n"
    "  --sam HOST:PORT  SAM bridge of the router (127.0.0.1:7656, or what I2P_SAM_ADDRESS says)\n"
    "  --wait SECONDS   how long to wait for a router that is not there yet (0)\n"
    "  --set KEY=VALUE  an option of that destination, such as inbound.length=1; may be repeated\n";

int main(int argc, char **argv) {
    struct settings settings;
    i2psock_controller *controller = NULL;
    i2psock_dest *dest = NULL;
    i2psock_error *err = NULL;
    int arguments, i, status = EXIT_FAILED;
    int with_dest = 0;
    struct option options[] = {{"--dest", NULL, OPTION_FLAG}, {NULL, NULL, 0}};

    options[0].value = &with_dest;
    settings_read(&settings, &arguments, argc, argv, options, usage);
    if (arguments == 0) {
        usage_error(&settings, "a name is needed");
    }
    if (i2psock_controller_open(settings.controller, &controller, &err)) {
        complain("no SAM bridge", err);
        goto end;
    }
    if (with_dest
        && i2psock_dest_open(controller, NULL, I2PSOCK_STREAM, settings.dest, I2PSOCK_TIMEOUT_DEFAULT, &dest, &err)) {
        complain("no destination", err);
        goto end;
    }
    status = EXIT_DONE;
    for (i = 1; i <= arguments; i++) {
        i2psock_addr *addr = NULL;
        i2psock_status found = dest != NULL
                                   ? i2psock_dest_lookup(dest, argv[i], I2PSOCK_TIMEOUT_DEFAULT, &addr, &err)
                                   : i2psock_controller_lookup(controller, argv[i], I2PSOCK_TIMEOUT_DEFAULT, &addr, &err);

        if (found) {
            status = complain(argv[i], err);
            continue;
        }
        printf("%s\n%s\n", i2psock_addr_base64(addr), i2psock_addr_host(addr));
        i2psock_addr_free(addr);
    }
    if (fflush(stdout) != 0) {
        status = EXIT_FAILED;
    }

end:
    i2psock_dest_close(dest);
    i2psock_controller_close(controller);
    settings_free(&settings);
    return status;
}
