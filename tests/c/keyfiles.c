/* Key files: forms, modes, what is refused, and that a write that fails or is cut off loses nothing. */
#include "harness.h"

#include <dirent.h>
#include <sys/resource.h>
#include <sys/stat.h>

static char folder[64];

static void enter_folder(void) {
    snprintf(folder, sizeof folder, "/tmp/i2psock-keyfiles-XXXXXX");
    CHECK(mkdtemp(folder) != NULL);
    CHECK_INT(chdir(folder), 0);
}

/* Removes what is in it too; every test leaves by this. */
static void leave_folder(int files) {
    DIR *dir = opendir(".");
    struct dirent *entry;
    int count = 0;
    CHECK(dir != NULL);
    while ((entry = readdir(dir)) != NULL) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
        count++;
        CHECK(unlink(entry->d_name) == 0 || rmdir(entry->d_name) == 0);
    }
    closedir(dir);
    CHECK_INT(chdir("/"), 0);
    CHECK_INT(rmdir(folder), 0);
    /* Nothing temporary is left. */
    CHECK_INT(count, files);
}

static void put(const char *name, const void *bytes, size_t length, mode_t mode) {
    int fd;
    unlink(name);
    fd = open(name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    CHECK(fd >= 0);
    CHECK(write(fd, bytes, length) == (ssize_t) length);
    CHECK_INT(fchmod(fd, mode), 0);
    close(fd);
}

static void put_text(const char *name, const char *text) { put(name, text, strlen(text), 0600); }

static int mode_of(const char *name) {
    struct stat st;
    CHECK_INT(lstat(name, &st), 0);
    return (int) (st.st_mode & 07777);
}

static i2psock_keys *text_keys(const char *text) {
    i2psock_keys *k = NULL;
    OK(i2psock_keys_from_text(text, &k, &E));
    return k;
}

static void loads(const char *name, const char *text) {
    i2psock_keys *k = NULL;
    OK(i2psock_keys_load(name, &k, &E));
    CHECK_STR(i2psock_keys_base64(k), text);
    i2psock_keys_free(k);
}

static void refused(const char *name, int status, int os_error, const char *part) {
    i2psock_keys *k = (i2psock_keys *) 0x55;
    ST(status, i2psock_keys_load(name, &k, &E));
    CHECK(k == NULL);
    CHECK_INT(i2psock_error_os_error(E), os_error);
    ERR(I2PSOCK_OP_NONE, "", part);
    CHECK_HAS_NOT(i2psock_error_message(E), "qkJstRzgXTHeJCf");
}

static void round_trips(void) {
    static const char *const all[] = { KEYS_A, KEYS_DSA, KEYS_OFFLINE };
    static const mode_t masks[] = { 022, 0, 0777 };
    size_t i, m, len;
    const uint8_t *bytes;
    char content[4096];
    ssize_t got;
    int fd;
    enter_folder();
    for (m = 0; m < 3; m++) {
        umask(masks[m]);
        for (i = 0; i < sizeof all / sizeof all[0]; i++) {
            i2psock_keys *k = text_keys(all[i]);
            bytes = i2psock_keys_bytes(k, &len);
            OK(i2psock_keys_save(k, "binary", I2PSOCK_KEYS_BINARY, &E));
            OK(i2psock_keys_save(k, "./text", I2PSOCK_KEYS_TEXT, &E));
            CHECK_INT(mode_of("binary"), 0600);
            CHECK_INT(mode_of("text"), 0600);
            loads("binary", all[i]);
            loads("text", all[i]);
            fd = open("binary", O_RDONLY | O_CLOEXEC);
            got = read(fd, content, sizeof content);
            close(fd);
            CHECK_INT(got, len);
            CHECK(memcmp(content, bytes, len) == 0);
            fd = open("text", O_RDONLY | O_CLOEXEC);
            got = read(fd, content, sizeof content - 1);
            close(fd);
            CHECK_INT(got, strlen(all[i]) + 1);
            content[got] = 0;
            CHECK(strncmp(content, all[i], strlen(all[i])) == 0 && content[got - 1] == '\n');
            i2psock_keys_free(k);
        }
    }
    umask(022);
    leave_folder(2);
}

static void forms(void) {
    size_t i;
    static const char *const good[] = { KEYS_A, KEYS_A "\n", "\r\n" KEYS_A "\r\n", DEST_A "\n" KEYS_A "\n",
        KEYS_A "\n" DEST_A, "\t" DEST_A " \r\n\r\n " KEYS_A "\r\n" };
    static const char *const bad[] = { "", "\n\n", DEST_A, DEST_B "\n" KEYS_A, KEYS_A "\n" KEYS_DSA, DEST_A "\n" DEST_A,
        DEST_A "\n" KEYS_A "\n" KEYS_A, KEYS_A " " KEYS_A, "x.i2p\n" KEYS_A,
        BAD_TRAILING_BYTE, BAD_TRUNCATED_SIGNING_KEY,
        KEYS_A "\xff", "\xef\xbb\xbf" KEYS_A, "PUB=" DEST_A " PRIV=" KEYS_A };
    i2psock_keys *k = text_keys(KEYS_A);
    size_t len;
    const uint8_t *bytes = i2psock_keys_bytes(k, &len);
    enter_folder();
    for (i = 0; i < sizeof good / sizeof good[0]; i++) {
        put_text("k", good[i]);
        loads("k", KEYS_A);
    }
    for (i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        put_text("k", bad[i]);
        refused("k", I2PSOCK_INVALID, 0, "\"k\"");
    }
    /* Whatever the name says. */
    put("k.txt", bytes, len, 0600);
    loads("k.txt", KEYS_A);
    for (i = 0; i < len; i += under_valgrind() ? 13 : 1) {
        put("k", bytes, i, 0600);
        refused("k", I2PSOCK_INVALID, 0, "no private keys");
    }
    i2psock_keys_free(k);
    leave_folder(2);
}

static void what_is_refused(void) {
    static const int open_modes[] = { 0644, 0640, 0604, 0620, 0602, 0666 };
    size_t i;
    i2psock_keys *k = text_keys(KEYS_A);
    char *big = big_text(64 * 1024 + 1, 'A');
    enter_folder();
    for (i = 0; i < sizeof open_modes / sizeof open_modes[0]; i++) {
        char text[8];
        put("k", KEYS_A, strlen(KEYS_A), (mode_t) open_modes[i]);
        snprintf(text, sizeof text, "%04o", open_modes[i]);
        refused("k", I2PSOCK_IO, EPERM, text);
    }
    put("k", KEYS_A, strlen(KEYS_A), 0400);
    loads("k", KEYS_A);
    if (geteuid() == 0) {
        CHECK_INT(chown("k", 65534, (gid_t) -1), 0);
        refused("k", I2PSOCK_IO, EPERM, "65534");
    }
    put_text("k", big);
    refused("k", I2PSOCK_INVALID, 0, "65537 bytes");
    refused("nothing", I2PSOCK_IO, ENOENT, "\"nothing\"");
    refused("", I2PSOCK_IO, ENOENT, "");
    refused("k/k", I2PSOCK_IO, ENOTDIR, "");
    refused(".", I2PSOCK_IO, EPERM, "not a regular file");
    refused("/dev/null", I2PSOCK_IO, EPERM, "not a regular file");
    CHECK_INT(mkfifo("fifo", 0600), 0);
    refused("fifo", I2PSOCK_IO, EPERM, "not a regular file");
    refused("\xff", I2PSOCK_INVALID, 0, "UTF-8");
    refused(big, I2PSOCK_IO, ENAMETOOLONG, "");

    /* A link is followed to a good file and not to another, and never written through. */
    put_text("good", KEYS_DSA);
    CHECK_INT(symlink("good", "link"), 0);
    loads("link", KEYS_DSA);
    ST(I2PSOCK_IO, i2psock_keys_save(k, "link", I2PSOCK_KEYS_TEXT, &E));
    CHECK_INT(i2psock_error_os_error(E), EPERM);
    loads("good", KEYS_DSA);
    CHECK_INT(chmod("good", 0644), 0);
    refused("link", I2PSOCK_IO, EPERM, "0644");
    ST(I2PSOCK_IO, i2psock_keys_save(k, "fifo", I2PSOCK_KEYS_TEXT, &E));
    CHECK_INT(i2psock_error_os_error(E), EPERM);

    ST(I2PSOCK_INVALID, i2psock_keys_save(k, "", I2PSOCK_KEYS_TEXT, &E));
    ST(I2PSOCK_INVALID, i2psock_keys_save(k, "x/", I2PSOCK_KEYS_TEXT, &E));
    ST(I2PSOCK_INVALID, i2psock_keys_save(k, "..", I2PSOCK_KEYS_TEXT, &E));
    ST(I2PSOCK_INVALID, i2psock_keys_save(k, "\xff", I2PSOCK_KEYS_TEXT, &E));
    ST(I2PSOCK_INVALID, i2psock_keys_save(k, "x", 0, &E));
    ST(I2PSOCK_INVALID, i2psock_keys_save(k, "x", 3, &E));
    ST(I2PSOCK_INVALID, i2psock_keys_save(k, "x", -1, &E));
    ST(I2PSOCK_IO, i2psock_keys_save(k, "no/x", I2PSOCK_KEYS_TEXT, &E));
    CHECK_INT(i2psock_error_os_error(E), ENOENT);
    ST(I2PSOCK_IO, i2psock_keys_save(k, "k/x", I2PSOCK_KEYS_TEXT, &E));
    CHECK_INT(i2psock_error_os_error(E), ENOTDIR);
    CHECK_HAS_NOT(i2psock_error_message(E), "qkJstRzgXTHeJCf");
    free(big);
    i2psock_keys_free(k);
    leave_folder(4);
}

/* As on a full disk: the old file stays, and nothing else. */
static void no_room(void) {
    i2psock_keys *a = text_keys(KEYS_A), *b = text_keys(KEYS_DSA);
    struct rlimit limit, before;
    enter_folder();
    OK(i2psock_keys_save(a, "k", I2PSOCK_KEYS_BINARY, &E));
    CHECK_INT(getrlimit(RLIMIT_FSIZE, &before), 0);
    signal(SIGXFSZ, SIG_IGN);
    limit = before;
    limit.rlim_cur = 100;
    CHECK_INT(setrlimit(RLIMIT_FSIZE, &limit), 0);
    ST(I2PSOCK_IO, i2psock_keys_save(b, "k", I2PSOCK_KEYS_BINARY, &E));
    CHECK_INT(i2psock_error_os_error(E), EFBIG);
    ST(I2PSOCK_IO, i2psock_keys_save(b, "new", I2PSOCK_KEYS_TEXT, &E));
    CHECK_INT(setrlimit(RLIMIT_FSIZE, &before), 0);
    loads("k", KEYS_A);
    OK(i2psock_keys_save(b, "k", I2PSOCK_KEYS_BINARY, &E));
    loads("k", KEYS_DSA);
    i2psock_keys_free(a);
    i2psock_keys_free(b);
    leave_folder(1);
}

/* Who reads while another writes finds one of the two, whole. */
static void *write_both(void *arg) {
    i2psock_keys *a = text_keys(KEYS_A), *b = text_keys(KEYS_DSA);
    int i;
    (void) arg;
    for (i = 0; i < 50; i++) {
        OK(i2psock_keys_save(i % 2 ? a : b, "k", i % 3 ? I2PSOCK_KEYS_TEXT : I2PSOCK_KEYS_BINARY, &E));
    }
    i2psock_keys_free(a);
    i2psock_keys_free(b);
    err_done();
    return NULL;
}

static void in_one_piece(void) {
    pthread_t one, two;
    i2psock_keys *k = text_keys(KEYS_A);
    int i;
    enter_folder();
    OK(i2psock_keys_save(k, "k", I2PSOCK_KEYS_TEXT, &E));
    i2psock_keys_free(k);
    one = start_thread(write_both, NULL);
    two = start_thread(write_both, NULL);
    for (i = 0; i < 200; i++) {
        k = NULL;
        OK(i2psock_keys_load("k", &k, &E));
        CHECK(strcmp(i2psock_keys_base64(k), KEYS_A) == 0 || strcmp(i2psock_keys_base64(k), KEYS_DSA) == 0);
        i2psock_keys_free(k);
    }
    join_thread(one);
    join_thread(two);
    leave_folder(1);
}

static const test_case tests[] = {
    T(round_trips), T_LONG(forms), T(what_is_refused), T(no_room), T_LONG(in_one_piece),
};
MAIN(tests)
