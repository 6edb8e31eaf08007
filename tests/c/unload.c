/* Loaded at run time and unloaded again: dlclose is fine once everything is closed. Not linked against the library. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif
#include <dlfcn.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <signal.h>
#include <unistd.h>

#include <i2psock.h>

static void fail(const char *what) {
    fprintf(stderr, "unload: %s\n", what);
    exit(1);
}

static void *need(void *library, const char *name) {
    void *symbol = dlsym(library, name);
    if (symbol == NULL) fail(name);
    return symbol;
}

#define GET(type, name) type name; do { void *symbol_ = need(library, #name); memcpy(&name, &symbol_, sizeof symbol_); } while (0)

typedef i2psock_options *(*new_fn)(void);
typedef i2psock_status (*set_fn)(i2psock_options *, const char *, const char *, i2psock_error **);
typedef void (*free_fn)(i2psock_options *);
typedef i2psock_status (*open_fn)(const i2psock_options *, i2psock_controller **, i2psock_error **);
typedef i2psock_status (*dest_fn)(const i2psock_controller *, const char *, int, const i2psock_options *, int, i2psock_dest **, i2psock_error **);
typedef void (*dest_close_fn)(i2psock_dest *);
typedef void (*close_fn)(i2psock_controller *);

int main(void) {
    const char *path = getenv("I2PSOCK_SO"), *program = getenv("I2PSOCK_BRIDGE");
    int in[2], out[2], round, port = 0;
    char text[64], address[80];
    ssize_t count;
    pid_t child;
    alarm(300);
    if (path == NULL || program == NULL) fail("I2PSOCK_SO and I2PSOCK_BRIDGE are not set");
    if (pipe(in) != 0 || pipe(out) != 0) fail("pipe");
    child = fork();
    if (child == 0) {
        dup2(in[0], 0);
        dup2(out[1], 1);
        close(in[1]);
        execl(program, program, "--port", "0", (char *) NULL);
        _exit(127);
    }
    count = read(out[0], text, sizeof text - 1);
    if (count <= 0) fail("no bridge");
    text[count] = 0;
    if (sscanf(text, "SAM %d", &port) != 1) fail("no port");
    snprintf(address, sizeof address, "127.0.0.1:%d", port);
    for (round = 0; round < 10; round++) {
        void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
        i2psock_options *o;
        i2psock_controller *c = NULL;
        i2psock_dest *d = NULL;
        if (library == NULL) fail(dlerror());
        {
            GET(new_fn, i2psock_options_new);
            GET(set_fn, i2psock_options_set);
            GET(free_fn, i2psock_options_free);
            GET(open_fn, i2psock_controller_open);
            GET(dest_fn, i2psock_dest_open);
            GET(dest_close_fn, i2psock_dest_close);
            GET(close_fn, i2psock_controller_close);
            o = i2psock_options_new();
            if (i2psock_options_set(o, "sam", address, NULL) != I2PSOCK_OK) fail("set");
            if (i2psock_controller_open(o, &c, NULL) != I2PSOCK_OK) fail("open");
            i2psock_options_free(o);
            if (i2psock_dest_open(c, NULL, I2PSOCK_STREAM, NULL, 100000, &d, NULL) != I2PSOCK_OK) fail("dest");
            i2psock_dest_close(d);
            i2psock_controller_close(c);
        }
        if (dlclose(library) != 0) fail("dlclose");
    }
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    printf("ok load_and_unload\n");
    return 0;
}
