/* Options: names, values, owners; and every text that could reach a line of SAM. */
#include "harness.h"

#define BAD(call) ST(I2PSOCK_INVALID, call)

static const char *const evil[] = {
    "", " ", "a b", "a\"b", "\"", "a\\b", "a\nb", "a\n", "a\rb", "a\tb", "a\x01" "b", "a\x7f" "b", "\xc3\xa4", "a\xff" "b", "\xc0\x80",
    "a\xe2\x80\xa8" "b", "x\nSESSION REMOVE", "a\x1b[31m",
};
#define EVIL (sizeof evil / sizeof evil[0])

static void names_and_values(void) {
    static const char *const wrong[][2] = {
        { "", "x" }, { "nick", "x" }, { "Sam ", "x" }, { "keeper", "2" }, { "keeper", "yes" }, { "keeper", "" },
        { "in_depth", "8" }, { "in_depth", "-1" }, { "in_depth", " 1" }, { "in_depth", "1 " }, { "in_depth", "0x1" },
        { "out_depth", "8" }, { "out_depth", "" }, { "signature_type", "65536" }, { "signature_type", "x" },
        { "from_port", "65536" }, { "from_port", "-1" }, { "to_port", "99999999999999999999" },
        { "sam_timeout", "-1" }, { "tcp_timeout", "1.5" }, { "hello_timeout", "2147483648" }, { "open_timeout", "" },
        { "connect_timeout", "one" }, { "lookup_timeout", "+1" }, { "generate_timeout", "1e3" }, { "accept_timeout", "-2" },
        { "bridge_timeout", "-1" }, { "heartbeat", "" }, { "reopen_delay", "6.5" },
        { "version_min", "3" }, { "version_max", "3.4" }, { "version_max", "2.9" }, { "version_min", "3.10" }, { "version_max", "" },
        { "key_store", "" },
        { "sam", "" }, { "sam", "host:" }, { "sam", "host:0" }, { "sam", "host:65536" }, { "sam", ":7656" }, { "sam", "a:b:1" },
        { "sam", "[::1" }, { "sam", "[::1]7656" }, { "sam", "[127.0.0.1]:1" }, { "sam", "host:+1" },
        { "STYLE", "RAW" }, { "ID", "x" }, { "DESTINATION", "x" }, { "SILENT", "true" }, { "SIGNATURE_TYPE", "7" },
        { "FROM_PORT", "1" }, { "TO_PORT", "1" }, { "a=b.c", "1" }, { "1.x", "1" }, { ".x", "1" }, { "inbound.length", "" },
    };
    size_t i;
    i2psock_options *o = i2psock_options_new();
    for (i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        if (ST(ANY, i2psock_options_set(o, wrong[i][0], wrong[i][1], &E)) != I2PSOCK_INVALID) {
            fail_at(__FILE__, __LINE__, "%s=%s was taken", wrong[i][0], wrong[i][1]);
        }
    }
    BAD(i2psock_options_set_int(o, "in_depth", 8, &E));
    BAD(i2psock_options_set_int(o, "in_depth", -1, &E));
    BAD(i2psock_options_set_int(o, "nickname_", 1, &E));
    BAD(i2psock_options_set_int(o, "sam_timeout", -2147483647 - 1, &E));
    OK(i2psock_options_set_int(o, "sam_timeout", 2147483647, &E));
    OK(i2psock_options_set_int(o, "inbound.length", 1, &E));
    i2psock_options_free(o);
}

static void evil_texts(void) {
    static const char *const keys[] = { "nickname", "inbound.nickname", "i2cp.leaseSetEncType", "explicitPeers", "in_depth",
        "sam_timeout", "version_min", "keeper", "from_port" };
    size_t i, k;
    i2psock_options *o = i2psock_options_new();
    char *big = big_text(100 * 1024, 'a');
    char key[64];
    for (i = 0; i < EVIL; i++) {
        for (k = 0; k < sizeof keys / sizeof keys[0]; k++) {
            if (ST(ANY, i2psock_options_set(o, keys[k], evil[i], &E)) != I2PSOCK_INVALID) {
                fail_at(__FILE__, __LINE__, "%s=\"%s\" was taken", keys[k], evil[i]);
            }
        }
        /* As part of a key. */
        snprintf(key, sizeof key, "in.%s", evil[i]);
        if (*evil[i]) BAD(i2psock_options_set(o, key, "1", &E));
        BAD(i2psock_options_set(o, evil[i], "1", &E));
    }
    /* Quotes and spaces have a place in user and password, control characters have not. */
    for (k = 0; k < 2; k++) {
        static const char *const control[] = { "", "a\nb", "a\rb", "a\tb", "a\x01" "b", "a\x7f" "b", "a\xff" "b" };
        for (i = 0; i < sizeof control / sizeof control[0]; i++) BAD(i2psock_options_set(o, k ? "user" : "password", control[i], &E));
    }
    BAD(i2psock_options_set(o, big, "1", &E));
    CHECK(strlen(i2psock_error_message(E)) < 1000);
    big[3] = '.';
    BAD(i2psock_options_set(o, big, "1", &E));
    BAD(i2psock_options_set(o, "nickname", big, &E));
    BAD(i2psock_options_set(o, "in_depth", big, &E));
    free(big);
    i2psock_options_free(o);
}

/* Opens with these options at a fake bridge and returns the line of the command. */
static char *create_line(const i2psock_options *o, plan *p) {
    fake *f = fake_plan(p);
    i2psock_controller *c = open_port(fake_port(f), 1);
    i2psock_dest *d = NULL;
    char *line;
    OK(i2psock_dest_open(c, NULL, I2PSOCK_STREAM, o, HANG, &d, &E));
    line = fake_copy(f, "SESSION CREATE");
    i2psock_dest_close(d);
    i2psock_controller_close(c);
    fake_stop(f);
    return line;
}

static void on_the_wire(void) {
    i2psock_options *o = i2psock_options_new();
    plan p;
    char *line;
    memset(&p, 0, sizeof p);
    line = create_line(NULL, &p);
    CHECK_HAS(line, "SESSION CREATE STYLE=STREAM ID=");
    CHECK_HAS(line, " DESTINATION=TRANSIENT");
    CHECK_HAS(line, " SIGNATURE_TYPE=7");
    CHECK_HAS(line, " inbound.quantity=3");
    CHECK_HAS(line, " outbound.quantity=3");
    CHECK_HAS(line, " i2cp.leaseSetEncType=4,0");
    CHECK_HAS(line, " inbound.nickname=");
    CHECK_HAS_NOT(line, ".length=");
    CHECK_HAS_NOT(line, "PORT=");
    free(line);
    OK(i2psock_options_set(o, "nickname", "first", &E));
    OK(i2psock_options_set(o, "nickname", "my-label", &E));
    BAD(i2psock_options_set(o, "nickname", "bad label", &E));
    OK(i2psock_options_set_int(o, "in_depth", 5, &E));
    OK(i2psock_options_set_int(o, "in_depth", 1, &E));
    OK(i2psock_options_set_int(o, "out_depth", 0, &E));
    OK(i2psock_options_set(o, "inbound.quantity", "2", &E));
    OK(i2psock_options_set(o, "outbound.length", "6", &E));
    OK(i2psock_options_set(o, "i2cp.leaseSetEncType", "4", &E));
    OK(i2psock_options_set_int(o, "from_port", 0, &E));
    OK(i2psock_options_set_int(o, "to_port", 65535, &E));
    OK(i2psock_options_set_int(o, "signature_type", 0, &E));
    p.create = "SESSION STATUS RESULT=OK DESTINATION=" KEYS_DSA "\n";
    line = create_line(o, &p);
    CHECK_HAS(line, " inbound.nickname=my-label");
    CHECK_HAS_NOT(line, "first");
    CHECK_HAS(line, " inbound.length=1");
    CHECK_HAS(line, " outbound.length=6");
    CHECK_HAS_NOT(line, "outbound.length=0");
    CHECK_HAS(line, " inbound.quantity=2");
    CHECK_HAS_NOT(line, "inbound.quantity=3");
    CHECK_HAS_NOT(line, "leaseSetEncType=4,0");
    CHECK_HAS(line, " FROM_PORT=0");
    CHECK_HAS(line, " TO_PORT=65535");
    CHECK_HAS(line, " SIGNATURE_TYPE=0");
    free(line);
    i2psock_options_free(o);
}

static void of_another_object(void) {
    i2psock_options *o = i2psock_options_new(), *d = i2psock_options_new(), *c = options_for_port(common.port);
    i2psock_controller *controller = (i2psock_controller *) 0x55;
    i2psock_dest *dest = NULL;
    i2psock_stream *stream = NULL;
    i2psock_keys *keys = NULL;
    OK(i2psock_options_set(o, "nickname", "x", &E));
    BAD(i2psock_controller_open(o, &controller, &E));
    CHECK(controller == NULL);
    OK(i2psock_options_set(d, "inbound.length", "1", &E));
    BAD(i2psock_controller_open(d, &controller, &E));
    OK(i2psock_controller_open(c, &controller, &E));
    BAD(i2psock_dest_open(controller, NULL, I2PSOCK_STREAM, c, HANG, &dest, &E));
    OK(i2psock_dest_open(controller, NULL, I2PSOCK_STREAM, d, HANG, &dest, &E));
    BAD(i2psock_dest_connect(dest, DEST_A, c, 1000, &stream, &E));
    BAD(i2psock_dest_connect(dest, DEST_A, o, 1000, &stream, &E));
    OK(i2psock_keys_from_text(KEYS_A, &keys, &E));
    i2psock_options_free(c);
    c = i2psock_options_new();
    OK(i2psock_options_set_keys(c, keys, &E));
    BAD(i2psock_dest_connect(dest, DEST_A, c, 1000, &stream, &E));
    {
        i2psock_controller *none = NULL;
        BAD(i2psock_controller_open(c, &none, &E));
    }
    i2psock_keys_free(keys);
    i2psock_dest_close(dest);
    i2psock_controller_close(controller);
    i2psock_options_free(o);
    i2psock_options_free(d);
    i2psock_options_free(c);
}

static void combinations(void) {
    i2psock_controller *controller = NULL;
    i2psock_options *o = i2psock_options_new();
    OK(i2psock_options_set(o, "user", "me", &E));
    BAD(i2psock_controller_open(o, &controller, &E));
    OK(i2psock_options_set(o, "password", "x", &E));
    OK(i2psock_options_set(o, "version_min", "3.2", &E));
    OK(i2psock_options_set(o, "version_max", "3.1", &E));
    BAD(i2psock_controller_open(o, &controller, &E));
    i2psock_options_free(o);
    o = i2psock_options_new();
    OK(i2psock_options_set(o, "udp", "/a/path", &E));
    BAD(i2psock_controller_open(o, &controller, &E));
    i2psock_options_free(o);
}

static void from_env(void) {
    i2psock_options *o = i2psock_options_new();
    i2psock_controller *c = NULL;
    char text[64];
    size_t i;
    /* In the environment, and whether that makes a key store. */
    static const struct { const char *data, *home; int set; } stores[] = {
        { NULL, NULL, 0 }, { "", "", 0 }, { "data", "home", 0 }, { "/nowhere/\xff", NULL, 0 },
        { "/nowhere/data", NULL, 1 },
        { NULL, "/nowhere", 1 }, { "data", "/nowhere", 1 },
    };
    unsetenv("I2P_SAM_ADDRESS");
    OK(i2psock_options_set(o, "sam", "127.0.0.1:1", &E));
    OK(i2psock_options_from_env(o, &E));
    setenv("I2P_SAM_ADDRESS", "", 1);
    OK(i2psock_options_from_env(o, &E));
    ST(I2PSOCK_IO, i2psock_controller_open(o, &c, &E));
    CHECK_HAS(i2psock_error_message(E), "127.0.0.1:1");
    setenv("I2P_SAM_ADDRESS", "no such:address", 1);
    BAD(i2psock_options_from_env(o, &E));
    setenv("I2P_SAM_ADDRESS", "\xff\xfe", 1);
    BAD(i2psock_options_from_env(o, &E));
    snprintf(text, sizeof text, "127.0.0.1:%d", common.port);
    setenv("I2P_SAM_ADDRESS", text, 1);
    /* Nothing but the call itself reads the environment. */
    ST(I2PSOCK_IO, i2psock_controller_open(o, &c, &E));
    OK(i2psock_options_from_env(o, &E));
    OK(i2psock_controller_open(o, &c, &E));
    CHECK_STR(i2psock_controller_address(c), text);
    i2psock_controller_close(c);
    i2psock_options_free(o);
    unsetenv("I2P_SAM_ADDRESS");
    for (i = 0; i < sizeof stores / sizeof stores[0]; i++) {
        i2psock_dest *d = NULL;
        if (stores[i].data) setenv("XDG_DATA_HOME", stores[i].data, 1); else unsetenv("XDG_DATA_HOME");
        if (stores[i].home) setenv("HOME", stores[i].home, 1); else unsetenv("HOME");
        o = i2psock_options_new();
        OK(i2psock_options_from_env(o, &E));
        c = open_common();
        /* An option of the controller is none of a destination: that tells whether it was set. */
        if (stores[i].set) {
            BAD(i2psock_dest_open(c, NULL, I2PSOCK_STREAM, o, HANG, &d, &E));
            CHECK_HAS(i2psock_error_message(E), "key_store");
        } else {
            OK(i2psock_dest_open(c, NULL, I2PSOCK_STREAM, o, HANG, &d, &E));
        }
        i2psock_dest_close(d);
        i2psock_controller_close(c);
        i2psock_options_free(o);
    }
}

static void copied(void) {
    i2psock_options *o = options_for_port(common.port), *d = i2psock_options_new();
    i2psock_controller *c = NULL;
    i2psock_pending *p = NULL;
    i2psock_dest *dest = NULL;
    OK(i2psock_controller_open(o, &c, &E));
    i2psock_options_free(o);
    OK(i2psock_options_set(d, "nickname", "kept", &E));
    OK(i2psock_dest_open_start(c, NULL, I2PSOCK_STREAM, d, HANG, &p, &E));
    OK(i2psock_options_set(d, "nickname", "changed", &E));
    i2psock_options_free(d);
    OK(i2psock_pending_wait(p, -1, &E));
    OK(i2psock_pending_finish_dest(p, &dest, &E));
    CHECK_STR(i2psock_dest_nickname(dest), "kept");
    i2psock_pending_free(p);
    i2psock_dest_close(dest);
    i2psock_controller_close(c);
}

/* Nothing of a refused call reaches the bridge: not even a connection. */
static void refused_before_a_byte(void) {
    plan p;
    fake *f;
    i2psock_controller *c;
    i2psock_dest *d;
    i2psock_options *o = i2psock_options_new(), *many = i2psock_options_new();
    size_t i;
    int before;
    char *big = big_text(100 * 1024, 'a'), key[32];
    memset(&p, 0, sizeof p);
    f = fake_plan(&p);
    c = open_port(fake_port(f), 1);
    d = open_dest(c);
    before = fake_connections(f);
    for (i = 0; i < EVIL + 3; i++) {
        const char *text = i < EVIL ? evil[i] : i == EVIL ? big : i == EVIL + 1 ? KEYS_A : "not-an-address";
        char host[128];
        i2psock_stream *s = (i2psock_stream *) 0x55;
        i2psock_addr *a = (i2psock_addr *) 0x55;
        i2psock_pending *n = (i2psock_pending *) 0x55;
        i2psock_dest *other = (i2psock_dest *) 0x55;
        BAD(i2psock_dest_connect(d, text, NULL, 2000, &s, &E));
        BAD(i2psock_dest_connect_start(d, text, NULL, 2000, &n, &E));
        BAD(i2psock_dest_lookup(d, text, 2000, &a, &E));
        BAD(i2psock_dest_lookup_start(d, text, 2000, &n, &E));
        BAD(i2psock_controller_lookup(c, text, 2000, &a, &E));
        BAD(i2psock_controller_lookup_start(c, text, 2000, &n, &E));
        CHECK(s == NULL && a == NULL && n == NULL);
        if (*text) CHECK(ST(ANY, i2psock_dest_open(c, text, I2PSOCK_STREAM, NULL, 2000 * slowness(), &other, &E)) != I2PSOCK_OK);
        if (i < EVIL && *text) {
            snprintf(host, sizeof host, "%s.i2p", text);
            BAD(i2psock_dest_connect(d, host, NULL, 2000, &s, &E));
            BAD(i2psock_dest_lookup(d, host, 2000, &a, &E));
            BAD(i2psock_controller_lookup(c, host, 2000, &a, &E));
        }
    }
    memcpy(big + 100 * 1024 - 4, ".i2p", 4);
    {
        i2psock_stream *s;
        i2psock_addr *a;
        BAD(i2psock_dest_connect(d, big, NULL, 2000, &s, &E));
        BAD(i2psock_dest_lookup(d, big, 2000, &a, &E));
    }
    /* A command that gets too long as a whole. */
    for (i = 0; i < 100; i++) {
        snprintf(key, sizeof key, "inbound.x%d", (int) i);
        OK(i2psock_options_set(many, key, "0123456789012345678901234567890123456789", &E));
    }
    {
        i2psock_dest *other = NULL;
        i2psock_stream *s = NULL;
        BAD(i2psock_dest_open(c, NULL, I2PSOCK_STREAM, many, 2000, &other, &E));
        BAD(i2psock_dest_connect(d, DEST_A, many, 2000, &s, &E));
    }
    big[100 * 1024 - 4] = 'a';
    if (i2psock_options_set(o, "inbound.nickname", big, NULL) == I2PSOCK_OK) {
        i2psock_dest *other = NULL;
        BAD(i2psock_dest_open(c, NULL, I2PSOCK_STREAM, o, 2000, &other, &E));
    }
    CHECK_INT(fake_connections(f), before);
    CHECK_INT(fake_lines(f, "NAMING"), 0);
    CHECK_INT(fake_lines(f, "STREAM CONNECT"), 0);
    /* The bridge still hears what is right: the counters above are alive. */
    {
        i2psock_stream *s = NULL;
        OK(i2psock_dest_connect(d, DEST_B, NULL, 2000 * slowness(), &s, &E));
        CHECK_INT(fake_connections(f), before + 1);
        CHECK_INT(fake_lines(f, "STREAM CONNECT"), 1);
        i2psock_stream_free(s);
    }
    i2psock_dest_close(d);
    i2psock_controller_close(c);
    fake_stop(f);
    i2psock_options_free(o);
    i2psock_options_free(many);
    free(big);
}

/* ---- secrets ---- */

static const char *const secret_keys[] = { "i2cp.leaseSetPrivKey", "i2cp.leaseSetSigningPrivateKey", "i2cp.leaseSetSecret",
    "i2cp.leaseSetClient.psk.0", "i2cp.PASSWORD" };
#define SECRET_KEYS (sizeof secret_keys / sizeof secret_keys[0])

/* Kept masked, so that the only copies in memory are the library's. */
static unsigned char masked[24];
#define MASK 0x55

static void make_secret(void) {
    size_t i;
    for (i = 0; i < sizeof masked; i++) masked[i] = (unsigned char) (('A' + (i * 7 + (size_t) getpid()) % 26) ^ MASK);
}

static void unmask(char *text) {
    size_t i;
    for (i = 0; i < sizeof masked; i++) text[i] = (char) (masked[i] ^ MASK);
    text[sizeof masked] = '\0';
}

static int holds_secret(const unsigned char *bytes, size_t length) {
    size_t at, i;
    int found = 0;
    for (at = 0; at + sizeof masked <= length; at++) {
        for (i = 0; i < sizeof masked && (bytes[at + i] ^ MASK) == masked[i]; i++) continue;
        found += i == sizeof masked;
    }
    return found;
}

/* How many copies there are in all writable memory of this process, blocks that were freed included. */
static int copies_in_memory(void) {
    static unsigned char part[1 << 20];
    FILE *maps = fopen("/proc/self/maps", "r");
    int memory = open("/proc/self/mem", O_RDONLY | O_CLOEXEC), found = 0;
    char line[512], access[8];
    unsigned long from, to, own = (unsigned long) part;
    CHECK(maps != NULL && memory >= 0);
    while (fgets(line, sizeof line, maps) != NULL) {
        if (sscanf(line, "%lx-%lx %7s", &from, &to, access) != 3 || strncmp(access, "rw", 2) != 0) continue;
        while (from < to) {
            size_t size = to - from < sizeof part ? to - from : sizeof part;
            ssize_t got;
            if (from >= own && from < own + sizeof part) {
                from = own + sizeof part;
                continue;
            }
            if (from < own && from + size > own) size = own - from;
            got = pread(memory, part, size, (off_t) from);
            if (got <= 0) break;
            found += holds_secret(part, (size_t) got);
            /* One that lies across the border is found by the next part. */
            from += (size_t) got > sizeof masked && from + (size_t) got < to ? (size_t) got - sizeof masked + 1 : (size_t) got;
        }
    }
    fclose(maps);
    close(memory);
    return found;
}

static char logged[1 << 16];

static void keep_line(void *user, const char *line) {
    (void) user;
    strncat(logged, line, sizeof logged - strlen(logged) - 1);
    strncat(logged, "\n", sizeof logged - strlen(logged) - 1);
}

static i2psock_options *secret_options(void) {
    i2psock_options *o = i2psock_options_new();
    char secret[sizeof masked + 2];
    size_t i;
    for (i = 0; i < SECRET_KEYS; i++) {
        unmask(secret);
        OK(i2psock_options_set(o, secret_keys[i], "another", &E));
        OK(i2psock_options_set(o, secret_keys[i], secret, &E));
        strcat(secret, " ");
        BAD(i2psock_options_set(o, secret_keys[i], secret, &E));
        CHECK_INT(holds_secret((const unsigned char *) i2psock_error_message(E), strlen(i2psock_error_message(E))), 0);
    }
    explicit_bzero(secret, sizeof secret);
    return o;
}

static void secrets_are_wiped(void) {
    i2psock_controller *c = open_common();
    i2psock_options *o;
    i2psock_dest *d = NULL;
    size_t i;
    make_secret();
    o = secret_options();
    OK(i2psock_controller_set_log(c, keep_line, NULL, &E));
    OK(i2psock_dest_open(c, NULL, I2PSOCK_STREAM, o, HANG, &d, &E));
    for (i = 0; i < SECRET_KEYS; i++) {
        char shown[80];
        snprintf(shown, sizeof shown, " %s=<private>", secret_keys[i]);
        CHECK_HAS(logged, shown);
    }
    /* This check is alive. */
    CHECK(copies_in_memory() > 0);
    i2psock_options_free(o);
    i2psock_dest_close(d);
    i2psock_controller_close(c);
    CHECK_INT(copies_in_memory(), 0);
}

/* A router that repeats what it was given. */
static void secrets_that_come_back(void) {
    i2psock_options *o;
    char answer[200], secret[sizeof masked + 1];
    plan p;
    fake *f;
    i2psock_controller *c;
    i2psock_dest *d = NULL;
    make_secret();
    o = secret_options();
    unmask(secret);
    memset(&p, 0, sizeof p);
    snprintf(answer, sizeof answer, "SESSION STATUS RESULT=I2P_ERROR MESSAGE=\"bad key '%s'\" %s i2cp.PASSWORD=%s\n", secret, secret, secret);
    p.create = answer;
    f = fake_plan(&p);
    c = open_port(fake_port(f), 1);
    OK(i2psock_controller_set_log(c, keep_line, NULL, &E));
    ST(I2PSOCK_NETWORK, i2psock_dest_open(c, NULL, I2PSOCK_STREAM, o, HANG, &d, &E));
    ERR(I2PSOCK_OP_CREATE, "I2P_ERROR", "bad key '<private>'");
    CHECK_HAS(logged, "bad key '<private>'");
    CHECK_HAS_NOT(logged, secret);
    i2psock_controller_close(c);
    fake_stop(f);
    i2psock_options_free(o);
}

static const test_case tests[] = {
    T(names_and_values), T(evil_texts), T(on_the_wire), T(of_another_object), T(combinations), T(from_env), T(copied),
    T(refused_before_a_byte), T(secrets_are_wiped), T(secrets_that_come_back),
};
MAIN(tests)
