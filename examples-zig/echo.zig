//! The library from Zig, by @cImport: statuses become errors, descriptors go into std.posix.poll.
//!
//! usage: echo FOLDER [SAM UDP]   FOLDER keeps the keys; SAM and UDP are HOST:PORT of the router's bridge
//!
//! A server and a client, which could as well be on two sides of the world, in one thread: the server has an address
//! that stays, and sends a mebibyte back; then two datagrams.

const std = @import("std");
const c = @cImport(@cInclude("i2psock.h"));
const posix = std.posix;
const Sha256 = std.crypto.hash.sha2.Sha256;

const Failure = error{ I2p, Unexpected };
const patience = 120_000; // ms
const mebibyte = 1 << 20;

fn print(comptime format: []const u8, args: anytype) void {
    var buffer: [1024]u8 = undefined;
    const text = std.fmt.bufPrint(&buffer, format, args) catch return;
    _ = posix.write(posix.STDOUT_FILENO, text) catch 0;
}

/// Makes a Zig error of what a call has returned, says why, and frees what there is to free.
fn check(status: c.i2psock_status, err: *?*c.i2psock_error) Failure!void {
    if (status == c.I2PSOCK_OK) return;
    defer c.i2psock_error_free(err.*);
    std.debug.print("{s}: {s}\n", .{ c.i2psock_error_operation_name(err.*), c.i2psock_error_message(err.*) });
    return Failure.I2p;
}

fn expect(good: bool, what: []const u8) Failure!void {
    if (good) return;
    std.debug.print("{s}\n", .{what});
    return Failure.Unexpected;
}

fn wait(fds: []posix.pollfd, timeout_ms: i32) Failure!bool {
    return (posix.poll(fds, timeout_ms) catch return Failure.Unexpected) > 0;
}

fn open(controller: ?*c.i2psock_controller, name: ?[*:0]const u8, style: c_int) Failure!?*c.i2psock_dest {
    var dest: ?*c.i2psock_dest = null;
    var err: ?*c.i2psock_error = null;
    try check(c.i2psock_dest_open(controller, name, style, null, c.I2PSOCK_TIMEOUT_DEFAULT, &dest, &err), &err);
    return dest;
}

/// What a failure tells.
fn failure(controller: ?*c.i2psock_controller) Failure!void {
    var addr: ?*c.i2psock_addr = null;
    var err: ?*c.i2psock_error = null;
    const status = c.i2psock_controller_lookup(controller, "nobody.i2p", c.I2PSOCK_TIMEOUT_DEFAULT, &addr, &err);
    defer c.i2psock_addr_free(addr);
    defer c.i2psock_error_free(err);
    const known = status == c.I2PSOCK_NETWORK and c.i2psock_error_operation(err) == c.I2PSOCK_OP_LOOKUP;
    try expect(known, "nobody.i2p is somebody");
    // Functions that take a status take an int: C's enums are unsigned here.
    const name = c.i2psock_status_name(@intCast(status));
    print("failure: {s}, {s}, {s}\n", .{ name, c.i2psock_error_tag(err), c.i2psock_error_message(err) });
}

/// Sends `data` from one end to the other and back, and sets `back` to what has come back.
fn echo(client: ?*c.i2psock_stream, server: ?*c.i2psock_stream, data: []const u8, back: []u8) Failure!void {
    var err: ?*c.i2psock_error = null;
    try check(c.i2psock_stream_set_nonblocking(client, 1, &err), &err); // that of the listener is so already
    var buffer: [65536]u8 = undefined;
    var held: []const u8 = "";
    var sent: usize = 0;
    var got: usize = 0;
    while (got < back.len) {
        const writing: i16 = if (sent < data.len) posix.POLL.OUT else 0;
        var fds = [_]posix.pollfd{
            .{ .fd = c.i2psock_stream_fd(client), .events = posix.POLL.IN | writing, .revents = 0 },
            .{
                .fd = c.i2psock_stream_fd(server),
                .events = if (held.len == 0) posix.POLL.IN else posix.POLL.OUT,
                .revents = 0,
            },
        };
        try expect(try wait(&fds, patience), "the streams stand still");
        var count: usize = 0;
        if (fds[0].revents & posix.POLL.OUT != 0) {
            const status = c.i2psock_stream_send(client, data[sent..].ptr, data.len - sent, 0, &count, &err);
            sent += count;
            if (status != c.I2PSOCK_BLOCK) try check(status, &err);
        }
        if (fds[0].revents & ~@as(i16, posix.POLL.OUT) != 0) {
            const status = c.i2psock_stream_recv(client, back[got..].ptr, back.len - got, 0, &count, &err);
            got += count;
            if (status != c.I2PSOCK_BLOCK) try check(status, &err);
        }
        if (fds[1].revents != 0 and held.len == 0) {
            const status = c.i2psock_stream_recv(server, &buffer, buffer.len, 0, &count, &err);
            held = buffer[0..count];
            if (status != c.I2PSOCK_BLOCK) try check(status, &err);
        } else if (fds[1].revents != 0) {
            const status = c.i2psock_stream_send(server, held.ptr, held.len, 0, &count, &err);
            held = held[count..];
            if (status != c.I2PSOCK_BLOCK) try check(status, &err);
        }
    }
}

fn sha256(text: []const u8) [Sha256.digest_length]u8 {
    var digest: [Sha256.digest_length]u8 = undefined;
    Sha256.hash(text, &digest, .{});
    return digest;
}

fn streams(controller: ?*c.i2psock_controller) !void {
    // A name keeps its address. An address of C is borrowed: what is to outlive the handle is copied.
    const first = try open(controller, "echo", c.I2PSOCK_STREAM);
    const address = c.i2psock_addr_copy(c.i2psock_dest_addr(first));
    defer c.i2psock_addr_free(address);
    c.i2psock_dest_close(first);
    const here = try open(controller, "echo", c.I2PSOCK_STREAM);
    defer c.i2psock_dest_close(here);
    try expect(c.i2psock_addr_equal(address, c.i2psock_dest_addr(here)) == 1, "the address did not stay");
    print("address: {s}\n", .{c.i2psock_addr_host(address)});
    const there = try open(controller, null, c.I2PSOCK_STREAM);
    defer c.i2psock_dest_close(there);

    var err: ?*c.i2psock_error = null;
    var listener: ?*c.i2psock_listener = null;
    try check(c.i2psock_listener_open(here, 0, null, &listener, &err), &err);
    defer c.i2psock_listener_close(listener);
    var client: ?*c.i2psock_stream = null;
    const base64 = c.i2psock_addr_base64(address);
    try check(c.i2psock_dest_connect(there, base64, null, c.I2PSOCK_TIMEOUT_DEFAULT, &client, &err), &err);
    defer c.i2psock_stream_free(client);
    var server: ?*c.i2psock_stream = null;
    while (true) {
        const status = c.i2psock_listener_accept(listener, &server, &err);
        if (status != c.I2PSOCK_BLOCK) {
            try check(status, &err);
            break;
        }
        var fds = [_]posix.pollfd{.{ .fd = c.i2psock_listener_fd(listener), .events = posix.POLL.IN, .revents = 0 }};
        try expect(try wait(&fds, patience), "nobody came");
    }
    defer c.i2psock_stream_free(server);
    const known = c.i2psock_addr_equal(c.i2psock_stream_peer(server), c.i2psock_dest_addr(there)) == 1;
    try expect(known, "a stranger came");

    const data = try std.heap.c_allocator.alloc(u8, mebibyte);
    defer std.heap.c_allocator.free(data);
    const back = try std.heap.c_allocator.alloc(u8, mebibyte);
    defer std.heap.c_allocator.free(back);
    var number: u32 = 0;
    for (data) |*byte| {
        number = number *% 1664525 +% 1013904223;
        byte.* = @truncate(number >> 24);
    }
    try echo(client, server, data, back);
    const digest = sha256(back);
    try expect(std.mem.eql(u8, &digest, &sha256(data)), "something else came back");
    print("stream: {d} bytes, SHA-256 {s}\n", .{ back.len, std.fmt.bytesToHex(digest, .lower) });
}

/// The datagrams of a new destination. With its last handle it is gone: `dest` is to be closed later.
fn bind(controller: ?*c.i2psock_controller, dest: *?*c.i2psock_dest) Failure!?*c.i2psock_dgram {
    var dgram: ?*c.i2psock_dgram = null;
    var err: ?*c.i2psock_error = null;
    dest.* = try open(controller, null, c.I2PSOCK_DGRAM);
    errdefer c.i2psock_dest_close(dest.*);
    try check(c.i2psock_dest_bind(dest.*, &dgram, &err), &err);
    errdefer c.i2psock_dgram_free(dgram);
    try check(c.i2psock_dgram_set_nonblocking(dgram, 1, &err), &err);
    return dgram;
}

/// Sends a datagram, again if need be, until it has come to the other side.
fn deliver(from: ?*c.i2psock_dgram, to: ?*c.i2psock_dgram, text: []const u8) Failure!void {
    const about = c.i2psock_from_new();
    defer c.i2psock_from_free(about);
    var err: ?*c.i2psock_error = null;
    var buffer: [c.I2PSOCK_COLLECT_SIZE]u8 = undefined;
    for (0..30) |_| {
        const address = c.i2psock_addr_base64(c.i2psock_dgram_dest(to));
        try check(c.i2psock_dgram_send_to(from, address, text.ptr, text.len, 0, null, &err), &err);
        var fds = [_]posix.pollfd{.{ .fd = c.i2psock_dgram_fd(to), .events = posix.POLL.IN, .revents = 0 }};
        while (try wait(&fds, 2000)) {
            var count: usize = 0;
            const status = c.i2psock_dgram_recv_from(to, &buffer, buffer.len, 0, &count, about, &err);
            if (status == c.I2PSOCK_BLOCK) continue;
            try check(status, &err);
            if (!std.mem.eql(u8, buffer[0..count], text)) continue;
            const known = c.i2psock_addr_equal(c.i2psock_from_addr(about), c.i2psock_dgram_dest(from)) == 1;
            try expect(known, "somebody else sent it");
            print("datagram: {s}\n", .{text});
            return;
        }
    }
    try expect(false, "no datagram came");
}

fn datagrams(controller: ?*c.i2psock_controller) Failure!void {
    var here: ?*c.i2psock_dest = null;
    const ours = try bind(controller, &here);
    defer c.i2psock_dest_close(here);
    defer c.i2psock_dgram_free(ours);
    var there: ?*c.i2psock_dest = null;
    const theirs = try bind(controller, &there);
    defer c.i2psock_dest_close(there);
    defer c.i2psock_dgram_free(theirs);
    try deliver(theirs, ours, "ping");
    try deliver(ours, theirs, "pong");
}

fn run(args: []const [*:0]const u8) !void {
    var err: ?*c.i2psock_error = null;
    const options = c.i2psock_options_new();
    defer c.i2psock_options_free(options);
    try check(c.i2psock_options_from_env(options, &err), &err);
    for ([_][*:0]const u8{ "key_store", "sam", "udp" }, 0..) |key, i| {
        if (i < args.len) try check(c.i2psock_options_set(options, key, args[i], &err), &err);
    }
    var controller: ?*c.i2psock_controller = null;
    try check(c.i2psock_controller_open(options, &controller, &err), &err);
    defer c.i2psock_controller_close(controller);
    try failure(controller);
    try streams(controller);
    try datagrams(controller);
}

pub fn main() u8 {
    const args = std.os.argv;
    if (args.len != 2 and args.len != 4) {
        std.debug.print("usage: {s} FOLDER [SAM UDP]\n", .{args[0]});
        return 2;
    }
    run(args[1..]) catch |failed| {
        // The others have said already what is wrong.
        if (failed != error.I2p and failed != error.Unexpected) std.debug.print("{s}\n", .{@errorName(failed)});
        return 1;
    };
    return 0;
}
