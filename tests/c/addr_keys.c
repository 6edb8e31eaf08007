/* Addresses and private keys as text and bytes. */
#include "harness.h"

#define BAD(call) ST(I2PSOCK_INVALID, call)

static void hex(const uint8_t *bytes, size_t length, char *out) {
    size_t i;
    for (i = 0; i < length; i++) sprintf(out + 2 * i, "%02x", bytes[i]);
}

static void one_address(const char *text, const char *host, int type, size_t length) {
    i2psock_addr *a = NULL, *b = NULL, *c;
    size_t len = 0;
    const uint8_t *bytes;
    char b32[64];
    OK(i2psock_addr_parse(text, I2PSOCK_SIG_ANY, &a, &E));
    CHECK_STR(i2psock_addr_base64(a), text);
    CHECK_STR(i2psock_addr_host(a), host);
    snprintf(b32, sizeof b32, "%.52s", host);
    CHECK_STR(i2psock_addr_base32(a), b32);
    CHECK_INT(i2psock_addr_sig_type(a), type);
    bytes = i2psock_addr_bytes(a, &len);
    CHECK_INT(len, length);
    OK(i2psock_addr_from_bytes(bytes, len, &b, &E));
    CHECK_INT(i2psock_addr_equal(a, b), 1);
    CHECK(memcmp(i2psock_addr_hash(a), i2psock_addr_hash(b), 32) == 0);
    c = i2psock_addr_copy(a);
    i2psock_addr_free(a);
    CHECK_STR(i2psock_addr_base64(c), text);
    CHECK_INT(i2psock_addr_equal(c, b), 1);
    i2psock_addr_free(c);
    /* Exactly `len` bytes. */
    bytes = i2psock_addr_bytes(b, &len);
    BAD(i2psock_addr_from_bytes(bytes, len - 1, &a, &E));
    CHECK(a == NULL);
    {
        uint8_t *more = (uint8_t *) calloc(1, len + 1);
        memcpy(more, bytes, len);
        BAD(i2psock_addr_from_bytes(more, len + 1, &a, &E));
        free(more);
    }
    i2psock_addr_free(b);
    OK(i2psock_addr_parse(text, type, &a, &E));
    i2psock_addr_free(a);
    BAD(i2psock_addr_parse(text, type == 7 ? 0 : 7, &a, &E));
    CHECK_INT(i2psock_name_classify(text), I2PSOCK_NAME_DESTINATION);
    CHECK_INT(i2psock_name_classify(host), I2PSOCK_NAME_B32);
}

static void vectors(void) {
    char text[65];
    i2psock_addr *a = NULL, *b = NULL;
    one_address(DEST_A, HOST_A, 7, 391);
    one_address(DEST_B, HOST_B, 7, 391);
    one_address(DEST_DSA, HOST_DSA, 0, 387);
    one_address(DEST_P521, HOST_P521, 3, 395);
    one_address(DEST_RED, HOST_RED, 11, 391);
    OK(i2psock_addr_parse(DEST_A, 7, &a, &E));
    OK(i2psock_addr_parse(DEST_B, 7, &b, &E));
    CHECK_INT(i2psock_addr_equal(a, b), 0);
    CHECK_INT(i2psock_addr_equal(a, a), 1);
    hex(i2psock_addr_hash(a), 32, text);
    CHECK_STR(text, HASH_A);
    i2psock_addr_free(a);
    i2psock_addr_free(b);
}

static void wrong_addresses(void) {
    static const char *const bad[] = {
        "", "A", "x.i2p", HOST_A, BAD_TRUNCATED_DEST, BAD_CERT_LEN_PAST_END, BAD_STANDARD_ALPHABET,
        /* Private keys are no address. */
        KEYS_A, KEYS_DSA, KEYS_OFFLINE, BAD_TRAILING_BYTE, BAD_TRUNCATED_SIGNING_KEY,
        " " DEST_A "x", DEST_A "\n" DEST_A, DEST_A " FROM_PORT=1", DEST_A "=", DEST_A "AAAA", "\xff\xfe", DEST_A "\xc3\xa4",
    };
    size_t i;
    char *copy, *big;
    i2psock_addr *a;
    for (i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        a = (i2psock_addr *) 0x55;
        BAD(i2psock_addr_parse(bad[i], I2PSOCK_SIG_ANY, &a, &E));
        CHECK(a == NULL);
        CHECK_INT(i2psock_error_operation(E), I2PSOCK_OP_NONE);
        /* Not even in a message may private keys appear. */
        CHECK_HAS_NOT(i2psock_error_message(E), "pqkJstRzgXTHeJCf");
    }
    copy = strdup(DEST_A);
    for (i = 0; i < strlen(DEST_A); i += 13) {
        static const char evil[] = " \"\\\n\r\t+/=.\x7f\x01";
        const char *e;
        char was = copy[i];
        for (e = evil; *e; e++) {
            copy[i] = *e;
            BAD(i2psock_addr_parse(copy, I2PSOCK_SIG_ANY, &a, &E));
        }
        copy[i] = was;
    }
    free(copy);
    big = big_text(100 * 1024, 'A');
    BAD(i2psock_addr_parse(big, I2PSOCK_SIG_ANY, &a, &E));
    CHECK(strlen(i2psock_error_message(E)) < 1000);
    CHECK_INT(i2psock_name_classify(big), I2PSOCK_NAME_INVALID);
    free(big);
    BAD(i2psock_addr_parse(DEST_A, -2, &a, &E));
    BAD(i2psock_addr_parse(DEST_A, 65536 + 7, &a, &E));
}

/* What is refused is told with its cause and what to write instead. */
static void as_people_write_them(void) {
    static const struct { const char *text, *told; } wrong[] = {
        { "x.i2p", "a name and not a destination" }, { HOST_A, "a name and not a destination" },
        { "x.i2p:80", "option to_port: write x.i2p" }, { "http://x.i2p/a", "no path: write x.i2p" },
        { "udp://x.i2p", "no scheme: write x.i2p" }, { "\xc3\xa4.i2p", "an international host name" },
        { DEST_A "=", "the padding is wrong" }, { " " DEST_A, "white space" }, { BAD_STANDARD_ALPHABET, "standard base64" },
    };
    static const char *const right[] = { DEST_A ".i2p", DEST_A ".I2P", DEST_A "\n", DEST_A "\r\n", "http://" DEST_A ".i2p/" };
    size_t i;
    i2psock_addr *a;
    for (i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        BAD(i2psock_addr_parse(wrong[i].text, I2PSOCK_SIG_ANY, &a, &E));
        CHECK_HAS(i2psock_error_message(E), wrong[i].told);
    }
    for (i = 0; i < sizeof right / sizeof right[0]; i++) {
        OK(i2psock_addr_parse(right[i], I2PSOCK_SIG_ANY, &a, &E));
        CHECK_STR(i2psock_addr_base64(a), DEST_A);
        i2psock_addr_free(a);
    }
}

static void lengths_that_lie(void) {
    i2psock_addr *a = NULL, *other = NULL;
    size_t len;
    uint8_t bytes[512];
    int l;
    OK(i2psock_addr_parse(DEST_A, 7, &a, &E));
    memset(bytes, 0, sizeof bytes);
    memcpy(bytes, i2psock_addr_bytes(a, &len), 391);
    for (l = 0; l < 65536; l += l < 300 ? 1 : 977) {
        bytes[385] = (uint8_t) (l >> 8);
        bytes[386] = (uint8_t) l;
        if (l == 4) continue;
        BAD(i2psock_addr_from_bytes(bytes, 391, &other, &E));
        CHECK(other == NULL);
    }
    for (l = 0; l < 387; l += 11) BAD(i2psock_addr_from_bytes(bytes, (size_t) l, &other, &E));
    i2psock_addr_free(a);
}

static void names(void) {
    static const struct { const char *text; i2psock_name_kind kind; } known[] = {
        { "example.i2p", I2PSOCK_NAME_HOST }, { "a-b.c.i2p", I2PSOCK_NAME_HOST }, { HOST_A, I2PSOCK_NAME_B32 },
        { B33_RED, I2PSOCK_NAME_B33 }, { B33_BOTH, I2PSOCK_NAME_B33 }, { DEST_A, I2PSOCK_NAME_DESTINATION },
        { "", I2PSOCK_NAME_INVALID }, { ".i2p", I2PSOCK_NAME_INVALID }, { "x.org", I2PSOCK_NAME_INVALID },
        { "b32.i2p", I2PSOCK_NAME_INVALID }, { "aaaa.b32.i2p", I2PSOCK_NAME_INVALID }, { B33_WRONG, I2PSOCK_NAME_INVALID },
        { "a b.i2p", I2PSOCK_NAME_INVALID }, { "a\n.i2p", I2PSOCK_NAME_INVALID }, { "https://x.i2p", I2PSOCK_NAME_INVALID },
        { "x.i2p:80", I2PSOCK_NAME_INVALID }, { "\xc3\xa4.i2p", I2PSOCK_NAME_INVALID }, { "\xff.i2p", I2PSOCK_NAME_INVALID },
        { "ME", I2PSOCK_NAME_INVALID }, { KEYS_A, I2PSOCK_NAME_INVALID }, { "a\"b.i2p", I2PSOCK_NAME_INVALID },
        /* As people and programs write them. */
        { "http://x.i2p/", I2PSOCK_NAME_HOST }, { "X.I2P.", I2PSOCK_NAME_HOST }, { "x.i2p:0", I2PSOCK_NAME_HOST },
        { HOST_A "\n", I2PSOCK_NAME_B32 }, { "http://" B33_RED "/", I2PSOCK_NAME_B33 }, { DEST_A "\n", I2PSOCK_NAME_DESTINATION },
        { DEST_A ".i2p", I2PSOCK_NAME_DESTINATION }, { KEYS_A ".i2p", I2PSOCK_NAME_INVALID },
    };
    size_t i;
    for (i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (i2psock_name_classify(known[i].text) != known[i].kind) {
            fail_at(__FILE__, __LINE__, "%s is of kind %d", known[i].text, (int) i2psock_name_classify(known[i].text));
        }
    }
}

static void b33(void) {
    int flags = -1, type = -1, blinded = -1;
    uint8_t key[40];
    size_t len = 0;
    char text[81];
    char *mutant = strdup(B33_RED);
    OK(i2psock_b33_decode(B33_RED, &flags, &type, &blinded, key, sizeof key, &len, &E));
    CHECK_INT(flags, 0);
    CHECK_INT(type, 11);
    CHECK_INT(blinded, 11);
    CHECK_INT(len, 32);
    hex(key, 32, text);
    CHECK_STR(text, B33_RED_KEY);
    OK(i2psock_b33_decode(B33_BOTH, &flags, &type, NULL, NULL, 0, NULL, &E));
    CHECK_INT(flags, I2PSOCK_B33_SECRET | I2PSOCK_B33_CLIENT_AUTH);
    CHECK_INT(type, 7);
    OK(i2psock_b33_decode(B33_SECRET, &flags, NULL, NULL, NULL, 0, NULL, &E));
    CHECK_INT(flags, I2PSOCK_B33_SECRET);
    OK(i2psock_b33_decode(B33_AUTH, &flags, NULL, NULL, NULL, 0, NULL, &E));
    CHECK_INT(flags, I2PSOCK_B33_CLIENT_AUTH);
    /* A short buffer gets the beginning and nothing beyond its end. */
    memset(key, 0xee, sizeof key);
    OK(i2psock_b33_decode(B33_RED, NULL, NULL, NULL, key, 5, &len, &E));
    CHECK_INT(len, 32);
    hex(key, 5, text);
    CHECK(strncmp(text, B33_RED_KEY, 10) == 0);
    CHECK(key[5] == 0xee);
    flags = type = blinded = 77;
    len = 77;
    BAD(i2psock_b33_decode(B33_WRONG, &flags, &type, &blinded, key, sizeof key, &len, &E));
    CHECK_INT(len, 0);
    CHECK_INT(flags, 0);
    BAD(i2psock_b33_decode(HOST_A, NULL, NULL, NULL, NULL, 0, NULL, &E));
    BAD(i2psock_b33_decode("", NULL, NULL, NULL, NULL, 0, NULL, &E));
    BAD(i2psock_b33_decode("\xff.b32.i2p", NULL, NULL, NULL, NULL, 0, NULL, &E));
    mutant[3] = ' ';
    BAD(i2psock_b33_decode(mutant, NULL, NULL, NULL, NULL, 0, NULL, &E));
    free(mutant);
}

static void keys(void) {
    i2psock_keys *k = NULL, *again = NULL;
    i2psock_addr *a;
    size_t len = 0;
    uint32_t expires = 1;
    const uint8_t *bytes;
    char *copy;
    size_t i;
    OK(i2psock_keys_from_text(" \t\n" KEYS_A "\r\n ", &k, &E));
    CHECK_STR(i2psock_keys_base64(k), KEYS_A);
    CHECK_INT(i2psock_keys_sig_type(k), 7);
    CHECK_INT(i2psock_keys_is_offline(k, &expires), 0);
    CHECK_INT(expires, 0);
    bytes = i2psock_keys_bytes(k, &len);
    CHECK_INT(len, 679);
    OK(i2psock_keys_from_bytes(bytes, len, &again, &E));
    CHECK_STR(i2psock_keys_base64(again), KEYS_A);
    i2psock_keys_free(k);
    a = i2psock_keys_addr(again);
    CHECK_STR(i2psock_addr_base64(a), DEST_A);
    i2psock_keys_free(again);
    CHECK_STR(i2psock_addr_host(a), HOST_A);
    i2psock_addr_free(a);

    OK(i2psock_keys_from_text(KEYS_DSA, &k, &E));
    CHECK_INT(i2psock_keys_sig_type(k), 0);
    i2psock_keys_free(k);
    OK(i2psock_keys_from_text(KEYS_OFFLINE, &k, &E));
    CHECK_INT(i2psock_keys_is_offline(k, &expires), 1);
    CHECK_INT(expires, 4102444800u);
    i2psock_keys_free(k);

    {
        static const char *const bad[] = { "", " ", DEST_A, BAD_TRUNCATED_DEST, BAD_CERT_LEN_PAST_END, BAD_TRAILING_BYTE,
            BAD_TRUNCATED_SIGNING_KEY, KEYS_A "A", KEYS_A KEYS_A, KEYS_A "\xff", "x.i2p" };
        for (i = 0; i < sizeof bad / sizeof bad[0]; i++) {
            k = (i2psock_keys *) 0x55;
            BAD(i2psock_keys_from_text(bad[i], &k, &E));
            CHECK(k == NULL);
            CHECK_HAS_NOT(i2psock_error_message(E), "qkJstRzgXTHeJCf");
        }
    }
    copy = strdup(KEYS_A);
    copy[700] = ' ';
    BAD(i2psock_keys_from_text(copy, &k, &E));
    copy[700] = '"';
    BAD(i2psock_keys_from_text(copy, &k, &E));
    free(copy);
    copy = big_text(100 * 1024, 'A');
    BAD(i2psock_keys_from_text(copy, &k, &E));
    free(copy);
    {
        uint8_t zeros[679];
        memset(zeros, 0, sizeof zeros);
        for (i = 0; i < sizeof zeros; i += 7) CHECK(i2psock_keys_from_bytes(zeros, i, &k, NULL) == I2PSOCK_INVALID && k == NULL);
    }
}

static void generated(void) {
    i2psock_controller *c = open_common();
    i2psock_keys *k = NULL, *other = NULL;
    i2psock_addr *a, *b;
    static const int bad[] = { -1, -2, 65536, 99, 4, 255 };
    size_t i;
    OK(i2psock_keys_generate(c, 7, HANG, &k, &E));
    OK(i2psock_keys_generate(c, 7, I2PSOCK_TIMEOUT_DEFAULT, &other, &E));
    CHECK_INT(i2psock_keys_sig_type(k), 7);
    a = i2psock_keys_addr(k);
    b = i2psock_keys_addr(other);
    CHECK_INT(i2psock_addr_equal(a, b), 0);
    i2psock_addr_free(a);
    i2psock_addr_free(b);
    i2psock_keys_free(k);
    i2psock_keys_free(other);
    for (i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        k = (i2psock_keys *) 0x55;
        CHECK(ST(ANY, i2psock_keys_generate(c, bad[i], HANG, &k, &E)) != I2PSOCK_OK);
        CHECK(k == NULL);
    }
    BAD(i2psock_keys_generate(c, -1, HANG, &k, &E));
    BAD(i2psock_keys_generate(c, 65536, HANG, &k, &E));
    BAD(i2psock_keys_generate(c, 7, -3, &k, &E));
    i2psock_controller_close(c);
}

static const test_case tests[] = {
    T(vectors), T(wrong_addresses), T(as_people_write_them), T(lengths_that_lie), T(names), T(b33), T(keys), T(generated),
};
MAIN(tests)
