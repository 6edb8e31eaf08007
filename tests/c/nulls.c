/* NULL in every position of every function: never a crash, outputs set, INVALID or what the getter promises. */
#include "harness.h"

#define BAD(call) ST(I2PSOCK_INVALID, call)
/* An output that must be overwritten before anything can fail. */
#define DIRTY(type, name) type *name = (type *) 0x55
#define CLEAN(name) do { CHECK(name == NULL); name = NULL; } while (0)

static i2psock_controller *controller;
static i2psock_dest *dest;

static void statics(void) {
    CHECK_STR(i2psock_version(), I2PSOCK_VERSION);
    CHECK_STR(i2psock_status_name(I2PSOCK_OK), "OK");
    CHECK_STR(i2psock_status_name(I2PSOCK_STATE), "STATE");
    CHECK_STR(i2psock_status_name(-7), "unknown");
    CHECK_STR(i2psock_status_name(1000), "unknown");
    CHECK_STR(i2psock_state_name(I2PSOCK_STATE_READY), "READY");
    CHECK_STR(i2psock_state_name(I2PSOCK_STATE_DEAD), "DEAD");
    CHECK_STR(i2psock_state_name(-1), "unknown");
    CHECK_INT(I2PSOCK_VERSION_MAJOR * 10000 + I2PSOCK_VERSION_MINOR * 100 + I2PSOCK_VERSION_PATCH, 400);
}

static void errors(void) {
    CHECK_INT(i2psock_error_status(NULL), I2PSOCK_OK);
    CHECK_INT(i2psock_error_operation(NULL), I2PSOCK_OP_NONE);
    CHECK_STR(i2psock_error_operation_name(NULL), "");
    CHECK_STR(i2psock_error_tag(NULL), "");
    CHECK_STR(i2psock_error_message(NULL), "");
    CHECK_INT(i2psock_error_os_error(NULL), 0);
    i2psock_error_free(NULL);
}

static void options(void) {
    i2psock_options *o = i2psock_options_new();
    CHECK(o != NULL);
    BAD(i2psock_options_set(NULL, "sam", "x", &E));
    BAD(i2psock_options_set(o, NULL, "x", &E));
    BAD(i2psock_options_set(o, "sam", NULL, &E));
    BAD(i2psock_options_set(NULL, NULL, NULL, &E));
    CHECK_INT(i2psock_options_set(o, NULL, NULL, NULL), I2PSOCK_INVALID);
    CHECK_INT(i2psock_options_set(o, "sam", "localhost", NULL), I2PSOCK_OK);
    BAD(i2psock_options_set_int(NULL, "in_depth", 1, &E));
    BAD(i2psock_options_set_int(o, NULL, 1, &E));
    CHECK_INT(i2psock_options_set_int(o, NULL, 1, NULL), I2PSOCK_INVALID);
    BAD(i2psock_options_set_keys(NULL, NULL, &E));
    OK(i2psock_options_set_keys(o, NULL, &E));
    CHECK_INT(i2psock_options_set_keys(NULL, NULL, NULL), I2PSOCK_INVALID);
    BAD(i2psock_options_from_env(NULL, &E));
    CHECK_INT(i2psock_options_from_env(NULL, NULL), I2PSOCK_INVALID);
    i2psock_options_free(o);
    i2psock_options_free(NULL);
}

static void addresses(void) {
    DIRTY(i2psock_addr, a);
    size_t len = 77;
    int flags = 5, type = 5, blinded = 5;
    unsigned char key[32];
    BAD(i2psock_addr_parse(NULL, I2PSOCK_SIG_ANY, &a, &E));
    CLEAN(a);
    BAD(i2psock_addr_parse(DEST_A, I2PSOCK_SIG_ANY, NULL, &E));
    CHECK_INT(i2psock_addr_parse(NULL, I2PSOCK_SIG_ANY, NULL, NULL), I2PSOCK_INVALID);
    a = (i2psock_addr *) 0x55;
    BAD(i2psock_addr_from_bytes(NULL, 391, &a, &E));
    CLEAN(a);
    a = (i2psock_addr *) 0x55;
    BAD(i2psock_addr_from_bytes(NULL, 0, &a, &E));
    CLEAN(a);
    BAD(i2psock_addr_from_bytes("", 0, NULL, &E));
    BAD(i2psock_addr_from_bytes("x", (size_t) -1, &a, &E));
    CHECK_INT(i2psock_addr_from_bytes(NULL, 0, NULL, NULL), I2PSOCK_INVALID);
    CHECK(i2psock_addr_copy(NULL) == NULL);
    CHECK(i2psock_addr_base64(NULL) == NULL);
    CHECK(i2psock_addr_base32(NULL) == NULL);
    CHECK(i2psock_addr_host(NULL) == NULL);
    CHECK(i2psock_addr_hash(NULL) == NULL);
    CHECK(i2psock_addr_bytes(NULL, &len) == NULL);
    CHECK_INT(len, 0);
    CHECK(i2psock_addr_bytes(NULL, NULL) == NULL);
    CHECK_INT(i2psock_addr_sig_type(NULL), -1);
    OK(i2psock_addr_parse(DEST_A, 7, &a, &E));
    CHECK(i2psock_addr_bytes(a, NULL) != NULL);
    CHECK_INT(i2psock_addr_equal(NULL, NULL), 0);
    CHECK_INT(i2psock_addr_equal(a, NULL), 0);
    CHECK_INT(i2psock_addr_equal(NULL, a), 0);
    i2psock_addr_free(a);
    i2psock_addr_free(NULL);
    CHECK_INT(i2psock_name_classify(NULL), I2PSOCK_NAME_INVALID);
    len = 9;
    BAD(i2psock_b33_decode(NULL, &flags, &type, &blinded, key, sizeof key, &len, &E));
    CHECK_INT(len, 0);
    CHECK_INT(flags, 0);
    OK(i2psock_b33_decode(B33_RED, NULL, NULL, NULL, NULL, 0, NULL, &E));
    OK(i2psock_b33_decode(B33_RED, NULL, NULL, NULL, NULL, 0, &len, &E));
    CHECK_INT(len, 32);
    BAD(i2psock_b33_decode(B33_WRONG, NULL, NULL, NULL, NULL, 0, NULL, &E));
    CHECK_INT(i2psock_b33_decode(NULL, NULL, NULL, NULL, NULL, 0, NULL, NULL), I2PSOCK_INVALID);
    /* Every output may be NULL: a key that is not wanted, whatever the capacity says. */
    CHECK(i2psock_b33_decode(B33_RED, NULL, NULL, NULL, NULL, 32, NULL, NULL) != I2PSOCK_INTERNAL);
}

static void keys(void) {
    DIRTY(i2psock_keys, k);
    i2psock_addr *a;
    size_t len = 77;
    uint32_t expires = 77;
    BAD(i2psock_keys_from_text(NULL, &k, &E));
    CLEAN(k);
    BAD(i2psock_keys_from_text(KEYS_A, NULL, &E));
    CHECK_INT(i2psock_keys_from_text(NULL, NULL, NULL), I2PSOCK_INVALID);
    k = (i2psock_keys *) 0x55;
    BAD(i2psock_keys_from_bytes(NULL, 679, &k, &E));
    CLEAN(k);
    k = (i2psock_keys *) 0x55;
    BAD(i2psock_keys_from_bytes(NULL, 0, &k, &E));
    CLEAN(k);
    BAD(i2psock_keys_from_bytes("", 0, NULL, &E));
    CHECK_INT(i2psock_keys_from_bytes("", (size_t) -1, &k, NULL), I2PSOCK_INVALID);
    k = (i2psock_keys *) 0x55;
    BAD(i2psock_keys_load(NULL, &k, &E));
    CLEAN(k);
    BAD(i2psock_keys_load("/dev/null", NULL, &E));
    CHECK_INT(i2psock_keys_load(NULL, NULL, NULL), I2PSOCK_INVALID);
    BAD(i2psock_keys_save(NULL, "/dev/null", I2PSOCK_KEYS_TEXT, &E));
    CHECK_INT(i2psock_keys_save(NULL, NULL, I2PSOCK_KEYS_TEXT, NULL), I2PSOCK_INVALID);
    k = (i2psock_keys *) 0x55;
    BAD(i2psock_keys_generate(NULL, 7, 1000, &k, &E));
    CLEAN(k);
    BAD(i2psock_keys_generate(controller, 7, 1000, NULL, &E));
    CHECK_INT(i2psock_keys_generate(NULL, 7, 1000, NULL, NULL), I2PSOCK_INVALID);
    CHECK(i2psock_keys_addr(NULL) == NULL);
    CHECK(i2psock_keys_base64(NULL) == NULL);
    CHECK(i2psock_keys_bytes(NULL, &len) == NULL);
    CHECK_INT(len, 0);
    CHECK(i2psock_keys_bytes(NULL, NULL) == NULL);
    CHECK_INT(i2psock_keys_sig_type(NULL), -1);
    CHECK_INT(i2psock_keys_is_offline(NULL, &expires), 0);
    CHECK_INT(expires, 0);
    CHECK_INT(i2psock_keys_is_offline(NULL, NULL), 0);
    OK(i2psock_keys_from_text(KEYS_A, &k, &E));
    CHECK(i2psock_keys_bytes(k, NULL) != NULL);
    BAD(i2psock_keys_save(k, NULL, I2PSOCK_KEYS_BINARY, &E));
    CHECK_INT(i2psock_keys_save(k, "/dev/null", I2PSOCK_KEYS_BINARY, NULL), I2PSOCK_IO);
    CHECK_INT(i2psock_keys_is_offline(k, NULL), 0);
    a = i2psock_keys_addr(k);
    CHECK_STR(i2psock_addr_host(a), HOST_A);
    i2psock_addr_free(a);
    i2psock_keys_free(k);
    i2psock_keys_free(NULL);
}

static void hook(void *user, const char *text) {
    (void) user;
    (void) text;
}

static void controllers(void) {
    DIRTY(i2psock_controller, c);
    DIRTY(i2psock_addr, a);
    DIRTY(i2psock_pending, p);
    i2psock_options *nowhere = i2psock_options_new();
    OK(i2psock_options_set(nowhere, "sam", "127.0.0.1:1", &E));
    BAD(i2psock_controller_open(nowhere, NULL, &E));
    CHECK_INT(i2psock_controller_open(nowhere, NULL, NULL), I2PSOCK_INVALID);
    ST(I2PSOCK_IO, i2psock_controller_open(nowhere, &c, &E));
    CLEAN(c);
    CHECK_INT(i2psock_controller_open(nowhere, &c, NULL), I2PSOCK_IO);
    i2psock_options_free(nowhere);
    BAD(i2psock_controller_check(NULL, 1000, &E));
    CHECK_INT(i2psock_controller_check(NULL, 1000, NULL), I2PSOCK_INVALID);
    CHECK(i2psock_controller_version(NULL) == NULL);
    CHECK(i2psock_controller_address(NULL) == NULL);
    CHECK(i2psock_controller_udp_address(NULL) == NULL);
    BAD(i2psock_controller_set_log(NULL, hook, NULL, &E));
    OK(i2psock_controller_set_log(controller, hook, NULL, &E));
    OK(i2psock_controller_set_log(controller, NULL, NULL, &E));
    CHECK_INT(i2psock_controller_set_log(NULL, NULL, NULL, NULL), I2PSOCK_INVALID);
    BAD(i2psock_controller_lookup(NULL, "x.i2p", 1000, &a, &E));
    CLEAN(a);
    a = (i2psock_addr *) 0x55;
    BAD(i2psock_controller_lookup(controller, NULL, 1000, &a, &E));
    CLEAN(a);
    BAD(i2psock_controller_lookup(controller, "x.i2p", 1000, NULL, &E));
    CHECK_INT(i2psock_controller_lookup(NULL, NULL, 1000, NULL, NULL), I2PSOCK_INVALID);
    BAD(i2psock_controller_lookup_start(NULL, "x.i2p", 1000, &p, &E));
    CLEAN(p);
    p = (i2psock_pending *) 0x55;
    BAD(i2psock_controller_lookup_start(controller, NULL, 1000, &p, &E));
    CLEAN(p);
    BAD(i2psock_controller_lookup_start(controller, "x.i2p", 1000, NULL, &E));
    CHECK_INT(i2psock_controller_lookup_start(NULL, NULL, 1000, NULL, NULL), I2PSOCK_INVALID);
    i2psock_controller_close(NULL);
}

static void destinations(void) {
    DIRTY(i2psock_dest, d);
    DIRTY(i2psock_pending, p);
    DIRTY(i2psock_stream, s);
    DIRTY(i2psock_addr, a);
    i2psock_state state = I2PSOCK_STATE_DEAD;
    BAD(i2psock_dest_open(NULL, NULL, I2PSOCK_STREAM, NULL, 1000, &d, &E));
    CLEAN(d);
    BAD(i2psock_dest_open(controller, NULL, I2PSOCK_STREAM, NULL, 1000, NULL, &E));
    CHECK_INT(i2psock_dest_open(NULL, NULL, 1, NULL, 1000, NULL, NULL), I2PSOCK_INVALID);
    BAD(i2psock_dest_open_start(NULL, NULL, I2PSOCK_STREAM, NULL, 1000, &p, &E));
    CLEAN(p);
    BAD(i2psock_dest_open_start(controller, NULL, I2PSOCK_STREAM, NULL, 1000, NULL, &E));
    CHECK_INT(i2psock_dest_open_start(NULL, NULL, 1, NULL, 1000, NULL, NULL), I2PSOCK_INVALID);
    CHECK(i2psock_dest_addr(NULL) == NULL);
    CHECK(i2psock_dest_keys(NULL) == NULL);
    CHECK(i2psock_dest_name(NULL) == NULL);
    CHECK(i2psock_dest_nickname(NULL) == NULL);
    CHECK_INT(i2psock_dest_style(NULL), 0);
    err_prepare();
    CHECK_INT(i2psock_dest_state(NULL, &E), I2PSOCK_STATE_NONE);
    CHECK(E == NULL);
    CHECK_INT(i2psock_dest_state(NULL, NULL), I2PSOCK_STATE_NONE);
    CHECK_INT(i2psock_dest_state(dest, NULL), I2PSOCK_STATE_READY);
    CHECK_INT(i2psock_dest_attempt(NULL), 0);
    CHECK_INT(i2psock_dest_attempt(dest), 0);
    CHECK_INT(i2psock_dest_fd(NULL), -1);
    CHECK_INT(i2psock_dest_timeout_ms(NULL), -1);
    BAD(i2psock_dest_service(NULL, &state, &E));
    CHECK_INT(state, I2PSOCK_STATE_NONE);
    OK(i2psock_dest_service(dest, NULL, &E));
    CHECK_INT(i2psock_dest_service(NULL, NULL, NULL), I2PSOCK_INVALID);
    BAD(i2psock_dest_connect(NULL, DEST_A, NULL, 1000, &s, &E));
    CLEAN(s);
    s = (i2psock_stream *) 0x55;
    BAD(i2psock_dest_connect(dest, NULL, NULL, 1000, &s, &E));
    CLEAN(s);
    BAD(i2psock_dest_connect(dest, DEST_A, NULL, 1000, NULL, &E));
    CHECK_INT(i2psock_dest_connect(NULL, NULL, NULL, 1000, NULL, NULL), I2PSOCK_INVALID);
    p = (i2psock_pending *) 0x55;
    BAD(i2psock_dest_connect_start(NULL, DEST_A, NULL, 1000, &p, &E));
    CLEAN(p);
    p = (i2psock_pending *) 0x55;
    BAD(i2psock_dest_connect_start(dest, NULL, NULL, 1000, &p, &E));
    CLEAN(p);
    BAD(i2psock_dest_connect_start(dest, DEST_A, NULL, 1000, NULL, &E));
    CHECK_INT(i2psock_dest_connect_start(NULL, NULL, NULL, 1000, NULL, NULL), I2PSOCK_INVALID);
    s = (i2psock_stream *) 0x55;
    BAD(i2psock_dest_accept(NULL, 1000, &s, &E));
    CLEAN(s);
    BAD(i2psock_dest_accept(dest, 1000, NULL, &E));
    CHECK_INT(i2psock_dest_accept(NULL, 1000, NULL, NULL), I2PSOCK_INVALID);
    p = (i2psock_pending *) 0x55;
    BAD(i2psock_dest_accept_start(NULL, 1000, &p, &E));
    CLEAN(p);
    BAD(i2psock_dest_accept_start(dest, 1000, NULL, &E));
    CHECK_INT(i2psock_dest_accept_start(NULL, 1000, NULL, NULL), I2PSOCK_INVALID);
    BAD(i2psock_dest_lookup(NULL, "ME", 1000, &a, &E));
    CLEAN(a);
    a = (i2psock_addr *) 0x55;
    BAD(i2psock_dest_lookup(dest, NULL, 1000, &a, &E));
    CLEAN(a);
    BAD(i2psock_dest_lookup(dest, "ME", 1000, NULL, &E));
    CHECK_INT(i2psock_dest_lookup(NULL, NULL, 1000, NULL, NULL), I2PSOCK_INVALID);
    p = (i2psock_pending *) 0x55;
    BAD(i2psock_dest_lookup_start(NULL, "ME", 1000, &p, &E));
    CLEAN(p);
    p = (i2psock_pending *) 0x55;
    BAD(i2psock_dest_lookup_start(dest, NULL, 1000, &p, &E));
    CLEAN(p);
    BAD(i2psock_dest_lookup_start(dest, "ME", 1000, NULL, &E));
    CHECK_INT(i2psock_dest_lookup_start(NULL, NULL, 1000, NULL, NULL), I2PSOCK_INVALID);
    BAD(i2psock_dest_shutdown(NULL, &E));
    CHECK_INT(i2psock_dest_shutdown(NULL, NULL), I2PSOCK_INVALID);
    i2psock_dest_close(NULL);
}

static void listeners(void) {
    DIRTY(i2psock_listener, l);
    DIRTY(i2psock_stream, s);
    BAD(i2psock_listener_open(NULL, 0, NULL, &l, &E));
    CLEAN(l);
    BAD(i2psock_listener_open(dest, 0, NULL, NULL, &E));
    CHECK_INT(i2psock_listener_open(NULL, 0, NULL, NULL, NULL), I2PSOCK_INVALID);
    l = (i2psock_listener *) 0x55;
    CHECK_INT(i2psock_listener_open(dest, -1, NULL, &l, NULL), I2PSOCK_INVALID);
    CLEAN(l);
    CHECK_INT(i2psock_listener_fd(NULL), -1);
    CHECK_INT(i2psock_listener_timeout_ms(NULL), -1);
    BAD(i2psock_listener_accept(NULL, &s, &E));
    CLEAN(s);
    CHECK_INT(i2psock_listener_accept(NULL, NULL, NULL), I2PSOCK_INVALID);
    err_prepare();
    CHECK_INT(i2psock_listener_failures(NULL, &E), 0);
    CHECK(E == NULL);
    CHECK_INT(i2psock_listener_failures(NULL, NULL), 0);
    /* What may be NULL. */
    CHECK_INT(i2psock_listener_open(dest, 0, NULL, &l, NULL), I2PSOCK_OK);
    BAD(i2psock_listener_accept(l, NULL, &E));
    s = (i2psock_stream *) 0x55;
    CHECK_INT(i2psock_listener_accept(l, &s, NULL), I2PSOCK_BLOCK);
    CLEAN(s);
    err_prepare();
    CHECK_INT(i2psock_listener_failures(l, &E), 0);
    CHECK(E == NULL);
    CHECK_INT(i2psock_listener_failures(l, NULL), 0);
    i2psock_listener_close(l);
    i2psock_listener_close(NULL);
}

static void pendings(void) {
    DIRTY(i2psock_dest, d);
    DIRTY(i2psock_stream, s);
    DIRTY(i2psock_addr, a);
    i2psock_pending *p = NULL;
    BAD(i2psock_pending_step(NULL, &E));
    CHECK_INT(i2psock_pending_step(NULL, NULL), I2PSOCK_INVALID);
    BAD(i2psock_pending_wait(NULL, 10, &E));
    CHECK_INT(i2psock_pending_wait(NULL, 10, NULL), I2PSOCK_INVALID);
    CHECK_INT(i2psock_pending_fd(NULL), -1);
    CHECK_INT(i2psock_pending_generation(NULL), 0);
    CHECK_INT(i2psock_pending_events(NULL), 0);
    CHECK(i2psock_pending_timeout_ms(NULL) <= 0);
    CHECK_INT(i2psock_pending_stage(NULL), I2PSOCK_STAGE_NONE);
    CHECK(i2psock_pending_stage_name(NULL) != NULL);
    CHECK(i2psock_pending_reply(NULL, "RESULT") == NULL);
    CHECK(i2psock_pending_reply(NULL, NULL) == NULL);
    BAD(i2psock_pending_finish_dest(NULL, &d, &E));
    CLEAN(d);
    CHECK_INT(i2psock_pending_finish_dest(NULL, NULL, NULL), I2PSOCK_INVALID);
    BAD(i2psock_pending_finish_stream(NULL, &s, &E));
    CLEAN(s);
    CHECK_INT(i2psock_pending_finish_stream(NULL, NULL, NULL), I2PSOCK_INVALID);
    BAD(i2psock_pending_finish_addr(NULL, &a, &E));
    CLEAN(a);
    CHECK_INT(i2psock_pending_finish_addr(NULL, NULL, NULL), I2PSOCK_INVALID);
    OK(i2psock_dest_lookup_start(dest, "ME", HANG, &p, &E));
    CHECK_INT(i2psock_pending_wait(p, -1, NULL), I2PSOCK_OK);
    CHECK(i2psock_pending_reply(p, NULL) == NULL);
    CHECK(i2psock_pending_reply(p, "") == NULL);
    BAD(i2psock_pending_finish_addr(p, NULL, &E));
    /* What was refused for want of an output is still there. */
    OK(i2psock_pending_finish_addr(p, &a, &E));
    CHECK(a != NULL);
    i2psock_addr_free(a);
    i2psock_pending_free(p);
    i2psock_pending_free(NULL);
}

static void streams(void) {
    char byte[4];
    size_t count = 77;
    i2psock_fd fd = 77;
    pair p;
    CHECK(i2psock_stream_peer(NULL) == NULL);
    CHECK_INT(i2psock_stream_peer_verified(NULL), 0);
    CHECK(i2psock_stream_peer_text(NULL) == NULL);
    CHECK_INT(i2psock_stream_from_port(NULL), -1);
    CHECK_INT(i2psock_stream_unsent(NULL), -1);
    CHECK_INT(i2psock_stream_to_port(NULL), -1);
    CHECK_INT(i2psock_stream_fd(NULL), -1);
    BAD(i2psock_stream_take_fd(NULL, &fd, &E));
    CHECK_INT(fd, -1);
    CHECK_INT(i2psock_stream_take_fd(NULL, NULL, NULL), I2PSOCK_INVALID);
    BAD(i2psock_stream_send(NULL, "x", 1, 0, &count, &E));
    CHECK_INT(count, 0);
    CHECK_INT(i2psock_stream_send(NULL, NULL, 1, 0, NULL, NULL), I2PSOCK_INVALID);
    count = 77;
    BAD(i2psock_stream_recv(NULL, byte, 1, 0, &count, &E));
    CHECK_INT(count, 0);
    CHECK_INT(i2psock_stream_recv(NULL, NULL, 1, 0, NULL, NULL), I2PSOCK_INVALID);
    count = 77;
    BAD(i2psock_stream_send_all(NULL, "x", 1, &count, &E));
    CHECK_INT(count, 0);
    CHECK_INT(i2psock_stream_send_all(NULL, NULL, 1, NULL, NULL), I2PSOCK_INVALID);
    BAD(i2psock_stream_set_nonblocking(NULL, 1, &E));
    CHECK_INT(i2psock_stream_set_nonblocking(NULL, 1, NULL), I2PSOCK_INVALID);
    BAD(i2psock_stream_set_timeout(NULL, 1, &E));
    CHECK_INT(i2psock_stream_set_timeout(NULL, 1, NULL), I2PSOCK_INVALID);
    BAD(i2psock_stream_shutdown(NULL, &E));
    CHECK_INT(i2psock_stream_shutdown(NULL, NULL), I2PSOCK_INVALID);
    OK(i2psock_stream_close(NULL, 0, &E));
    CHECK_INT(i2psock_stream_close(NULL, 0, NULL), I2PSOCK_OK);
    i2psock_stream_free(NULL);

    pair_open(&p);
    BAD(i2psock_stream_take_fd(p.out, NULL, &E));
    count = 77;
    BAD(i2psock_stream_send(p.out, NULL, 1, 0, &count, &E));
    CHECK_INT(count, 0);
    BAD(i2psock_stream_send(p.out, "x", (size_t) -1, 0, &count, &E));
    OK(i2psock_stream_send(p.out, NULL, 0, 0, &count, &E));
    OK(i2psock_stream_send(p.out, "abc", 3, 0, NULL, &E));
    BAD(i2psock_stream_send_all(p.out, NULL, 1, &count, &E));
    OK(i2psock_stream_send_all(p.out, NULL, 0, NULL, &E));
    OK(i2psock_stream_send_all(p.out, "d", 1, NULL, &E));
    BAD(i2psock_stream_recv(p.in, NULL, 1, 0, &count, &E));
    BAD(i2psock_stream_recv(p.in, byte, 1, 0, NULL, &E));
    BAD(i2psock_stream_recv(p.in, byte, (size_t) -1, 0, &count, &E));
    OK(i2psock_stream_recv(p.in, NULL, 0, 0, &count, &E));
    CHECK_INT(count, 0);
    /* None of the refused calls took a byte. */
    OK(i2psock_stream_recv(p.in, byte, 4, MSG_WAITALL, &count, &E));
    CHECK(count == 4 && memcmp(byte, "abcd", 4) == 0);
    pair_close(&p);
}

static void datagrams(void) {
    DIRTY(i2psock_dgram, g);
    DIRTY(i2psock_addr, a);
    i2psock_dest *d = open_style(controller, I2PSOCK_DGRAM, NULL);
    i2psock_from *from = i2psock_from_new();
    i2psock_outgoing o = { NULL, "abc", 3 };
    i2psock_incoming in = { NULL, 10, 77, NULL };
    char room[8];
    const char *me = dest_text(d);
    size_t n = 77;
    int which;
    CHECK(from != NULL);
    BAD(i2psock_dest_bind(NULL, &g, &E));
    CLEAN(g);
    BAD(i2psock_dest_bind(d, NULL, &E));
    CHECK_INT(i2psock_dest_bind(NULL, NULL, NULL), I2PSOCK_INVALID);
    CHECK_INT(i2psock_dest_bind(d, &g, NULL), I2PSOCK_OK);
    CHECK_INT(i2psock_dgram_fd(NULL), -1);
    CHECK(i2psock_dgram_dest(NULL) == NULL);
    for (which = -1; which < 10; which++) CHECK_INT(i2psock_dgram_count(NULL, which), 0);
    BAD(i2psock_dgram_set_nonblocking(NULL, 1, &E));
    CHECK_INT(i2psock_dgram_set_nonblocking(NULL, 1, NULL), I2PSOCK_INVALID);
    BAD(i2psock_dgram_set_timeout(NULL, 1, &E));
    CHECK_INT(i2psock_dgram_set_timeout(NULL, 1, NULL), I2PSOCK_INVALID);

    BAD(i2psock_dgram_send_to(NULL, me, "x", 1, 0, NULL, &E));
    BAD(i2psock_dgram_send_to(g, NULL, "x", 1, 0, NULL, &E));
    BAD(i2psock_dgram_send_to(g, me, NULL, 1, 0, NULL, &E));
    BAD(i2psock_dgram_send_to(g, me, NULL, 0, 0, NULL, &E));
    BAD(i2psock_dgram_send_to(g, me, "x", (size_t) -1, 0, NULL, &E));
    CHECK_INT(i2psock_dgram_send_to(NULL, NULL, NULL, 0, 0, NULL, NULL), I2PSOCK_INVALID);

    BAD(i2psock_dgram_recv_from(NULL, room, 8, MSG_DONTWAIT, &n, from, &E));
    CHECK_INT(n, 0);
    BAD(i2psock_dgram_recv_from(g, NULL, 8, MSG_DONTWAIT, &n, from, &E));
    BAD(i2psock_dgram_recv_from(g, room, (size_t) -1, MSG_DONTWAIT, &n, from, &E));
    BAD(i2psock_dgram_recv_from(g, room, 8, MSG_DONTWAIT, NULL, from, &E));
    CHECK_INT(i2psock_dgram_recv_from(NULL, NULL, 0, 0, NULL, NULL, NULL), I2PSOCK_INVALID);

    n = 77;
    BAD(i2psock_dgram_send_many(NULL, &o, 1, 0, &n, &E));
    CHECK_INT(n, 0);
    n = 77;
    BAD(i2psock_dgram_send_many(g, NULL, 1, 0, &n, &E));
    CHECK_INT(n, 0);
    BAD(i2psock_dgram_send_many(g, &o, 1, 0, &n, &E));
    BAD(i2psock_dgram_send_many(g, &o, (size_t) -1, 0, &n, &E));
    BAD(i2psock_dgram_send_many(g, &o, (size_t) -1 / sizeof o + 2, 0, &n, &E));
    o.address = me;
    o.data = NULL;
    BAD(i2psock_dgram_send_many(g, &o, 1, 0, &n, &E));
    CHECK_INT(n, 0);
    OK(i2psock_dgram_send_many(g, NULL, 0, 0, &n, &E));
    CHECK_INT(i2psock_dgram_send_many(NULL, NULL, 0, 0, NULL, NULL), I2PSOCK_INVALID);

    n = 77;
    BAD(i2psock_dgram_recv_many(NULL, &in, 1, MSG_DONTWAIT, &n, &E));
    CHECK_INT(n, 0);
    BAD(i2psock_dgram_recv_many(g, NULL, 1, MSG_DONTWAIT, &n, &E));
    BAD(i2psock_dgram_recv_many(g, &in, 1, MSG_DONTWAIT, &n, &E));
    BAD(i2psock_dgram_recv_many(g, &in, (size_t) -1, MSG_DONTWAIT, &n, &E));
    OK(i2psock_dgram_recv_many(g, NULL, 0, MSG_DONTWAIT, &n, &E));
    CHECK_INT(i2psock_dgram_recv_many(NULL, NULL, 0, 0, NULL, NULL), I2PSOCK_INVALID);
    for (which = 1; which < 7; which++) CHECK_INT(i2psock_dgram_count(g, which), 0);
    CHECK_INT(i2psock_dgram_count(g, 0), 0);
    CHECK_INT(i2psock_dgram_count(g, 7), 0);

    /* What may be NULL. */
    o.data = "abc";
    CHECK_INT(i2psock_dgram_send_many(g, &o, 1, 0, NULL, NULL), I2PSOCK_OK);
    CHECK_INT(i2psock_dgram_send_to(g, me, "x", 1, 0, NULL, NULL), I2PSOCK_OK);
    in.data = room;
    in.capacity = sizeof room;
    CHECK_INT(i2psock_dgram_set_timeout(g, HANG, NULL), I2PSOCK_OK);
    CHECK_INT(i2psock_dgram_recv_many(g, &in, 1, 0, &n, NULL), I2PSOCK_OK);
    CHECK(n == 1 && in.len == 3 && memcmp(room, "abc", 3) == 0);
    CHECK(readable(i2psock_dgram_fd(g), HANG));
    BAD(i2psock_dgram_recv_from(g, room, 8, 0, NULL, NULL, &E));
    CHECK_INT(i2psock_dgram_recv_from(g, room, 8, 0, &n, NULL, NULL), I2PSOCK_OK);
    CHECK_INT(n, 1);

    CHECK(i2psock_from_addr(NULL) == NULL);
    CHECK(i2psock_from_hash(NULL) == NULL);
    CHECK_INT(i2psock_from_port(NULL), -1);
    CHECK_INT(i2psock_from_to_port(NULL), -1);
    CHECK_INT(i2psock_from_protocol(NULL), -1);
    CHECK_INT(i2psock_from_length(NULL), 0);
    CHECK_INT(i2psock_from_truncated(NULL), 0);
    /* Nothing was received into it: it tells nothing. */
    CHECK(i2psock_from_addr(from) == NULL && i2psock_from_hash(from) == NULL);
    CHECK_INT(i2psock_from_port(from), -1);
    CHECK_INT(i2psock_from_to_port(from), -1);
    CHECK_INT(i2psock_from_protocol(from), -1);
    CHECK_INT(i2psock_from_length(from), 0);
    CHECK_INT(i2psock_from_truncated(from), 0);
    BAD(i2psock_dgram_resolve(NULL, from, 1000, &a, &E));
    CLEAN(a);
    a = (i2psock_addr *) 0x55;
    BAD(i2psock_dgram_resolve(g, NULL, 1000, &a, &E));
    CLEAN(a);
    BAD(i2psock_dgram_resolve(g, from, 1000, NULL, &E));
    a = (i2psock_addr *) 0x55;
    ST(I2PSOCK_STATE, i2psock_dgram_resolve(g, from, 1000, &a, &E));
    CLEAN(a);
    CHECK_INT(i2psock_dgram_resolve(NULL, NULL, 0, NULL, NULL), I2PSOCK_INVALID);
    i2psock_from_free(from);
    i2psock_from_free(NULL);
    i2psock_dgram_free(g);
    i2psock_dgram_free(NULL);
    i2psock_dest_close(d);
}

/* Without an output for the number nothing may be taken, as with i2psock_dgram_recv_from(). */
static void lost_numbers(void) {
    i2psock_dest *d = open_style(controller, I2PSOCK_DGRAM, NULL);
    i2psock_dgram *g = NULL;
    char room[8];
    i2psock_incoming in = { NULL, sizeof room, 0, NULL };
    size_t n = 0;
    in.data = room;
    OK(i2psock_dest_bind(d, &g, &E));
    OK(i2psock_dgram_send_to(g, dest_text(d), "abc", 3, 0, NULL, &E));
    CHECK(readable(i2psock_dgram_fd(g), HANG));
    BAD(i2psock_dgram_recv_many(g, &in, 1, 0, NULL, &E));
    OK(i2psock_dgram_recv_many(g, &in, 1, 0, &n, &E));
    CHECK_INT(n, 1);
    i2psock_dgram_free(g);
    i2psock_dest_close(d);
}

static int make_nothing(void *user, i2psock_fd *fd, i2psock_pending **pending) {
    (void) user;
    (void) fd;
    (void) pending;
    return I2PSOCK_STATE;
}

static void tunnels(void) {
    DIRTY(i2psock_tunnel, t);
    DIRTY(i2psock_pending, p);
    i2psock_listener *l = NULL;
    int which;
    BAD(i2psock_tunnel_server(NULL, "", "1", NULL, 1000, &t, &E));
    CLEAN(t);
    t = (i2psock_tunnel *) 0x55;
    BAD(i2psock_tunnel_server(controller, "", NULL, NULL, 1000, &t, &E));
    CLEAN(t);
    BAD(i2psock_tunnel_server(controller, "", "1", NULL, 1000, NULL, &E));
    CHECK_INT(i2psock_tunnel_server(NULL, NULL, NULL, NULL, 1000, NULL, NULL), I2PSOCK_INVALID);
    BAD(i2psock_tunnel_server_start(NULL, "", "1", NULL, 1000, &p, &E));
    CLEAN(p);
    p = (i2psock_pending *) 0x55;
    BAD(i2psock_tunnel_server_start(controller, "", NULL, NULL, 1000, &p, &E));
    CLEAN(p);
    BAD(i2psock_tunnel_server_start(controller, "", "1", NULL, 1000, NULL, &E));
    CHECK_INT(i2psock_tunnel_server_start(NULL, NULL, NULL, NULL, 1000, NULL, NULL), I2PSOCK_INVALID);
    t = (i2psock_tunnel *) 0x55;
    BAD(i2psock_tunnel_client(NULL, "", "0", DEST_A, NULL, 1000, &t, &E));
    CLEAN(t);
    t = (i2psock_tunnel *) 0x55;
    BAD(i2psock_tunnel_client(controller, "", NULL, DEST_A, NULL, 1000, &t, &E));
    CLEAN(t);
    t = (i2psock_tunnel *) 0x55;
    BAD(i2psock_tunnel_client(controller, "", "0", NULL, NULL, 1000, &t, &E));
    CLEAN(t);
    BAD(i2psock_tunnel_client(controller, "", "0", DEST_A, NULL, 1000, NULL, &E));
    CHECK_INT(i2psock_tunnel_client(NULL, NULL, NULL, NULL, NULL, 1000, NULL, NULL), I2PSOCK_INVALID);
    p = (i2psock_pending *) 0x55;
    BAD(i2psock_tunnel_client_start(NULL, "", "0", DEST_A, NULL, 1000, &p, &E));
    CLEAN(p);
    p = (i2psock_pending *) 0x55;
    BAD(i2psock_tunnel_client_start(controller, "", NULL, DEST_A, NULL, 1000, &p, &E));
    CLEAN(p);
    p = (i2psock_pending *) 0x55;
    BAD(i2psock_tunnel_client_start(controller, "", "0", NULL, NULL, 1000, &p, &E));
    CLEAN(p);
    BAD(i2psock_tunnel_client_start(controller, "", "0", DEST_A, NULL, 1000, NULL, &E));
    CHECK_INT(i2psock_tunnel_client_start(NULL, NULL, NULL, NULL, NULL, 1000, NULL, NULL), I2PSOCK_INVALID);
    OK(i2psock_listener_open(dest, 0, NULL, &l, &E));
    t = (i2psock_tunnel *) 0x55;
    BAD(i2psock_tunnel_new(NULL, -1, make_nothing, NULL, NULL, &t, &E));
    CLEAN(t);
    t = (i2psock_tunnel *) 0x55;
    BAD(i2psock_tunnel_new(l, -1, NULL, NULL, NULL, &t, &E));
    CLEAN(t);
    BAD(i2psock_tunnel_new(l, -1, make_nothing, NULL, NULL, NULL, &E));
    CHECK_INT(i2psock_tunnel_new(NULL, -1, NULL, NULL, NULL, NULL, NULL), I2PSOCK_INVALID);
    /* NULL for the user's argument, options and error is what it says. */
    CHECK_INT(i2psock_tunnel_new(l, -1, make_nothing, NULL, NULL, &t, NULL), I2PSOCK_OK);
    CHECK_INT(i2psock_tunnel_state(t, NULL), I2PSOCK_STATE_NONE);
    i2psock_tunnel_close(t);
    i2psock_listener_close(l);
    t = (i2psock_tunnel *) 0x55;
    BAD(i2psock_pending_finish_tunnel(NULL, &t, &E));
    CLEAN(t);
    OK(i2psock_dest_lookup_start(dest, "ME", HANG, &p, &E));
    BAD(i2psock_pending_finish_tunnel(p, NULL, &E));
    CHECK_INT(i2psock_pending_finish_tunnel(NULL, NULL, NULL), I2PSOCK_INVALID);
    i2psock_pending_free(p);
    CHECK(i2psock_tunnel_addr(NULL) == NULL);
    CHECK(i2psock_tunnel_name(NULL) == NULL);
    CHECK(i2psock_tunnel_remote(NULL) == NULL);
    CHECK_INT(i2psock_tunnel_port(NULL), 0);
    err_prepare();
    CHECK_INT(i2psock_tunnel_state(NULL, &E), I2PSOCK_STATE_NONE);
    CHECK(E == NULL);
    CHECK_INT(i2psock_tunnel_state(NULL, NULL), I2PSOCK_STATE_NONE);
    for (which = -1; which < 9; which++) CHECK_INT(i2psock_tunnel_count(NULL, which), 0);
    CHECK_INT(i2psock_tunnel_fd(NULL), -1);
    CHECK(i2psock_tunnel_next_error(NULL) == NULL);
    i2psock_tunnel_close(NULL);
}

static void with_handles(void (*run)(void)) {
    controller = open_common();
    dest = open_dest(controller);
    run();
    i2psock_dest_close(dest);
    i2psock_controller_close(controller);
}

static void keys_null(void) { with_handles(keys); }
static void controllers_null(void) { with_handles(controllers); }
static void destinations_null(void) { with_handles(destinations); }
static void listeners_null(void) { with_handles(listeners); }
static void pendings_null(void) { with_handles(pendings); }
static void datagrams_null(void) { with_handles(datagrams); }
static void tunnels_null(void) { with_handles(tunnels); }
static void numbers_null(void) { with_handles(lost_numbers); }

static const test_case tests[] = {
    T(statics), T(errors), T(options), T(addresses), T(keys_null), T(controllers_null), T(destinations_null),
    T(listeners_null), T(pendings_null), T(streams), T(datagrams_null), T(numbers_null), T(tunnels_null),
};
MAIN(tests)
