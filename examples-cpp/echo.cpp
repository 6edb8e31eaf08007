// echo.cpp - the library from C++, as it is: handles in std::unique_ptr, descriptors in poll(2).
//
// usage: echo FOLDER [SAM UDP]   FOLDER keeps the keys; SAM and UDP are HOST:PORT of the router's bridge
//
// A server and a client, which could as well be on two sides of the world, in one thread: the server has an address
// that stays, and sends a mebibyte back; then two datagrams.

#include <i2psock.h>

#include <cstdlib>
#include <iostream>
#include <memory>
#include <poll.h>
#include <stdexcept>
#include <string>

#include "sha256.hpp"

// A handle that closes itself.
template <auto close> struct Closer {
    template <typename T> void operator()(T *handle) const { close(handle); }
};
template <typename T, auto close> using Handle = std::unique_ptr<T, Closer<close>>;
using Error = Handle<i2psock_error, i2psock_error_free>;
using Options = Handle<i2psock_options, i2psock_options_free>;
using Controller = Handle<i2psock_controller, i2psock_controller_close>;
using Dest = Handle<i2psock_dest, i2psock_dest_close>;
using Listener = Handle<i2psock_listener, i2psock_listener_close>;
using Stream = Handle<i2psock_stream, i2psock_stream_free>;
using Dgram = Handle<i2psock_dgram, i2psock_dgram_free>;
using From = Handle<i2psock_from, i2psock_from_free>;
using Addr = Handle<i2psock_addr, i2psock_addr_free>;

const int patience = 120000; // ms

// `err` is a reference, since the call that sets it is the argument before it.
static void check(i2psock_status status, i2psock_error *&err) {
    if (status != I2PSOCK_OK) {
        const Error error(err);
        throw std::runtime_error(i2psock_error_operation_name(err) + std::string(": ") + i2psock_error_message(err));
    }
}

static void expect(bool good, const char *what) {
    if (!good) {
        throw std::runtime_error(what);
    }
}

static void await(pollfd *fds, nfds_t count, const char *what) {
    expect(poll(fds, count, patience) > 0, what);
}

static Dest open(const Controller &controller, const char *name, int style) {
    i2psock_dest *dest;
    i2psock_error *err;
    check(i2psock_dest_open(controller.get(), name, style, nullptr, I2PSOCK_TIMEOUT_DEFAULT, &dest, &err), err);
    return Dest(dest);
}

static const char *host(const Dest &dest) {
    return i2psock_addr_host(i2psock_dest_addr(dest.get()));
}

static const char *base64(const Dest &dest) {
    return i2psock_addr_base64(i2psock_dest_addr(dest.get()));
}

// What a failure tells.
static void failure(const Controller &controller) {
    i2psock_addr *addr;
    i2psock_error *err;
    const i2psock_status status =
        i2psock_controller_lookup(controller.get(), "nobody.i2p", I2PSOCK_TIMEOUT_DEFAULT, &addr, &err);
    const Addr found(addr);
    const Error error(err);
    expect(status == I2PSOCK_NETWORK && i2psock_error_operation(err) == I2PSOCK_OP_LOOKUP, "nobody.i2p is somebody");
    std::cout << "failure: " << i2psock_status_name(status) << ", " << i2psock_error_tag(err) << ", "
              << i2psock_error_message(err) << std::endl;
}

// Sends `data` from one end to the other and back, and returns what has come back.
static std::string echo(const Stream &client, const Stream &server, const std::string &data) {
    i2psock_error *err;
    check(i2psock_stream_set_nonblocking(client.get(), 1, &err), err); // that of the listener is so already
    std::string held, back;
    char buffer[65536];
    size_t sent = 0, count;
    while (back.size() < data.size()) {
        const short out = sent < data.size() ? POLLOUT : 0;
        pollfd fds[] = {{i2psock_stream_fd(client.get()), static_cast<short>(POLLIN | out), 0},
                        {i2psock_stream_fd(server.get()), static_cast<short>(held.empty() ? POLLIN : POLLOUT), 0}};
        await(fds, 2, "the streams stand still");
        if (fds[0].revents & POLLOUT) {
            const i2psock_status status =
                i2psock_stream_send(client.get(), data.data() + sent, data.size() - sent, 0, &count, &err);
            sent += count;
            if (status != I2PSOCK_BLOCK) check(status, err);
        }
        if (fds[0].revents & ~POLLOUT) {
            const i2psock_status status = i2psock_stream_recv(client.get(), buffer, sizeof buffer, 0, &count, &err);
            back.append(buffer, count);
            if (status != I2PSOCK_BLOCK) check(status, err);
        }
        if (fds[1].revents && held.empty()) {
            const i2psock_status status = i2psock_stream_recv(server.get(), buffer, sizeof buffer, 0, &count, &err);
            held.assign(buffer, count);
            if (status != I2PSOCK_BLOCK) check(status, err);
        } else if (fds[1].revents) {
            const i2psock_status status = i2psock_stream_send(server.get(), held.data(), held.size(), 0, &count, &err);
            held.erase(0, count);
            if (status != I2PSOCK_BLOCK) check(status, err);
        }
    }
    return back;
}

static void streams(const Controller &controller) {
    // A name keeps its address.
    const std::string address = host(open(controller, "echo", I2PSOCK_STREAM));
    const Dest here = open(controller, "echo", I2PSOCK_STREAM), there = open(controller, nullptr, I2PSOCK_STREAM);
    expect(address == host(here), "the address did not stay");
    std::cout << "address: " << address << std::endl;

    i2psock_listener *listener_out;
    i2psock_stream *stream_out;
    i2psock_error *err;
    check(i2psock_listener_open(here.get(), 0, nullptr, &listener_out, &err), err);
    const Listener listener(listener_out);
    check(i2psock_dest_connect(there.get(), base64(here), nullptr, I2PSOCK_TIMEOUT_DEFAULT, &stream_out, &err), err);
    const Stream client(stream_out);
    i2psock_status status;
    while ((status = i2psock_listener_accept(listener.get(), &stream_out, &err)) == I2PSOCK_BLOCK) {
        pollfd fd = {i2psock_listener_fd(listener.get()), POLLIN, 0};
        await(&fd, 1, "nobody came");
    }
    check(status, err);
    const Stream server(stream_out);
    expect(i2psock_addr_equal(i2psock_stream_peer(server.get()), i2psock_dest_addr(there.get())), "a stranger came");

    std::string data(1 << 20, '\0');
    uint32_t number = 0;
    for (char &byte : data) {
        number = number * 1664525 + 1013904223;
        byte = static_cast<char>(number >> 24);
    }
    const std::string back = echo(client, server, data);
    expect(sha256(back) == sha256(data), "something else came back");
    std::cout << "stream: " << back.size() << " bytes, SHA-256 " << sha256(back) << std::endl;
}

// Sends a datagram, again if need be, until it has come to the other side.
static void deliver(const Dgram &from, const Dgram &to, const std::string &text) {
    const From about(i2psock_from_new());
    i2psock_error *err;
    char buffer[I2PSOCK_COLLECT_SIZE];
    size_t count = 0;
    for (int i = 0; i < 30; i++) {
        const char *address = i2psock_addr_base64(i2psock_dgram_dest(to.get()));
        check(i2psock_dgram_send_to(from.get(), address, text.data(), text.size(), 0, nullptr, &err), err);
        for (pollfd fd = {i2psock_dgram_fd(to.get()), POLLIN, 0}; poll(&fd, 1, 2000) > 0;) {
            const i2psock_status status =
                i2psock_dgram_recv_from(to.get(), buffer, sizeof buffer, 0, &count, about.get(), &err);
            if (status == I2PSOCK_BLOCK) continue;
            check(status, err);
            if (std::string(buffer, count) == text) {
                const i2psock_addr *sender = i2psock_from_addr(about.get());
                expect(i2psock_addr_equal(sender, i2psock_dgram_dest(from.get())), "somebody else sent it");
                std::cout << "datagram: " << text << std::endl;
                return;
            }
        }
    }
    expect(false, "no datagram came");
}

static Dgram bind(const Dest &dest) {
    i2psock_dgram *out;
    i2psock_error *err;
    check(i2psock_dest_bind(dest.get(), &out, &err), err);
    Dgram dgram(out);
    check(i2psock_dgram_set_nonblocking(dgram.get(), 1, &err), err);
    return dgram;
}

static void datagrams(const Controller &controller) {
    const Dest here = open(controller, nullptr, I2PSOCK_DGRAM), there = open(controller, nullptr, I2PSOCK_DGRAM);
    const Dgram ours = bind(here), theirs = bind(there);
    deliver(theirs, ours, "ping");
    deliver(ours, theirs, "pong");
}

int main(int argc, char **argv) try {
    if (argc != 2 && argc != 4) {
        std::cerr << "usage: " << argv[0] << " FOLDER [SAM UDP]\n";
        return 2;
    }
    const Options options(i2psock_options_new());
    i2psock_error *err;
    check(i2psock_options_from_env(options.get(), &err), err);
    check(i2psock_options_set(options.get(), "key_store", argv[1], &err), err);
    if (argc == 4) {
        check(i2psock_options_set(options.get(), "sam", argv[2], &err), err);
        check(i2psock_options_set(options.get(), "udp", argv[3], &err), err);
    }
    i2psock_controller *controller_out;
    check(i2psock_controller_open(options.get(), &controller_out, &err), err);
    const Controller controller(controller_out);
    failure(controller);
    streams(controller);
    datagrams(controller);
    return 0;
} catch (const std::exception &error) {
    std::cerr << "echo: " << error.what() << '\n';
    return 1;
}
